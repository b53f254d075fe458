"""What others see of a dataplane.

In: dataplanes. Out: the host names that have to be looked up and whose they are; whether two states of one give other
endpoints. Never: who the others are.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, MutableMapping, Set
from typing import Generic, TypeVar

from kumafast.addresses import is_ip
from kumafast.registry.overlay import Overlay
from kumafast.resources import Dataplane

Id = TypeVar("Id", bound=Hashable)


class HostNames(Generic[Id]):
    """Which dataplanes give which host names, not addresses, as theirs."""

    def __init__(self) -> None:
        self._ids: MutableMapping[str, set[Id]] = {}

    def fork(self) -> HostNames[Id]:
        """The same, to be changed on its own; it shares with this, and is good until this changes."""
        forked = HostNames[Id]()
        forked._ids = Overlay(self._ids, copy=set.copy)
        return forked

    def names(self) -> Collection[str]:
        """All host names."""
        return self._ids.keys()

    def of(self, host: str) -> Set[Id]:
        """Whose a host name is."""
        return self._ids.get(host, set())

    def replace(self, dataplane_id: Id, before: Dataplane | None, after: Dataplane | None) -> None:
        """Take in a dataplane that is new, has changed or is gone."""
        for host in _hosts_of(before):
            self._ids[host].discard(dataplane_id)
            if not self._ids[host]:
                del self._ids[host]
        for host in _hosts_of(after):
            self._ids.setdefault(host, set()).add(dataplane_id)


def _hosts_of(dataplane: Dataplane | None) -> Set[str]:
    """The host names, not addresses, by which others are to reach it."""
    if dataplane is None or dataplane.networking is None:
        return _NOBODYS
    networking = dataplane.networking
    stated = {networking.address, networking.advertised_address}
    for inbound in networking.inbound:
        stated.add(inbound.address)
    return {host for host in stated if host and not is_ip(host)}


_NOBODYS: Set[str] = frozenset()


def is_seen_differently(before: Dataplane, after: Dataplane) -> bool:
    """Whether two states of a dataplane can give different endpoints: addresses, inbounds, or the labels they carry."""
    if before.networking is None or after.networking is None or before.labels != after.labels:
        return True
    return (
        before.networking.inbound != after.networking.inbound
        or before.networking.address != after.networking.address
        or before.networking.advertised_address != after.networking.advertised_address
    )
