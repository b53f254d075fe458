"""Which virtual addresses the holders of one mesh have, who lacks one, and which are held by nobody any more.

In: holders that come and go, addresses as they are stored. Out: the address of a holder; what `ipam` has to write.
Never: the choice of an address, a write, or what an address leads to.

Whoever needs an address says so once with `want`, and takes it back with `unwant`. `keep` holds on to the address that
a holder may have already, and asks for none: for what nobody could use yet.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, MutableMapping

from kumafast.registry.overlay import Overlay
from kumafast.resources.virtual_ip import Holder, VirtualIP


class AddressBook(Container[str]):
    """One mesh's virtual addresses. One writer; the event loop that owns the registry. Every call is O(1).

    >>> book, web = AddressBook(), Holder("Service", "web")
    >>> book.want(web)
    >>> list(book.lacking), book.address(web)
    ([Holder(kind='Service', name='web')], '')
    >>> book.put("240.0.0.7", web)
    {Holder(kind='Service', name='web')}
    >>> book.address(web), list(book.lacking), "240.0.0.7" in book
    ('240.0.0.7', [], True)
    >>> book.unwant(web)
    >>> list(book.surplus)
    ['240.0.0.7']
    """

    def __init__(self) -> None:
        # Whether it is to have an address, or to keep the one that it has.
        self._holders: MutableMapping[Holder, bool] = {}
        self._by_address: MutableMapping[str, Holder] = {}
        # The least counts: several instances that write at once may give one holder two.
        self._addresses: MutableMapping[Holder, tuple[str, ...]] = {}
        self._lacking: MutableMapping[Holder, None] = {}
        self._surplus: MutableMapping[str, None] = {}

    def fork(self) -> AddressBook:
        """The same, to be changed on its own; it shares with this, and is good until this changes."""
        forked = AddressBook()
        forked._holders, forked._by_address = Overlay(self._holders), Overlay(self._by_address)
        forked._addresses = Overlay(self._addresses)
        forked._lacking, forked._surplus = Overlay(self._lacking), Overlay(self._surplus)
        return forked

    def __contains__(self, address: object) -> bool:
        return address in self._by_address

    def __len__(self) -> int:
        return len(self._by_address)

    def resources(self, mesh: str) -> Iterator[VirtualIP]:
        """What is stored of it, in no order."""
        return (VirtualIP.of(mesh, address, holder) for address, holder in self._by_address.items())

    def address(self, holder: Holder) -> str:
        """The address of a holder; empty while it has none."""
        held = self._addresses.get(holder)
        return held[0] if held else ""

    @property
    def lacking(self) -> Collection[Holder]:
        """Those that are to have an address and have none, in the order in which they came."""
        return self._lacking.keys()

    @property
    def surplus(self) -> Collection[str]:
        """Addresses that nobody wants or keeps, and those of a holder that has another."""
        return self._surplus.keys()

    def want(self, holder: Holder) -> None:
        """Have a holder get an address, unless it has one."""
        self._holders[holder] = True
        self._look(holder)

    def keep(self, holder: Holder) -> None:
        """Have a holder keep the address that it may have."""
        self._holders[holder] = False
        self._look(holder)

    def unwant(self, holder: Holder) -> None:
        """Let a holder's address go, if it has one."""
        self._holders.pop(holder, None)
        self._look(holder)

    def put(self, address: str, holder: Holder | None) -> set[Holder]:
        """Take in who has an address now, or None for an address that is free; the holders that have another by it."""
        before = self._by_address.pop(address, None)
        self._surplus.pop(address, None)
        touched = {each for each in (before, holder) if each is not None}
        were = {each: self.address(each) for each in touched}
        if before is not None:
            rest = tuple(each for each in self._addresses.pop(before) if each != address)
            if rest:
                self._addresses[before] = rest
        if holder is not None:
            self._by_address[address] = holder
            self._addresses[holder] = tuple(sorted((*self._addresses.get(holder, ()), address)))
        for each in touched:
            self._look(each)
        return {each for each, address_before in were.items() if self.address(each) != address_before}

    def _look(self, holder: Holder) -> None:
        """Note what is to be done for a holder."""
        held, is_wanted = self._addresses.get(holder, ()), self._holders.get(holder)
        if is_wanted and not held:
            self._lacking[holder] = None
        else:
            self._lacking.pop(holder, None)
        for position, address in enumerate(held):
            if is_wanted is None or position > 0:
                self._surplus[address] = None
            else:
                self._surplus.pop(address, None)
