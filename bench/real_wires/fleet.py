"""All simulated Envoys of a mesh: they connect, come back when their stream ends, and say who has what.

In: how many, where to connect. Out: what was received, which changes have arrived where and when.
Never: what should have arrived; that is the scenario's.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

from bench.real_wires.arrivals import Arrivals
from bench.real_wires.client_wire import ClientWire
from bench.real_wires.envoy_node import described
from bench.real_wires.simulated_envoy import PATIENCE_S, Received, SimulatedEnvoy
from bench.regular_mesh import METADATA

CONNECTING_MAX = 200
BACKOFF_S = 0.5
BACKOFF_S_MAX = 2.0


class Sidecar:
    """A simulated Envoy on an asyncio transport."""

    __slots__ = ("_streams", "closed_event", "envoy", "port", "wire")

    def __init__(self, envoy: SimulatedEnvoy, streams: Counter[str]) -> None:
        self.envoy = envoy
        self.wire: ClientWire | None = None
        self.port = 0
        """Where it connected to last."""
        self.closed_event = asyncio.Event()
        self._streams = streams

    def opened(self) -> None:
        """Say what is wanted."""
        self._streams["opened"] += 1
        self._send(self.envoy.opened())
        if self.envoy.warming:
            asyncio.get_running_loop().call_later(PATIENCE_S, self.envoy.wait_no_longer, tuple(self.envoy.warming))

    def closed(self) -> None:
        """The stream is over; what was received stays."""
        self._streams["closed"] += 1
        self.wire = None
        self.closed_event.set()

    def received(self, message: bytes) -> None:
        """Take a response."""
        self._send(self.envoy.receive(message, time.monotonic()))

    def _send(self, requests: list[bytes]) -> None:
        for request in requests:
            if self.wire is not None:
                self.wire.send(request)

    async def connect(self, host: str, port: int) -> None:
        """Open the stream. Raises OSError where nobody listens."""
        loop = asyncio.get_running_loop()
        self.closed_event.clear()
        wire = ClientWire(self)
        self.wire, self.port = wire, port
        try:
            await loop.create_connection(lambda: wire, host, port)
        except OSError:
            self.wire = None
            raise


class Fleet:
    """Simulated Envoys that stay connected to one address until they are told to stop."""

    def __init__(self, node_ids: Iterable[str], *, seed: int = 0, arrivals: Arrivals | None = None) -> None:
        self.received = Received()
        self.streams: Counter[str] = Counter()
        """How many streams were opened and closed."""
        self.arrivals = arrivals or Arrivals()
        """What of the changes has arrived."""
        node = described(METADATA)
        self.envoys = {
            node_id: SimulatedEnvoy(node_id, node=node, received=self.received, arrived=self.arrivals.take)
            for node_id in node_ids
        }
        self._sidecars = [Sidecar(envoy, self.streams) for envoy in self.envoys.values()]
        self._tasks: list[asyncio.Task[None]] = []
        self._rng = random.Random(seed)
        self._connecting = asyncio.Semaphore(CONNECTING_MAX)

    @property
    def connected(self) -> int:
        """How many streams are open."""
        return self.streams["opened"] - self.streams["closed"]

    def take_received(self) -> Received:
        """What has come since the last time."""
        taken = copy.deepcopy(self.received)
        self.received.__init__()  # type: ignore[misc]
        return taken

    def start(self, host: str, port: int | Callable[[], int]) -> None:
        """Begin to connect all of them, each time to a port that is asked for where it is not always the same."""
        self._tasks = [asyncio.create_task(self._stay(sidecar, host, port)) for sidecar in self._sidecars]

    async def stop(self) -> None:
        """End all streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sidecar in self._sidecars:
            if sidecar.wire is not None:
                sidecar.wire.abort()
        await asyncio.sleep(0.1)

    async def _stay(self, sidecar: Sidecar, host: str, port: int | Callable[[], int]) -> None:
        """Connect, and when the stream ends connect again, with Envoy's jittered backoff."""
        backoff_s = BACKOFF_S
        while True:
            try:
                async with self._connecting:
                    await sidecar.connect(host, port if isinstance(port, int) else port())
            except OSError:
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
            else:
                backoff_s = BACKOFF_S
                await sidecar.closed_event.wait()
            await asyncio.sleep(self._rng.uniform(0, backoff_s))

    def pause(self) -> None:
        """Let nobody read: what is sent from now on is lost with the connection."""
        for sidecar in self._sidecars:
            if sidecar.wire is not None:
                sidecar.wire.pause()

    def cut(self, share: float = 1.0) -> int:
        """End every stream without a word, or a share of them; how many were."""
        connected = [sidecar for sidecar in self._sidecars if sidecar.wire is not None]
        chosen = self._rng.sample(connected, int(len(connected) * share))
        for sidecar in chosen:
            if sidecar.wire is not None:
                sidecar.wire.abort()
        return len(chosen)

    def at(self, port: int) -> set[str]:
        """The node ids of those that are connected to a port."""
        return {each.envoy.node_id for each in self._sidecars if each.wire is not None and each.port == port}


async def until(condition: Callable[[], bool], what: str, *, timeout_s: float) -> float:
    """Wait until it is so; the monotonic second at which it was seen to be."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(0.005)
    return time.monotonic()
