"""What proxies get for the names that they see, once for all of them that see the same and are bound alike.

In: what is seen, from where, under which bindings. Out: a group of outbounds, and a layer with the table of names.
Never: how a group is made, or what belongs to a single proxy.

A mesh's names are a part of the configuration of each of its transparent proxies. Here a proxy is a look-up; the first
of its class pays for what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from ipaddress import ip_address
from typing import Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from kumafast.generation.proxy import DnsTable
from kumafast.memo import remembered
from kumafast.registry.reach import Destination
from kumafast.registry.virtual_hosts import Sight
from kumafast.resources import Dataplane
from kumafast.resources.networking import Outbound
from kumafast.snapshot import Layer

Group = TypeVar("Group")

WantedPort: TypeAlias = tuple[str, int, Destination]
"""An address, a port, and what it is to lead to."""

_GROUPS_MAX = 4_096
# A table of names is made anew with each name that comes, and nearly all of it was in the one before.
_ADDRESSES_MAX = 65_536


class _Moment(Generic[Group]):
    """What has been made of one sight while everything else that groups depend on stays as it is."""

    __slots__ = ("groups", "state")

    def __init__(self, state: Hashable) -> None:
        self.state = state
        self.groups: dict[Hashable, Group | None] = {}


_TableKey: TypeAlias = tuple[int, bool]


class VirtualGroups(Generic[Group]):
    """Groups by sight; they go with it."""

    def __init__(self) -> None:
        self._moments: WeakKeyDictionary[Sight, _Moment[Group]] = WeakKeyDictionary()
        self._tables: WeakKeyDictionary[Sight, dict[_TableKey, Layer]] = WeakKeyDictionary()

    def group(self, sight: Sight, state: Hashable, key: Hashable, make: Callable[[], Group | None]) -> Group | None:
        """The group for one class of those who see this, made at the first question.

        With another `state` than at the last question all that was made is made anew; `key` is the class.
        """
        moment = self._moments.get(sight)
        if moment is None or moment.state != state or len(moment.groups) >= _GROUPS_MAX:
            moment = self._moments[sight] = _Moment(state)
        if key not in moment.groups:
            moment.groups[key] = make()
        return moment.groups[key]

    def table(self, sight: Sight, make: Callable[[DnsTable], Layer], *, port: int, has_ipv6: bool) -> Layer:
        """The layer of the table of names that are seen, as it is answered on a port."""
        layers = self._tables.setdefault(sight, {})
        key = (port, has_ipv6)
        layer = layers.get(key)
        if layer is None:
            layer = layers[key] = make(_table(sight, port=port, has_ipv6=has_ipv6))
        return layer


def named_ports(sight: Sight) -> Iterator[WantedPort]:
    """The ports that names lead to."""
    return ((host.address, port, tags) for host in sight.hosts for port, tags in host.ports)


def own_ports(
    dataplane: Dataplane, sight: Sight, leads_to: Callable[[str, Outbound], Destination | None]
) -> Iterator[WantedPort]:
    """The dataplane's own outbounds, but for those that stand where a name leads: as in Kuma the name counts."""
    for outbound in dataplane.outbounds:
        address = dataplane.outbound_address(outbound)
        destination = None if address in sight.addresses else leads_to(dataplane.mesh, outbound)
        if destination is not None:
            yield address, outbound.port, destination


def _table(sight: Sight, *, port: int, has_ipv6: bool) -> DnsTable:
    names = {name: host.address for host in sight.hosts for name in host.names}
    return DnsTable(
        port=port,
        names=tuple((name, _addresses(address, has_ipv6=has_ipv6)) for name, address in sorted(names.items())),
    )


@remembered(_ADDRESSES_MAX)
def _addresses(address: str, *, has_ipv6: bool) -> tuple[str, ...]:
    parsed = ip_address(address)
    if not has_ipv6 or parsed.version == 6:
        return (address,)
    # As in Kuma, who asks for an IPv6 address is given one that stands for the other.
    packed = int(parsed)
    return address, f"::ffff:{packed >> 16:x}:{packed & 0xFFFF:x}"
