"""The policies of one mesh, and whom a change of one can touch: from an index, never by a scan of the mesh.

In: dataplanes and compiled policies that come, change and go. Out: the `Bindings` of a dataplane; the dataplanes for
which a change of a policy makes a difference. Never: messages, or what a conf means.

A policy's dataplanes are an intersection of postings (`TagIndex`), a dataplane's policies come from one look-up for
each of its inbounds (`PolicySet`). A change of a policy is looked at only for the dataplanes that it selects or
selected and, where it is about some services, that reach one of these; it touches those whose outcome differs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kumafast._core import IdSet, TagIndex, TagSet
from kumafast.matching import Bindings, CompiledPolicy, PolicySet, candidates
from kumafast.resources import Dataplane, ResourceKey
from kumafast.resources.tags import SERVICE_TAG


class Policies:
    """One mesh's policies over its dataplanes. One writer; the event loop that owns the registry."""

    def __init__(self) -> None:
        self._policies = PolicySet()
        self._numbers: dict[ResourceKey, int] = {}
        self._next_number = 0
        self._free_numbers: list[int] = []
        self._index = TagIndex()
        self._ids: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._next_id = 0
        self._free_ids: list[int] = []
        self._dataplanes: dict[str, _Known] = {}
        self._consumers: dict[str, set[str]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a policy nor a dataplane."""
        return not self._numbers and not self._dataplanes

    def bindings(self, name: str) -> Bindings:
        """The policies of a dataplane. O(its tags + policies found)."""
        return self._bindings(self._policies, name)

    def _bindings(self, policies: PolicySet, name: str) -> Bindings:
        known = self._dataplanes[name]
        return policies.bind(known.candidates[: known.inbounds], known.candidates[known.inbounds :])

    # Dataplanes.

    def set_dataplane(self, name: str, dataplane: Dataplane) -> None:
        """Take in a dataplane that is new or has changed."""
        before = self._dataplanes.get(name)
        services = frozenset(
            outbound.service for outbound in dataplane.outbounds if outbound.destination_tags.get(SERVICE_TAG)
        )
        known = _Known(candidates(dataplane), len(dataplane.inbounds), services)
        self._dataplanes[name] = known
        if before is None:
            # Ids are used again, so that the index stays dense however long the process lives.
            number = self._free_ids.pop() if self._free_ids else self._next_id
            self._next_id = max(self._next_id, number + 1)
            self._ids[name], self._names[number] = number, name
            self._index.add(number, known.candidates)
        elif before.candidates != known.candidates:
            self._index.update(self._ids[name], known.candidates)
        self._note_services(name, frozenset() if before is None else before.services, services)

    def remove_dataplane(self, name: str) -> None:
        """Forget a dataplane."""
        known = self._dataplanes.pop(name)
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

    def set_policy(self, key: ResourceKey, policy: CompiledPolicy | None) -> frozenset[str]:
        """Take in a policy, or None for one that is gone; the dataplanes for which that makes a difference."""
        before = self._policies.get(self._numbers[key]) if key in self._numbers else None
        if before == policy:
            return frozenset()
        old = self._policies
        self._policies = old.replaced(self._number(key), policy)
        if policy is None:
            self._free_numbers.append(self._numbers.pop(key))
        return frozenset(
            name for name, services in self._concerned(before, policy).items() if self._differs(old, name, services)
        )

    def _number(self, key: ResourceKey) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._free_numbers.pop() if self._free_numbers else self._next_number
            self._next_number = max(self._next_number, number + 1)
            self._numbers[key] = number
        return number

    def _concerned(self, *policies: CompiledPolicy | None) -> dict[str, frozenset[str]]:
        """Dataplanes that one of the policies selects, each with those of its services that one is about."""
        found: dict[str, frozenset[str]] = {}
        for policy in policies:
            if policy is None:
                continue
            for name in self._selected(policy):
                services = self._dataplanes[name].services
                about = services if policy.services is None else services & policy.services
                if about or policy.inbound:
                    found[name] = found.get(name, frozenset()) | about
        return found

    def _selected(self, policy: CompiledPolicy) -> Iterable[str]:
        chosen = [self._index.match(selector) for selector in policy.selectors]
        if policy.services is not None and not policy.inbound:
            # Of those that it selects and those that reach its services, the fewer are looked at one by one.
            reaching = {name for service in policy.services for name in self._consumers.get(service, ())}
            if len(reaching) < sum(map(len, chosen)):
                return [name for name in reaching if _is_in(self._ids[name], chosen)]
        return {self._names[number] for ids in chosen for number in ids}

    def _differs(self, old: PolicySet, name: str, services: frozenset[str]) -> bool:
        before, after = self._bindings(old, name), self._bindings(self._policies, name)
        return any(before.outbound(service) != after.outbound(service) for service in services) or any(
            before.inbound(position) != after.inbound(position) for position in range(len(before.inbounds))
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """What policies see of a dataplane; the first of the candidates are its inbounds."""

    candidates: tuple[TagSet, ...]
    inbounds: int
    services: frozenset[str]


def _is_in(number: int, chosen: Iterable[IdSet]) -> bool:
    return any(number in ids for ids in chosen)
