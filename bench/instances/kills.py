"""One of two instances is killed again and again under load: what that costs proxies and writers.

In: a crew. Out: for each kill, and over all, how long until all hold everything, how late survivors' proxies were told,
as a witness saw it that has little else to do and as the process saw it that plays all the others; what was sent again.
Never: a threshold; those are with whoever asks.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.instances.crew import WAIT_S, Crew
from bench.instances.pairs import quantile, spread
from bench.real_wires.fleet import until

LOAD_S = 5.0
"""How long the load goes on after a kill, before all is compared."""


STEADY_S = 1.0
"""How long the load goes on with both there, before a kill."""


async def play(crew: Crew, *, kills: int, load_s: float = LOAD_S) -> dict[str, Any]:
    """The figures, in seconds."""
    each: list[dict[str, Any]] = []
    witnessed: list[float] = []
    late: list[float] = []
    async with crew.running(), crew.loaded() as load:
        began = time.monotonic()
        await asyncio.sleep(load_s)
        for number in range(kills):
            load.is_paused = False
            await asyncio.sleep(STEADY_S)
            figures, seen, delays = await _kill(crew, number % 2, load_s)
            each.append(figures)
            witnessed += seen
            late += delays
        seconds = time.monotonic() - began
        resting = sum(figures["comparing_s"] for figures in each)
    return {
        "proxies": crew.size,
        "kills": kills,
        "acknowledged": load.counts["acknowledged"],
        "writes_a_second": round(load.counts["acknowledged"] / (seconds - resting), 1),
        "skipped": load.counts["skipped"],
        "all_equal_s": {"median": quantile([each_["all_equal_s"] for each_ in each], 0.5),
                        "longest": max(each_["all_equal_s"] for each_ in each)},
        "survivors_push_s": {"witness": spread(witnessed), "all": spread(late)},
        "sent_again": sum(each_["sent_again"] for each_ in each),
        "differences": [line for each_ in each for line in each_["differences"]],
        "each": each,
    }  # fmt: skip


async def _kill(crew: Crew, number: int, load_s: float) -> tuple[dict[str, Any], list[float], list[float]]:
    """Kill one and start it again; the figures, and how long each push to a survivor's proxy took from its write's
    answer on: to those of the witness, and to all others."""
    other, survivor = next((at, instance) for at, instance in enumerate(crew.instances) if at != number and instance)
    stayed = crew.fleet.at(survivor.dp_port)
    crew.fleet.take_received()
    await crew.witness.take()
    moved, closed = crew.size - len(stayed), crew.fleet.streams["closed"]
    killed_at = time.monotonic()
    await asyncio.to_thread(crew.kill, number)
    await until(lambda: crew.fleet.streams["closed"] >= closed + moved, "cut off", timeout_s=WAIT_S)
    connected_at = await crew.all_connected()
    await asyncio.sleep(max(0.0, killed_at + load_s - time.monotonic()))
    load_until = time.monotonic()
    crew.load.is_paused = True
    equal_at = await crew.quiet()
    compared_at = time.monotonic()
    differences = await crew.differences()
    received = crew.fleet.take_received()
    delays = [
        max(0.0, at - move.returned)
        for move in crew.load.moves
        if killed_at <= move.started <= load_until
        for node, at in move.by_node.items()
        if node in stayed
    ]
    crew.load.moves.clear()
    seen = [
        each.seconds
        for each in (await crew.witness.take()).seen
        if each.number == other and killed_at <= each.started <= load_until
    ]
    instance = await crew.start(number)
    await crew.balance(instance)
    await crew.all_connected()
    # Who comes back after a pause of its own has not stayed.
    await crew.witness.all_connected()
    figures = {
        "moved": moved,
        "connected_s": round(connected_at - killed_at, 3),
        # Of those changes as well that came while the load went on.
        "all_equal_s": round(equal_at - killed_at, 3),
        "push_p99_s": {"witness": round(quantile(seen, 0.99), 4), "all": round(quantile(delays, 0.99), 4)},
        "sent_again": received.held_already,
        "differences": differences,
        "comparing_s": round(time.monotonic() - compared_at, 3),
    }
    return figures, seen, delays
