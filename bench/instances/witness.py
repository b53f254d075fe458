"""A process of its own that has little to do: how late connected Envoys are told, whatever others have to do then.

In: where the instances are now. Out: when each of its own changes was acknowledged, and when each of its Envoys had it;
its writes that were refused. Never: a share in the load worth speaking of.

The process that plays thousands of Envoys reads what came late when they all come back at once, and that is no fault of
the instance that sent it. Monotonic seconds are the same for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import uvloop
from bench import ending
from bench.instances.pairs import EACH, Load, Refusal, Ring
from bench.real_wires.arrivals import Arrivals
from bench.real_wires.fleet import Fleet

ENVOYS = 50
"""At each instance, and never at another."""
RATE = 10.0
"""Changes a second, each of which goes to some of its Envoys at every instance."""
_NICE = -5
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """One push: when its write was begun and acknowledged, and when an Envoy at the instance with a number had it."""

    started: float
    returned: float
    number: int
    at: float

    @property
    def seconds(self) -> float:
        """From the answer to the write on; a push may be there before it."""
        return max(0.0, self.at - self.returned)


class Taken(NamedTuple):
    """Pushes; writes that were refused; when writes were acknowledged, by the API that did."""

    seen: list[Seen]
    refusals: list[Refusal]
    answers: dict[str, list[float]]


class Witness:
    """The process, as whoever has it sees it. `ring` are its dataplanes, which must be stored."""

    def __init__(self, instances: int) -> None:
        self.ring = _ring(instances)
        context = multiprocessing.get_context("spawn")
        news, self._news = context.Pipe(duplex=False)
        # Of its own: a loop that listens to a pipe makes writing to it fail where the pipe is full.
        self._answers, answers = context.Pipe(duplex=False)
        self._process = context.Process(target=_main, args=(news, answers, instances), daemon=True)
        self._process.start()

    def tell(self, **news: Any) -> None:
        """`ports`: of each instance by its number, None where it is not there; `apis`; `is_writing`."""
        self._news.send(news)

    async def take(self) -> Taken:
        """What it has seen since the last time."""
        self._news.send({"take": True})
        taken: Taken = await asyncio.to_thread(self._answers.recv)
        return taken

    async def all_connected(self) -> None:
        """Return when each of its Envoys has a stream. All instances must be there."""
        while True:
            self._news.send({"count": True})
            connected: int = await asyncio.to_thread(self._answers.recv)
            if connected == self.ring.size:
                return
            await asyncio.sleep(_LOOK_S)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.join(10)
        self._news.close()
        self._answers.close()


def _ring(instances: int) -> Ring:
    return Ring(ENVOYS * instances, prefix="witness", net=11)


def _main(news: Connection, answers: Connection, instances: int) -> None:
    ending.by_its_parent()
    # Where it may not be before all others it is one of them.
    with contextlib.suppress(PermissionError):
        os.nice(_NICE)
    uvloop.run(_Process(news, answers, instances).run())


class _Process:
    def __init__(self, news: Connection, answers: Connection, instances: int) -> None:
        self._news, self._answers, self._ring = news, answers, _ring(instances)
        self._ports: Sequence[int | None] = [None] * instances
        self._apis: Sequence[str] = ()
        arrivals = Arrivals()
        # The clients of each service are at all instances.
        self._numbers = {self._ring.node_id(number): number % EACH % instances for number in self._ring.numbers}
        self._fleets = [
            Fleet((node for node, at in self._numbers.items() if at == number), arrivals=arrivals)
            for number in range(instances)
        ]
        self._load = Load(self._ring, rate=RATE, arrivals=arrivals, apis=lambda: self._apis)
        self._load.is_paused = True

    async def run(self) -> None:
        """Until it is ended."""
        asyncio.get_running_loop().add_reader(self._news.fileno(), self._hear)
        for number, fleet in enumerate(self._fleets):
            fleet.start("127.0.0.1", lambda number=number: self._port(number))  # type: ignore[misc]
        await self._load.run()

    def _port(self, number: int) -> int:
        port = self._ports[number]
        if port is None:
            raise ConnectionRefusedError("it is not there")
        return port

    def _hear(self) -> None:
        while self._news.poll():
            try:
                news = self._news.recv()
            except EOFError:
                # Whoever started it has died.
                os._exit(1)
            self._ports = news.get("ports", self._ports)
            self._apis = news.get("apis", self._apis)
            self._load.is_paused = not news.get("is_writing", not self._load.is_paused)
            if "take" in news:
                self._answers.send(self._taken())
            if "count" in news:
                self._answers.send(sum(fleet.connected for fleet in self._fleets))

    def _taken(self) -> Taken:
        seen = [
            Seen(move.started, move.returned, self._numbers[node], at)
            for move in self._load.moves
            for node, at in move.by_node.items()
        ]
        refusals, self._load.refusals = self._load.refusals, []
        answers, self._load.answers = self._load.answers, {}
        # What is still on its way is seen when it is there.
        self._load.moves = [move for move in self._load.moves if move.waiting]
        for move in self._load.moves:
            move.by_node.clear()
        return Taken(seen, refusals, answers)
