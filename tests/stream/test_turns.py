"""Slices of work: each callback once and in order, and never many in one turn of the loop."""

from __future__ import annotations

import asyncio

from kumafast.stream.turns import SLICE, Turns


def test_each_once_in_order_and_a_slice_each_turn() -> None:
    async def main() -> None:
        turns = Turns()
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
        assert max(sizes) == SLICE
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
