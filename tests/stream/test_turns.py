"""Slices of work: each callback once and in order, and never many in one turn of the loop."""

from __future__ import annotations

import asyncio
import time

import pytest

from kumafast._core import Turns

SLICE = 64


def test_each_once_in_order_and_a_slice_each_turn() -> None:
    async def main() -> None:
        turns = Turns(SLICE, 1.0)
        done: list[int] = []
        callbacks = [lambda at=at: done.append(at) for at in range(10 * SLICE + 1)]
        for callback in [*callbacks, *callbacks[:100]]:
            turns.ask(callback)
        sizes = []
        while len(done) < len(callbacks):
            before = len(done)
            await asyncio.sleep(0)
            sizes.append(len(done) - before)
        assert done == list(range(len(callbacks)))
        assert max(sizes) == SLICE == turns.longest
        # What asks again while it is called has its turn later, and does not starve the loop.
        count = 0

        def again() -> None:
            nonlocal count
            count += 1
            turns.ask(again)

        turns.ask(again)
        for _ in range(10):
            await asyncio.sleep(0)
        assert 5 <= count <= 10

    asyncio.run(main())


def test_turn_that_lasts_ends_after_the_callback_that_made_it_last() -> None:
    async def main() -> None:
        turns = Turns(SLICE, 0.001)
        for _ in range(5):
            turns.ask(lambda: time.sleep(0.002))
            turns.ask(lambda: None)
        await asyncio.sleep(0.1)
        assert len(turns) == 0
        # One that sleeps is the last of its turn.
        assert turns.longest == 2

    asyncio.run(main())


def test_callback_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        turns = Turns(SLICE, 1.0)
        done = []
        turns.ask(lambda: done.append(1))
        turns.ask(lambda: 1 / 0)
        turns.ask(lambda: done.append(2))
        await asyncio.sleep(0.01)
        assert done == [1, 2]

    asyncio.run(main())
    assert "ZeroDivisionError" in caplog.text
