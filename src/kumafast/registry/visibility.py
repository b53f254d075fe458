"""What others see of a dataplane.

In: dataplanes. Out: the host names that have to be looked up, and whether two states of one give other endpoints.
Never: who the others are.
"""

from __future__ import annotations

from kumafast.addresses import is_ip
from kumafast.resources import Dataplane


def hosts_of(dataplane: Dataplane | None) -> set[str]:
    """The host names, not addresses, by which others are to reach it."""
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
