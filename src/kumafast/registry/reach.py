"""Who reaches what in one mesh: by tags, both ways, from an index and never by a scan.

In: dataplanes that come, change and go, and what each reaches. Out: the dataplanes that serve a destination, the
destinations that a dataplane serves. Never: readiness, ports, protocols or routes; tags only.

Two indexes meet here. `TagIndex` answers "which dataplanes have an inbound with these tags" for one destination;
`SelectorSet` answers "which destinations does this inbound belong to" for one dataplane. Destinations are distinct tag
sets, of outbounds or of their routes: 10,000 proxies that reach `backend` are one selector.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, MutableMapping
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
        self._index: Index = TagIndex()
        self._names: MutableMapping[int, str] = {}
        self._ids: MutableMapping[str, int] = {}
        self._next_id = 0
        self._free_ids: list[int] = []
        self._inbounds: MutableMapping[str, tuple[TagSet, ...]] = {}
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
        forked._names, forked._ids = Overlay(self._names), Overlay(self._ids)
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
        for dataplane_id in self._index.match(TagSelector(dict(destination))):
            yield self._names[dataplane_id]

    def consumers(self, destination: Destination) -> frozenset[Consumer]:
        """Those that reach the destination."""
        return frozenset(name for each in self._sets.get(destination, ()) for name in self._members[each])

    def is_reached(self, destination: Destination) -> bool:
        """Whether some dataplane reaches the destination."""
        return destination in self._sets

    def destinations_served_by(self, name: str) -> list[Tags]:
        """Of the destinations that somebody reaches, those that this dataplane serves. O(tags + found)."""
        inbounds = self._inbounds.get(name)
        return self._served(inbounds) if inbounds else []

    def destinations_with(self, tags: Mapping[str, str]) -> list[Tags]:
        """Of the destinations that somebody reaches, those that an endpoint with these tags serves."""
        return self._served(TagSet(tags))

    def _served(self, endpoints: TagSet | tuple[TagSet, ...]) -> list[Tags]:
        if not self._destinations:
            return []
        return [self._destinations[selector_id] for selector_id, _ in self._selectors.match(endpoints)]

    def set(self, name: str, inbounds: Iterable[Mapping[str, str]]) -> None:
        """Take in a dataplane that is new or whose inbounds, given by their tags, may have changed."""
        self._set_inbounds(name, tuple(map(TagSet, inbounds)))

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
        dataplane_id = self._ids.pop(name)
        self._index.remove(dataplane_id)
        del self._names[dataplane_id]
        del self._inbounds[name]
        self._free_ids.append(dataplane_id)
        return self.consume(name, frozenset())

    def _set_inbounds(self, name: str, inbounds: tuple[TagSet, ...]) -> None:
        if self._inbounds.get(name) == inbounds:
            return
        dataplane_id = self._ids.get(name)
        if dataplane_id is None:
            # Ids are used again, so that the index stays dense however long the process lives.
            dataplane_id = self._free_ids.pop() if self._free_ids else self._next_id
            self._next_id = max(self._next_id, dataplane_id + 1)
            self._ids[name] = dataplane_id
            self._names[dataplane_id] = name
            self._index.add(dataplane_id, inbounds)
        else:
            self._index.update(dataplane_id, inbounds)
        self._inbounds[name] = inbounds

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
            self._selectors = self._selectors.added(fresh)

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
            self._selectors = self._selectors.removed(selector_ids)
            self._free_selector_ids.extend(selector_ids)
        return gone
