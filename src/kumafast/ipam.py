"""IP address management: which virtual address a holder gets, and the writes that give it.

In: the registry's address books, a store. Out: `VirtualIP`s, stored. Never: what an address leads to, or a holder that
nobody asked an address for.

An address is where the digest of its holder falls in the range, or the next free one. So a name that goes and comes
back has the address that clients may still know, and an address that became free is hardly ever another name's next.
That no address is given twice is the store's doing: its record is named by it, and is written only where there is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from typing import Self, TypeAlias

from kumafast.errors import ConflictError, KumafastError, MeshNotFoundError, NotFoundError, StoreUnavailableError
from kumafast.registry.address_book import AddressBook
from kumafast.resources import ResourceKey
from kumafast.resources.virtual_ip import DOMAIN, HOST, SERVICE, Holder, VirtualIP
from kumafast.settings import Settings
from kumafast.store import Delete, Put, Store

_LOG = logging.getLogger(__name__)

Network: TypeAlias = IPv4Network | IPv6Network

_NAMES = IPv4Network("240.0.0.0/4")

SPAN_MAX = 2**24
"""How many addresses of a range are used, the first ones: of Kuma's 240/4 those that no other range overlaps."""

OPERATIONS_MAX = 1_000
"""How many addresses are given or taken back in one commit."""

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Ranges:
    """Where the addresses of each kind of holder come from. The defaults are Kuma's."""

    names: Network = _NAMES
    """For services, hosts and what VirtualOutbounds name."""
    resources: Mapping[str, Network] = field(
        default_factory=lambda: {
            "MeshService": IPv4Network("241.0.0.0/8"),
            "MeshExternalService": IPv4Network("242.0.0.0/8"),
            "MeshMultiZoneService": IPv4Network("243.0.0.0/8"),
        }
    )
    """For kinds of resources, by their names."""

    @classmethod
    def given(cls, settings: Settings) -> Self:
        """The ranges that a control plane was told. ValueError where one is no range of addresses."""
        resources = {
            "MeshService": ip_network(settings.ipam_mesh_service_cidr),
            "MeshExternalService": ip_network(settings.ipam_mesh_external_service_cidr),
            "MeshMultiZoneService": ip_network(settings.ipam_mesh_multi_zone_service_cidr),
        }
        return cls(names=ip_network(settings.dns_server_cidr), resources=resources)

    def of(self, kind: str) -> Network:
        """The range for holders of a kind; KeyError for a kind that gets no addresses."""
        return self.names if kind in (SERVICE, HOST, DOMAIN) else self.resources[kind]


def place(holder: Holder, network: Network, taken: Container[str]) -> str:
    """A free address of the range for a holder, always the same while the same are taken; empty where all are.

    >>> place(Holder("Service", "web"), IPv4Network("240.0.0.0/4"), ())
    '240.21.33.181'
    """
    # The first and the last name the network itself and all that are in it.
    skipped = 1 if network.num_addresses > 2 else 0
    span = min(network.num_addresses, SPAN_MAX) - 2 * skipped
    digest = sha256(f"{holder.kind}/{holder.name}".encode()).digest()
    start = int.from_bytes(digest[:8], "big")
    for step in range(span):
        address = str(network[skipped + (start + step) % span])
        if address not in taken:
            return address
    return ""


class _Taken(Container[str]):
    """What a book has, and what is about to be given."""

    def __init__(self, book: AddressBook, given: Set[str]) -> None:
        self._book, self._given = book, given

    def __contains__(self, address: object) -> bool:
        return address in self._given or address in self._book


def placements(mesh: str, book: AddressBook, ranges: Ranges) -> Iterator[VirtualIP]:
    """The addresses that those of a mesh get that lack one. The book is not to change meanwhile."""
    given: set[str] = set()
    taken = _Taken(book, given)
    for holder in book.lacking:
        address = place(holder, ranges.of(holder.kind), taken)
        if address:
            given.add(address)
            yield VirtualIP.of(mesh, address, holder)
        else:
            _LOG.error("mesh %s: %s has no address left for %s", mesh, ranges.of(holder.kind), holder.name)


class Allocator:
    """Gives addresses to those that lack one, and takes back those that nobody holds any more."""

    def __init__(
        self,
        *,
        store: Store,
        books: Callable[[], Iterable[tuple[str, AddressBook]]],
        settle: Callable[[], Awaitable[None]],
        moved: Callable[[], Awaitable[None]],
        applied: Callable[[], int],
        ranges: Ranges,
    ) -> None:
        """`books` are those of meshes where something is to be done; `settle` returns when they show what is stored,
        `moved` when they show something that they did not before. `applied` is the revision that they show now."""
        self._applied = applied
        self._store = store
        self._books = books
        self._settle = settle
        self._moved = moved
        self._ranges = ranges

    async def follow(self) -> None:
        """Write what is to be written as it becomes so, until cancelled."""
        while True:
            # Where there is nothing to do nothing else has had its turn, so that no news is missed.
            if not await self.step():
                await self._moved()

    async def given(self, revision: int) -> int:
        """Return once all who have come to lack an address by a revision have one, if there is one left for them.

        Whoever gives them, this instance or another. Back comes a revision that is not before the last that gave one.
        """
        while self._applied() < revision or next(self._operations(), None) is not None:
            await self._moved()
        return self._applied()

    async def step(self) -> bool:
        """Write what is to be written now, as one commit; whether there was anything."""
        operations = list(islice(self._operations(), OPERATIONS_MAX))
        if not operations:
            return False
        try:
            await self._store.write(operations)
        except (ConflictError, NotFoundError, MeshNotFoundError):
            # Somebody else was faster, and what is stored is about to be seen here.
            pass
        except KumafastError as error:
            # Where nothing can be stored, the store has said so, once.
            level = logging.DEBUG if isinstance(error, StoreUnavailableError) else logging.WARNING
            _LOG.log(level, "virtual addresses cannot be stored: %s", error)
            await asyncio.sleep(_RETRY_S)
        await self._settle()
        return True

    def _operations(self) -> Iterator[Put | Delete]:
        for mesh, book in self._books():
            for address in book.surplus:
                yield Delete(ResourceKey(VirtualIP.type.name, mesh, address))
            for each in placements(mesh, book, self._ranges):
                yield Put(each, expected_revision=0)
