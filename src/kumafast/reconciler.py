"""The order of the pipeline: change -> affected -> match -> generate -> encode -> publish.

In: commits of the store, nodes that connect. Out: the newest `Snapshot` of each connected node in a `SnapshotCache`.
Never: what the stages themselves do. This is the only module that knows their order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from kumafast import garbage
from kumafast.addresses import Addresses
from kumafast.errors import CompactedError
from kumafast.generation.generate import generate, generator_name
from kumafast.generation.policy_effects import effects
from kumafast.generation.proxy import AdminInterface, Destination, Inbound, Outbound, Part, Proxy, TransparentProxy
from kumafast.matching import Bindings
from kumafast.metrics import Metrics
from kumafast.publisher import Published, Publisher, Resolved, Work
from kumafast.reached import Destinations, Moved, Reached
from kumafast.registry import Affected, DataplaneId, Registry
from kumafast.registry.reach import Destination as DestinationTags
from kumafast.registry.reach import destination_of
from kumafast.resources import Dataplane, Mesh, Resource, ResourceKey, catalog
from kumafast.snapshot import Layer, SnapshotCache
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.node import Node
from kumafast.store import Change, Store

_LOG = logging.getLogger(__name__)

# Policies before dataplanes: at the start no policy then looks for dataplanes, each dataplane finds its policies once.
_WATCHED = (Mesh.type, *catalog.POLICY_TYPES, Dataplane.type)

APPLY_MAX = 128
"""How many changes the registry takes in before everything else gets its turn."""


class Reconciler:
    """Keeps the snapshot of every connected node equal to what a fresh control plane would compute from the store."""

    def __init__(
        self, *, store: Store, cache: SnapshotCache, metrics: Metrics, debounce_ms: float, leds_threshold: int = 0
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._debounce_s = debounce_ms / 1000
        self._registry = Registry()
        self.addresses = Addresses(in_use=self._registry.hosts, changed=self._moved)
        """The addresses of the dataplanes' host names."""
        self._destinations = Destinations(
            registry=self._registry, addresses=self.addresses, leds_threshold=leds_threshold
        )
        self._publisher = Publisher(cache=cache, metrics=metrics, resolve=self._resolve)
        # Bounded by what is in use: a layer lives while a snapshot refers to it.
        self._layers: WeakValueDictionary[Part, Layer] = WeakValueDictionary()
        # The revision that the registry stands at; the publisher follows when everybody has got it.
        self._applied = 0
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
                if held.pop(stored.resource.key, None) != stored.resource or kind.policy is not None:
                    changes.append(Change(stored.resource.key, stored))
        changes.extend(Change(key, None) for key in held)
        await self._take_in(changes, revision=revision, cause="load")

    async def follow(self) -> None:
        """Reconcile each commit as it comes, until cancelled: the first at once, those soon after it together."""
        resolving = asyncio.create_task(self.addresses.follow(), name="addresses")
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
            resolving.cancel()
            await asyncio.gather(resolving, return_exceptions=True)

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
        started = time.monotonic()
        behind: set[str] = set()
        # Nothing is published in between, so that no snapshot shows a part of a commit.
        for start in range(0, len(changes), APPLY_MAX):
            if start:
                await asyncio.sleep(0)
            behind |= self._apply(changes[start : start + APPLY_MAX], revision, started)
        self._stand_at(revision)
        if changes:
            label = cause or (changes[0].key.type if len(changes) == 1 else "several")
            self._metrics.affected_proxies(label).observe(len(behind))

    def take_in(self, changes: Sequence[Change], *, revision: int) -> None:
        """Bring the registry to a revision and note who is behind; `publish_slice` brings them up to date."""
        self._apply(changes, revision, time.monotonic())
        self._stand_at(revision)

    def publish_slice(self) -> bool:
        """Publish for those who have been behind for longest; whether anybody still is behind."""
        self._publisher.publish_slice()
        return self._publisher.is_behind

    def _apply(self, changes: Sequence[Change], revision: int, at: float) -> set[str]:
        return self._fall_behind(self._registry.apply(changes), revision, at)

    def _stand_at(self, revision: int) -> None:
        self._applied = max(self._applied, revision)
        self._publisher.stand_at(revision)

    def _moved(self, host: str) -> None:
        self._fall_behind(self._registry.moved(host), self._applied, time.monotonic())
        self._has_work.set()

    def _fall_behind(self, affected: Affected, since: int, at: float) -> set[str]:
        """Note who lacks what, of those who are connected; the ids of their nodes."""
        behind: set[str] = set()
        for reached, moved in self._destinations.follow(affected):
            endpoints = reached if moved is Moved.ENDPOINTS else None
            behind.update(self._publisher.fall_behind(reached.nodes, since=since, at=at, reached=endpoints))
        nodes = (dataplane_id.node_id for dataplane_id in affected.proxies)
        behind.update(self._publisher.fall_behind(nodes, since=since, at=at))
        return behind

    async def _publish_rest(self) -> None:
        """Publish slice by slice until nobody is behind, or there is more to take in and its window has passed."""
        window_ends = time.monotonic() + self._debounce_s
        await self._publisher.publish_until(lambda: self._has_work.is_set() and time.monotonic() >= window_ends)
        await asyncio.sleep(max(0.0, window_ends - time.monotonic()))

    # The nodes' side.

    def connect(self, stream_id: str, node: Node) -> None:
        """A node has opened a stream: from now on its snapshot is kept."""
        self._publisher.connect(stream_id, node)

    def disconnect(self, stream_id: str, node_id: str) -> None:
        """A stream has ended; with the last one of a node its snapshot is let go."""
        self._publisher.disconnect(stream_id, node_id)

    def published(self, node_id: str) -> Published | None:
        """When the snapshot of a connected node last moved."""
        return self._publisher.published(node_id)

    def connected_nodes(self) -> list[str]:
        """The ids of the nodes with at least one stream."""
        return self._publisher.connected_nodes()

    async def reached(self, revision: int) -> None:
        """Return when all commits up to a revision are in the published snapshots of all connected nodes."""
        await self._publisher.reach(revision)

    # From a dataplane to a snapshot.

    def _resolve(self, node_id: str, node: Node) -> Resolved | None:
        dataplane_id = self._registry.identify(node_id)
        dataplane = None if dataplane_id is None else self._registry.dataplane(dataplane_id)
        if dataplane_id is None or dataplane is None:
            return None
        proxy, reached = self.resolve(dataplane_id, dataplane, node)
        return Resolved(tuple(self._layer(part) for part in proxy.parts()), reached)

    def _layer(self, part: Part) -> Layer:
        layer = self._layers.get(part)
        if layer is None:
            layer = self._layers[part] = Layer(encode(message) for message in generate(part))
            self._publisher.count(generator_name(part), layer)
        return layer

    def resolve(self, dataplane_id: DataplaneId, dataplane: Dataplane, node: Node) -> tuple[Proxy, tuple[Reached, ...]]:
        """Resolve a dataplane into the frozen input of generation, and the destinations whose endpoints it needs."""
        reuses_port = "feature-reuse-port" in _list(node.metadata.get("features"))
        transparent = _transparent(dataplane, node, reuses_port=reuses_port)
        bindings = self._registry.bindings(dataplane_id)
        inbounds = tuple(
            self._inbounds(dataplane, bindings, binds_to_port=transparent is None, reuses_port=reuses_port)
        )
        outbounds: dict[tuple[str, int], Outbound] = {}
        reached: dict[DestinationTags, Reached] = {}
        destinations: dict[DestinationTags, Destination] = {}
        for outbound in dataplane.outbounds:
            if not outbound.destination_tags:
                continue
            tags = destination_of(outbound.destination_tags)
            target = reached.get(tags) or self._destinations.get(dataplane_id.mesh, tags)
            reached[tags] = target
            service, protocol = target.destination.service, target.destination.protocol
            settings = bindings.outbound(service)
            if tags not in destinations:
                on_cluster = effects(settings, "destination", protocol)
                destinations[tags] = (
                    replace(target.destination, effects=on_cluster) if on_cluster else target.destination
                )
            # Of two outbounds on one port Envoy could serve one only; as in Kuma it is the first.
            address = dataplane.outbound_address(outbound)
            outbounds.setdefault(
                (address, outbound.port),
                Outbound(
                    address=address,
                    port=outbound.port,
                    service=service,
                    protocol=protocol,
                    tags=tags,
                    cluster_name=target.destination.cluster_name,
                    binds_to_port=transparent is None,
                    reuses_port=reuses_port,
                    effects=effects(settings, "outbound", protocol),
                ),
            )
        proxy = Proxy(
            mesh=dataplane_id.mesh,
            name=dataplane_id.name,
            admin=_admin(node),
            transparent=transparent,
            inbounds=inbounds,
            outbounds=tuple(outbounds.values()),
            destinations=tuple(destinations.values()),
        )
        return proxy, tuple(reached.values())

    def _inbounds(
        self, dataplane: Dataplane, bindings: Bindings, *, binds_to_port: bool, reuses_port: bool
    ) -> Iterable[Inbound]:
        seen: set[tuple[str, int]] = set()
        for position, inbound in enumerate(dataplane.inbounds):
            address = self.addresses.get(dataplane.inbound_address(inbound))
            if address is None or (address, inbound.port) in seen or inbound.state == "Ignored":
                continue
            seen.add((address, inbound.port))
            yield Inbound(
                address=address,
                port=inbound.port,
                service_address=dataplane.inbound_service_address(inbound),
                service_port=dataplane.inbound_service_port(inbound),
                service=inbound.service,
                protocol=inbound.protocol,
                tags=tuple(sorted(inbound.tags.items())),
                binds_to_port=binds_to_port,
                reuses_port=reuses_port,
                effects=effects(bindings.inbound(position), "inbound", inbound.protocol),
            )


def _transparent(dataplane: Dataplane, node: Node, *, reuses_port: bool) -> TransparentProxy | None:
    proxying = None if dataplane.networking is None else dataplane.networking.transparent_proxying
    if proxying is None or not proxying.redirect_port_outbound:
        return None
    return TransparentProxy(
        redirect_port_inbound=proxying.redirect_port_inbound,
        redirect_port_outbound=proxying.redirect_port_outbound,
        has_ipv6=proxying.ip_family_mode != "IPv4" and node.metadata.get("ipv6Enabled") is True,
        reuses_port=reuses_port,
    )


def _admin(node: Node) -> AdminInterface:
    metadata = node.metadata
    return AdminInterface(
        socket_path=_text(metadata, "dataplane.admin.socketPath"),
        address=_text(metadata, "dataplane.admin.address"),
        port=_port(metadata, "dataplane.admin.port"),
        readiness_port=_port(metadata, "dataplane.readinessReporter.port"),
    )


def _text(metadata: Mapping[str, object], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value else None


def _port(metadata: Mapping[str, object], key: str) -> int | None:
    """A port that a node names, as text or number; what is no port is as good as none."""
    value = metadata.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        port = int(value) if isinstance(value, str | int) else 0
    except ValueError:
        return None
    return port if 0 < port < 65536 else None


def _list(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()
