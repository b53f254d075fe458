"""The host names of one mesh's services: what generators make of each, and who has a name that several would have.

In: HostnameGenerators, services that come, change and go. Out: the names of a service; whose names are others after a
change. Never: an address, or who may see a name.

Of services of one kind that would have the same name it is the one of the first generator, and of one generator the
service that was created first, as in Kuma. A change of a service costs its generators and those it shares names with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kumafast.registry.overlay import Overlay
from kumafast.resources.defaults import ORIGIN_LABEL
from kumafast.resources.hostname_generator import HostnameError, HostnameGenerator
from kumafast.resources.virtual_ip import Holder
from kumafast.store import StoredResource

_Order: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of a generator for a service: a name that it has, or why it has none."""

    generator: str
    name: str = ""
    owner: Holder | None = None
    """The service that has the name which it would have."""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class _Made:
    generator: str
    order: _Order
    name: str
    failure: str


class Hostnames:
    """One mesh's host names. One writer; the event loop that owns the registry."""

    def __init__(self, generators: Iterable[StoredResource] = ()) -> None:
        self._generators = tuple(generators)
        self._services: MutableMapping[Holder, StoredResource] = {}
        self._made: MutableMapping[Holder, tuple[_Made, ...]] = {}
        # Who would have a name, each with what decides between them; names are of one kind of service.
        self._claims: MutableMapping[tuple[str, str], dict[Holder, _Order]] = {}

    def fork(self) -> Hostnames:
        """The same, to be changed on its own; it shares with this, and is good until this changes."""
        forked = Hostnames(self._generators)
        forked._services, forked._made = Overlay(self._services), Overlay(self._made)
        forked._claims = Overlay(self._claims, copy=dict.copy)
        return forked

    def names(self, holder: Holder) -> tuple[str, ...]:
        """The host names of a service, each once, in the order of their generators' names."""
        return tuple(dict.fromkeys(each.name for each in self.generated(holder) if each.name))

    def generated(self, holder: Holder) -> Iterator[Generated]:
        """What came of each generator that is for a service, in the order of the generators' names."""
        for made in sorted(self._made.get(holder, ()), key=lambda each: each.generator):
            if made.failure:
                yield Generated(made.generator, failure=made.failure)
                continue
            owner = self._owner(holder.kind, made.name)
            yield Generated(made.generator, made.name) if owner == holder else Generated(made.generator, owner=owner)

    def set_service(self, holder: Holder, stored: StoredResource | None) -> set[Holder]:
        """Take in a service that is new or has changed, or forget one (None); those whose names may be others."""
        if stored is None:
            self._services.pop(holder, None)
        else:
            self._services[holder] = stored
        return self._remake(holder)

    def set_generators(self, generators: Iterable[StoredResource]) -> set[Holder]:
        """Take in all generators as they are now; those whose names may be others. O(services)."""
        self._generators = tuple(generators)
        return {each for holder in list(self._services) for each in self._remake(holder)}

    def _remake(self, holder: Holder) -> set[Holder]:
        stored = self._services.get(holder)
        before = self._made.pop(holder, ())
        after = () if stored is None else tuple(self._make(holder, stored))
        if after:
            self._made[holder] = after
        if before == after:
            return set()
        touched = {holder}
        for name in {each.name for each in (*before, *after) if each.name}:
            touched.add(self._owner(holder.kind, name) or holder)
            self._claim(holder, name, min((each.order for each in after if each.name == name), default=None))
            touched.add(self._owner(holder.kind, name) or holder)
        return touched

    def _make(self, holder: Holder, stored: StoredResource) -> Iterator[_Made]:
        service = stored.resource
        for position, each in enumerate(self._generators):
            generator = each.resource
            assert isinstance(generator, HostnameGenerator)
            selector = generator.spec.selector.of_kind(holder.kind)
            if selector is None or not selector.matches(service.labels):
                continue
            order = (position, stored.creation_time, service.name)
            try:
                name = generator.hostname(name=service.name, mesh=service.mesh, labels=service.labels)
            except HostnameError as error:
                yield _Made(generator.name, order, "", str(error))
                continue
            if name:
                yield _Made(generator.name, order, name, "")

    def _claim(self, holder: Holder, name: str, order: _Order | None) -> None:
        claims = self._claims.setdefault((holder.kind, name), {})
        claims.pop(holder, None)
        if order is not None:
            claims[holder] = order
        if not claims:
            del self._claims[holder.kind, name]

    def _owner(self, kind: str, name: str) -> Holder | None:
        claims = self._claims.get((kind, name))
        return min(claims, key=lambda each: claims[each]) if claims else None


def in_order(generators: Iterable[StoredResource]) -> tuple[StoredResource, ...]:
    """Generators in the order in which they count: those of the zone first, then as they were created, then by name."""
    return tuple(sorted(generators, key=_precedence))


def _precedence(stored: StoredResource) -> _Order:
    generator = stored.resource
    return generator.labels.get(ORIGIN_LABEL) != "zone", stored.creation_time, generator.name
