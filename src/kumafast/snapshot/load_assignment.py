"""The endpoints of one cluster, kept encoded: a change of one costs its place in the order and a join of bytes.

In: encoded `LbEndpoint`s, each with its zone and its place in the order. Out: a `Layer` with the
`ClusterLoadAssignment`, equal byte for byte to what protobuf writes for all of them.
Never: what an endpoint says; the bytes are not looked into.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from kumafast.snapshot import framing
from kumafast.snapshot.collection import CollectionBuilder, CollectionPointer, collection_id
from kumafast.snapshot.layer import Layer
from kumafast.snapshot.resource import ENDPOINT, XdsResource

# ClusterLoadAssignment { cluster_name = 1; endpoints = 2; policy = 4 }, Policy { overprovisioning_factor = 3 },
# LocalityLbEndpoints { locality = 1; lb_endpoints = 2; load_balancing_weight = 3; priority = 5 },
# Locality { zone = 2; sub_zone = 3 }, UInt32Value { value = 1 }: written by number, as protobuf does.
_CLUSTER_NAME, _LOCALITY_ENDPOINTS, _POLICY = 1, 2, 4
_OVERPROVISIONING = 3
_LOCALITY, _LB_ENDPOINTS, _WEIGHT, _PRIORITY = 1, 2, 3, 5
_ZONE, _SUB_ZONE = 2, 3
_VALUE = 1

EncodePointer = Callable[[str, Sequence[tuple[str, str]]], bytes]
"""Makes the encoded assignment of a cluster from its zones, each with the name of its collection."""

# Beyond this share of what is there, sorting anew is cheaper than putting one after the other in its place.
_SORT_SHARE = 16


Place: TypeAlias = tuple[str, str, int, int]
"""A zone, a part of it, a priority and a weight."""


class EndpointEntry(NamedTuple):
    """An encoded endpoint. Entries of one place and zone must have equal bytes: which of them stands first is open."""

    zone: str
    order: Any
    """Its place within the zone; comparable with that of every other entry."""
    framed: bytes
    """The `LbEndpoint` as the field of the locality that it is."""

    @property
    def lb_endpoint(self) -> bytes:
        """The `LbEndpoint` alone."""
        # Its field has a number below 16, so one byte of key stands before its length.
        start = 2
        while self.framed[start - 1] & 0x80:
            start += 1
        return self.framed[start:]

    @classmethod
    def of(cls, *, zone: str, order: object, lb_endpoint: bytes) -> EndpointEntry:
        """An entry from the bytes of an `LbEndpoint`."""
        return cls(zone, order, framing.opening(_LB_ENDPOINTS, len(lb_endpoint)) + lb_endpoint)


class _Locality:
    """The entries of one place, as two lists in step so that the bytes can be joined as they lie."""

    __slots__ = ("framed", "head", "orders", "size", "tail")

    def __init__(self, place: Place) -> None:
        zone, sub_zone, priority, weight = place
        locality = framing.text(_ZONE, zone) + framing.text(_SUB_ZONE, sub_zone)
        self.head = framing.opening(_LOCALITY, len(locality)) + locality if locality else b""
        number = framing.number(_VALUE, weight)
        self.tail = framing.opening(_WEIGHT, len(number)) + number if weight else b""
        self.tail += framing.number(_PRIORITY, priority)
        self.orders: list[Any] = []
        self.framed: list[bytes] = []
        self.size = len(self.head) + len(self.tail)

    def copy(self) -> _Locality:
        copied = _Locality(_NOWHERE)
        copied.head, copied.tail, copied.size = self.head, self.tail, self.size
        copied.orders, copied.framed = self.orders.copy(), self.framed.copy()
        return copied

    def add(self, entries: Sequence[EndpointEntry]) -> None:
        self.size += sum(len(entry.framed) for entry in entries)
        if len(entries) * _SORT_SHARE > len(self.orders):
            pairs = [*zip(self.orders, self.framed, strict=True), *((entry.order, entry.framed) for entry in entries)]
            pairs.sort(key=lambda pair: pair[0])
            self.orders = [order for order, _ in pairs]
            self.framed = [framed for _, framed in pairs]
            return
        for entry in entries:
            place = bisect_left(self.orders, entry.order)
            self.orders.insert(place, entry.order)
            self.framed.insert(place, entry.framed)

    def remove(self, entry: EndpointEntry) -> None:
        place = bisect_left(self.orders, entry.order)
        if place == len(self.orders) or self.framed[place] != entry.framed:
            raise KeyError(f"no such endpoint: {entry.order}")
        del self.orders[place]
        del self.framed[place]
        self.size -= len(entry.framed)


_NOWHERE: Place = ("", "", 0, 0)
_first = itemgetter(0)


def _by_zone(entry: EndpointEntry) -> Place:
    return entry.zone, "", 0, 0


class LoadAssignment:
    """The `ClusterLoadAssignment` of one cluster as it changes. One writer.

    With `place` it is that of those who see it so: an entry stands where that says, or nowhere. `overprovisioning` in
    percent; 0 is Envoy's own.

    >>> assignment = LoadAssignment("backend")
    >>> entry = EndpointEntry.of(zone="", order=1, lb_endpoint=b"abc")
    >>> assignment.alter([], [entry])
    >>> [resource.body for resource in assignment.layer()]
    [b'\\n\\x07backend\\x12\\x05\\x12\\x03abc']
    """

    def __init__(
        self,
        cluster_name: str,
        *,
        place: Callable[[EndpointEntry], Place | None] | None = None,
        overprovisioning: int = 0,
    ) -> None:
        self._cluster_name = cluster_name
        self._place = _by_zone if place is None else place
        factor = framing.number(_VALUE, overprovisioning)
        policy = framing.opening(_OVERPROVISIONING, len(factor)) + factor
        self._tail = framing.opening(_POLICY, len(policy)) + policy if overprovisioning else b""
        self._localities: dict[Place, _Locality] = {}
        # The same entries by zone as collections, once somebody has asked for them so.
        self._collections: dict[str, CollectionBuilder] | None = None

    def __len__(self) -> int:
        return sum(len(locality.orders) for locality in self._localities.values())

    def copy(self) -> LoadAssignment:
        """The same, to be changed on its own. O(entries), as copies of references."""
        copied = LoadAssignment(self._cluster_name, place=self._place)
        copied._tail = self._tail
        copied._localities = {zone: locality.copy() for zone, locality in self._localities.items()}
        return copied

    def alter(self, removed: Sequence[EndpointEntry], added: Sequence[EndpointEntry]) -> None:
        """Take entries away and put others in. Raises KeyError for one to be taken away that is not there.

        O(log entries) comparisons for each, and a move of pointers.
        """
        for place, entry in self._placed(removed):
            locality = self._localities.get(place)
            if locality is None:
                raise KeyError(f"no such endpoint: {entry.order}")
            locality.remove(entry)
            if not locality.orders:
                del self._localities[place]
        for place, pairs in groupby(sorted(self._placed(added), key=_first), key=_first):
            locality = self._localities.get(place)
            if locality is None:
                locality = self._localities[place] = _Locality(place)
            locality.add([entry for _, entry in pairs])
        if self._collections is not None:
            self._alter_collections(self._collections, removed, added)

    def _placed(self, entries: Sequence[EndpointEntry]) -> Iterator[tuple[Place, EndpointEntry]]:
        placed = ((self._place(entry), entry) for entry in entries)
        return ((place, entry) for place, entry in placed if place is not None)

    def _alter_collections(
        self, builders: dict[str, CollectionBuilder], removed: Sequence[EndpointEntry], added: Sequence[EndpointEntry]
    ) -> None:
        for zone in dict.fromkeys(entry.zone for entry in (*removed, *added)):
            builder = builders.get(zone)
            if builder is None:
                builder = builders[zone] = CollectionBuilder(collection_id(self._cluster_name, zone))
            builder.alter(
                [entry.lb_endpoint for entry in removed if entry.zone == zone],
                [entry.lb_endpoint for entry in added if entry.zone == zone],
            )
            if (zone, "", 0, 0) not in self._localities:
                del builders[zone]

    def layer(self) -> Layer:
        """The assignment as it is now, zones in order. One join of the bytes of all entries."""
        pieces = [framing.text(_CLUSTER_NAME, self._cluster_name)]
        for _, locality in sorted(self._localities.items()):
            pieces.append(framing.opening(_LOCALITY_ENDPOINTS, locality.size))
            pieces.append(locality.head)
            pieces.extend(locality.framed)
            pieces.append(locality.tail)
        pieces.append(self._tail)
        return Layer([XdsResource(ENDPOINT, self._cluster_name, b"".join(pieces))])

    def collections(self, encode: EncodePointer) -> Layer:
        """The same endpoints one by one: the assignment that names a collection for each zone, and the collections.

        O(what changed) after the first time. `encode` makes that assignment of a cluster, and of its zones with names.
        """
        if self._collections is None:
            self._collections = {}
            everything = [
                EndpointEntry(zone, None, framed)
                for (zone, *_), locality in self._localities.items()
                for framed in locality.framed
            ]
            self._alter_collections(self._collections, [], everything)
        in_order = sorted(self._collections.items())
        cluster_name, ids = (
            self._cluster_name,
            [(zone, collection_id(self._cluster_name, zone)) for zone, _ in in_order],
        )
        pointer = CollectionPointer(
            cluster_name,
            [name for _, name in ids],
            lambda name: encode(cluster_name, [(zone, name(collection)) for zone, collection in ids]),
        )
        return Layer([pointer, *(builder.build() for _, builder in in_order)])
