"""A change has arrived where it shows, once for each whom it affects, and is followed no longer than that."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from bench.real_wires.arrivals import Arrivals, Awaited
from bench.real_wires.changes import Changes, Write, reached
from bench.real_wires.simulated_envoy import Facts
from bench.regular_mesh import CLIENTS, name

from kumafast.snapshot.resource import CLUSTER, ENDPOINT

SIZE = 100


def awaited(*nodes: str, address: str = "10.9.0.1") -> Awaited:
    write = Write("add", "PUT", "/x", None, ENDPOINT, "service-00000", address=address)
    return Awaited("add", ENDPOINT, "service-00000", write.shows, set(nodes), started=1.0)


def with_addresses(*addresses: str) -> Facts:
    return Facts("v", addresses=frozenset(addresses))


def test_change_arrives_where_it_shows() -> None:
    arrivals, change = Arrivals(), awaited("a", "b")
    arrivals.expect(change)
    assert arrivals.take("a", ENDPOINT, "service-00000", with_addresses("10.9.0.2"), 2.0) == []
    assert arrivals.take("a", ENDPOINT, "service-00001", with_addresses("10.9.0.1"), 3.0) == []
    assert arrivals.take("c", ENDPOINT, "service-00000", with_addresses("10.9.0.1"), 4.0) == []
    assert arrivals.take("a", ENDPOINT, "service-00000", with_addresses("10.9.0.1"), 5.0) == [change]
    assert arrivals.missing() == [change]
    # The same Envoy is not counted twice.
    assert arrivals.take("a", ENDPOINT, "service-00000", with_addresses("10.9.0.1"), 6.0) == []
    assert arrivals.take("b", ENDPOINT, "service-00000", with_addresses("10.9.0.1"), 7.0) == [change]
    assert change.arrivals == [5.0, 7.0]
    assert arrivals.missing() == []
    assert arrivals.last == 7.0


def test_one_resource_can_bring_several_changes() -> None:
    arrivals, first, second = Arrivals(), awaited("a", address="10.9.0.1"), awaited("a", address="10.9.0.2")
    arrivals.expect(first)
    arrivals.expect(second)
    both = with_addresses("10.9.0.1", "10.9.0.2")
    assert arrivals.take("a", ENDPOINT, "service-00000", both, 2.0) == [first, second]
    assert arrivals.missing() == []


def test_change_that_affects_nobody_is_not_missed() -> None:
    arrivals = Arrivals()
    arrivals.expect(awaited())
    assert arrivals.missing() == []


@pytest.mark.parametrize(
    ("write", "before", "after"),
    [
        (Write("add", "PUT", "/", None, ENDPOINT, "s", address="x"), {}, {"addresses": frozenset("x")}),
        (
            Write("remove", "DELETE", "/", None, ENDPOINT, "s", address="x", is_there=False),
            {"addresses": frozenset("xy")},
            {"addresses": frozenset("y")},
        ),
        (Write("policy", "PUT", "/", None, CLUSTER, "s", timeout_ns=5), {}, {"connect_timeout_ns": 5}),
    ],
)
def test_write_shows_in_what_is_sent_after_it(
    write: Write, before: dict[str, object], after: dict[str, object]
) -> None:
    assert not write.shows(Facts("v", **before))  # type: ignore[arg-type]
    assert write.shows(Facts("v", **after))  # type: ignore[arg-type]


def test_changes_wait_for_what_they_change_and_never_use_an_address_twice() -> None:
    changes = Changes(SIZE)
    open_paths: dict[str, Awaited] = {}
    addresses: Counter[str] = Counter()
    for write in itertools.islice(changes, 300):
        assert write.path not in open_paths
        change = changes.expect(write, 0.0)
        assert len(change.waiting) == CLIENTS
        addresses[write.address] += bool(write.address) and write.is_there
        if len(open_paths) > 5:
            # The oldest has arrived everywhere.
            oldest = next(iter(open_paths))
            open_paths.pop(oldest).waiting.clear()
        open_paths[write.path] = change
    assert max(addresses.values()) == 1


def test_clients_are_those_who_reach_a_service() -> None:
    changes = Changes(SIZE)
    for number in (0, 7, SIZE - 1):
        for service in reached(number, SIZE):
            assert f"default.{name(number)}" in changes.clients(service)
