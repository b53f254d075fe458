"""What each destination is for all who reach it: a protocol, and endpoints that follow the dataplanes one by one.

In: a destination by tags or as a port of a service, the dataplanes that serve it, addresses. Out: its `Destination` and
its layer of endpoints; which of the connected nodes have that layer, and where. Never: when a node is told.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import NamedTuple
from weakref import WeakValueDictionary

from kumafast import external
from kumafast.addresses import Addresses
from kumafast.generation import endpoints, names
from kumafast.generation.localities import View
from kumafast.generation.proxy import Destination, Endpoint, OutboundTls
from kumafast.generation.tls import server_name, service_server_name
from kumafast.matching import Backend, BackendPort, Subject, common_protocol, instance_inbounds, serving_inbounds
from kumafast.registry import Affected, DataplaneId, Registry
from kumafast.registry.reach import Destination as DestinationKey
from kumafast.resources import Dataplane, networking
from kumafast.resources.tags import SERVICE_TAG, ZONE_TAG
from kumafast.snapshot import EndpointEntry, Layer, LoadAssignment
from kumafast.viewed import Viewed

READ_MAX = 256
"""How many dataplanes of a destination are looked at before everything else has its turn: some 9 µs each."""


class Unready(Exception):
    """Raised where a destination has more dataplanes than one turn has room for: ask again in a later one."""


class Moved(Enum):
    """How far a change of dataplanes reaches into what a destination is."""

    NOTHING = auto()
    ENDPOINTS = auto()
    """The layer of endpoints is another; all else stays."""
    PROTOCOL = auto()
    """Clusters and listeners that lead here are others, by their protocol or by TLS, and the endpoints may be."""


class Reached:
    """One destination of one mesh, kept while a connected node reaches it."""

    __slots__ = (
        "_addresses",
        "_assignment",
        "_backend",
        "_end",
        "_identities",
        "_layer",
        "_leds_threshold",
        "_one_by_one",
        "_protocols",
        "_registry",
        "_served",
        "_tags",
        "_unread",
        "_unsecured",
        "_views",
        "destination",
        "hopefuls",
        "key",
        "nodes",
        "outside",
    )

    def __init__(
        self,
        mesh: str,
        destination: DestinationKey,
        *,
        registry: Registry,
        addresses: Addresses,
        end: Callable[[Reached], None],
        leds_threshold: int = 0,
    ) -> None:
        """Nothing is known of it until `read` has looked at all who serve it.

        A port of a service is one that is there.
        """
        self.key = (mesh, destination)
        self._end = end
        self.nodes: dict[str, int] = {}
        """The connected nodes that have the layer, each with its place among the layers of the node's snapshot."""
        self.hopefuls: set[str] = set()
        """Connected nodes that would have it if what they get could be made: where it is another, that may be so."""
        self._backend = _backend(registry, mesh, destination)
        self._tags = {} if isinstance(destination, BackendPort) else dict(destination)
        self._registry = registry
        self._addresses = addresses
        # The dataplanes that serve it and have no certificate yet.
        self._unsecured: set[str] = set()
        # What each dataplane contributes.
        self._served: dict[str, _Served] = {}
        self._protocols: Counter[str] = Counter()
        # Of a port of a service: as whom its instances show themselves.
        self._identities: Counter[str] = Counter()
        called = cluster_name(self._tags, self._backend)
        self._assignment = LoadAssignment(called)
        self._layer: Layer | None = None
        # The same for those who take endpoints one by one.
        self._one_by_one: Layer | None = None
        self._leds_threshold = leds_threshold
        self._views: WeakValueDictionary[tuple[View | None, str], Viewed] = WeakValueDictionary()
        # Names of dataplanes that serve it and have not been looked at; those that came since have.
        self._unread = [dataplane.name for dataplane in registry.providers(mesh, destination)]
        self.outside = self._look_outside()
        """Who serves it from outside of the mesh; None where nobody does."""
        self.destination = self._destination(called)
        """The cluster as clients see it."""

    @property
    def is_ready(self) -> bool:
        """Whether all who serve it have been looked at."""
        return not self._unread

    def read(self, count: int | None = None) -> None:
        """Look at so many more of those who serve it, or at all of them, as they are by now."""
        if not self._unread:
            return
        mesh = self.key[0]
        start = 0 if count is None else max(0, len(self._unread) - count)
        piece, self._unread = self._unread[start:], self._unread[:start]
        self._alter((name, self._registry.dataplane(DataplaneId(mesh, name))) for name in piece)
        if self.is_ready:
            self.destination = self._destination(self.destination.cluster_name)

    def renew(self) -> Moved:
        """Look anew at how it is connected to, when the mesh's identity is another."""
        destination = self._destination(self.destination.cluster_name)
        if destination == self.destination:
            return Moved.NOTHING
        self.destination = destination
        return Moved.PROTOCOL

    def renew_external(self) -> Moved:
        """Look anew at who serves it from outside of the mesh: O(those)."""
        before, self.outside = self.outside, self._look_outside()
        return Moved.PROTOCOL if self.renew() is Moved.PROTOCOL or before != self.outside else Moved.NOTHING

    def permitted(self, services: Set[str]) -> Destination:
        """The cluster as a client sees it that may reach these external services."""
        if self.outside is None:
            return self.destination
        rest = self.outside.permitted(services)
        return self.destination if rest is self.outside.endpoints else replace(self.destination, external=rest)

    def follow(self, changed: Iterable[str], registry: Registry) -> Moved:
        """Look at these dataplanes of the mesh anew: O(those), whatever the number of endpoints."""
        mesh = self.key[0]
        if not self._alter((name, registry.dataplane(DataplaneId(mesh, name))) for name in changed):
            return Moved.NOTHING
        destination = self._destination(self.destination.cluster_name)
        if destination == self.destination:
            has_moved = self._layer is None and self._one_by_one is None and self.outside is None
            return Moved.ENDPOINTS if has_moved else Moved.NOTHING
        self.destination = destination
        return Moved.PROTOCOL

    def fork(self, registry: Registry, addresses: Addresses) -> Reached:
        """The same in another state of the registry, to be changed on its own. O(endpoints), as copies of references.

        Nobody has it; it is what it was until `follow` and `renew` are told what is different there.
        """
        forked = copy.copy(self)
        forked._registry, forked._addresses = registry, addresses
        forked._end = lambda _: None
        forked.nodes, forked.hopefuls = {}, set()
        forked._views = WeakValueDictionary()
        forked._unsecured, forked._served = self._unsecured.copy(), self._served.copy()
        forked._protocols, forked._identities = self._protocols.copy(), self._identities.copy()
        forked._assignment = self._assignment.copy()
        return forked

    def seen(self, *, one_by_one: bool = False) -> Layer:
        """`layer` for one who only looks: where it is not there yet, what is put together is not kept."""
        if self.outside is not None:
            return _NOTHING
        if one_by_one and 0 < self._leds_threshold <= len(self._assignment):
            if self._one_by_one is not None:
                return self._one_by_one
            return self._assignment.copy().collections(endpoints.collection_assignment)
        return self._assignment.layer() if self._layer is None else self._layer

    def serving(self, name: str) -> tuple[EndpointEntry, ...]:
        """The endpoints that a dataplane contributes."""
        return self._served.get(name, _NOTHING_SERVED).entries

    def leave(self, node_id: str) -> None:
        """A node does not reach this any more, and after the last one nobody does."""
        del self.nodes[node_id]
        self.end_unless_reached()

    def give_up(self, node_id: str) -> None:
        """A node does not hope for this any more."""
        self.hopefuls.discard(node_id)
        self.end_unless_reached()

    def end_unless_reached(self) -> None:
        """Where this is not needed any more: end it, unless a node has it or hopes for it."""
        if not self.nodes and not self.hopefuls:
            self._end(self)

    def held(self, *, one_by_one: bool = False) -> Layer | None:
        """What `layer` gives, where it is there already and that is plain to see."""
        return None if self.outside is not None or (one_by_one and self._leds_threshold) else self._layer

    def layer(self, *, one_by_one: bool = False) -> tuple[Layer, bool]:
        """The endpoints as one layer, and whether it was put together just now: it is when somebody first asks.

        `one_by_one` where the node can take them as collections: it does from so many endpoints on as is set.
        Endpoints outside of the mesh are in no layer; they stand in the cluster.
        """
        if self.outside is not None:
            return _NOTHING, False
        if one_by_one and 0 < self._leds_threshold <= len(self._assignment):
            if self._one_by_one is not None:
                return self._one_by_one, False
            self._one_by_one = self._assignment.collections(endpoints.collection_assignment)
            return self._one_by_one, True
        if self._layer is not None:
            return self._layer, False
        self._layer = self._assignment.layer()
        return self._layer, True

    def viewed(self, view: View | None, name: str = "") -> Viewed | None:
        """The endpoints as clients with a view see them, or those whose cluster has another name: at first
        O(endpoints), then one for all who see them so.

        None for those outside of the mesh, which stand in the cluster.
        """
        if self.outside is not None:
            return None
        found = self._views.get((view, name))
        if found is None:
            entries = (entry for served in self._served.values() for entry in served.entries)
            found = self._views[view, name] = Viewed(name or self.destination.cluster_name, view, entries)
        return found

    def _alter(self, dataplanes: Iterable[tuple[str, Dataplane | None]]) -> bool:
        """Whether anything is different now. The layer is dropped where the endpoints are."""
        removed: list[EndpointEntry] = []
        added: list[EndpointEntry] = []
        has_changed = False
        for name, dataplane in dataplanes:
            held = self._served.pop(name, _NOTHING_SERVED)
            serves = _NOTHING_SERVED if dataplane is None else self._serves(dataplane)
            if serves != _NOTHING_SERVED:
                self._served[name] = serves
            has_changed |= self._note_secured(name, serves=serves != _NOTHING_SERVED)
            if serves == held:
                continue
            has_changed = True
            self._protocols.subtract(held.protocols)
            self._protocols.update(serves.protocols)
            self._identities.subtract(held.identities)
            self._identities.update(serves.identities)
            if serves.entries != held.entries:
                removed.extend(held.entries)
                added.extend(serves.entries)
        if removed or added:
            self._assignment.alter(removed, added)
            self._layer = self._one_by_one = None
            for viewed in self._views.values():
                viewed.alter(removed, added)
        return has_changed

    def _note_secured(self, name: str, *, serves: bool) -> bool:
        """Whether a dataplane has come to be the first, or ceased to be the last, that TLS cannot reach."""
        were_all = not self._unsecured
        if serves and not self._registry.is_secured(DataplaneId(self.key[0], name)):
            self._unsecured.add(name)
        else:
            self._unsecured.discard(name)
        return were_all != (not self._unsecured)

    def _serves(self, dataplane: Dataplane) -> _Served:
        backend = self._backend
        if backend is None:
            inbounds = serving_inbounds(dataplane, self._tags)
        else:
            inbounds = instance_inbounds(dataplane, backend.selections)
        served = (self._endpoint(dataplane, inbound) for inbound in inbounds)
        entries = tuple(
            EndpointEntry.of(
                zone=endpoint.zone, order=endpoints.order(endpoint), lb_endpoint=endpoints.lb_endpoint(endpoint)
            )
            for endpoint in served
            if endpoint is not None
        )
        # Its services, as which its certificate says that it is.
        named = {inbound.service for inbound in dataplane.inbounds} if backend is not None and inbounds else set()
        return _Served(tuple(inbound.protocol for inbound in inbounds), entries, tuple(sorted(named - {""})))

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

    def _look_outside(self) -> external.Outside | None:
        mesh, destination = self.key
        secret = partial(self._registry.identities.secret, mesh)
        if isinstance(destination, BackendPort):
            outside = None if self._backend is None else self._backend.outside
            return None if outside is None else external.Outside((), external.service_endpoints(outside, secret))
        return external.outside(self._registry.external_services(mesh, destination), secret, self._registry.clients)

    def _destination(self, cluster_name: str) -> Destination:
        if self._backend is not None:
            return self._of_backend(self._backend, cluster_name)
        service = self._tags.get(SERVICE_TAG, "")
        if self.outside is not None:
            # As in Kuma, what a mesh has outside comes before what it has within under the same tags.
            protocol = common_protocol(self.outside.protocols)
            return Destination(cluster_name, service, protocol, external=self.outside.endpoints)
        within = sorted(protocol for protocol, count in self._protocols.items() if count > 0)
        tls = self._tls((service,), server_name(self.key[0], self._tags))
        return Destination(cluster_name, service, common_protocol(within), tls=tls)

    def _of_backend(self, backend: Backend, cluster_name: str) -> Destination:
        if self.outside is not None:
            return Destination(cluster_name, cluster_name, backend.protocol, external=self.outside.endpoints)
        identities = tuple(sorted(service for service, count in self._identities.items() if count > 0))
        # While there is no instance nobody is taken for one.
        tls = self._tls(
            identities or (backend.display_name,),
            service_server_name(backend.mesh, backend.key.kind, backend.display_name, backend.number),
        )
        return Destination(cluster_name, cluster_name, backend.protocol, tls=tls, identities=identities)

    @property
    def subject(self) -> str | Subject:
        """What policies about it are about."""
        return self._tags.get(SERVICE_TAG, "") if self._backend is None else self._backend.subject

    def _tls(self, services: tuple[str, ...], sni: str) -> OutboundTls | None:
        mesh = self.key[0]
        identity = self._registry.identities.get(mesh)
        # While plaintext is let in too, TLS begins when all who serve can take it.
        if identity is None or (identity.is_permissive and self._unsecured):
            return None
        return OutboundTls(mesh=mesh, services=services, sni=sni)


class _Served(NamedTuple):
    """What a dataplane contributes: the protocols of its serving inbounds, their endpoints, its identities."""

    protocols: tuple[str, ...]
    entries: tuple[EndpointEntry, ...]
    identities: tuple[str, ...]


_NOTHING_SERVED = _Served((), (), ())
_NOTHING = Layer(())


def _backend(registry: Registry, mesh: str, destination: DestinationKey) -> Backend | None:
    if not isinstance(destination, BackendPort):
        return None
    backend = registry.backend(mesh, destination)
    assert backend is not None
    return backend


def cluster_name(tags: Mapping[str, str], backend: Backend | None) -> str:
    """The cluster of a destination: by its tags, or the port of a service that it is."""
    if backend is None:
        return names.cluster_name(tags)
    return names.service_cluster_name(
        backend.key.kind, mesh=backend.mesh, name=backend.display_name, zone=backend.zone, port=backend.number
    )


class Destinations:
    """What the connected nodes reach. Bounded by it."""

    def __init__(
        self, *, registry: Registry, addresses: Addresses, leds_threshold: int = 0, in_turns: bool = False
    ) -> None:
        """From `leds_threshold` endpoints on nodes that can take them one by one do; 0 is never.

        `in_turns`: no more than `READ_MAX` dataplanes are looked at for one question.
        """
        self.leds_threshold = leds_threshold
        self._in_turns = in_turns
        self._registry = registry
        self._addresses = addresses
        self._reached: dict[tuple[str, DestinationKey], Reached] = {}
        self.generation = 0
        """Another whenever what `get` gave is not what it would give now, but for endpoints that come by themselves."""

    def __len__(self) -> int:
        return len(self._reached)

    def find(self, mesh: str, destination: DestinationKey) -> Reached | None:
        """A destination that a connected node reaches; None for any other."""
        found = self._reached.get((mesh, destination))
        return found if found is not None and found.is_ready else None

    def get(self, mesh: str, destination: DestinationKey) -> Reached:
        """A destination as it is now; at first O(its endpoints). It is kept until the last of its `nodes` leaves.

        Raises `Unready` where it is asked in turns, and this one did not suffice.
        """
        key = (mesh, destination)
        reached = self._reached.get(key)
        if reached is None:
            reached = self._reached[key] = Reached(
                mesh,
                destination,
                registry=self._registry,
                addresses=self._addresses,
                end=self._end,
                leds_threshold=self.leds_threshold,
            )
        if not reached.is_ready:
            reached.read(READ_MAX if self._in_turns else None)
            if not reached.is_ready:
                raise Unready
        return reached

    def forget_unreached(self) -> None:
        """Let go of what was asked for by nodes that have gone since. O(destinations)."""
        for reached in list(self._reached.values()):
            reached.end_unless_reached()

    def follow(self, affected: Affected) -> Iterator[tuple[Reached, Moved]]:
        """Take in what has changed; the destinations that moved. O(what changed)."""
        for key in affected.vanished:
            # While no dataplane reaches it changes of it go unnoticed. Whoever had it has changed, and asks anew.
            if self._reached.pop(key, None) is not None:
                self.generation += 1
        for held in list(self._reached.values()) if affected.meshes else ():
            if held.key[0] in affected.meshes and (moved := held.renew()) is not Moved.NOTHING:
                self.generation += 1
                yield held, moved
        for key in affected.external:
            reached = self._reached.get(key)
            if reached is not None and (moved := reached.renew_external()) is not Moved.NOTHING:
                self.generation += 1
                yield reached, moved
        for key, changed in affected.destinations.items():
            reached = self._reached.get(key)
            if reached is not None:
                moved = reached.follow(changed, self._registry)
                self.generation += moved is Moved.PROTOCOL
                if moved is not Moved.NOTHING:
                    yield reached, moved

    def _end(self, reached: Reached) -> None:
        if self._reached.get(reached.key) is reached:
            del self._reached[reached.key]
            self.generation += 1
