"""What changes can touch, as it comes together.

In: dataplanes, destinations and meshes that a change is about. Out: `Affected`. Never: why they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from kumafast.registry.reach import Destination, Reach
from kumafast.resources import ExternalService


class DataplaneId(NamedTuple):
    """A dataplane's mesh and name."""

    mesh: str
    name: str

    @property
    def node_id(self) -> str:
        """The id by which this dataplane's Envoy names itself."""
        return f"{self.mesh}.{self.name}"


@dataclass(frozen=True, slots=True)
class Affected:
    """What a batch of changes can touch; naming too many is slow, too few is a bug."""

    proxies: Set[DataplaneId]
    """Those whose own part may differ now. Those that reach one of the destinations are affected too: they are not
    named, as whoever keeps the destinations knows which of them are connected."""
    bound: Set[DataplaneId]
    """Those for which what their policies come to is another. All else of them is as it was."""
    destinations: Mapping[tuple[str, Destination], Set[str]]
    """Those (mesh, destination) whose endpoints may differ now, each with the names of the dataplanes that changed."""
    meshes: Set[str]
    """Those of which all proxies get something else: another identity, or another rule for what leaves the mesh."""
    external: Set[tuple[str, Destination]]
    """Those (mesh, destination) that other external services serve, or the same in another way."""
    vanished: frozenset[tuple[str, Destination]]
    """Those (mesh, destination) that for a moment nobody reached, of which changes may have been missed since, and
    ports of services that are something else now. Whoever has one is among the proxies, and asks anew."""


class Gathered:
    """The `Affected` of a batch while it comes together."""

    __slots__ = ("bound", "destinations", "external", "meshes", "proxies", "vanished")

    def __init__(self) -> None:
        # A dict, since a set of names has another order in each process.
        self.proxies: dict[DataplaneId, None] = {}
        self.bound: dict[DataplaneId, None] = {}
        self.destinations: dict[tuple[str, Destination], set[str]] = {}
        self.meshes: set[str] = set()
        self.external: set[tuple[str, Destination]] = set()
        self.vanished: set[tuple[str, Destination]] = set()

    def served(self, dataplane_id: DataplaneId, destinations: Iterable[Destination]) -> None:
        """A dataplane serves or served these, and may do so in another way."""
        for destination in destinations:
            self.destinations.setdefault((dataplane_id.mesh, destination), set()).add(dataplane_id.name)

    def served_outside(self, mesh: str, reach: Reach, service: ExternalService | None) -> None:
        """An external service serves or served what has its tags."""
        if service is not None:
            self.external.update((mesh, destination) for destination in reach.destinations_with(service.tags))

    def complete(self) -> Affected:
        """All of it."""
        vanished = frozenset(self.vanished)
        return Affected(self.proxies.keys(), self.bound.keys(), self.destinations, self.meshes, self.external, vanished)

    def add(self, affected: Affected) -> None:
        """What another batch can touch, too."""
        self.proxies.update(dict.fromkeys(affected.proxies))
        self.bound.update(dict.fromkeys(affected.bound))
        for destination, names in affected.destinations.items():
            self.destinations.setdefault(destination, set()).update(names)
        self.meshes.update(affected.meshes)
        self.external.update(affected.external)
        self.vanished.update(affected.vanished)
