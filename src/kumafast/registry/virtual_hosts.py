"""The names of one mesh: which there are, what each leads to, and which proxies see them.

In: dataplanes, services, VirtualOutbounds and addresses that come, change and go. Out: `VirtualHost`s, and the
`Sight`s of transparent proxies. Never: the choice of an address, listeners, or a proxy that listens on its outbounds
alone.

A name is made of the tags of an inbound, so it is worked out once for all inbounds with the same tags: a dataplane that
joins others of its service changes nothing here. Proxies that see the same share one `Sight`, and what a change touches
is the sights of those who see it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from kumafast._core import SelectorSet, TagIndex, TagSelector, TagSet
from kumafast.matching.backends import noted_names
from kumafast.registry.address_book import AddressBook
from kumafast.registry.overlay import Index, IndexOverlay, Overlay
from kumafast.registry.reach import Destination, Tags, destination_of
from kumafast.registry.viewpoints import Viewpoint, found_by, wanted_names
from kumafast.resources import Dataplane, ExternalService, ResourceKey
from kumafast.resources.networking import Inbound
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.validation import is_domain, is_ip
from kumafast.resources.virtual_ip import DOMAIN, HOST, SERVICE, Holder
from kumafast.resources.virtual_outbound import TemplateError, VirtualOutbound
from kumafast.store import StoredResource

_LOG = logging.getLogger(__name__)

RESERVED_PORT = 49151
"""The port of an inbound that stands for a workload that serves nothing; as in Kuma it makes no name."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How services are named. The defaults are Kuma's."""

    domain: str = "mesh"
    """What the names of services end in."""
    port: int = 80
    """The port of services, and of hosts besides their own."""
    has_services: bool = True
    """Whether services have names at all, beside those that VirtualOutbounds make."""


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """An address, the names that resolve to it, and where its ports lead."""

    address: str
    names: tuple[str, ...]
    ports: tuple[tuple[int, Destination], ...]


class Sight:
    """What proxies with one viewpoint see. Immutable and compared by identity: another object is another sight."""

    __slots__ = ("__weakref__", "addresses", "destinations", "hosts", "services")

    def __init__(self, hosts: Iterable[VirtualHost]) -> None:
        self.hosts = tuple(hosts)
        """In the order in which of two with the same name the later counts."""
        self.addresses = frozenset(host.address for host in self.hosts)
        self.destinations = frozenset(tags for host in self.hosts for _, tags in host.ports)
        """The tags of all ports."""
        self.services = frozenset(name for destination in self.destinations for name in noted_names(destination))
        """The services of all ports, and names for those of services."""


NOTHING = Sight(())


class _Source(NamedTuple):
    """What names are made of: the tags of inbounds, or an external service with its tags."""

    tags: Tags
    external: str = ""
    host: str = ""
    port: int = 0
    names_host: bool = False


class Claim(NamedTuple):
    """That a port leads somewhere; of several for one port the least counts."""

    order: tuple[object, ...]
    port: int
    tags: Tags


_Made: TypeAlias = frozenset[tuple[Holder, Claim]]

_ORDER = {SERVICE: 0, HOST: 1, DOMAIN: 2, "MeshService": 3, "MeshExternalService": 4, "MeshMultiZoneService": 5}

_BY_TAGS = frozenset({SERVICE, HOST, DOMAIN})
"""The kinds of holders that are no resources."""


class VirtualHosts:
    """One mesh's names. One writer; the event loop that owns the registry. What changed counts from `settle` on."""

    def __init__(self, book: AddressBook, naming: Naming) -> None:
        self._book = book
        self._naming = naming
        self._sources: MutableMapping[int, _Source] = {}
        # Those of external services, and those of inbounds by their tags.
        self._ids: MutableMapping[_Source, int] = {}
        self._tagged: MutableMapping[TagSet, int] = {}
        # How many inbounds or external services each is.
        self._counts: MutableMapping[int, int] = {}
        self._index: Index = TagIndex()
        self._next_id = 0
        self._free_ids: list[int] = []
        self._dataplanes: MutableMapping[str, tuple[int, ...]] = {}
        self._externals: MutableMapping[str, int] = {}
        self._rules: MutableMapping[int, StoredResource] = {}
        self._numbers: MutableMapping[ResourceKey, int] = {}
        self._selectors = SelectorSet()
        self._next_number = 0
        self._made: MutableMapping[int, _Made] = {}
        # How many sources make each claim.
        self._claims: MutableMapping[Holder, dict[Claim, int]] = {}
        # The ports and the names of services that are resources.
        self._ports: MutableMapping[Holder, tuple[tuple[int, Destination], ...]] = {}
        self._named: MutableMapping[Holder, tuple[str, ...]] = {}
        self._mode = ""
        self._hosts: MutableMapping[Holder, VirtualHost] = {}
        self._by_service: MutableMapping[str, set[Holder]] = {}
        self._viewpoints: MutableMapping[str, Viewpoint] = {}
        self._members: MutableMapping[Viewpoint, dict[str, None]] = {}
        self._sights: MutableMapping[Viewpoint, Sight] = {}
        self._looking_for: MutableMapping[str, set[Viewpoint]] = {}
        self._dirty: set[Holder] = set()
        self._stale: set[Viewpoint] = set()

    def fork(self, book: AddressBook) -> VirtualHosts:
        """The same over a fork of its addresses, to be changed on its own; good until this changes."""
        assert isinstance(self._index, TagIndex)
        forked = VirtualHosts(book, self._naming)
        forked._sources, forked._ids, forked._tagged = Overlay(self._sources), Overlay(self._ids), Overlay(self._tagged)
        forked._counts, forked._index = Overlay(self._counts), IndexOverlay(self._index)
        # What comes gets new numbers: those that are free here are a list that is not to be copied.
        forked._next_id, forked._next_number = self._next_id, self._next_number
        forked._dataplanes, forked._externals = Overlay(self._dataplanes), Overlay(self._externals)
        forked._rules, forked._numbers = Overlay(self._rules), Overlay(self._numbers)
        forked._selectors = self._selectors
        forked._made, forked._claims = Overlay(self._made), Overlay(self._claims, copy=dict.copy)
        forked._ports, forked._named, forked._mode = Overlay(self._ports), Overlay(self._named), self._mode
        forked._hosts, forked._by_service = Overlay(self._hosts), Overlay(self._by_service, copy=set.copy)
        forked._viewpoints, forked._members = Overlay(self._viewpoints), Overlay(self._members, copy=dict.copy)
        forked._sights, forked._looking_for = Overlay(self._sights), Overlay(self._looking_for, copy=set.copy)
        forked._dirty, forked._stale = self._dirty.copy(), self._stale.copy()
        return forked

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been taken in that is still there, and nothing is left to settle."""
        return not (self._sources or self._rules or self._viewpoints or self._sights or self._hosts or self._ports)

    @property
    def rules(self) -> Iterator[StoredResource]:
        """The VirtualOutbounds, in no order."""
        return iter(self._rules.values())

    # Who sees what.

    def viewpoint(self, name: str) -> Viewpoint | None:
        """From where a dataplane sees names; None where it sees none."""
        return self._viewpoints.get(name)

    def sight(self, viewpoint: Viewpoint) -> Sight:
        """What is seen from a viewpoint that a dataplane has, as it was settled last."""
        return self._sights.get(viewpoint, NOTHING)

    @property
    def sights(self) -> Mapping[Viewpoint, Sight]:
        """What is seen from each viewpoint that a dataplane has, as it was settled last."""
        return self._sights

    def members(self, viewpoint: Viewpoint) -> Iterable[str]:
        """The dataplanes with a viewpoint."""
        return self._members.get(viewpoint, {}).keys()

    def viewpoints_of(self, service: str) -> list[Viewpoint]:
        """The viewpoints from which a service is seen. O(those found)."""
        found = [Viewpoint()] if Viewpoint() in self._members and service in self._by_service else []
        return [*found, *(each for each in self._looking_for.get(service, ()) if service in self._by_service)]

    # What comes, changes and goes.

    def set_dataplane(
        self, name: str, dataplane: Dataplane | None, seen_from: Viewpoint | None, tags: tuple[TagSet, ...] = ()
    ) -> None:
        """Take in a dataplane that is new or has changed, with the tags of its inbounds and from where it sees names,
        or forget one (None). O(its inbounds).
        """
        before = self._dataplanes.pop(name, ())
        if dataplane is not None:
            inbounds = zip(dataplane.inbounds, tags, strict=True)
            after = tuple([self._add_inbound(inbound, each) for inbound, each in inbounds if _is_named(inbound)])
            if after:
                self._dataplanes[name] = after
        for source_id in before:
            self._remove_source(source_id)
        self.see(name, seen_from)

    def set_external(self, name: str, service: ExternalService | None) -> None:
        """Take in an external service that is new or has changed, or forget one (None)."""
        before = self._externals.pop(name, None)
        if service is not None and service.tags.get(SERVICE_TAG):
            # As in Kuma, of its tags the service alone counts for VirtualOutbounds.
            tags = ((SERVICE_TAG, service.tags[SERVICE_TAG]),)
            source = _Source(tags, name, service.host, service.port, names_host=service.names_host)
            source_id = self._ids.get(source)
            if source_id is None:
                source_id = self._ids[source] = self._add_source(source, TagSet(dict(tags)))
            self._counts[source_id] += 1
            self._externals[name] = source_id
        if before is not None:
            self._remove_source(before)

    def set_rule(self, key: ResourceKey, stored: StoredResource | None) -> None:
        """Take in a VirtualOutbound that is new or has changed, or forget one. O(tags of inbounds that it selects)."""
        number = self._numbers.get(key)
        concerned: set[int] = set()
        if number is not None:
            concerned.update(self._selected(self._rules.pop(number)))
            self._selectors = self._selectors.removed([number])
            if stored is None:
                del self._numbers[key]
        if stored is not None:
            if number is None:
                number = self._numbers[key] = self._next_number
                self._next_number += 1
            self._rules[number] = stored
            self._selectors = self._selectors.added((number, each) for each in _selectors(stored))
            concerned.update(self._selected(stored))
        for source_id in concerned:
            self._remake(source_id)

    def set_resource(self, holder: Holder, ports: tuple[tuple[int, Destination], ...] | None) -> None:
        """Take in a service that is a resource, by its ports, or forget one (None). Whoever sees it or not, it has an
        address, which its status tells."""
        if ports is None:
            self._ports.pop(holder, None)
            self._named.pop(holder, None)
            self._book.unwant(holder)
        else:
            self._ports[holder] = ports
            self._book.want(holder)
        self._dirty.add(holder)

    def name_resource(self, holder: Holder, names: tuple[str, ...]) -> None:
        """Take in the host names of a service that is a resource."""
        if self._named.get(holder, ()) != names:
            self._named[holder] = names
            self._dirty.add(holder)

    def set_mode(self, mode: str) -> None:
        """Take in whether those who see everything see services by tags and as resources: `meshServices.mode`."""
        if mode != self._mode:
            self._mode = mode
            self._stale.add(Viewpoint())

    def renumbered(self, holders: Iterable[Holder]) -> None:
        """Take note that holders have other addresses."""
        self._dirty.update(holders)

    def settle(self) -> Iterator[tuple[Viewpoint, Sight]]:
        """The viewpoints from which something else is seen than before, and what. O(what changed + what is seen)."""
        for holder in self._dirty:
            before, after = self._hosts.pop(holder, None), self._host(holder)
            if after is not None:
                self._hosts[holder] = after
            if before != after:
                self._note(holder, _services(before), _services(after))
        self._dirty.clear()
        stale, self._stale = self._stale, set()
        for each in stale:
            if each in self._members:
                visible = tuple(self._visible(each))
                if each not in self._sights or visible != self._sights[each].hosts:
                    sight = self._sights[each] = Sight(visible)
                    yield each, sight
            elif self._sights.pop(each, None) is not None:
                yield each, NOTHING

    # From tags to claims.

    def _add_inbound(self, inbound: Inbound, tags: TagSet) -> int:
        source_id = self._tagged.get(tags)
        if source_id is None:
            source_id = self._tagged[tags] = self._add_source(_Source(destination_of(inbound.tags)), tags)
        self._counts[source_id] += 1
        return source_id

    def _add_source(self, source: _Source, tags: TagSet) -> int:
        # Ids are used again, so that the index stays dense however long the process lives.
        source_id = self._free_ids.pop() if self._free_ids else self._next_id
        self._next_id = max(self._next_id, source_id + 1)
        self._sources[source_id], self._counts[source_id] = source, 0
        self._index.add(source_id, tags)
        self._remake(source_id)
        return source_id

    def _remove_source(self, source_id: int) -> None:
        self._counts[source_id] -= 1
        if not self._counts[source_id]:
            source = self._sources.pop(source_id)
            del self._counts[source_id]
            if source.external:
                del self._ids[source]
            else:
                del self._tagged[TagSet(dict(source.tags))]
            self._index.remove(source_id)
            self._free_ids.append(source_id)
            self._replace(source_id, frozenset())

    def _selected(self, stored: StoredResource) -> set[int]:
        return {source_id for selector in _selectors(stored) for source_id in self._index.match(selector)}

    def _remake(self, source_id: int) -> None:
        self._replace(source_id, frozenset(self._claimed(self._sources[source_id])))

    def _replace(self, source_id: int, made: _Made) -> None:
        before = self._made.pop(source_id, frozenset())
        if made:
            self._made[source_id] = made
        for holder, claim in made - before:
            self._claim(holder, claim)
        for holder, claim in before - made:
            self._unclaim(holder, claim)

    def _claimed(self, source: _Source) -> Iterator[tuple[Holder, Claim]]:
        service = dict(source.tags)[SERVICE_TAG]
        alone = ((SERVICE_TAG, service),)
        if self._naming.has_services:
            yield Holder(SERVICE, service), Claim((source.external,), source.port, alone)
        if source.names_host:
            yield Holder(HOST, source.host), Claim((source.external,), source.port, alone)
        for number, rank in self._selectors.match(TagSet(dict(source.tags))):
            stored = self._rules[number]
            rule = stored.resource
            assert isinstance(rule, VirtualOutbound)
            try:
                found = rule.address_of(dict(source.tags))
            except TemplateError as error:
                _LOG.info("mesh %s: %s names nothing of %s: %s", rule.mesh, rule.name, dict(source.tags), error)
                continue
            # The most specific first, then the one that was created last, then the first by name.
            order = (-rank[0], -rank[1], -stored.creation_time.timestamp(), rule.name)
            yield Holder(DOMAIN, found.host), Claim(order, found.port, found.tags)

    def _claim(self, holder: Holder, claim: Claim) -> None:
        claims = self._claims.get(holder)
        if claims is None:
            claims = self._claims[holder] = {}
            if not _is_own_address(holder):
                # Before somebody can see it nobody needs its address.
                (self._book.want if self._members else self._book.keep)(holder)
        claims[claim] = claims.get(claim, 0) + 1
        self._dirty.add(holder)

    def _unclaim(self, holder: Holder, claim: Claim) -> None:
        claims = self._claims[holder]
        claims[claim] -= 1
        if not claims[claim]:
            del claims[claim]
        if not claims:
            del self._claims[holder]
            if not _is_own_address(holder):
                self._book.unwant(holder)
        self._dirty.add(holder)

    # From claims to what is seen.

    def _host(self, holder: Holder) -> VirtualHost | None:
        if holder.kind not in _BY_TAGS:
            address, held = self._book.address(holder), self._ports.get(holder)
            return VirtualHost(address, self._named.get(holder, ()), held) if address and held is not None else None
        claims = self._claims.get(holder)
        address = holder.name if _is_own_address(holder) else self._book.address(holder)
        if not claims or not address:
            return None
        ports: dict[int, Destination] = {}
        for claim in sorted(claims, key=lambda each: (each.port, *each)):
            ports.setdefault(claim.port, claim.tags)
        first = min(ports)
        if holder.kind == SERVICE:
            ports = {first: ports[first], self._naming.port: ports[first]}
            ports.pop(0, None)
        elif holder.kind == HOST and not _is_own_address(holder):
            ports.setdefault(self._naming.port, ports[first])
        return VirtualHost(address, self._names(holder), tuple(sorted(ports.items())))

    def _names(self, holder: Holder) -> tuple[str, ...]:
        if holder.kind != SERVICE:
            return () if _is_own_address(holder) else (holder.name.rstrip("."),)
        names = dict.fromkeys((holder.name, holder.name.replace("_", ".")))
        # A service may be called what no name in the DNS can be.
        return tuple(filter(is_domain, (f"{name}.{self._naming.domain}" for name in names)))

    def _note(self, holder: Holder, before: frozenset[str], after: frozenset[str]) -> None:
        for service in before - after:
            self._by_service[service].discard(holder)
            if not self._by_service[service]:
                del self._by_service[service]
        for service in after - before:
            self._by_service.setdefault(service, set()).add(holder)
        self._stale.add(Viewpoint())
        for service in before | after:
            # By kind alone somebody is found for policies, not for what there is to see.
            if not service.endswith("/"):
                self._stale.update(self._looking_for.get(service, ()))

    def _visible(self, viewpoint: Viewpoint) -> Iterator[VirtualHost]:
        wanted = viewpoint.services
        if wanted is None:
            seen = (holder for holder in self._hosts if self._is_for_all(holder))
            yield from (self._hosts[holder] for holder in sorted(seen, key=_precedence))
            return
        holders = {holder for service in wanted for holder in self._by_service.get(service, ())}
        for host in (self._hosts[holder] for holder in sorted(holders, key=_precedence)):
            ports = tuple((port, led) for port, led in host.ports if not wanted.isdisjoint(wanted_names(led, port)))
            yield host if ports == host.ports else VirtualHost(host.address, host.names, ports)

    def _is_for_all(self, holder: Holder) -> bool:
        """Whether those see it who see everything."""
        return self._mode != "Exclusive" if holder.kind in _BY_TAGS else self._mode != "ReachableBackends"

    def see(self, name: str, after: Viewpoint | None) -> None:
        """Take in from where a dataplane sees names; None where it sees none."""
        before = self._viewpoints.pop(name, None)
        if after is not None:
            self._viewpoints[name] = after
        if before == after:
            return
        if before is not None:
            self._members[before].pop(name)
            if not self._members[before]:
                del self._members[before]
                self._stale.add(before)
                self._look_for(before, is_there=False)
        if after is not None:
            if not self._members:
                for holder in self._claims:
                    if not _is_own_address(holder):
                        self._book.want(holder)
            if after not in self._members:
                self._members[after] = {}
                self._stale.add(after)
                self._look_for(after, is_there=True)
            self._members[after][name] = None

    def _look_for(self, viewpoint: Viewpoint, *, is_there: bool) -> None:
        for service in {found for name in viewpoint.services or () for found in found_by(name)}:
            if is_there:
                self._looking_for.setdefault(service, set()).add(viewpoint)
                continue
            self._looking_for[service].discard(viewpoint)
            if not self._looking_for[service]:
                del self._looking_for[service]


def _is_named(inbound: Inbound) -> bool:
    """Whether names are made of its tags."""
    return inbound.state != "Ignored" and inbound.port != RESERVED_PORT and bool(inbound.tags.get(SERVICE_TAG))


def _selectors(stored: StoredResource) -> list[TagSelector]:
    rule = stored.resource
    assert isinstance(rule, VirtualOutbound)
    # As in Kuma, a selector without tags selects nothing.
    return [TagSelector(each.match) for each in rule.selectors if each.match]


def _services(host: VirtualHost | None) -> frozenset[str]:
    if host is None:
        return frozenset()
    found = {name for port, led in host.ports for name in wanted_names(led, port)}
    return frozenset(found | {name for _, led in host.ports for name in noted_names(led)})


def _precedence(holder: Holder) -> tuple[int, str]:
    return _ORDER[holder.kind], holder.name


def _is_own_address(holder: Holder) -> bool:
    """Whether it needs no address, since it is one."""
    return holder.kind == HOST and is_ip(holder.name)
