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
from itertools import chain, islice
from typing import TypeAlias
from weakref import WeakValueDictionary

from kumafast import memo
from kumafast._core import TagIndex, TagSelector, TagSet
from kumafast.matching import PASS_THROUGH, Bindings, CompiledPolicy, PolicySet, candidates, routing
from kumafast.matching.backends import BackendPort, Subject, index_name, noted_names
from kumafast.matching.policy import ANY_SERVICE
from kumafast.registry.address_book import AddressBook
from kumafast.registry.backends import Backends
from kumafast.registry.overlay import Ids, Index, IndexOverlay, Overlay
from kumafast.registry.reach import Destination
from kumafast.registry.viewpoints import Viewpoint
from kumafast.registry.virtual_hosts import Naming, Sight, VirtualHosts
from kumafast.resources import Dataplane, ResourceKey
from kumafast.resources.tags import SERVICE_TAG

_SUBJECTS_MAX = 256

LOOK_MAX = 64
"""How many dataplanes are looked at before everything else may have its turn: some milliseconds if all differ."""

WINDOW_MAX = 8_192
"""How many dataplanes are put into an order at a time: some milliseconds."""


_Way: TypeAlias = tuple[
    tuple[Destination, ...], frozenset[Destination] | None, frozenset[str], bool, Viewpoint | None, bool
]
"""Outbounds, what they lead to where that is not what their tags say, by which MeshHTTPRoutes, whether all else is
redirected too, from where names are seen, and whether it is the way of gateways."""


class Policies:
    """One mesh's policies over its dataplanes. One writer; the event loop that owns the registry."""

    def __init__(self, hosts: VirtualHosts | None = None, backends: Backends | None = None) -> None:
        """`hosts` are the names that dataplanes of the mesh see, `backends` its services."""
        self._hosts = hosts or VirtualHosts(AddressBook(), Naming())
        self._backends = Backends() if backends is None else backends
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
        # Those who reach the same are noted with it once, and it for each of its services.
        self._members: MutableMapping[Outward, set[str]] = {}
        self._reaching: MutableMapping[str, set[Outward]] = {}
        # What those are bound by that the last change of a policy was looked at for: they are asked for next.
        self._lately: dict[str, Bindings] = {}
        # What dataplanes reach, one for all that reach the same in the same way.
        self._outward: WeakValueDictionary[_Way, Outward] = WeakValueDictionary()
        # The services that names lead to, by who sees these.
        self._led: MutableMapping[Viewpoint, frozenset[str]] = {}
        # The services that proxies reach that see names, for those who are asked about any service.
        self._subjects: dict[tuple[Outward, frozenset[str]], frozenset[str]] = {}
        # While there is none, nobody's routes are asked for.
        self._routing: MutableMapping[ResourceKey, None] = {}
        # Those of the older family, which a newer one silences for all services of its proxies.
        self._older_routing: MutableMapping[ResourceKey, None] = {}

    def fork(self, hosts: VirtualHosts, backends: Backends) -> Policies:
        """The same over a fork of names and services, to be changed on their own; they are good until these change."""
        assert isinstance(self._index, TagIndex)
        forked = Policies(hosts, backends)
        forked._policies = self._policies
        forked._numbers = Overlay(self._numbers)
        # What comes gets new numbers: those that are free here are a list that is not to be copied.
        forked._next_number, forked._next_id = self._next_number, self._next_id
        forked._index = IndexOverlay(self._index)
        forked._ids, forked._names = Overlay(self._ids), Overlay(self._names)
        forked._dataplanes = Overlay(self._dataplanes)
        forked._members = Overlay(self._members, copy=set.copy)
        forked._reaching = Overlay(self._reaching, copy=set.copy)
        forked._outward, forked._led = self._outward, Overlay(self._led)
        forked._routing, forked._older_routing = Overlay(self._routing), Overlay(self._older_routing)
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

    def led(self, seen_from: Viewpoint, sight: Sight) -> frozenset[Destination]:
        """All that what is seen may lead to, whichever of the routes holds for who goes there."""
        if not sight.hosts:
            self._led.pop(seen_from, None)
            return sight.destinations
        if not self._routing:
            self._led[seen_from] = sight.services
            return sight.destinations
        routes = [self._policies.get(self._numbers[key]) for key in self._routing]
        found = set(sight.destinations)
        for asked in sight.destinations:
            subject = self.subject(asked)
            if subject is None:
                continue
            for policy in routes:
                said = ({policy.key.type: item.conf} for item in policy.items_for(subject))
                found |= routing.reached((asked, routing.route(asked, each)) for each in said)
        services = (name for destination in found for name in noted_names(destination))
        ruling = (index_name(key.type, key.name) for key in self._routing if key.type == routing.REQUESTS)
        self._led[seen_from] = sight.services | frozenset(chain(services, ruling))
        return frozenset(found)

    def subject(self, destination: Destination) -> str | Subject | None:
        """What policies about a destination are about: a service by its name, or a port of one that is there."""
        if not isinstance(destination, BackendPort):
            return dict(destination).get(SERVICE_TAG, "")
        backend = self._backends.get(destination)
        return None if backend is None else backend.subject

    def led_by_name(self, service: str) -> set[str]:
        """The dataplanes that routes may lead elsewhere where a service is something else than before."""
        return set(self.reaching(service)) if self._routing else set()

    # Dataplanes.

    def set_dataplane(
        self,
        name: str,
        dataplane: Dataplane,
        outbounds: tuple[Destination, ...],
        *,
        seen_from: Viewpoint | None = None,
        listeners: tuple[TagSet, ...] | None = None,
    ) -> None:
        """Take in a dataplane that is new or has changed, with what its outbounds ask for, each once, and from where
        it sees names. A built-in gateway has listeners in the place of inbounds, and what they lead to is asked for."""
        memo.note_change(memo.DATAPLANE)
        before = self._dataplanes.get(name)
        found, inbounds = candidates(dataplane), len(dataplane.inbounds)
        known = self._known(
            found[:inbounds] if listeners is None else listeners,
            found[inbounds:],
            outbounds,
            is_transparent=listeners is None and _is_transparent(dataplane),
            seen_from=seen_from,
            is_gateway=listeners is not None,
        )
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
        self._move(name, None if before is None else before.outward, known.outward)

    def _known(
        self,
        inbounds: tuple[TagSet, ...],
        gateway: tuple[TagSet, ...],
        outbounds: tuple[Destination, ...],
        *,
        is_transparent: bool,
        seen_from: Viewpoint | None,
        is_gateway: bool = False,
    ) -> _Known:
        destinations: frozenset[Destination] | None = None
        ruling: frozenset[str] = frozenset()
        if self._routing and not is_gateway:
            bindings = self._policies.bind(inbounds, gateway)
            routes = [(each, bindings.route(each, self.subject(each))) for each in outbounds]
            destinations, ruling = routing.reached(routes), routing.origins(routes)
        key = (outbounds, destinations, ruling, is_transparent, seen_from, is_gateway)
        outward = self._outward.get(key)
        if outward is None:
            reached = frozenset(outbounds) if destinations is None else destinations
            outward = Outward(outbounds, reached, is_transparent, seen_from, is_gateway, ruling)
            self._outward[key] = outward
        return _Known(inbounds, gateway, outward)

    def remove_dataplane(self, name: str) -> None:
        """Forget a dataplane."""
        known = self._dataplanes.pop(name)
        self._lately.pop(name, None)
        number = self._ids.pop(name)
        del self._names[number]
        self._index.remove(number)
        self._free_ids.append(number)
        self._move(name, known.outward, None)

    def _move(self, name: str, before: Outward | None, after: Outward | None) -> None:
        """Note that a dataplane is one of those who reach something, and no longer of those whom it was one of."""
        if before is after:
            return
        if after is not None:
            members = self._members.get(after)
            if members is None:
                members = self._members[after] = set()
                for service in after.services:
                    self._reaching.setdefault(service, set()).add(after)
            members.add(name)
        if before is not None:
            members = self._members[before]
            members.discard(name)
            if not members:
                del self._members[before]
                for service in before.services:
                    self._reaching[service].discard(before)
                    if not self._reaching[service]:
                        del self._reaching[service]

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
        memo.note_change(memo.POLICY)
        old = self._policies
        self._policies = old.replaced(self._number(key), policy)
        if policy is None:
            self._free_numbers.append(self._numbers.pop(key))
        lately, self._lately = self._lately, {}
        if key.type in routing.KINDS:
            for held in (self._routing, *((self._older_routing,) if key.type == routing.OLDER else ())):
                held.pop(key, None)
                if policy is not None:
                    held[key] = None
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
        selected = self._side_by_side(self._selected(policies))
        # Most dataplanes are bound like others, and reach what others reach: then this is asked once for all of them.
        known: dict[tuple[Bindings, Bindings, frozenset[str] | Outward, bool], bool] = {}
        while piece := list(islice(selected, LOOK_MAX)):
            touched = []
            for name, dataplane in piece:
                was = lately.get(name) or old.bind(dataplane.inbounds, dataplane.gateway)
                now = new.inherit(was) if inherits else new.bind(dataplane.inbounds, dataplane.gateway)
                self._lately[name] = now
                subject: frozenset[str] | Outward = dataplane.outward
                if not is_routing:
                    subject = self._subject(dataplane.outward, about)
                key = (was, now, subject, dataplane.outward.is_gateway)
                differs = known.get(key)
                if differs is None:
                    if dataplane.outward.is_gateway:
                        differs = known[key] = self._differs_at_gateway(was, now, subject)
                    else:
                        differs = known[key] = self._differs(was, now, subject)
                if differs:
                    touched.append(name)
                    if is_routing:
                        self._reroute(name, dataplane)
            yield touched

    def _side_by_side(self, numbers: Iterable[int]) -> Iterator[tuple[str, _Known]]:
        """These dataplanes, those that reach the same one after the other, as far as that is seen without a long look.

        What they share is then made, encoded and sent while the processor has it at hand.
        """
        rest = iter(numbers)
        while window := list(islice(rest, WINDOW_MAX)):
            alike: dict[Outward, list[tuple[str, _Known]]] = {}
            for name in map(self._names.__getitem__, window):
                known = self._dataplanes[name]
                alike.setdefault(known.outward, []).append((name, known))
            yield from chain.from_iterable(alike.values())

    def _subject(self, outward: Outward, about: frozenset[str] | None) -> frozenset[str]:
        """The services that a dataplane reaches, of those that are asked about."""
        if outward.seen_from is None:
            return outward.services if about is None else outward.services & about
        seen = self._led.get(outward.seen_from, frozenset())
        if about is None:
            # Asked once for all who see the same: a union for each of them would cost what they see.
            key = (outward, seen)
            found = self._subjects.get(key)
            if found is None:
                if len(self._subjects) >= _SUBJECTS_MAX:
                    self._subjects.clear()
                found = self._subjects[key] = outward.services | seen
            return found
        return (outward.services & about) | (seen & about)

    def _differs(self, was: Bindings, now: Bindings, subject: frozenset[str] | Outward) -> bool:
        if isinstance(subject, Outward):
            seen = () if subject.seen_from is None else self._hosts.sight(subject.seen_from).destinations
            asked = ((each, self.subject(each)) for each in chain(subject.outbounds, seen))
            return any(was.route(*each) != now.route(*each) for each in asked)
        return (
            was.proxy != now.proxy
            or any(was.outbound(each) != now.outbound(each) for name in subject for each in self._meant(name))
            or any(was.inbound(position) != now.inbound(position) for position in range(len(was.inbounds)))
        )

    def _differs_at_gateway(self, was: Bindings, now: Bindings, subject: frozenset[str] | Outward) -> bool:
        """The same for what is taken in by listeners, and sent on by each under its own policies."""
        if isinstance(subject, Outward):
            # Where listeners lead is not a matter of policies about services.
            return False
        listeners = range(len(was.inbounds))
        # Of what is said of any service there is no cluster.
        return self._differs(was, now, subject - {ANY_SERVICE}) or any(
            was.through(position).outbound(each) != now.through(position).outbound(each)
            for position in listeners
            for name in subject
            for each in self._meant(name)
        )

    def _meant(self, name: str) -> Iterator[str | Subject]:
        """What policies may be about that are noted under a name: a service by tags, or the ports of one."""
        kind, is_of_ports, service = name.partition("/")
        if not is_of_ports:
            yield name
        elif kind == routing.REQUESTS:
            yield Subject(kind, service, "", ())
        elif service:
            yield from (backend.subject for backend in self._backends.ports(kind, service))

    def _reroute(self, name: str, before: _Known) -> None:
        outward = before.outward
        known = self._dataplanes[name] = self._known(
            before.inbounds,
            before.gateway,
            outward.outbounds,
            is_transparent=outward.is_transparent,
            seen_from=outward.seen_from,
            is_gateway=outward.is_gateway,
        )
        self._move(name, outward, known.outward)

    def _is_narrow(self, policy: CompiledPolicy) -> bool:
        """Whether it makes a difference for those alone who reach a service that it names."""
        if policy.inbound or policy.proxy is not None:
            return False
        is_newer = policy.key.type in routing.KINDS and policy.key.type != routing.OLDER
        return not (is_newer and self._older_routing)

    def _selected(self, policies: Sequence[CompiledPolicy]) -> Iterable[int]:
        """The numbers, ascending, of those that one of the policies selects; as far as it says something about them."""
        found: list[Sequence[int]] = []
        for policy in policies:
            chosen = [self._index.match(selector) for selector in policy.selectors]
            if policy.services is not None and self._is_narrow(policy):
                # Of those that it selects and those that reach its services, the fewer are looked at one by one.
                reaching = {self._ids[name] for each in policy.services for name in self.reaching(each)}
                if len(reaching) < sum(map(len, chosen)):
                    found.append([number for number in reaching if _is_in(number, chosen)])
                    continue
            found.extend(ids.to_array().tolist() for ids in chosen)
        if len(found) == 1 or (len(found) == 2 and found[0] == found[1]):
            return sorted(found[0])
        return sorted({number for numbers in found for number in numbers})

    def reaching(self, service: str) -> Iterator[str]:
        """The dataplanes that reach a service, in no order; some twice."""
        for outward in self._reaching.get(service, ()):
            yield from self._members[outward]
        viewpoints: Iterable[Viewpoint] = self._hosts.viewpoints_of(service)
        if self._routing:
            # Names of one service may lead to another.
            viewpoints = [seen_from for seen_from, services in self._led.items() if service in services]
        for seen_from in viewpoints:
            yield from self._hosts.members(seen_from)


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Outward:
    """What dataplanes with the same outbounds and routes reach. One object for all of them."""

    outbounds: tuple[Destination, ...]
    """What their outbounds ask for."""
    destinations: frozenset[Destination]
    """What these lead to."""
    is_transparent: bool
    """Whether what they send is redirected to the proxy, which lets through what is for no service."""
    seen_from: Viewpoint | None
    """From where they see the names of the mesh, and reach what these lead to too."""
    is_gateway: bool = False
    """Whether it is what listeners of built-in gateways lead to, each under the policies that are for it."""
    ruling: frozenset[str] = frozenset()
    """The MeshHTTPRoutes that rule requests of their outbounds."""
    services: frozenset[str] = field(init=False)
    """The services of both, and names for ports of services and for routes: a policy about the first is for a listener,
    about the second for a cluster."""

    def __post_init__(self) -> None:
        named = {name for each in (*self.outbounds, *self.destinations) for name in noted_names(each)}
        named.update(index_name(routing.REQUESTS, name) for name in self.ruling)
        # What a gateway does with requests of a rule that leads to several is what is said of any.
        more = (PASS_THROUGH,) if self.is_transparent else (ANY_SERVICE,) if self.is_gateway else ()
        object.__setattr__(self, "services", frozenset({*more, *named}))


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
    """The services that one of the policies says something about; None where that is any, or those with some labels."""
    found: frozenset[str] = frozenset()
    for policy in policies:
        if policy.services is None or any(name.endswith("/") for name in policy.services):
            return None
        found |= policy.services
    return found


def _is_transparent(dataplane: Dataplane) -> bool:
    proxying = None if dataplane.networking is None else dataplane.networking.transparent_proxying
    return proxying is not None and bool(proxying.redirect_port_outbound)


def _is_in(number: int, chosen: Iterable[Ids]) -> bool:
    return any(number in ids for ids in chosen)
