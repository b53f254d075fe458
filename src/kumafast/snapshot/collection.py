"""The endpoints of one zone of a cluster as a collection, of which one change is one small resource (LEDS).

In: encoded `LbEndpoint`s that come and go. Out: `Collection`, immutable, and in what two of them differ;
`CollectionPointer`, the `ClusterLoadAssignment` that names collections instead of holding endpoints.
Never: the name that a client knows a collection by. It belongs to the client's stream, which adds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from immutables import Map

from kumafast._core import SnapshotDigest, digest
from kumafast.snapshot.resource import ENDPOINT, LB_ENDPOINT, XdsResource

_ID_LENGTH = 16
# A client that is so many changes behind has its difference worked out anew.
_DIFFERENCES_MAX = 8


def collection_id(cluster_name: str, zone: str) -> str:
    """What a collection goes by within kumafast: safe in a URL, whatever the names are."""
    return digest(f"{cluster_name}\0{zone}".encode()).hex()[:_ID_LENGTH]


class Difference(NamedTuple):
    """Members, by their ids."""

    added: Sequence[str]
    removed: Sequence[str]


Members = Mapping[str, bytes]
"""Encoded endpoints by their ids, which are digests of them: another content is another member."""


class Collection(XdsResource):
    """All endpoints of a zone. `name` is its id, `version` an order-free digest of its members; it has no body."""

    __slots__ = ("_differences", "members")

    def __init__(self, name: str, members: Members, *, version: str) -> None:
        super().__init__(LB_ENDPOINT, name, b"", version=version)
        self.members = members
        # By the identity of the members that a client has; those are kept, so that an identity is not used again.
        self._differences: dict[int, tuple[Members, Difference]] = {}

    def since(self, members: Members) -> Difference:
        """What came and went since those. O(all) for the first who asks."""
        known = self._differences.get(id(members))
        if known is None:
            added = [member for member in self.members if member not in members]
            removed = [member for member in members if member not in self.members]
            known = (members, Difference(added, removed))
            self.know(members, known[1])
        return known[1]

    def know(self, members: Members, difference: Difference) -> None:
        """Take note of what came and went since those."""
        while len(self._differences) >= _DIFFERENCES_MAX:
            del self._differences[next(iter(self._differences))]
        self._differences[id(members)] = (members, difference)


class CollectionBuilder:
    """The members of a collection as they change. One writer."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._members: Map[str, bytes] = Map()
        # Dataplanes may say the same of one address; Envoy has it once, and as long as one of them does.
        self._counts: dict[str, int] = {}
        self._digest = SnapshotDigest()
        self._built: Collection | None = None
        self._added: dict[str, None] = {}
        self._removed: dict[str, None] = {}

    def alter(self, removed: Iterable[bytes], added: Iterable[bytes]) -> None:
        """Take endpoints away and put others in. O(those)."""
        with_these = self._members.mutate()
        for body in removed:
            member = _member_id(body)
            self._counts[member] -= 1
            if not self._counts[member]:
                del self._counts[member], with_these[member]
                self._digest.remove(member, member)
                _move(member, here=self._removed, there=self._added)
        for body in added:
            member = _member_id(body)
            self._counts[member] = self._counts.get(member, 0) + 1
            if self._counts[member] == 1:
                with_these[member] = body
                self._digest.add(member, member)
                _move(member, here=self._added, there=self._removed)
        self._members = with_these.finish()

    def build(self) -> Collection:
        """The collection as it is now; it knows in what it differs from the one that was built before."""
        if self._built is None or self._added or self._removed:
            before = self._built
            self._built = Collection(self._name, self._members, version=self._digest.value.hex())
            if before is not None:
                self._built.know(before.members, Difference(list(self._added), list(self._removed)))
            self._added, self._removed = {}, {}
        return self._built


def _move(member: str, *, here: dict[str, None], there: dict[str, None]) -> None:
    if member in there:
        del there[member]
    else:
        here[member] = None


def _member_id(body: bytes) -> str:
    return digest(body).hex()[:_ID_LENGTH]


class CollectionPointer(XdsResource):
    """A `ClusterLoadAssignment` that names collections. It changes when zones come and go, not when endpoints do."""

    __slots__ = ("_encode", "collections")

    def __init__(self, cluster_name: str, collections: Sequence[str], encode: Callable[[Callable[[str], str]], bytes]):
        """`encode` makes the message, given what turns the id of a collection into the name that a client sees."""
        super().__init__(ENDPOINT, cluster_name, encode(str))
        self.collections = tuple(collections)
        self._encode = encode

    def named(self, name: Callable[[str], str], *, version: str) -> XdsResource:
        """The resource with the names that one client is given."""
        return XdsResource(ENDPOINT, self.name, self._encode(name), version=version)
