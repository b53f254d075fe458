"""Who of a mesh may reach what is outside of it, as TrafficPermissions say.

In: TrafficPermissions that come, change and go; the tags of an external service. Out: the selectors of whom it is for.
Never: who of the mesh may reach each other, which inbounds judge; an external service.
Source of the rules: Kuma 2.14. There is nobody at the other end who could judge, so the client's own proxy does: of the
permissions whose destinations match the service the most specific counts, and without one nobody may. In a mesh that
has no TrafficPermission at all everybody may.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import TypeAlias

from kumafast._core import SelectorSet, TagSelector, TagSet
from kumafast.matching import CompiledPolicy
from kumafast.matching.connection import winner
from kumafast.registry.overlay import Overlay
from kumafast.resources import ResourceKey
from kumafast.resources.policies.traffic_permission import TrafficPermission

KIND = TrafficPermission.type.name

Clients: TypeAlias = tuple[TagSelector, ...] | None
"""Those who may: one of their inbounds is matched by one of these. None is everybody, () nobody."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A permission, of which a document of 0.1.0 has one for each rule."""

    policy: CompiledPolicy
    clients: tuple[TagSelector, ...]


class ExternalPermissions:
    """One mesh's TrafficPermissions, as far as they are about what is outside. One writer."""

    def __init__(self) -> None:
        self._parts: MutableMapping[int, _Part] = {}
        self._numbers: MutableMapping[ResourceKey, tuple[int, ...]] = {}
        self._selectors = SelectorSet()
        self._next_number = 0

    def fork(self) -> ExternalPermissions:
        """The same, to be changed on their own; they share with these, and are good until these change."""
        forked = ExternalPermissions()
        forked._parts, forked._numbers = Overlay(self._parts), Overlay(self._numbers)
        forked._selectors, forked._next_number = self._selectors, self._next_number
        return forked

    def clients(self, tags: TagSet) -> Clients:
        """Who may reach an external service with these tags. O(permissions that match it)."""
        if not self._parts:
            return None
        matched = [(self._parts[number], rank) for number, rank in self._selectors.match(tags)]
        found = winner((part.policy, rank) for part, rank in matched)
        return next((part.clients for part, _ in matched if part.policy is found), ())

    def set(
        self, key: ResourceKey, permission: TrafficPermission | None, policies: Iterable[CompiledPolicy]
    ) -> tuple[TagSelector, ...] | None:
        """Take in a permission with its compiled parts, or forget one (None).

        Back come the selectors of the services for which it may make a difference; None where that is all of them.
        """
        had_any = bool(self._parts)
        numbers = self._numbers.pop(key, ())
        touched = [selector for number in numbers for selector in self._parts.pop(number).policy.selectors]
        self._selectors = self._selectors.removed(numbers)
        if permission is not None:
            added = []
            for part, policy in zip(permission.parts, policies, strict=False):
                added.append(self._next_number)
                clients = tuple(TagSelector(source.match) for source in part.sources)
                self._parts[self._next_number] = _Part(policy, clients)
                self._next_number += 1
            self._numbers[key] = tuple(added)
            self._selectors = self._selectors.added(
                (number, selector) for number in added for selector in self._parts[number].policy.selectors
            )
            touched += [selector for number in added for selector in self._parts[number].policy.selectors]
        # The first permission of a mesh shuts out whom it does not name, the last one lets in all.
        return tuple(dict.fromkeys(touched)) if had_any == bool(self._parts) else None
