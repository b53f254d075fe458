"""All simulated Envoys of a mesh: they connect, come back when their stream ends, and say who has what.

In: how many, where to connect. Out: what was received, which changes have arrived where and when.
Never: what should have arrived; that is the scenario's.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench.real_wires.simulated_envoy import Facts, Received, SimulatedEnvoy
from bench.regular_mesh import METADATA

CONNECTING_MAX = 200
BACKOFF_S = 0.5
BACKOFF_S_MAX = 2.0


@dataclass(slots=True)
class Awaited:
    """A change on its way to those whom it affects."""

    kind: str
    type_url: str
    resource: str
    """The name of the resource in which it shows."""
    shows: Callable[[Facts], bool]
    waiting: set[str]
    """The node ids that lack it."""
    started: float
    returned: float = 0.0
    """The monotonic seconds at which the write was sent, and at which its answer was there."""
    arrivals: list[float] = field(default_factory=list)


class Fleet:
    """Simulated Envoys that stay connected to one address until they are told to stop."""

    def __init__(self, node_ids: Iterable[str], *, seed: int = 0) -> None:
        self.received = Received()
        self.streams: Counter[str] = Counter()
        """How many streams were opened and closed."""
        self.envoys = {
            node_id: SimulatedEnvoy(
                node_id, received=self.received, arrived=self._arrived, metadata=METADATA, streams=self.streams
            )
            for node_id in node_ids
        }
        self._awaited: defaultdict[tuple[str, str], list[Awaited]] = defaultdict(list)
        self._tasks: list[asyncio.Task[None]] = []
        self._rng = random.Random(seed)
        self._connecting = asyncio.Semaphore(CONNECTING_MAX)
        self.last_arrival = 0.0

    @property
    def connected(self) -> int:
        """How many streams are open."""
        return self.streams["opened"] - self.streams["closed"]

    def take_received(self) -> Received:
        """What has come since the last time."""
        taken = copy.deepcopy(self.received)
        self.received.__init__()  # type: ignore[misc]
        return taken

    def start(self, host: str, port: int) -> None:
        """Begin to connect all of them."""
        self._tasks = [asyncio.create_task(self._stay(envoy, host, port)) for envoy in self.envoys.values()]

    async def stop(self) -> None:
        """End all streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for envoy in self.envoys.values():
            if envoy.wire is not None:
                envoy.wire.abort()
        await asyncio.sleep(0.1)

    async def _stay(self, envoy: SimulatedEnvoy, host: str, port: int) -> None:
        """Connect, and when the stream ends connect again, with Envoy's jittered backoff."""
        backoff_s = BACKOFF_S
        while True:
            try:
                async with self._connecting:
                    await envoy.connect(host, port)
            except OSError:
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
            else:
                backoff_s = BACKOFF_S
                await envoy.closed_event.wait()
            await asyncio.sleep(self._rng.uniform(0, backoff_s))

    def pause(self) -> None:
        """Let nobody read: what is sent from now on is lost with the connection."""
        for envoy in self.envoys.values():
            if envoy.wire is not None:
                envoy.wire.pause()

    def cut(self) -> None:
        """End every stream without a word."""
        for envoy in self.envoys.values():
            if envoy.wire is not None:
                envoy.wire.abort()

    # Changes.

    def expect(self, awaited: Awaited) -> None:
        """Follow a change from now on."""
        if awaited.waiting:
            self._awaited[awaited.type_url, awaited.resource].append(awaited)

    def missing(self) -> list[Awaited]:
        """The changes that have not arrived everywhere."""
        return [awaited for group in self._awaited.values() for awaited in group]

    def _arrived(self, envoy: SimulatedEnvoy, type_url: str, name: str, facts: Facts, at: float) -> None:
        self.last_arrival = at
        group = self._awaited.get((type_url, name))
        if not group:
            return
        for awaited in tuple(group):
            if envoy.node_id in awaited.waiting and awaited.shows(facts):
                awaited.waiting.discard(envoy.node_id)
                awaited.arrivals.append(at)
                if not awaited.waiting:
                    group.remove(awaited)
        if not group:
            del self._awaited[type_url, name]


async def until(condition: Callable[[], bool], what: str, *, timeout_s: float) -> float:
    """Wait until it is so; the monotonic second at which it was seen to be."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(0.005)
    return time.monotonic()
