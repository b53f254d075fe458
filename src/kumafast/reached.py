"""What each destination is for all who reach it: a protocol, and endpoints that follow the dataplanes one by one.

In: a destination's tags, the dataplanes that serve it, addresses. Out: its `Destination` and its layer of endpoints;
which of the connected nodes have that layer, and where. Never: when a node is told.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import replace
from enum import Enum, auto
from functools import partial

from kumafast import external
from kumafast.addresses import Addresses
from kumafast.generation import endpoints, names
from kumafast.generation.proxy import Destination, Endpoint, ExternalEndpoint, OutboundTls
from kumafast.generation.tls import server_name
from kumafast.matching import common_protocol, serving_inbounds
from kumafast.registry import Affected, DataplaneId, Registry
from kumafast.registry.external_permissions import Clients
from kumafast.registry.reach import Destination as DestinationTags
from kumafast.resources import Dataplane, ExternalService, networking
from kumafast.resources.tags import SERVICE_TAG, ZONE_TAG
from kumafast.snapshot import EndpointEntry, Layer, LoadAssignment

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
        "_end",
        "_external",
        "_layer",
        "_leds_threshold",
        "_one_by_one",
        "_protocols",
        "_registry",
        "_served",
        "_tags",
        "_unread",
        "_unsecured",
        "destination",
        "key",
        "nodes",
        "permissions",
    )

    def __init__(
        self,
        mesh: str,
        tags: DestinationTags,
        *,
        registry: Registry,
        addresses: Addresses,
        end: Callable[[Reached], None],
        leds_threshold: int = 0,
    ) -> None:
        """Nothing is known of it until `read` has looked at all who serve it."""
        self.key = (mesh, tags)
        self._end = end
        self.nodes: dict[str, int] = {}
        """The connected nodes that have the layer, each with its place among the layers of the node's snapshot."""
        self._tags = dict(tags)
        self._registry = registry
        self._addresses = addresses
        # The dataplanes that serve it and have no certificate yet.
        self._unsecured: set[str] = set()
        # What each dataplane contributes: the protocols of its serving inbounds, and their endpoints.
        self._served: dict[str, tuple[tuple[str, ...], tuple[EndpointEntry, ...]]] = {}
        self._protocols: Counter[str] = Counter()
        cluster_name = names.cluster_name(self._tags)
        self._assignment = LoadAssignment(cluster_name)
        self._layer: Layer | None = None
        # The same for those who take endpoints one by one.
        self._one_by_one: Layer | None = None
        self._leds_threshold = leds_threshold
        # Names of dataplanes that serve it and have not been looked at; those that came since have.
        self._unread = [dataplane.name for dataplane in registry.providers(mesh, tags)]
        # Who serves it from outside of the mesh: their protocols and endpoints; None where nobody does.
        self._external = self._look_outside()
        self.permissions = self._look_who_may()
        """Of each endpoint outside of the mesh the external service that it is, and who may reach it."""
        self.destination = self._destination(cluster_name)
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
        self._external = self._look_outside()
        before, self.permissions = self.permissions, self._look_who_may()
        return Moved.PROTOCOL if self.renew() is Moved.PROTOCOL or before != self.permissions else Moved.NOTHING

    def permitted(self, services: Set[str]) -> Destination:
        """The cluster as a client sees it that may reach these external services."""
        endpoints = self.destination.external
        if not endpoints:
            return self.destination
        rest = tuple(each for each, (name, _) in zip(endpoints, self.permissions, strict=True) if name in services)
        return self.destination if len(rest) == len(endpoints) else replace(self.destination, external=rest)

    def follow(self, changed: Iterable[str], registry: Registry) -> Moved:
        """Look at these dataplanes of the mesh anew: O(those), whatever the number of endpoints."""
        mesh = self.key[0]
        if not self._alter((name, registry.dataplane(DataplaneId(mesh, name))) for name in changed):
            return Moved.NOTHING
        destination = self._destination(self.destination.cluster_name)
        if destination == self.destination:
            has_moved = self._layer is None and self._one_by_one is None and self._external is None
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
        forked.nodes = {}
        forked._unsecured, forked._served = self._unsecured.copy(), self._served.copy()
        forked._protocols, forked._assignment = self._protocols.copy(), self._assignment.copy()
        return forked

    def seen(self, *, one_by_one: bool = False) -> Layer:
        """`layer` for one who only looks: where it is not there yet, what is put together is not kept."""
        if self._external is not None:
            return _NOTHING
        if one_by_one and 0 < self._leds_threshold <= len(self._assignment):
            if self._one_by_one is not None:
                return self._one_by_one
            return self._assignment.copy().collections(endpoints.collection_assignment)
        return self._assignment.layer() if self._layer is None else self._layer

    def serving(self, name: str) -> tuple[EndpointEntry, ...]:
        """The endpoints that a dataplane contributes."""
        return self._served.get(name, ((), ()))[1]

    def leave(self, node_id: str) -> None:
        """A node does not reach this any more, and after the last one nobody does."""
        del self.nodes[node_id]
        if not self.nodes:
            self._end(self)

    def end_unless_reached(self) -> None:
        """Where this was asked for and then not needed: end it, unless a node has it."""
        if not self.nodes:
            self._end(self)

    def layer(self, *, one_by_one: bool = False) -> tuple[Layer, bool]:
        """The endpoints as one layer, and whether it was put together just now: it is when somebody first asks.

        `one_by_one` where the node can take them as collections: it does from so many endpoints on as is set.
        Endpoints outside of the mesh are in no layer; they stand in the cluster.
        """
        if self._external is not None:
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

    def _alter(self, dataplanes: Iterable[tuple[str, Dataplane | None]]) -> bool:
        """Whether anything is different now. The layer is dropped where the endpoints are."""
        removed: list[EndpointEntry] = []
        added: list[EndpointEntry] = []
        has_changed = False
        for name, dataplane in dataplanes:
            held = self._served.pop(name, ((), ()))
            serves = ((), ()) if dataplane is None else self._serves(dataplane)
            if serves != ((), ()):
                self._served[name] = serves
            has_changed |= self._note_secured(name, serves=serves != ((), ()))
            if serves == held:
                continue
            has_changed = True
            self._protocols.subtract(held[0])
            self._protocols.update(serves[0])
            if serves[1] != held[1]:
                removed.extend(held[1])
                added.extend(serves[1])
        if removed or added:
            self._assignment.alter(removed, added)
            self._layer = self._one_by_one = None
        return has_changed

    def _note_secured(self, name: str, *, serves: bool) -> bool:
        """Whether a dataplane has come to be the first, or ceased to be the last, that TLS cannot reach."""
        were_all = not self._unsecured
        if serves and not self._registry.is_secured(DataplaneId(self.key[0], name)):
            self._unsecured.add(name)
        else:
            self._unsecured.discard(name)
        return were_all != (not self._unsecured)

    def _serves(self, dataplane: Dataplane) -> tuple[tuple[str, ...], tuple[EndpointEntry, ...]]:
        inbounds = serving_inbounds(dataplane, self._tags)
        served = (self._endpoint(dataplane, inbound) for inbound in inbounds)
        entries = tuple(
            EndpointEntry.of(
                zone=endpoint.zone, order=endpoints.order(endpoint), lb_endpoint=endpoints.lb_endpoint(endpoint)
            )
            for endpoint in served
            if endpoint is not None
        )
        return tuple(inbound.protocol for inbound in inbounds), entries

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

    def _look_outside(self) -> tuple[tuple[str, ...], tuple[tuple[ExternalService, ExternalEndpoint], ...]] | None:
        mesh, tags = self.key
        services = self._registry.external_services(mesh, tags)
        if not services:
            return None
        secret = partial(self._registry.identities.secret, mesh)
        endpoints = ((service, external.endpoint(service, secret)) for service in services)
        protocols = sorted({service.protocol for service in services})
        return tuple(protocols), tuple((service, each) for service, each in endpoints if each is not None)

    def _look_who_may(self) -> tuple[tuple[str, Clients], ...]:
        if self._external is None:
            return ()
        return tuple((service.name, self._registry.clients(service)) for service, _ in self._external[1])

    def _destination(self, cluster_name: str) -> Destination:
        service = self._tags.get(SERVICE_TAG, "")
        if self._external is not None:
            # As in Kuma, what a mesh has outside comes before what it has within under the same tags.
            protocols, outside = self._external
            endpoints = tuple(endpoint for _, endpoint in outside)
            return Destination(cluster_name, service, common_protocol(protocols), external=endpoints)
        within = sorted(protocol for protocol, count in self._protocols.items() if count > 0)
        return Destination(cluster_name, service, common_protocol(within), tls=self._tls(service))

    def _tls(self, service: str) -> OutboundTls | None:
        mesh = self.key[0]
        identity = self._registry.identities.get(mesh)
        # While plaintext is let in too, TLS begins when all who serve can take it.
        if identity is None or (identity.is_permissive and self._unsecured):
            return None
        return OutboundTls(mesh=mesh, service=service, sni=server_name(mesh, self._tags))


_NOTHING = Layer(())


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
        self._reached: dict[tuple[str, DestinationTags], Reached] = {}
        self.generation = 0
        """Another whenever what `get` gave is not what it would give now, but for endpoints that come by themselves."""

    def __len__(self) -> int:
        return len(self._reached)

    def find(self, mesh: str, tags: DestinationTags) -> Reached | None:
        """A destination that a connected node reaches; None for any other."""
        found = self._reached.get((mesh, tags))
        return found if found is not None and found.is_ready else None

    def get(self, mesh: str, tags: DestinationTags) -> Reached:
        """A destination as it is now; at first O(its endpoints). It is kept until the last of its `nodes` leaves.

        Raises `Unready` where it is asked in turns, and this one did not suffice.
        """
        key = (mesh, tags)
        reached = self._reached.get(key)
        if reached is None:
            reached = self._reached[key] = Reached(
                mesh,
                tags,
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
            if not reached.nodes:
                self._end(reached)

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
