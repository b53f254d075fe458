"""The order of the pipeline: change -> affected -> match -> generate -> encode -> publish.

In: commits of the store, nodes that connect. Out: the newest `Snapshot` of each connected node in a `SnapshotCache`.
Never: what the stages themselves do. This is the only module that knows their order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from kumafast.addresses import Addresses
from kumafast.errors import CompactedError
from kumafast.generation import names
from kumafast.generation.generate import generate, generator_name
from kumafast.generation.policy_effects import effects
from kumafast.generation.proxy import (
    AdminInterface,
    Destination,
    Endpoint,
    EndpointSet,
    Inbound,
    Outbound,
    Part,
    Proxy,
    TransparentProxy,
)
from kumafast.matching import Bindings, common_protocol, serving_inbounds
from kumafast.metrics import Metrics
from kumafast.registry import Affected, DataplaneId, Registry
from kumafast.registry.reach import Destination as DestinationTags
from kumafast.registry.reach import destination_of
from kumafast.resources import Dataplane, Mesh, Resource, ResourceKey, catalog, networking
from kumafast.resources.tags import SERVICE_TAG, ZONE_TAG
from kumafast.snapshot import Layer, Snapshot, SnapshotCache
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.node import Node
from kumafast.store import Change, Store

_LOG = logging.getLogger(__name__)

# Policies before dataplanes: at the start no policy then looks for dataplanes, each dataplane finds its policies once.
_POLICIES = tuple(kind for kind in catalog.RESOURCE_TYPES if kind.policy is not None)
_WATCHED = (Mesh.type, *_POLICIES, Dataplane.type)


@dataclass(frozen=True, slots=True)
class _Reached:
    """What a destination is for all who reach it: computed once, dropped when a provider of it changes."""

    destination: Destination
    endpoint_set: EndpointSet


@dataclass(slots=True)
class _Connected:
    """A node with at least one stream."""

    node: Node
    streams: set[str]


@dataclass(frozen=True, slots=True)
class Published:
    """When a node's snapshot last moved: the revision that moved it, and the monotonic second at which it was read."""

    revision: int
    at: float


class Reconciler:
    """Keeps the snapshot of every connected node equal to what a fresh control plane would compute from the store."""

    def __init__(self, *, store: Store, cache: SnapshotCache, metrics: Metrics, debounce_ms: float) -> None:
        self.revision = 0
        """All commits up to this revision are in the published snapshots."""
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
        # Bounded by the destinations that some dataplane has as an outbound.
        self._reached: dict[tuple[str, DestinationTags], _Reached] = {}
        # The revision at which each kind was listed: what a watch repeats of before is older than what is held.
        self._listed: dict[str, int] = {}
        self._progress = asyncio.Event()

    # The store's side.

    async def load(self) -> None:
        """Bring the registry to what the store holds now, at the start and when a watch fell too far behind."""
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
        self.reconcile(changes, revision=revision, cause="load")

    async def follow(self) -> None:
        """Reconcile each commit as it comes, until cancelled: the first at once, those soon after it together."""
        resolving = asyncio.create_task(self._addresses.follow(), name="addresses")
        try:
            while True:
                try:
                    await self._follow_from(self.revision)
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
        arrived = asyncio.Event()

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
                    arrived.set()
            finally:
                arrived.set()

        collector = asyncio.create_task(collect(), name="watch")
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                has_ended = collector.done()
                if pending or newest > self.revision:
                    batch, upto = list(pending.values()), newest
                    pending.clear()
                    self.reconcile(batch, revision=upto)
                if has_ended:
                    collector.result()
                    return
                await asyncio.sleep(self._debounce_s)
        finally:
            collector.cancel()
            await asyncio.gather(collector, return_exceptions=True)

    def reconcile(self, changes: Iterable[Change], *, revision: int, cause: str | None = None) -> None:
        """Take in changes and publish the snapshots of the connected nodes that they touch."""
        started = time.monotonic()
        changes = list(changes)
        affected = self._registry.apply(changes)
        touched = self._touch(affected, revision, started)
        self.revision = max(self.revision, revision)
        self._advance()
        if affected.proxies:
            label = cause or (changes[0].key.type if len(changes) == 1 else "several")
            self._metrics.affected_proxies(label).observe(touched)
            self._metrics.reconcile_seconds.observe(time.monotonic() - started)

    def _moved(self, host: str) -> None:
        self._touch(self._registry.moved(host), self.revision, time.monotonic())

    def _touch(self, affected: Affected, revision: int, started: float) -> int:
        """Forget what is not true any more, publish for who is connected; the number of snapshots that moved."""
        for destination in affected.destinations:
            self._reached.pop(destination, None)
        touched = 0
        for dataplane_id in affected.proxies:
            if dataplane_id.node_id in self._connected and self._publish(dataplane_id.node_id, revision, started):
                touched += 1
        return touched

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
        self._publish(node.id, self.revision, time.monotonic())

    def disconnect(self, stream_id: str, node_id: str) -> None:
        """A stream has ended; with the last one of a node its snapshot is let go."""
        connected = self._connected.get(node_id)
        if connected is None:
            return
        connected.streams.discard(stream_id)
        if not connected.streams:
            del self._connected[node_id]
            self._published.pop(node_id, None)
            self._cache.clear(node_id)
            self._metrics.connected_proxies.set(len(self._connected))

    def published(self, node_id: str) -> Published | None:
        """When the snapshot of a connected node last moved."""
        return self._published.get(node_id)

    def connected_nodes(self) -> list[str]:
        """The ids of the nodes with at least one stream."""
        return list(self._connected)

    async def reached(self, revision: int) -> None:
        """Return when all commits up to a revision are in the published snapshots."""
        while self.revision < revision:
            await self._progress.wait()

    def _advance(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    # From a dataplane to a snapshot.

    def _publish(self, node_id: str, revision: int, at: float) -> bool:
        dataplane_id = self._registry.identify(node_id)
        dataplane = None if dataplane_id is None else self._registry.dataplane(dataplane_id)
        if dataplane_id is None or dataplane is None:
            # A node that is not known gets no answer, and one whose dataplane was deleted keeps what it has: an empty
            # configuration would cut the traffic that still runs through it.
            return False
        proxy = self.resolve(dataplane_id, dataplane, self._connected[node_id].node)
        if not self._cache.set(node_id, self.snapshot(proxy)):
            return False
        self._published[node_id] = Published(revision, at)
        return True

    def snapshot(self, proxy: Proxy) -> Snapshot:
        """Generate and encode a proxy; parts that another proxy shares are taken from it."""
        return Snapshot(self._layer(part) for part in proxy.parts())

    def _layer(self, part: Part) -> Layer:
        layer = self._layers.get(part)
        if layer is None:
            self._metrics.generator_calls(generator_name(part)).inc()
            layer = self._layers[part] = Layer(encode(message) for message in generate(part))
        return layer

    def resolve(self, dataplane_id: DataplaneId, dataplane: Dataplane, node: Node) -> Proxy:
        """Resolve a dataplane into the frozen input of generation: tags become endpoints, defaults are filled in."""
        reuses_port = "feature-reuse-port" in _list(node.metadata.get("features"))
        transparent = _transparent(dataplane, node, reuses_port=reuses_port)
        bindings = self._registry.bindings(dataplane_id)
        inbounds = tuple(
            self._inbounds(dataplane, bindings, binds_to_port=transparent is None, reuses_port=reuses_port)
        )
        outbounds: dict[tuple[str, int], Outbound] = {}
        reached: dict[DestinationTags, _Reached] = {}
        destinations: dict[DestinationTags, Destination] = {}
        for outbound in dataplane.outbounds:
            if not outbound.destination_tags:
                continue
            tags = destination_of(outbound.destination_tags)
            target = reached.get(tags) or self._reach(dataplane_id.mesh, tags)
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
        return Proxy(
            mesh=dataplane_id.mesh,
            name=dataplane_id.name,
            admin=_admin(node),
            transparent=transparent,
            inbounds=inbounds,
            outbounds=tuple(outbounds.values()),
            destinations=tuple(destinations.values()),
            endpoint_sets=tuple(target.endpoint_set for target in reached.values()),
        )

    def _reach(self, mesh: str, tags: DestinationTags) -> _Reached:
        reached = self._reached.get((mesh, tags))
        if reached is not None:
            return reached
        wanted = dict(tags)
        protocols: set[str] = set()
        endpoints: list[Endpoint] = []
        for dataplane in self._registry.providers(mesh, tags):
            for inbound in serving_inbounds(dataplane, wanted):
                protocols.add(inbound.protocol)
                endpoint = self._endpoint(dataplane, inbound)
                if endpoint is not None:
                    endpoints.append(endpoint)
        endpoints.sort(key=lambda endpoint: (endpoint.address, endpoint.port, endpoint.tags, endpoint.labels))
        cluster_name = names.cluster_name(wanted)
        reached = _Reached(
            Destination(cluster_name, wanted.get(SERVICE_TAG, ""), common_protocol(sorted(protocols))),
            EndpointSet(cluster_name, tuple(endpoints)),
        )
        self._reached[(mesh, tags)] = reached
        return reached

    def _inbounds(
        self, dataplane: Dataplane, bindings: Bindings, *, binds_to_port: bool, reuses_port: bool
    ) -> Iterable[Inbound]:
        seen: set[tuple[str, int]] = set()
        for position, inbound in enumerate(dataplane.inbounds):
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
                effects=effects(bindings.inbound(position), "inbound", inbound.protocol),
            )

    def _endpoint(self, dataplane: Dataplane, inbound: networking.Inbound) -> Endpoint | None:
        advertised = "" if dataplane.networking is None else dataplane.networking.advertised_address
        address = self._addresses.get(advertised or dataplane.inbound_address(inbound))
        if address is None:
            return None
        return Endpoint(
            address=address,
            port=inbound.port,
            tags=tuple((key, value) for key, value in sorted(inbound.tags.items()) if key != SERVICE_TAG),
            labels=tuple(sorted(dataplane.labels.items())),
            zone=inbound.tags.get(ZONE_TAG, ""),
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
