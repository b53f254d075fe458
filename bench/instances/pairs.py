"""A mesh in which each service is reached by the instances of one other, and changes of it at a steady rate.

In: how many dataplanes, where the APIs are. Out: dataplanes that move to addresses that nobody had before, each written
until it is acknowledged; what was acknowledged; when it arrived where. Never: a second change of what has not arrived.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from bench.real_wires.arrivals import Arrivals, Awaited
from bench.real_wires.simulated_envoy import Facts

from kumafast.snapshot.resource import ENDPOINT

EACH = 5
"""Instances of a service; each has one outbound, to the next service."""
ATTEMPT_S = 20.0
AGAIN_S = 0.5
WRITES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Ring:
    """Dataplanes by their numbers from 0 on; names, services and addresses begin with the ring's own words."""

    size: int
    prefix: str = "dp"
    net: int = 10

    @property
    def numbers(self) -> range:
        """Of all of them."""
        return range(self.size)

    def name(self, number: int) -> str:
        """The dataplane with a number."""
        return f"{self.prefix}-{number:06}"

    def node_id(self, number: int) -> str:
        """Its Envoy."""
        return f"default.{self.name(number)}"

    def service(self, number: int) -> str:
        """What it is an instance of."""
        return f"{self.prefix}-service-{number // EACH}"

    def clients(self, number: int) -> set[str]:
        """The Envoys that reach it: the instances of the service before."""
        before = (number // EACH - 1) % (self.size // EACH)
        return {self.node_id(before * EACH + index) for index in range(EACH)}

    def dataplane(self, number: int, address: str) -> dict[str, Any]:
        """Its document."""
        tags = {"kuma.io/service": self.service(number), "kuma.io/protocol": "http"}
        following = self.service((number + EACH) % self.size)
        outbound = {"port": 10_000, "tags": {"kuma.io/service": following}}
        networking = {"address": address, "inbound": [{"port": 8080, "tags": tags}], "outbound": [outbound]}
        return {"type": "Dataplane", "mesh": "default", "name": self.name(number), "networking": networking}

    def first_address(self, number: int) -> str:
        """Where it is at first."""
        return f"{self.net}.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"

    def later_address(self, count: int) -> str:
        """Where the dataplane goes that moves as the so many-th."""
        return f"{self.net}.{128 + (count >> 16)}.{count >> 8 & 255}.{count & 255}"


@dataclass(slots=True, eq=False)
class Move(Awaited):
    """A change on its way, and at which second each node had it."""

    by_node: dict[str, float] = field(default_factory=dict)

    def arrive(self, node_id: str, at: float) -> bool:
        """As of what is awaited."""
        if node_id in self.waiting:
            self.by_node[node_id] = at
        return Awaited.arrive(self, node_id, at)


@dataclass(slots=True)
class Refusal:
    """An attempt that was not acknowledged: when, for how long it waited, the status or the error."""

    at: float
    seconds: float
    status: str


class Load:
    """Writes at a rate to any of some instances, until cancelled. Each goes on until one acknowledges it."""

    def __init__(
        self, ring: Ring, *, rate: float, arrivals: Arrivals, apis: Callable[[], Sequence[str]], seed: int = 0
    ) -> None:
        self._ring, self._rate, self._apis, self._arrivals = ring, rate, apis, arrivals
        self._rng = random.Random(seed)
        self._numbers = itertools.count(1)
        self._newest: dict[int, Move] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self.acknowledged: dict[str, str] = {ring.name(number): ring.first_address(number) for number in ring.numbers}
        """The address of each dataplane that was acknowledged last."""
        self.moves: list[Move] = []
        self.refusals: list[Refusal] = []
        self.answers: dict[str, list[float]] = {}
        """When writes were acknowledged, by the API that did."""
        self.counts: Counter[str] = Counter()
        self.is_paused = False

    async def run(self) -> None:
        """Begin writes at the rate, but for those for which too many others wait: `skipped`."""
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(timeout=ATTEMPT_S) as client:
            try:
                due = loop.time()
                while True:
                    due = max(due + 1 / self._rate, loop.time() - 1.0)
                    await asyncio.sleep(max(0.0, due - loop.time()))
                    if self.is_paused:
                        continue
                    number = self._settled()
                    if number is None or len(self._writing) >= WRITES_AT_ONCE:
                        self.counts["skipped"] += 1
                        continue
                    task = asyncio.create_task(self._write(client, number))
                    self._writing.add(task)
                    task.add_done_callback(self._writing.discard)
            finally:
                for task in tuple(self._writing):
                    task.cancel()
                await asyncio.gather(*self._writing, return_exceptions=True)

    async def rest(self) -> None:
        """Begin no more writes; return when those that were begun are acknowledged."""
        self.is_paused = True
        while self._writing:
            await asyncio.sleep(0.01)

    def _settled(self) -> int | None:
        for _ in range(10):
            number = self._rng.randrange(self._ring.size)
            newest = self._newest.get(number)
            if newest is None or (newest.returned and not newest.waiting):
                return number
        return None

    async def _write(self, client: httpx.AsyncClient, number: int) -> None:
        ring, address = self._ring, self._ring.later_address(next(self._numbers))
        move = Move(
            kind="move",
            type_url=ENDPOINT,
            resource=ring.service(number),
            shows=lambda facts: _has(facts, address),
            waiting=ring.clients(number),
            started=time.monotonic(),
        )
        self._newest[number] = move
        self._arrivals.expect(move)
        name = ring.name(number)
        path, document = f"/meshes/default/dataplanes/{name}", ring.dataplane(number, address)
        while not await self._attempt(client, path, document):
            await asyncio.sleep(AGAIN_S)
        move.returned = time.monotonic()
        self.acknowledged[name] = address
        self.counts["acknowledged"] += 1
        self.moves.append(move)

    async def _attempt(self, client: httpx.AsyncClient, path: str, document: dict[str, Any]) -> bool:
        began, apis = time.monotonic(), self._apis()
        if not apis:
            return False
        try:
            api = self._rng.choice(apis)
            response = await client.put(api + path, json=document)
            status = str(response.status_code)
        except (httpx.TransportError, AttributeError) as error:
            # AttributeError: anyio looks at a connection of uvloop that was lost as soon as it was made.
            status = type(error).__name__
        if status == "200":
            self.answers.setdefault(api, []).append(time.monotonic())
            return True
        self.refusals.append(Refusal(began, time.monotonic() - began, status))
        return False


def _has(facts: Facts, address: str) -> bool:
    return address in facts.addresses


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of all is; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def spread(delays: Sequence[float]) -> dict[str, float]:
    """How long pushes took, in seconds."""
    return {
        "p50": round(quantile(delays, 0.5), 4),
        "p99": round(quantile(delays, 0.99), 4),
        "longest": round(max(delays, default=0.0), 4),
        "pushes": len(delays),
    }
