"""Addresses: whatever comes and goes, however often somebody starts anew, none is given twice and names keep theirs."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kumafast.ipam import Allocator, Network, Ranges, place
from kumafast.registry.address_book import AddressBook
from kumafast.resources import Mesh, Resource
from kumafast.resources.virtual_ip import DOMAIN, HOST, SERVICE, Holder, VirtualIP
from kumafast.store import MemoryStore

SMALL = IPv4Network("240.0.0.0/27")
NAMES = [Holder(kind, f"name-{number}") for kind in (SERVICE, HOST, DOMAIN) for number in range(8)]


class Instance:
    """A control plane as far as addresses go: what it has seen of the store, and who wants addresses of it."""

    def __init__(self, store: MemoryStore, wanted: set[Holder]) -> None:
        self.store = store
        self.book = AddressBook()
        self.revision = 0
        for holder in sorted(wanted):
            self.book.want(holder)
        self.allocator = Allocator(
            store=store,
            books=lambda: [("default", self.book)],
            settle=self.see,
            moved=self.see,
            applied=lambda: self.revision,
            ranges=Ranges(names=SMALL),
        )

    async def see(self) -> None:
        """Take in what has been stored since."""
        newest = await self.store.revision()
        if newest == self.revision:
            return
        async for commit in self.store.watch(after=self.revision):
            for change in commit.changes:
                if change.key.type == VirtualIP.type.name:
                    resource = None if change.stored is None else change.stored.resource
                    self.book.put(change.key.name, _holder(resource))
            self.revision = commit.revision
            if commit.revision == newest:
                return

    async def settle(self) -> None:
        """Write until nothing is left to write."""
        while await self.allocator.step():
            pass


def _holder(resource: Resource | None) -> Holder | None:
    assert resource is None or isinstance(resource, VirtualIP)
    return None if resource is None else resource.holder


async def _stored(store: MemoryStore) -> dict[Holder, list[str]]:
    found: dict[Holder, list[str]] = {}
    for each in (await store.list(VirtualIP.type.name)).items:
        holder = _holder(each.resource)
        assert holder is not None
        found.setdefault(holder, []).append(each.resource.name)
    return found


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from(NAMES)),
        st.tuples(st.just("go"), st.sampled_from(NAMES)),
        st.tuples(st.just("settle"), st.sampled_from([0, 1])),
        st.tuples(st.just("restart"), st.sampled_from([0, 1])),
    ),
    max_size=60,
)


async def _play(steps: list[tuple[str, Holder | int]]) -> None:
    store = MemoryStore()
    await store.put(Mesh(name="default"))
    wanted: set[Holder] = set()
    # Two that know the same names and write when they like, each after what it has seen.
    instances = [Instance(store, wanted), Instance(store, wanted)]
    known: dict[Holder, str] = {}
    for what, subject in steps:
        if isinstance(subject, Holder):
            (wanted.add if what == "come" else wanted.discard)(subject)
            if what == "go":
                known.pop(subject, None)
            for each in instances:
                (each.book.want if what == "come" else each.book.unwant)(subject)
            continue
        if what == "restart":
            instances[subject] = Instance(store, wanted)
        await instances[subject].settle()
        held = await _stored(store)
        assert set(held) >= wanted
        for holder in wanted:
            # That it is in the store once for each address is the store's own rule; it has the one that it had.
            assert known.setdefault(holder, instances[subject].book.address(holder)) in held[holder]
    for each in instances:
        await each.see()
        await each.settle()
    held = await _stored(store)
    assert set(held) == wanted
    assert all(len(addresses) == 1 for addresses in held.values())
    taken = [ip_address(address) for addresses in held.values() for address in addresses]
    assert len(set(taken)) == len(taken)
    assert all(address in SMALL for address in taken)
    assert {holder: addresses[0] for holder, addresses in held.items()}.items() >= known.items()


@settings(max_examples=300, deadline=None)
@given(_steps)
def test_no_address_is_given_twice_and_names_keep_theirs(steps: list[tuple[str, Holder | int]]) -> None:
    asyncio.run(_play(steps))


def test_a_name_that_comes_again_has_the_address_that_it_had() -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.put(Mesh(name="default"))
        instance = Instance(store, set(NAMES[:3]))
        await instance.settle()
        before = await _stored(store)
        instance.book.unwant(NAMES[0])
        await instance.settle()
        assert NAMES[0] not in await _stored(store)
        instance.book.want(NAMES[0])
        await instance.settle()
        assert await _stored(store) == before

    asyncio.run(main())


def test_where_all_are_taken_nobody_gets_one_and_the_next_that_is_free_is_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        store = MemoryStore()
        await store.put(Mesh(name="default"))
        many = [Holder(SERVICE, f"s-{number}") for number in range(31)]
        instance = Instance(store, set(many))
        await instance.settle()
        # All but the network's own address and the one of all that are in it.
        assert len(await _stored(store)) == 30
        assert "no address left" in caplog.text
        (last,) = instance.book.lacking
        gone = next(holder for holder in many if holder != last)
        address = instance.book.address(gone)
        instance.book.unwant(gone)
        await instance.settle()
        assert (await _stored(store))[last] == [address]

    asyncio.run(main())


@pytest.mark.parametrize(
    "network", [IPv4Network("240.0.0.0/4"), IPv4Network("10.0.0.0/31"), IPv4Network("10.0.0.7/32"), "fd00:fd00::/64"]
)
def test_a_place_is_in_its_range(network: Network | str) -> None:
    network = ip_network(network)
    assert isinstance(network, IPv4Network | IPv6Network)
    for holder in NAMES:
        assert ip_address(place(holder, network, ())) in network


def test_each_kind_has_its_range_and_a_name_another_address_in_each() -> None:
    ranges = Ranges()
    kinds = {SERVICE: "240.", HOST: "240.", DOMAIN: "240.", "MeshService": "241.", "MeshExternalService": "242."}
    places = {kind: place(Holder(kind, "web"), ranges.of(kind), ()) for kind in kinds}
    assert all(places[kind].startswith(prefix) for kind, prefix in kinds.items())
    assert len(set(places.values())) == len(kinds)
    with pytest.raises(KeyError):
        ranges.of("Dataplane")
