"""Who reaches what in one mesh: by tags, both ways, from an index and never by a scan.

In: dataplanes that come, change and go, and what each reaches. Out: the dataplanes that serve a destination, the
destinations that a dataplane serves. Never: readiness, ports, protocols or routes; tags only.

Two indexes meet here. `TagIndex` answers "which dataplanes have an inbound with these tags" for one destination;
`SelectorSet` answers "which destinations does this inbound belong to" for one dataplane. Destinations are distinct tag
sets, of outbounds or of their routes: 10,000 proxies that reach `backend` are one selector. Dataplanes whose inbounds
have the same tags are one class, which is indexed once: one more instance of a service costs an entry.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, MutableMapping
from typing import TypeAlias

from kumafast._core import SelectorSet, TagIndex, TagSelector, TagSet
from kumafast.matching.backends import BackendPort
from kumafast.registry.overlay import Index, IndexOverlay, Overlay

Tags: TypeAlias = tuple[tuple[str, str], ...]
"""Tags as pairs, sorted by key."""
Destination: TypeAlias = Tags | BackendPort
"""The name of what outbounds lead to within a mesh: the tags that endpoints must have, or a port of a service."""

Consumer: TypeAlias = Hashable
"""Who reaches destinations: a dataplane by its name, or what many dataplanes have in common."""


def destination_of(tags: Mapping[str, str]) -> Tags:
    """The destination that an outbound with these tags leads to."""
    return tuple(sorted(tags.items())) if len(tags) > 1 else tuple(tags.items())


class Reach:
    """The two indexes of one mesh. One writer; the event loop that owns the registry."""

    def __init__(self) -> None:
        # Of classes, by their ids; the dataplanes of each, in the order in which they came.
        self._index: Index = TagIndex()
        self._alike: MutableMapping[int, dict[str, None]] = {}
        self._ids: MutableMapping[tuple[TagSet, ...], int] = {}
        self._classes: MutableMapping[int, tuple[TagSet, ...]] = {}
        self._next_id = 0
        self._free_ids: list[int] = []
        self._inbounds: MutableMapping[str, tuple[TagSet, ...]] = {}
        # What each class serves, as far as somebody asked and the selectors are what they were then.
        self._serving: dict[tuple[TagSet, ...], list[Tags]] = {}
        self._selectors = SelectorSet()
        # Those by tags; who serves a port of a service its own selector says.
        self._selector_ids: MutableMapping[Tags, int] = {}
        self._destinations: MutableMapping[int, Tags] = {}
        self._consumed: MutableMapping[Consumer, frozenset[Destination]] = {}
        # Those who reach the same are noted with it once, so that to be one more of them costs one entry; and for each
        # destination which of these sets it is in.
        self._members: MutableMapping[frozenset[Destination], set[Consumer]] = {}
        self._sets: MutableMapping[Destination, set[frozenset[Destination]]] = {}
        self._next_selector_id = 0
        self._free_selector_ids: list[int] = []

    def fork(self) -> Reach:
        """The same, to be changed on its own; it shares with this, and is good until this changes."""
        assert isinstance(self._index, TagIndex)
        forked = Reach()
        forked._index = IndexOverlay(self._index)
        forked._ids, forked._classes = Overlay(self._ids), Overlay(self._classes)
        forked._alike = Overlay(self._alike, copy=dict.copy)
        # What comes gets new numbers: those that are free here are lists that are not to be copied.
        forked._next_id, forked._next_selector_id = self._next_id, self._next_selector_id
        forked._inbounds = Overlay(self._inbounds)
        forked._selectors = self._selectors
        forked._selector_ids = Overlay(self._selector_ids)
        forked._destinations = Overlay(self._destinations)
        forked._consumed = Overlay(self._consumed)
        forked._members = Overlay(self._members, copy=set.copy)
        forked._sets = Overlay(self._sets, copy=set.copy)
        return forked

    def providers(self, destination: Tags) -> Iterator[str]:
        """Names of the dataplanes with an inbound that has all tags of the destination. O(those found)."""
        for class_id in self._index.match(TagSelector(dict(destination))):
            yield from self._alike[class_id]

    def consumers(self, destination: Destination) -> frozenset[Consumer]:
        """Those that reach the destination."""
        return frozenset(name for each in self._sets.get(destination, ()) for name in self._members[each])

    def is_reached(self, destination: Destination) -> bool:
        """Whether some dataplane reaches the destination."""
        return destination in self._sets

    def destinations_served_by(self, name: str) -> list[Tags]:
        """Of the destinations that somebody reaches, those that this dataplane serves: found once for its class."""
        inbounds = self._inbounds.get(name)
        if not inbounds:
            return []
        found = self._serving.get(inbounds)
        if found is None:
            found = self._serving[inbounds] = self._served(inbounds)
        return found

    def destinations_with(self, tags: Mapping[str, str]) -> list[Tags]:
        """Of the destinations that somebody reaches, those that an endpoint with these tags serves."""
        return self._served(TagSet(tags))

    def _served(self, endpoints: TagSet | tuple[TagSet, ...]) -> list[Tags]:
        if not self._destinations:
            return []
        return [self._destinations[selector_id] for selector_id, _ in self._selectors.match(endpoints)]

    def set(self, name: str, inbounds: tuple[TagSet, ...]) -> None:
        """Take in a dataplane that is new or whose inbounds, given by their tags, may have changed."""
        before = self._inbounds.get(name)
        if before == inbounds:
            return
        if before is not None:
            self._leave(name, before)
        class_id = self._ids.get(inbounds)
        if class_id is None:
            # Ids are used again, so that the index stays dense however long the process lives.
            class_id = self._free_ids.pop() if self._free_ids else self._next_id
            self._next_id = max(self._next_id, class_id + 1)
            self._ids[inbounds], self._classes[class_id], self._alike[class_id] = class_id, inbounds, {}
            self._index.add(class_id, inbounds)
        self._alike[class_id][name] = None
        # One object for all of them.
        self._inbounds[name] = self._classes[class_id]

    def _leave(self, name: str, inbounds: tuple[TagSet, ...]) -> None:
        """A dataplane is no longer one of those with such inbounds."""
        class_id = self._ids[inbounds]
        alike = self._alike[class_id]
        del alike[name]
        if not alike:
            del self._ids[inbounds], self._classes[class_id], self._alike[class_id]
            self._index.remove(class_id)
            self._free_ids.append(class_id)
            self._serving.pop(inbounds, None)

    def consume(self, consumer: Consumer, destinations: frozenset[Destination]) -> list[Destination]:
        """A consumer reaches these destinations now; those that nobody reaches any more."""
        before = self._consumed.get(consumer, frozenset())
        if before == destinations:
            return []
        if destinations:
            self._consumed[consumer] = destinations
            members = self._members.get(destinations)
            if members is None:
                members = self._members[destinations] = set()
                self._add_set(destinations)
            members.add(consumer)
        else:
            del self._consumed[consumer]
        if not before:
            return []
        members = self._members[before]
        members.discard(consumer)
        if members:
            return []
        del self._members[before]
        return self._remove_set(before)

    def remove(self, name: str) -> list[Destination]:
        """Forget a dataplane; the destinations that nobody reaches any more."""
        self._leave(name, self._inbounds.pop(name))
        return self.consume(name, frozenset())

    def _add_set(self, destinations: frozenset[Destination]) -> None:
        fresh: list[tuple[int, TagSelector]] = []
        for destination in destinations:
            self._sets.setdefault(destination, set()).add(destinations)
            if isinstance(destination, BackendPort) or destination in self._selector_ids:
                continue
            selector_id = self._free_selector_ids.pop() if self._free_selector_ids else self._next_selector_id
            self._next_selector_id = max(self._next_selector_id, selector_id + 1)
            self._selector_ids[destination] = selector_id
            self._destinations[selector_id] = destination
            fresh.append((selector_id, TagSelector(dict(destination))))
        if fresh:
            self._select(self._selectors.added(fresh))

    def _remove_set(self, destinations: frozenset[Destination]) -> list[Destination]:
        gone: list[Destination] = []
        for destination in destinations:
            sets = self._sets[destination]
            sets.discard(destinations)
            if not sets:
                del self._sets[destination]
                gone.append(destination)
        by_tags = [destination for destination in gone if not isinstance(destination, BackendPort)]
        if by_tags:
            selector_ids = [self._selector_ids.pop(destination) for destination in by_tags]
            for selector_id in selector_ids:
                del self._destinations[selector_id]
            self._select(self._selectors.removed(selector_ids))
            self._free_selector_ids.extend(selector_ids)
        return gone

    def _select(self, selectors: SelectorSet) -> None:
        self._selectors = selectors
        self._serving.clear()
