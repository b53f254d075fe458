"""Collections of endpoints on one stream: the names that its client knows them by, and what of them it holds.

In: the client's names, drafts that hold `CollectionPointer`s and `Collection`s. Out: the same with the client's names,
each collection as the members that came and went. Never: when something is sent; that is as for any other type.

A client that comes back says of no member what it holds, and keeps those that went meanwhile. A cluster that is sent
anew does not get the members of a collection that its client has subscribed to before. So a collection gets a name that
was never used each time that its pointer is sent: the client then asks for all of it, and forgets the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from kumafast.snapshot.collection import Collection, CollectionPointer, Members
from kumafast.snapshot.resource import LB_ENDPOINT, XdsResource
from kumafast.stream.messages import Request
from kumafast.stream.subscription import WILDCARD

# What a client knows by another name is none of ours, and is left alone.
_PREFIX = "xdstp:///envoy.config.endpoint.v3.LbEndpoint/kumafast-"
_NOTHING: Members = {}


@dataclass(slots=True)
class _Held:
    """What a client has of one collection."""

    epoch: str
    members: Members = field(default_factory=lambda: _NOTHING)
    doubtful: frozenset[str] = frozenset()
    """Members of a response that was refused: it may have them or not."""
    before: tuple[Members, frozenset[str]] | None = None
    """What it had, for as long as it has not answered."""


class Collections:
    """What one stream knows of collections."""

    def __init__(self, epoch: str) -> None:
        """`epoch` is part of all names; no other stream of a client may have had it."""
        self._epoch = epoch
        self._pointers = 0
        self._held: dict[str, _Held] = {}
        self.awaited: set[str] = set()
        """Collections that the client was pointed to and has not been sent: their clusters are not warm."""

    def copy(self) -> Collections:
        """The same, which goes its own way from here."""
        twin = Collections(self._epoch)
        twin._pointers = self._pointers
        twin._held = {name: replace(held) for name, held in self._held.items()}
        twin.awaited = self.awaited.copy()
        return twin

    def read(self, request: Request) -> Request:
        """A request for collections by their ids; a client that asks for one has nothing of it.

        Names of other epochs mean nothing any more: a client that comes back asks for those of its last stream first.
        """
        subscribe, unsubscribe = list(self._ids(request.subscribe)), list(self._ids(request.unsubscribe))
        for name in subscribe:
            if name in self._held:
                self._held[name] = _Held(self._held[name].epoch)
        if request.subscribe and not subscribe:
            # It has asked for something, so that asking for nothing is not asking for everything (rule 25).
            unsubscribe.append(WILDCARD)
        return request._replace(subscribe=subscribe, unsubscribe=unsubscribe)

    def _ids(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            if not name.startswith(_PREFIX):
                yield name
                continue
            epoch, _, rest = name.removeprefix(_PREFIX).partition("/")
            collection, _, member = rest.partition("/")
            held = self._held.get(collection)
            if member == "*" and held is not None and held.epoch == epoch:
                yield collection

    def point(self, resources: Sequence[XdsResource]) -> Sequence[XdsResource]:
        """Load assignments as this client is sent them: those that name collections name new ones."""
        if not any(isinstance(resource, CollectionPointer) for resource in resources):
            return resources
        return [self._named(item) if isinstance(item, CollectionPointer) else item for item in resources]

    def _named(self, pointer: CollectionPointer) -> XdsResource:
        self._pointers += 1
        epoch = f"{self._epoch}-{self._pointers}"
        for collection in pointer.collections:
            self._held[collection] = _Held(epoch)
            self.awaited.add(collection)
        # No version that a later stream's client may claim is one of the snapshot's: there it is sent again.
        return pointer.named(lambda collection: _name(epoch, collection, "*"), version=f"{epoch}.{pointer.version}")

    def expand(
        self, resources: Sequence[XdsResource], removed: Sequence[str]
    ) -> tuple[Sequence[XdsResource], Sequence[str]]:
        """Collections that have changed or gone, as the members that came and went."""
        came: list[XdsResource] = []
        went: list[str] = []
        for collection in resources:
            held = self._held.get(collection.name)
            if held is None or not isinstance(collection, Collection):
                came.append(collection)
                continue
            self.awaited.discard(collection.name)
            added, gone = collection.since(held.members)
            again = [member for member in held.doubtful if member in collection.members and member not in added]
            for member in (*added, *again):
                name = _name(held.epoch, collection.name, member)
                came.append(XdsResource(LB_ENDPOINT, name, collection.members[member], version=member))
            left = {*gone, *(member for member in held.doubtful if member not in collection.members)}
            went.extend(_name(held.epoch, collection.name, member) for member in sorted(left))
            held.before = (held.members, held.doubtful)
            held.members, held.doubtful = collection.members, frozenset()
        for collection_id in removed:
            held = self._held.pop(collection_id, None)
            self.awaited.discard(collection_id)
            if held is None:
                went.append(collection_id)
            else:
                left = {*held.members, *held.doubtful}
                went.extend(_name(held.epoch, collection_id, member) for member in sorted(left))
        return came, went

    def land(self, *, is_rejected: bool) -> None:
        """The client has answered the last response of members."""
        for held in self._held.values():
            if held.before is not None and is_rejected:
                members, doubtful = held.before
                moved = {member for member in held.members if member not in members}
                moved.update(member for member in members if member not in held.members)
                held.doubtful = doubtful | moved
            held.before = None


def _name(epoch: str, collection: str, member: str) -> str:
    return f"{_PREFIX}{epoch}/{collection}/{member}"
