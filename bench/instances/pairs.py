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


def name(number: int) -> str:
    """The dataplane with a number."""
    return f"dp-{number:06}"


def node_id(number: int) -> str:
    """The Envoy of the dataplane with a number."""
    return f"default.{name(number)}"


def dataplane(number: int, size: int, address: str) -> dict[str, Any]:
    """The document of a dataplane."""
    service, services = number // EACH, size // EACH
    tags = {"kuma.io/service": f"service-{service}", "kuma.io/protocol": "http"}
    outbound = {"port": 10_000, "tags": {"kuma.io/service": f"service-{(service + 1) % services}"}}
    networking = {"address": address, "inbound": [{"port": 8080, "tags": tags}], "outbound": [outbound]}
    return {"type": "Dataplane", "mesh": "default", "name": name(number), "networking": networking}


def first_address(number: int) -> str:
    """Where a dataplane is at first."""
    return f"10.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


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
        self, size: int, *, rate: float, arrivals: Arrivals, apis: Callable[[], Sequence[str]], seed: int = 0
    ) -> None:
        self._size, self._rate, self._apis, self._arrivals = size, rate, apis, arrivals
        self._rng = random.Random(seed)
        self._numbers = itertools.count(1)
        self._newest: dict[int, Move] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self.acknowledged: dict[str, str] = {name(number): first_address(number) for number in range(size)}
        """The address of each dataplane that was acknowledged last."""
        self.moves: list[Move] = []
        self.refusals: list[Refusal] = []
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
            number = self._rng.randrange(self._size)
            newest = self._newest.get(number)
            if newest is None or (newest.returned and not newest.waiting):
                return number
        return None

    async def _write(self, client: httpx.AsyncClient, number: int) -> None:
        count, service = next(self._numbers), number // EACH
        address = f"10.{128 + (count >> 16)}.{count >> 8 & 255}.{count & 255}"
        before = (service - 1) % (self._size // EACH)
        move = Move(
            kind="move",
            type_url=ENDPOINT,
            resource=f"service-{service}",
            shows=lambda facts: _has(facts, address),
            waiting={node_id(before * EACH + index) for index in range(EACH)},
            started=time.monotonic(),
        )
        self._newest[number] = move
        self._arrivals.expect(move)
        path, document = f"/meshes/default/dataplanes/{name(number)}", dataplane(number, self._size, address)
        while not await self._attempt(client, path, document):
            await asyncio.sleep(AGAIN_S)
        move.returned = time.monotonic()
        self.acknowledged[name(number)] = address
        self.counts["acknowledged"] += 1
        self.moves.append(move)

    async def _attempt(self, client: httpx.AsyncClient, path: str, document: dict[str, Any]) -> bool:
        began, apis = time.monotonic(), self._apis()
        if not apis:
            return False
        try:
            response = await client.put(self._rng.choice(apis) + path, json=document)
            status = str(response.status_code)
        except (httpx.TransportError, AttributeError) as error:
            # AttributeError: anyio looks at a connection of uvloop that was lost as soon as it was made.
            status = type(error).__name__
        if status == "200":
            return True
        self.refusals.append(Refusal(began, time.monotonic() - began, status))
        return False


def _has(facts: Facts, address: str) -> bool:
    return address in facts.addresses


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of all is; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
