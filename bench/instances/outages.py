"""PostgreSQL is away under load, in three ways: what that costs proxies and writers, and how soon all is as it was.

In: a crew, a server, the cable between them. Out: for each way how long refused writes waited, what proxies noticed,
how soon writes went on. Never: a threshold; those are with whoever asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from bench.instances.cable import Cable
from bench.instances.crew import WAIT_S, Crew
from bench.instances.pairs import quantile
from bench.real_wires.fleet import Fleet, until
from tests.instances import Instance
from tests.postgresql import Server

CUT_SHARE = 0.05
"""Of the streams, that end in the middle of an outage, so that their Envoys come back while it lasts."""
SETTLE_S = 3.0
_AGAIN_S = 0.05


Act = Callable[[], Awaitable[None]]


def ways(server: Server, cable: Cable) -> dict[str, tuple[Act, Act]]:
    """How PostgreSQL goes away, and how it comes back."""

    async def stop() -> None:
        server.send(signal.SIGSTOP)

    async def go_on() -> None:
        server.send(signal.SIGCONT)

    async def kill() -> None:
        await asyncio.to_thread(server.kill)

    async def start() -> None:
        await asyncio.to_thread(server.start)

    async def cut() -> None:
        cable.cut()

    async def mend() -> None:
        cable.mend()

    return {"stopped": (stop, go_on), "killed": (kill, start), "cut off": (cut, mend)}


async def play(crew: Crew, server: Server, cable: Cable, *, seconds: float) -> dict[str, Any]:
    """The figures of each way, in seconds."""
    figures: dict[str, Any] = {"proxies": crew.size, "seconds": seconds}
    async with crew.running():
        for way, (leave, come_back) in ways(server, cable).items():
            async with crew.loaded() as load:
                load.is_paused = False
                await asyncio.sleep(SETTLE_S)
                figures[way] = await _away(crew, leave, come_back, seconds)
    return figures


async def _away(crew: Crew, leave: Act, come_back: Act, seconds: float) -> dict[str, Any]:
    fleet, load = crew.fleet, crew.load
    load.refusals.clear()
    await crew.witness.take()
    fleet.take_received()
    closed = fleet.streams["closed"]
    # Already begun: those are answered by a PostgreSQL that is there.
    await leave()
    left_at = time.monotonic()
    await asyncio.sleep(seconds / 2)
    cut = fleet.cut(CUT_SHARE)
    served, read_s = await _newcomers_served(crew), await _read(crew)
    await crew.all_connected()
    await asyncio.sleep(max(0.0, left_at + seconds - time.monotonic()))
    unasked = fleet.streams["closed"] - closed - cut
    # What the restart of PostgreSQL itself takes is not ours.
    await come_back()
    back_at = time.monotonic()
    await asyncio.gather(*(_written(crew, instance, back_at) for instance in crew.living))
    # The witness has tried all the time, at both, and has nothing else to do when they are back.
    await asyncio.sleep(SETTLE_S)
    _, witnessed, answers = await crew.witness.take()
    back_s = [
        min((at for at in answers.get(instance.api, []) if at >= back_at), default=time.monotonic()) - back_at
        for instance in crew.living
    ]
    while_away = [each for each in load.refusals if left_at <= each.at < left_at + seconds]
    of_witness = [each.seconds for each in witnessed if left_at <= each.at < left_at + seconds]
    load.is_paused = True
    equal_at = await crew.quiet()
    received = fleet.take_received()
    return {
        "refused": Counter(each.status for each in while_away),
        "refused_after_s": {"median": round(quantile([each.seconds for each in while_away], 0.5), 2),
                            "longest": round(max((each.seconds for each in while_away), default=0.0), 2),
                            "longest_of_witness": round(max(of_witness, default=0.0), 2)},
        "streams_lost": unasked,
        "came_back_meanwhile": cut,
        "newcomers_served_s": round(served, 3),
        "read_s": round(read_s, 3),
        "writes_again_after_s": [round(each, 2) for each in back_s],
        "all_equal_after_s": round(equal_at - back_at, 2),
        "sent_again": received.held_already,
        "differences": await crew.differences(),
    }  # fmt: skip


async def _newcomers_served(crew: Crew) -> float:
    """How long Envoys took to be configured that are new to the instances, one for each."""
    began = time.monotonic()
    for number, instance in enumerate(crew.living):
        # A second Envoy of a dataplane is given the same as the first.
        newcomer = Fleet([crew.ring.node_id(number)])
        newcomer.start("127.0.0.1", instance.dp_port)
        envoys = newcomer.envoys.values()
        await until(lambda envoys=envoys: all(each.is_configured() for each in envoys), "newcomer", timeout_s=WAIT_S)  # type: ignore[misc]
        await newcomer.stop()
    return time.monotonic() - began


async def _read(crew: Crew) -> float:
    """How long it took to list all dataplanes at each instance."""
    began = time.monotonic()
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        for instance in crew.living:
            listed = await client.get(f"{instance.api}/meshes/default/dataplanes?size=10")
            assert listed.status_code == 200
            assert listed.json()["total"] >= crew.size
    return time.monotonic() - began


async def _written(crew: Crew, instance: Instance, since: float) -> None:
    """Return when an instance has acknowledged a write."""
    # A dataplane that nobody reaches, another each time: what is stored already would be no write.
    name = f"probe-{crew.living.index(instance)}"
    path = f"{instance.api}/meshes/default/dataplanes/{name}"
    inbound = {"port": 8080, "tags": {"kuma.io/service": "probe", "moment": f"{since:.6f}"}}
    networking = {"address": "10.0.0.1", "inbound": [inbound]}
    document = {"type": "Dataplane", "mesh": "default", "name": name, "networking": networking}
    async with httpx.AsyncClient(timeout=WAIT_S) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                response = await client.put(path, json=document)
                if response.status_code < 300:
                    return
                assert response.status_code == 503, response.text
            await asyncio.sleep(_AGAIN_S)
