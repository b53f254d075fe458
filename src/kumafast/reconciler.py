"""The order of the pipeline: change -> affected -> match -> generate -> encode -> publish.

In: commits of the store, nodes that connect. Out: the newest `Snapshot` of each connected node in a `SnapshotCache`.
Never: what the stages themselves do. This is the only module that knows their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from kumafast import garbage
from kumafast.addresses import Addresses
from kumafast.certificates import Certificates
from kumafast.errors import CompactedError
from kumafast.fork import Fork, shadowed
from kumafast.ipam import Ranges
from kumafast.layers import Layers
from kumafast.metrics import Metrics
from kumafast.pending import Depth
from kumafast.publisher import Published, Publisher, Work
from kumafast.reached import Destinations, Moved
from kumafast.registry import Affected, DataplaneId, Registry
from kumafast.registry.virtual_hosts import Naming
from kumafast.resolution import Plan, Resolution
from kumafast.resources import (
    Dataplane,
    DataplaneInsight,
    ExternalService,
    HostnameGenerator,
    Mesh,
    MeshExternalService,
    MeshGateway,
    MeshGatewayRoute,
    MeshMultiZoneService,
    MeshService,
    Resource,
    ResourceKey,
    Secret,
    catalog,
)
from kumafast.resources.virtual_ip import VirtualIP
from kumafast.resources.virtual_outbound import VirtualOutbound
from kumafast.snapshot import Snapshot, SnapshotCache
from kumafast.snapshot.node import Node, dataplane_of
from kumafast.store import Change, Store
from kumafast.templates import Failure

_LOG = logging.getLogger(__name__)

# Policies before dataplanes: at the start no policy then looks for dataplanes, each dataplane finds its policies once.
# Secrets before meshes, which are looked at with them. Addresses before what they are for.
_WATCHED = (
    Secret.type,
    Mesh.type,
    VirtualIP.type,
    VirtualOutbound.type,
    ExternalService.type,
    HostnameGenerator.type,
    MeshService.type,
    MeshMultiZoneService.type,
    MeshExternalService.type,
    MeshGateway.type,
    MeshGatewayRoute.type,
    *catalog.POLICY_TYPES,
    Dataplane.type,
    DataplaneInsight.type,
)

APPLY_MAX = 128
"""How many changes the registry takes in before everything else gets its turn."""

# About how many objects a resource is.
_OBJECTS_OF_RESOURCE = 30

SETTLE_S = 2.0
"""How long whoever looks at the registry waits for it to show what is stored."""

TURN_S = 0.005
"""For how long it is said whom a change touches before everything else gets its turn."""


class Reconciler:
    """Keeps the snapshot of every connected node equal to what a fresh control plane would compute from the store."""

    def __init__(
        self,
        *,
        store: Store,
        cache: SnapshotCache,
        metrics: Metrics,
        debounce_ms: float,
        leds_threshold: int = 0,
        naming: Naming | None = None,
        ranges: Ranges | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`failed` is told of a node for which `failure` says something else than before."""
        self._store = store
        self._metrics = metrics
        self._debounce_s = debounce_ms / 1000
        self._clock, self._monotonic = clock, monotonic
        self._ranges = ranges or Ranges()
        self._registry = Registry(naming)
        self.addresses = Addresses(in_use=self._registry.hosts, changed=self._moved)
        """The addresses of the dataplanes' host names."""
        self._destinations = Destinations(
            registry=self._registry, addresses=self.addresses, leds_threshold=leds_threshold, in_turns=True
        )
        self._publisher = Publisher(
            cache=cache,
            metrics=metrics,
            resolve=self._resolve,
            rest=self._destinations.forget_unreached,
            failed=failed,
            monotonic=monotonic,
        )
        self.certificates = Certificates(count=metrics.certificates_issued.inc, clock=clock)
        """The certificates of the connected nodes."""
        self._resolution = Resolution(
            registry=self._registry,
            certificates=self.certificates,
            destinations=self._destinations,
            addresses=self.addresses,
            layers=Layers(self._publisher.count),
        )
        # The revision that the registry stands at; the publisher follows when everybody has got it.
        self._applied = 0
        self._has_applied = asyncio.Event()
        # Set when there is something to do: changes to take in, an end, or nodes that have fallen behind.
        self._has_work = asyncio.Event()
        # The revision at which each kind was listed: what a watch repeats of before is older than what is held.
        self._listed: dict[str, int] = {}

    @property
    def revision(self) -> int:
        """All commits up to this revision are in the published snapshots of all connected nodes."""
        return self._publisher.revision

    @property
    def work(self) -> Work:
        """What has been done since the start."""
        return self._publisher.work

    # The store's side.

    async def load(self) -> None:
        """Bring the registry to what the store holds now, at the start and when a watch fell too far behind."""
        # Looking for dead cycles among what is read would take half of the time.
        with garbage.left_alone():
            await self._load()

    async def _load(self) -> None:
        revision = await self._store.revision()
        held: dict[ResourceKey, Resource] = {resource.key: resource for resource in self._registry.resources()}
        changes: list[Change] = []
        for kind in _WATCHED:
            listing = await self._store.list(kind.name)
            self._listed[kind.name] = listing.revision
            for stored in listing.items:
                # A policy may have been made anew with equal content: when it was created decides between equals.
                is_policy, key = kind.policy is not None or kind.is_called_policy, stored.resource.key
                if not held or held.pop(key, None) != stored.resource or is_policy:
                    changes.append(Change(key, stored))
        changes.extend(Change(key, None) for key in held)
        await self._take_in(changes, revision=revision, cause="load")

    async def follow(self) -> None:
        """Reconcile each commit as it comes, until cancelled: the first at once, those soon after it together."""
        chores = [
            asyncio.create_task(self.addresses.follow(), name="addresses"),
            asyncio.create_task(self.certificates.follow(self.expire), name="certificates"),
        ]
        try:
            while True:
                try:
                    await self._follow_from(self._applied)
                except CompactedError:
                    _LOG.warning("fell behind the store's history; reading it anew")
                    await self.load()
                else:
                    return
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)

    async def _follow_from(self, revision: int) -> None:
        # Bounded by the number of resources: a later change of a key replaces the earlier one.
        pending: dict[ResourceKey, Change] = {}
        newest = revision

        async def collect() -> None:
            nonlocal newest
            try:
                async for commit in self._store.watch(after=revision):
                    for change in commit.changes:
                        if commit.revision <= self._listed.get(change.key.type, 0):
                            continue
                        pending.pop(change.key, None)
                        pending[change.key] = change
                    newest = commit.revision
                    self._has_work.set()
            finally:
                self._has_work.set()

        collector = asyncio.create_task(collect(), name="watch")
        try:
            while True:
                await self._has_work.wait()
                self._has_work.clear()
                has_ended = collector.done()
                if pending or newest > self._applied:
                    batch, upto = list(pending.values()), newest
                    pending.clear()
                    await self._take_in(batch, revision=upto)
                self._publisher.publish_slice()
                if has_ended:
                    collector.result()
                await self._publish_rest()
                if has_ended:
                    return
        finally:
            collector.cancel()
            await asyncio.gather(collector, return_exceptions=True)

    async def _take_in(self, changes: Sequence[Change], *, revision: int, cause: str | None = None) -> None:
        started = turn_began = self._monotonic()
        behind: set[str] = set()
        # Nothing is published in between, so that no snapshot shows a part of a commit.
        for start in range(0, len(changes), APPLY_MAX):
            piece = changes[start : start + APPLY_MAX]
            garbage.made(len(piece) * _OBJECTS_OF_RESOURCE)
            for affected in self._registry.steps(piece):
                behind |= self._fall_behind(affected, revision, started)
                if self._monotonic() - turn_began >= TURN_S:
                    await asyncio.sleep(0)
                    turn_began = self._monotonic()
        self._stand_at(revision)
        if changes:
            label = cause or (changes[0].key.type if len(changes) == 1 else "several")
            self._metrics.affected_proxies(label).observe(len(behind))

    def take_in(self, changes: Sequence[Change], *, revision: int) -> None:
        """Bring the registry to a revision and note who is behind; `publish_slice` brings them up to date."""
        started = self._monotonic()
        for affected in self._registry.steps(changes):
            self._fall_behind(affected, revision, started)
        self._stand_at(revision)

    def publish_slice(self) -> bool:
        """Publish for those who have been behind for longest; whether anybody still is behind."""
        self._publisher.publish_slice()
        return self._publisher.is_behind

    def _stand_at(self, revision: int) -> None:
        self._applied = max(self._applied, revision)
        self._publisher.stand_at(revision)
        self._has_applied.set()
        self._has_applied = asyncio.Event()

    def expire(self, nodes: Sequence[str]) -> None:
        """Note that these nodes need another certificate."""
        self._publisher.fall_behind(nodes, since=self._applied, at=self._monotonic(), depth=Depth.WHOLE)
        self._has_work.set()

    def _moved(self, host: str) -> None:
        self._fall_behind(self._registry.moved(host), self._applied, self._monotonic())
        self._has_work.set()

    def _fall_behind(self, affected: Affected, since: int, at: float) -> set[str]:
        """Note who lacks what, of those who are connected; the ids of their nodes."""
        behind: set[str] = set()
        for reached, moved in self._destinations.follow(affected):
            endpoints = reached if moved is Moved.ENDPOINTS else None
            behind.update(self._publisher.fall_behind(reached.nodes, since=since, at=at, reached=endpoints))
            if moved is Moved.PROTOCOL and reached.hopefuls:
                behind.update(self._publisher.fall_behind(reached.hopefuls, since=since, at=at, depth=Depth.WHOLE))
        if affected.meshes:
            nodes = [node for node in self._publisher.connected_nodes() if _mesh_of(node) in affected.meshes]
            behind.update(self._publisher.fall_behind(nodes, since=since, at=at, depth=Depth.WHOLE))
        for dataplanes, depth in ((affected.bound, Depth.POLICIES), (affected.proxies, Depth.WHOLE)):
            nodes = [dataplane_id.node_id for dataplane_id in dataplanes]
            behind.update(self._publisher.fall_behind(nodes, since=since, at=at, depth=depth))
        return behind

    async def _publish_rest(self) -> None:
        """Publish slice by slice until nobody is behind, or there is more to take in and its window has passed."""
        window_ends = self._monotonic() + self._debounce_s
        await self._publisher.publish_until(lambda: self._has_work.is_set() and self._monotonic() >= window_ends)
        await asyncio.sleep(max(0.0, window_ends - self._monotonic()))

    # The nodes' side.

    def connect(self, stream_id: str, node: Node) -> None:
        """A node has opened a stream: from now on its snapshot is kept."""
        if not self._publisher.connect(stream_id, node):
            self._has_work.set()

    def disconnect(self, stream_id: str, node_id: str) -> None:
        """A stream has ended; with the last one of a node its snapshot is let go."""
        if self._publisher.disconnect(stream_id, node_id):
            self.certificates.forget(node_id)

    def published(self, node_id: str) -> Published | None:
        """When the snapshot of a connected node last moved."""
        return self._publisher.published(node_id)

    def failure(self, node_id: str) -> Failure | None:
        """Why a connected node keeps what it has, though something else holds for it; None where it does not."""
        return self._publisher.failure(node_id)

    def connected_nodes(self) -> list[str]:
        """The ids of the nodes with at least one stream."""
        return self._publisher.connected_nodes()

    async def reached(self, revision: int) -> None:
        """Return when all commits up to a revision are in the published snapshots of all connected nodes."""
        await self._publisher.reach(revision)

    def node(self, node_id: str) -> Node | None:
        """A connected node as it named itself."""
        return self._publisher.node(node_id)

    def fork(self) -> Fork:
        """What proxies would get after other changes than those that were stored; good until the next of those."""
        return Fork(
            registry=self._registry,
            destinations=self._destinations,
            addresses=self.addresses,
            now=datetime.fromtimestamp(self._clock(), UTC),
            kept=self._publisher.kept,
            ranges=self._ranges,
        )

    @property
    def registry(self) -> Registry:
        """What is true now, to be read."""
        return self._registry

    async def settle(self) -> None:
        """Return once the registry shows what is stored now, or after `SETTLE_S`: then it shows what it has."""
        revision = await self._store.revision()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self._applied < revision:
                    await self._has_applied.wait()

    def applied(self) -> int:
        """The revision that the registry shows."""
        return self._applied

    async def moved(self) -> None:
        """Return once the registry has taken something in that it does not show yet."""
        await self._has_applied.wait()

    async def shadowed(self, node_id: str) -> tuple[Snapshot, Snapshot] | None:
        """What a connected node gets, and would get under the shadow policies too; None for one that is not there."""
        node = self.node(node_id)
        return None if node is None else await shadowed(self.fork, node, mesh=_mesh_of(node_id))

    def find_dataplane(self, mesh: str, name: str) -> Dataplane | None:
        """A dataplane as the registry has it now; None where it has none."""
        return self._registry.dataplane(DataplaneId(mesh, name))

    # From a dataplane to a snapshot.

    def _resolve(self, node_id: str, node: Node) -> Plan | None:
        dataplane_id = self._registry.identify(node_id)
        dataplane = None if dataplane_id is None else self._registry.dataplane(dataplane_id)
        if dataplane_id is None or dataplane is None or self._registry.identities.is_broken(dataplane_id.mesh):
            return None
        return self._resolution.plan(dataplane_id, dataplane, node)


def _mesh_of(node_id: str) -> str:
    named = dataplane_of(node_id)
    return "" if named is None else named[0]
