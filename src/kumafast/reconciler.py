"""The order of the pipeline: change -> affected -> match -> generate -> encode -> publish.

In: commits of the store, nodes that connect. Out: the newest `Snapshot` of each connected node in a `SnapshotCache`.
Never: what the stages themselves do. This is the only module that knows their order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from kumafast.addresses import Addresses
from kumafast.errors import CompactedError
from kumafast.generation.generate import generate, generator_name
from kumafast.generation.proxy import AdminInterface, Inbound, Outbound, Part, Proxy, TransparentProxy
from kumafast.metrics import Metrics
from kumafast.pending import Pending, Task
from kumafast.reached import Moved, Reached
from kumafast.registry import Affected, DataplaneId, Registry
from kumafast.registry.reach import Destination as DestinationTags
from kumafast.registry.reach import destination_of
from kumafast.resources import Dataplane, Mesh, ResourceKey
from kumafast.snapshot import Layer, Snapshot, SnapshotCache
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.node import Node
from kumafast.store import Change, Store

_LOG = logging.getLogger(__name__)

_WATCHED = (Mesh, Dataplane)

SLICE_S = 0.005
"""For how long the snapshots of many nodes are made before everything else on the event loop gets its turn."""

SLICE_NODES_MAX = 64
"""How many nodes' streams are woken at once: what each then sends costs several times what its snapshot did."""

APPLY_MAX = 128
"""How many changes the registry takes in before everything else gets its turn."""

REFRESH_DELAY_MAX_S = 0.05
"""How long those who are connected wait for those who come, where many come."""


@dataclass(slots=True)
class _Connected:
    """A node with at least one stream."""

    node: Node
    streams: set[str]
    snapshot: Snapshot | None = None
    """What its dataplane gives. The cache may hold an older one that has the same content."""
    reached: tuple[Reached, ...] = ()
    """The destinations whose endpoints are the last layers of the snapshot."""


@dataclass(slots=True)
class Work:
    """What has been done since the start, as counts: the price of a change that no machine distorts."""

    resolved: int = 0
    """Proxies that were resolved as a whole."""
    spliced: int = 0
    """Snapshots that were made from the one before, by other endpoints in their place."""
    generated: int = 0
    """Calls of generators."""
    encoded_bytes: int = 0
    """Bytes of what they made."""


@dataclass(frozen=True, slots=True)
class Published:
    """When a node's snapshot last moved: the revision that moved it, and the monotonic second at which it was read."""

    revision: int
    at: float


class Reconciler:
    """Keeps the snapshot of every connected node equal to what a fresh control plane would compute from the store."""

    def __init__(self, *, store: Store, cache: SnapshotCache, metrics: Metrics, debounce_ms: float) -> None:
        self.revision = 0
        """All commits up to this revision are in the published snapshots of all connected nodes."""
        self.work = Work()
        self._store = store
        self._cache = cache
        self._metrics = metrics
        self._debounce_s = debounce_ms / 1000
        self._registry = Registry()
        self._addresses = Addresses(in_use=self._registry.hosts, changed=self._moved)
        self._connected: dict[str, _Connected] = {}
        self._published: dict[str, Published] = {}
        # Bounded by what is in use: a layer lives while a snapshot refers to it.
        self._layers: WeakValueDictionary[Part, Layer] = WeakValueDictionary()
        # Bounded by the destinations that connected nodes reach.
        self._reached: dict[tuple[str, DestinationTags], Reached] = {}
        # Bounded by the connected nodes.
        self._pending = Pending()
        # The revision that the registry stands at; `revision` follows when everybody has got it.
        self._applied = 0
        # Set when there is something to do: changes to take in, an end, or nodes that have fallen behind.
        self._has_work = asyncio.Event()
        self._newcomers = 0
        # The revision at which each kind was listed: what a watch repeats of before is older than what is held.
        self._listed: dict[str, int] = {}
        self._progress = asyncio.Event()

    @property
    def addresses(self) -> Addresses:
        """The addresses of the dataplanes' host names."""
        return self._addresses

    # The store's side.

    async def load(self) -> None:
        """Bring the registry to what the store holds now, at the start and when a watch fell too far behind."""
        revision = await self._store.revision()
        held = {resource.key: resource for resource in self._registry.resources()}
        changes: list[Change] = []
        for kind in _WATCHED:
            listing = await self._store.list(kind.type.name)
            self._listed[kind.type.name] = listing.revision
            for stored in listing.items:
                if held.pop(stored.resource.key, None) != stored.resource:
                    changes.append(Change(stored.resource.key, stored))
        changes.extend(Change(key, None) for key in held)
        await self._take_in(changes, revision=revision, cause="load")

    async def follow(self) -> None:
        """Reconcile each commit as it comes, until cancelled: the first at once, those soon after it together."""
        resolving = asyncio.create_task(self._addresses.follow(), name="addresses")
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
                self.publish_slice()
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

    def _apply(self, changes: Iterable[Change], revision: int, at: float) -> set[str]:
        return self._fall_behind(self._registry.apply(changes), revision, at)

    def _stand_at(self, revision: int) -> None:
        self._applied = max(self._applied, revision)
        self._advance()

    def _moved(self, host: str) -> None:
        self._fall_behind(self._registry.moved(host), self._applied, time.monotonic())
        self._has_work.set()

    def _fall_behind(self, affected: Affected, revision: int, at: float) -> set[str]:
        """Let destinations follow what has changed, and note which of the connected nodes lack what; their ids."""
        for key in affected.vanished:
            # While nobody reaches it changes of it go unnoticed. Whoever had it has changed, so it is resolved anew.
            self._reached.pop(key, None)
        behind: set[str] = set()
        for key, changed in affected.destinations.items():
            reached = self._reached.get(key)
            moved = Moved.NOTHING if reached is None else reached.follow(changed, self._registry)
            if reached is None or moved is Moved.NOTHING:
                continue
            behind.update(reached.nodes)
            for node_id in reached.nodes:
                endpoints = reached if moved is Moved.ENDPOINTS else None
                self._pending.widen(node_id, since=revision, at=at, reached=endpoints)
        for dataplane_id in affected.proxies:
            node_id = dataplane_id.node_id
            if node_id in self._connected:
                behind.add(node_id)
                self._pending.widen(node_id, since=revision, at=at)
        return behind

    # In slices.

    def publish_slice(self) -> bool:
        """Bring those up to date who have been behind for longest, for `SLICE_S`; whether anybody still is behind."""
        started = now = time.monotonic()
        for _ in range(SLICE_NODES_MAX):
            oldest = self._pending.take()
            if oldest is None:
                break
            self._catch_up(*oldest)
            now = time.monotonic()
            self._metrics.reconcile_seconds.observe(now - oldest[1].at)
            if now - started >= SLICE_S:
                break
        self._advance()
        return bool(self._pending)

    async def _publish_rest(self) -> None:
        """Publish slice by slice until nobody is behind, or there is more to take in and its window has passed."""
        window_ends = time.monotonic() + self._debounce_s
        while self._pending:
            await self._give_way()
            self.publish_slice()
            if self._has_work.is_set() and time.monotonic() >= window_ends:
                return
        await asyncio.sleep(max(0.0, window_ends - time.monotonic()))

    async def _give_way(self) -> None:
        """Let everything else have its turn, and nodes that connect more than one."""
        until = time.monotonic() + REFRESH_DELAY_MAX_S
        while True:
            self._newcomers = 0
            await asyncio.sleep(0)
            if not self._newcomers or time.monotonic() >= until:
                return

    # The nodes' side.

    def connect(self, stream_id: str, node: Node) -> None:
        """A node has opened a stream: from now on its snapshot is kept."""
        connected = self._connected.get(node.id)
        if connected is None:
            connected = self._connected[node.id] = _Connected(node, set())
        connected.streams.add(stream_id)
        # A node that comes again may have restarted with other ports or features.
        connected.node = node
        self._metrics.connected_proxies.set(len(self._connected))
        # At once, whoever else is waiting.
        self._newcomers += 1
        self._pending.forget(node.id)
        self._renew(node.id, connected, time.monotonic())
        self._advance()

    def disconnect(self, stream_id: str, node_id: str) -> None:
        """A stream has ended; with the last one of a node its snapshot is let go."""
        connected = self._connected.get(node_id)
        if connected is None:
            return
        connected.streams.discard(stream_id)
        if not connected.streams:
            del self._connected[node_id]
            self._pending.forget(node_id)
            self._reach_only(node_id, connected, ())
            self._published.pop(node_id, None)
            self._cache.clear(node_id)
            self._metrics.connected_proxies.set(len(self._connected))
            self._advance()

    def published(self, node_id: str) -> Published | None:
        """When the snapshot of a connected node last moved."""
        return self._published.get(node_id)

    def connected_nodes(self) -> list[str]:
        """The ids of the nodes with at least one stream."""
        return list(self._connected)

    async def reached(self, revision: int) -> None:
        """Return when all commits up to a revision are in the published snapshots of all connected nodes."""
        while self.revision < revision:
            await self._progress.wait()

    def _advance(self) -> None:
        done = self._pending.done(self._applied)
        if done > self.revision:
            self.revision = done
            self._progress.set()
            self._progress = asyncio.Event()

    # From a dataplane to a snapshot.

    def _catch_up(self, node_id: str, task: Task) -> None:
        connected = self._connected[node_id]
        if task.is_whole or connected.snapshot is None:
            self._renew(node_id, connected, task.at)
            return
        self.work.spliced += 1
        layers = {reached.nodes[node_id]: self._endpoints(reached) for reached in task.reached}
        self._publish(node_id, connected, connected.snapshot.replaced(layers), task.at)

    def _renew(self, node_id: str, connected: _Connected, at: float) -> None:
        """Resolve a node's dataplane and publish what it gives."""
        dataplane_id = self._registry.identify(node_id)
        dataplane = None if dataplane_id is None else self._registry.dataplane(dataplane_id)
        if dataplane_id is None or dataplane is None:
            # A node that is not known gets no answer, and one whose dataplane was deleted keeps what it has: an empty
            # configuration would cut the traffic that still runs through it.
            connected.snapshot = None
            self._reach_only(node_id, connected, ())
            return
        self.work.resolved += 1
        proxy, reached = self.resolve(dataplane_id, dataplane, connected.node)
        layers = [self._layer(part) for part in proxy.parts()]
        for place, item in enumerate(reached, len(layers)):
            item.nodes[node_id] = place
        self._reach_only(node_id, connected, reached)
        layers.extend(self._endpoints(item) for item in reached)
        self._publish(node_id, connected, Snapshot(layers), at)

    def _publish(self, node_id: str, connected: _Connected, snapshot: Snapshot, at: float) -> None:
        connected.snapshot = snapshot
        if self._cache.set(node_id, snapshot):
            self._published[node_id] = Published(self._applied, at)

    def _reach_only(self, node_id: str, connected: _Connected, reached: tuple[Reached, ...]) -> None:
        """Take note of the destinations that a node reaches now, and forget those that no connected node does."""
        for item in set(connected.reached).difference(reached):
            del item.nodes[node_id]
            if not item.nodes and self._reached.get(item.key) is item:
                del self._reached[item.key]
        connected.reached = reached

    def _endpoints(self, reached: Reached) -> Layer:
        layer, is_new = reached.layer()
        if is_new:
            self._count("endpoints", layer)
        return layer

    def _layer(self, part: Part) -> Layer:
        layer = self._layers.get(part)
        if layer is None:
            layer = self._layers[part] = Layer(encode(message) for message in generate(part))
            self._count(generator_name(part), layer)
        return layer

    def _count(self, generator: str, layer: Layer) -> None:
        self._metrics.generator_calls(generator).inc()
        self.work.generated += 1
        self.work.encoded_bytes += sum(len(resource.body) for resource in layer)

    def resolve(self, dataplane_id: DataplaneId, dataplane: Dataplane, node: Node) -> tuple[Proxy, tuple[Reached, ...]]:
        """Resolve a dataplane into the frozen input of generation, and the destinations whose endpoints it needs."""
        reuses_port = "feature-reuse-port" in _list(node.metadata.get("features"))
        transparent = _transparent(dataplane, node, reuses_port=reuses_port)
        inbounds = tuple(self._inbounds(dataplane, binds_to_port=transparent is None, reuses_port=reuses_port))
        outbounds: dict[tuple[str, int], Outbound] = {}
        reached: dict[DestinationTags, Reached] = {}
        for outbound in dataplane.outbounds:
            if not outbound.destination_tags:
                continue
            tags = destination_of(outbound.destination_tags)
            target = reached.get(tags) or self._reach(dataplane_id.mesh, tags)
            reached[tags] = target
            # Of two outbounds on one port Envoy could serve one only; as in Kuma it is the first.
            address = dataplane.outbound_address(outbound)
            outbounds.setdefault(
                (address, outbound.port),
                Outbound(
                    address=address,
                    port=outbound.port,
                    service=target.destination.service,
                    protocol=target.destination.protocol,
                    tags=tags,
                    cluster_name=target.destination.cluster_name,
                    binds_to_port=transparent is None,
                    reuses_port=reuses_port,
                ),
            )
        proxy = Proxy(
            mesh=dataplane_id.mesh,
            name=dataplane_id.name,
            admin=_admin(node),
            transparent=transparent,
            inbounds=inbounds,
            outbounds=tuple(outbounds.values()),
            destinations=tuple(target.destination for target in reached.values()),
        )
        return proxy, tuple(reached.values())

    def _reach(self, mesh: str, tags: DestinationTags) -> Reached:
        reached = self._reached.get((mesh, tags))
        if reached is None:
            reached = self._reached[(mesh, tags)] = Reached(mesh, tags, self._registry, self._addresses)
        return reached

    def _inbounds(self, dataplane: Dataplane, *, binds_to_port: bool, reuses_port: bool) -> Iterable[Inbound]:
        seen: set[tuple[str, int]] = set()
        for inbound in dataplane.inbounds:
            address = self._addresses.get(dataplane.inbound_address(inbound))
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
