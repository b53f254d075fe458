"""The policies of one mesh, and whom a change of one can touch: from an index, never by a scan of the mesh.

In: dataplanes and compiled policies that come, change and go. Out: the `Bindings` of a dataplane and what it reaches;
the dataplanes for which a change of a policy makes a difference. Never: messages, or what a conf means.

A policy's dataplanes are an intersection of postings (`TagIndex`), a dataplane's policies come from one look-up for
each of its inbounds (`PolicySet`). A change of a policy is looked at only for the dataplanes that it selects or
selected and, where it is about some services, that reach one of these; it touches those whose outcome differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias
from weakref import WeakValueDictionary

from kumafast._core import TagIndex, TagSelector, TagSet
from kumafast.matching import PASS_THROUGH, Bindings, CompiledPolicy, PolicySet, candidates, routing
from kumafast.matching.backends import BackendPort, Subject, index_name
from kumafast.registry.backends import Backends
from kumafast.registry.overlay import Ids, Index, IndexOverlay, Overlay
from kumafast.registry.reach import Destination
from kumafast.resources import Dataplane, ResourceKey
from kumafast.resources.tags import SERVICE_TAG

LOOK_MAX = 64
"""How many dataplanes are looked at before everything else may have its turn: some milliseconds if all differ."""


_Way: TypeAlias = tuple[tuple[Destination, ...], frozenset[Destination] | None, bool]
"""Outbounds, what they lead to where that is not what their tags say, and whether all else is redirected too."""


class Policies:
    """One mesh's policies over its dataplanes. One writer; the event loop that owns the registry."""

    def __init__(self, backends: Backends) -> None:
        """`backends` say what policies about a port of a service are to go by."""
        self._backends = backends
        self._policies = PolicySet()
        self._numbers: MutableMapping[ResourceKey, int] = {}
        self._next_number = 0
        self._free_numbers: list[int] = []
        self._index: Index = TagIndex()
        self._ids: MutableMapping[str, int] = {}
        self._names: MutableMapping[int, str] = {}
        self._next_id = 0
        self._free_ids: list[int] = []
        self._dataplanes: MutableMapping[str, _Known] = {}
        self._consumers: MutableMapping[str, set[str]] = {}
        # What those are bound by that the last change of a policy was looked at for: they are asked for next.
        self._lately: dict[str, Bindings] = {}
        # What dataplanes reach, one for all that reach the same in the same way.
        self._outward: WeakValueDictionary[_Way, Outward] = WeakValueDictionary()
        # While there is none, nobody's routes are asked for.
        self._routing: MutableMapping[ResourceKey, None] = {}

    def fork(self, backends: Backends) -> Policies:
        """The same, to be changed on their own; they share with these, and are good until these change."""
        assert isinstance(self._index, TagIndex)
        forked = Policies(backends)
        forked._policies = self._policies
        forked._numbers = Overlay(self._numbers)
        # What comes gets new numbers: those that are free here are a list that is not to be copied.
        forked._next_number, forked._next_id = self._next_number, self._next_id
        forked._index = IndexOverlay(self._index)
        forked._ids, forked._names = Overlay(self._ids), Overlay(self._names)
        forked._dataplanes = Overlay(self._dataplanes)
        forked._consumers = Overlay(self._consumers, copy=set.copy)
        forked._outward = self._outward
        forked._routing = Overlay(self._routing)
        return forked

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a policy nor a dataplane."""
        return not self._numbers and not self._dataplanes

    def bindings(self, name: str) -> Bindings:
        """The policies of a dataplane. O(its tags + policies found)."""
        found = self._lately.get(name)
        if found is None:
            known = self._dataplanes[name]
            found = self._policies.bind(known.inbounds, known.gateway)
        return found

    def selected(self, selectors: Iterable[TagSelector]) -> set[str]:
        """The dataplanes that one of the selectors matches. O(those found)."""
        return {self._names[number] for selector in selectors for number in self._index.match(selector)}

    def candidates(self, name: str) -> tuple[TagSet, ...]:
        """What selectors are matched against for a dataplane; nothing where it is not known."""
        known = self._dataplanes.get(name)
        return () if known is None else known.candidates

    def destinations(self, name: str) -> frozenset[Destination]:
        """What a dataplane's outbounds lead to, under the routes of now; nothing where it is not known."""
        known = self._dataplanes.get(name)
        return frozenset() if known is None else known.outward.destinations

    # Dataplanes.

    def set_dataplane(self, name: str, dataplane: Dataplane, outbounds: tuple[Destination, ...]) -> None:
        """Take in a dataplane that is new or has changed, with what its outbounds ask for, each once."""
        before = self._dataplanes.get(name)
        found, inbounds = candidates(dataplane), len(dataplane.inbounds)
        known = self._known(found[:inbounds], found[inbounds:], outbounds, is_transparent=_is_transparent(dataplane))
        self._dataplanes[name] = known
        self._lately.pop(name, None)
        if before is None:
            # Ids are used again, so that the index stays dense however long the process lives.
            number = self._free_ids.pop() if self._free_ids else self._next_id
            self._next_id = max(self._next_id, number + 1)
            self._ids[name], self._names[number] = number, name
            self._index.add(number, known.candidates)
        elif before.candidates != known.candidates:
            self._index.update(self._ids[name], known.candidates)
        self._note_services(name, frozenset() if before is None else before.services, known.services)

    def _known(
        self,
        inbounds: tuple[TagSet, ...],
        gateway: tuple[TagSet, ...],
        outbounds: tuple[Destination, ...],
        *,
        is_transparent: bool,
    ) -> _Known:
        destinations: frozenset[Destination] | None = None
        if self._routing:
            bindings = self._policies.bind(inbounds, gateway)
            destinations = routing.reached((each, bindings.route(each)) for each in outbounds)
        key = (outbounds, destinations, is_transparent)
        outward = self._outward.get(key)
        if outward is None:
            reached = frozenset(outbounds) if destinations is None else destinations
            outward = self._outward[key] = Outward(outbounds, reached, is_transparent)
        return _Known(inbounds, gateway, outward)

    def remove_dataplane(self, name: str) -> None:
        """Forget a dataplane."""
        known = self._dataplanes.pop(name)
        self._lately.pop(name, None)
        number = self._ids.pop(name)
        del self._names[number]
        self._index.remove(number)
        self._free_ids.append(number)
        self._note_services(name, known.services, frozenset())

    def _note_services(self, name: str, before: frozenset[str], after: frozenset[str]) -> None:
        for service in before - after:
            self._consumers[service].discard(name)
            if not self._consumers[service]:
                del self._consumers[service]
        for service in after - before:
            self._consumers.setdefault(service, set()).add(name)

    # Policies.

    def set_policy(self, key: ResourceKey, policy: CompiledPolicy | None) -> Iterator[list[str]]:
        """Take in a policy, or None for one that is gone; the dataplanes for which that makes a difference.

        The policy counts at once, and what a dataplane reaches is another when it is named. Who is touched comes in
        pieces, each of at most `LOOK_MAX` dataplanes that were looked at; they have to be taken before anything else
        changes.
        """
        before = self._policies.get(self._numbers[key]) if key in self._numbers else None
        if before == policy:
            return iter(())
        old = self._policies
        self._policies = old.replaced(self._number(key), policy)
        if policy is None:
            self._free_numbers.append(self._numbers.pop(key))
        lately, self._lately = self._lately, {}
        if key.type in routing.KINDS:
            self._routing.pop(key, None)
            if policy is not None:
                self._routing[key] = None
        return self._touched(old, self._policies, before, policy, lately)

    def _number(self, key: ResourceKey) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._free_numbers.pop() if self._free_numbers else self._next_number
            self._next_number = max(self._next_number, number + 1)
            self._numbers[key] = number
        return number

    def _touched(
        self,
        old: PolicySet,
        new: PolicySet,
        before: CompiledPolicy | None,
        after: CompiledPolicy | None,
        lately: Mapping[str, Bindings],
    ) -> Iterator[list[str]]:
        """Those that one of the policies selects and is about, where the outcome of all policies differs."""
        policies = [policy for policy in (before, after) if policy is not None]
        about = _about(policies)
        inherits = new.inherits_from(old)
        is_routing = policies[0].key.type in routing.KINDS
        numbers = iter(self._selected(policies))
        # Most dataplanes are bound like others, and reach what others reach: then this is asked once for all of them.
        known: dict[tuple[Bindings, Bindings, frozenset[str] | Outward], bool] = {}
        while piece := list(islice(numbers, LOOK_MAX)):
            touched = []
            for number in piece:
                name = self._names[number]
                dataplane = self._dataplanes[name]
                was = lately.get(name) or old.bind(dataplane.inbounds, dataplane.gateway)
                now = new.inherit(was) if inherits else new.bind(dataplane.inbounds, dataplane.gateway)
                self._lately[name] = now
                subject = dataplane.outward if is_routing else _concerned(dataplane.outward, about)
                key = (was, now, subject)
                differs = known.get(key)
                if differs is None and is_routing:
                    differs = known[key] = _routes_differ(was, now, dataplane.outward)
                elif differs is None:
                    differs = known[key] = _differs(was, now, self._subjects(subject, about))
                if differs:
                    touched.append(name)
                    if is_routing:
                        self._reroute(name, dataplane)
            yield touched

    def _subjects(self, concerned: frozenset[str] | Outward, about: frozenset[str] | None) -> Iterator[str | Subject]:
        """What policies about some services, or about any, may say something of."""
        if not isinstance(concerned, Outward):
            yield from concerned
            return
        yield from concerned.tagged if about is None else concerned.tagged & about
        for port in concerned.ports:
            backend = self._backends.get(port)
            if backend is not None and (about is None or not about.isdisjoint(backend.subject.names)):
                yield backend.subject

    def _reroute(self, name: str, before: _Known) -> None:
        outward = before.outward
        known = self._dataplanes[name] = self._known(
            before.inbounds, before.gateway, outward.outbounds, is_transparent=outward.is_transparent
        )
        self._note_services(name, before.services, known.services)

    def _selected(self, policies: Sequence[CompiledPolicy]) -> Iterable[int]:
        """The numbers, ascending, of those that one of the policies selects; as far as it says something about them."""
        found: list[Sequence[int]] = []
        for policy in policies:
            chosen = [self._index.match(selector) for selector in policy.selectors]
            if policy.services is not None and not policy.inbound and policy.proxy is None:
                # Of those that it selects and those that reach its services, the fewer are looked at one by one.
                reaching = {self._ids[name] for each in policy.services for name in self._consumers.get(each, ())}
                if len(reaching) < sum(map(len, chosen)):
                    found.append([number for number in reaching if _is_in(number, chosen)])
                    continue
            found.extend(ids.to_array().tolist() for ids in chosen)
        if len(found) == 1 or (len(found) == 2 and found[0] == found[1]):
            return sorted(found[0])
        return sorted({number for numbers in found for number in numbers})


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Outward:
    """What dataplanes with the same outbounds and routes reach. One object for all of them."""

    outbounds: tuple[Destination, ...]
    """The tags of their outbounds."""
    destinations: frozenset[Destination]
    """What these lead to."""
    is_transparent: bool
    """Whether what they send is redirected to the proxy, which lets through what is for no service."""
    tagged: frozenset[str] = field(init=False)
    """The services of all by tags: a policy about the first is for a listener, about the second for a cluster."""
    ports: frozenset[BackendPort] = field(init=False)
    """The ports of services among them."""
    services: frozenset[str] = field(init=False)
    """Under which names policies are noted that may be about any of these: those services, and names for the ports."""

    def __post_init__(self) -> None:
        reached = dict.fromkeys((*self.outbounds, *self.destinations))
        ports = frozenset(each for each in reached if isinstance(each, BackendPort))
        named = (dict(each).get(SERVICE_TAG) for each in reached if not isinstance(each, BackendPort))
        tagged = frozenset({PASS_THROUGH} if self.is_transparent else ()) | {service for service in named if service}
        names = {name for port in ports for name in (index_name(port.kind, port.name), index_name(port.kind))}
        object.__setattr__(self, "tagged", tagged)
        object.__setattr__(self, "ports", ports)
        object.__setattr__(self, "services", tagged | names)


@dataclass(frozen=True, slots=True)
class _Known:
    """What policies see of a dataplane: its inbounds, what makes it a gateway, and what it reaches."""

    inbounds: tuple[TagSet, ...]
    gateway: tuple[TagSet, ...]
    outward: Outward

    @property
    def services(self) -> frozenset[str]:
        """The services that its listeners and clusters are about."""
        return self.outward.services

    @property
    def candidates(self) -> tuple[TagSet, ...]:
        """What policies are matched against."""
        return (*self.inbounds, *self.gateway)


def _about(policies: Iterable[CompiledPolicy]) -> frozenset[str] | None:
    """The services that one of the policies says something about; None where that is any."""
    found: frozenset[str] = frozenset()
    for policy in policies:
        if policy.services is None:
            return None
        found |= policy.services
    return found


def _is_transparent(dataplane: Dataplane) -> bool:
    proxying = None if dataplane.networking is None else dataplane.networking.transparent_proxying
    return proxying is not None and bool(proxying.redirect_port_outbound)


def _concerned(outward: Outward, about: frozenset[str] | None) -> frozenset[str] | Outward:
    """What of all that a dataplane reaches policies about some services, or any, are about; with ports all of it."""
    if outward.ports and (about is None or not about.isdisjoint(outward.services - outward.tagged)):
        return outward
    return outward.tagged if about is None else outward.tagged & about


def _routes_differ(was: Bindings, now: Bindings, outward: Outward) -> bool:
    return any(was.route(each) != now.route(each) for each in outward.outbounds)


def _differs(was: Bindings, now: Bindings, subjects: Iterable[str | Subject]) -> bool:
    return (
        was.proxy != now.proxy
        or any(was.outbound(subject) != now.outbound(subject) for subject in subjects)
        or any(was.inbound(position) != now.inbound(position) for position in range(len(was.inbounds)))
    )


def _is_in(number: int, chosen: Iterable[Ids]) -> bool:
    return any(number in ids for ids in chosen)
