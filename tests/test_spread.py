"""Proxies spread over instances: sent away while others have room, some at a time, and never in a circle."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kumafast import spread
from kumafast.store.members import Member, Members

pytestmark = pytest.mark.anyio

COUNTS = st.lists(st.integers(0, 300), min_size=1, max_size=6)


@given(COUNTS, st.integers(1, 200))
def test_as_many_leave_as_there_is_room_and_nobody_who_is_not_beyond_the_limit(counts: list[int], limit: int) -> None:
    leaving = [
        spread.excess(own, [*counts[:number], *counts[number + 1 :]], limit=limit) for number, own in enumerate(counts)
    ]
    room = sum(max(limit - count, 0) for count in counts)
    surplus = sum(max(count - limit, 0) for count in counts)
    assert all(count - left >= min(count, limit) for count, left in zip(counts, leaving, strict=True))
    assert sum(leaving) <= min(room, surplus)
    # All that can leave does, but for what a division leaves over at each.
    assert sum(leaving) > min(room, surplus) - len(counts)


@pytest.mark.parametrize("total", [150, 300, 450])
async def test_all_come_to_rest_within_the_limit_or_where_all_are_full(total: int) -> None:
    """Of three instances one has all; whoever leaves comes to any of them, as a balancer has it."""
    limit, chance = 100, random.Random(1)
    counts = {"a": total, "b": 0, "c": 0}
    members = {name: Members(name, is_alone=False) for name in counts}
    sent = 0

    def shed_from(name: str) -> spread.Shed:
        async def shed(count: int) -> None:
            nonlocal sent
            assert count <= limit * spread.SHARE
            sent += count
            counts[name] -= count
            for _ in range(count):
                counts[chance.choice(list(counts))] += 1

        return shed

    tasks = []
    for name, own in members.items():
        own.count_proxies = lambda name=name: counts[name]  # type: ignore[misc]
        tasks.append(asyncio.create_task(spread.follow(own, limit=limit, shed=shed_from(name))))
    quiet = 0
    while quiet < 20:
        before = sent
        await asyncio.sleep(0)
        for name, own in members.items():
            others = {other: Member(0, 0, counts[other]) for other in counts if other != name}
            own.see(others, is_leading=False, is_settled=True)
        await asyncio.sleep(0)
        quiet = quiet + 1 if sent == before else 0
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert max(counts.values()) <= max(limit, total - 2 * limit)
    assert sum(counts.values()) == total


async def test_without_a_limit_nobody_leaves() -> None:
    async def shed(_: int) -> None:
        pytest.fail("nobody is to leave")

    await spread.follow(Members(), limit=0, shed=shed)


async def test_how_many_others_have_is_known_and_wakes_nobody() -> None:
    members = Members("own", is_alone=False)
    members.see({"other": Member(0, 0, 5)}, is_leading=False, is_settled=True)
    changes, looking = members.changes, asyncio.create_task(members.look())
    await asyncio.sleep(0)
    members.see({"other": Member(0, 0, 9)}, is_leading=False, is_settled=True)
    await looking
    assert members.others["other"].proxies == 9
    assert members.changes == changes
