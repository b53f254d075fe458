"""What changes can touch: the answer of the registry, and how it comes together.

In: what each change concerns. Out: the `Affected` of a batch. Never: who of them is connected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple

from kumafast.addresses import is_ip
from kumafast.registry.reach import Destination, Reach
from kumafast.resources import Dataplane, ExternalService


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
    """Those whose identity is another, and with it that of all their proxies."""
    external: Set[tuple[str, Destination]]
    """Those (mesh, destination) that other external services serve, or the same in another way."""
    vanished: frozenset[tuple[str, Destination]]
    """Those (mesh, destination) that for a moment nobody reached; what is known of them may have been missed since."""


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
        for destination in destinations:
            self.destinations.setdefault((dataplane_id.mesh, destination), set()).add(dataplane_id.name)

    def served_outside(self, mesh: str, reach: Reach, service: ExternalService | None) -> None:
        if service is not None:
            self.external.update((mesh, destination) for destination in reach.destinations_with(service.tags))

    def complete(self) -> Affected:
        vanished = frozenset(self.vanished)
        return Affected(self.proxies.keys(), self.bound.keys(), self.destinations, self.meshes, self.external, vanished)

    def add(self, affected: Affected) -> None:
        self.proxies.update(dict.fromkeys(affected.proxies))
        self.bound.update(dict.fromkeys(affected.bound))
        for destination, names in affected.destinations.items():
            self.destinations.setdefault(destination, set()).update(names)
        self.meshes.update(affected.meshes)
        self.external.update(affected.external)
        self.vanished.update(affected.vanished)


def hosts_of(dataplane: Dataplane | None) -> set[str]:
    """The host names that a dataplane gives as its addresses."""
    if dataplane is None or dataplane.networking is None:
        return set()
    networking = dataplane.networking
    stated = {networking.address, networking.advertised_address, *(item.address for item in networking.inbound)}
    return {host for host in stated if host and not is_ip(host)}


def is_seen_differently(before: Dataplane, after: Dataplane) -> bool:
    """Whether two states of a dataplane can give different endpoints: addresses, inbounds, or the labels they carry."""
    if before.networking is None or after.networking is None or before.labels != after.labels:
        return True
    return (
        before.networking.inbound != after.networking.inbound
        or before.networking.address != after.networking.address
        or before.networking.advertised_address != after.networking.advertised_address
    )
