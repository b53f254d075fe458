"""Who acts in the simulated days: control planes without their ports, and Envoys in memory.

In: a world, which says what time it is, who is there and what chance decides. Out: instances that follow one cluster;
proxies that hold what these give them. Never: a part of the product that is played, but for its sockets.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from bench.regular_mesh import Sink
from tests.simulation.cluster import TARGET, Cluster, ClusterDatabase, Link
from tests.simulation.virtual_time import VirtualLoop, WallClock

from kumafast import spread
from kumafast.insights import Convergence, Insights
from kumafast.ipam import Allocator, Ranges
from kumafast.metrics import Metrics
from kumafast.observers import Observers
from kumafast.reconciler import Reconciler
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.store.postgres import PostgresStore
from kumafast.store.postgres.connection import History

KEEPALIVE_S = 60.0
"""So long an instance may believe in a stream whose other end has vanished."""
SLOW_SHARE, SLOW_S = 0.1, 30.0
SOFT_LIMIT = 6
"""Of proxies on an instance."""


class Stage(Protocol):
    """What they know of the world."""

    loop: VirtualLoop
    chance: random.Random
    counts: Counter[str]
    cluster: Cluster

    @property
    def instances(self) -> Sequence[Instance | None]: ...
    def note(self, *what: object) -> None: ...


class Instance:
    """One control plane without its ports, from its start to its death."""

    def __init__(self, world: Stage, number: int) -> None:
        self.number = number
        self.link = Link(world.chance)
        self.clock = WallClock(world.loop.time)
        self.name = f"instance-{number}-{world.counts['starts']}"
        world.counts["starts"] += 1
        self._world = world
        self.tasks: list[asyncio.Task[None]] = []
        # In the order in which they came: a set's is another in each run.
        self.streams: list[Proxy] = []
        self.opened: list[float] = []
        """When each stream that it has ever had was opened."""
        self.leaps: list[tuple[float, datetime, datetime]] = []
        """When its clock was set, what it showed, and what it showed then."""
        self.is_serving = False

    async def start(self) -> None:
        """Load and serve. Raises one of `UNREACHABLE`."""
        world, monotonic = self._world, self._world.loop.time
        connect = partial(_connect, world.cluster, self.link)
        database = ClusterDatabase(world.cluster)
        connection = await connect(TARGET)
        loaded = await database.load(connection)
        connection.terminate()
        self.store = store = PostgresStore(
            TARGET, database, loaded, history=History("system", "timeline", "store"), instance=self.name,
            clock=self.clock.utc, monotonic=monotonic, connect=connect,
        )  # fmt: skip
        self.metrics, self.cache = Metrics(), SnapshotCache()
        self.reconciler = Reconciler(
            store=store, cache=self.cache, metrics=self.metrics, debounce_ms=5, clock=self.clock, monotonic=monotonic
        )
        convergence = Convergence(cache=self.cache, progress=self.reconciler, monotonic=monotonic)
        insights = Insights(
            store=store, convergence=convergence, metrics=self.metrics, instance_id=self.name, flush_ms=250,
            certificate_of=self.reconciler.certificates.get, failure_of=self.reconciler.failure, clock=self.clock,
        )  # fmt: skip
        self.observers = Observers(self.reconciler, insights)
        await self.reconciler.load()
        allocator = Allocator(
            store=store, books=self.reconciler.registry.unsettled_addresses, settle=self.reconciler.settle,
            moved=self.reconciler.moved, applied=self.reconciler.applied, ranges=Ranges(),
        )  # fmt: skip
        chores = [
            self.reconciler.follow(), insights.follow(), insights.keep_true(),
            store.members.lead(insights.follow_members), store.members.lead(allocator.follow),
            spread.follow(store.members, limit=SOFT_LIMIT, shed=self._shed),
        ]  # fmt: skip
        store.members.count_proxies = lambda: len(self.cache)
        self.tasks = [asyncio.create_task(chore) for chore in chores]
        self.is_serving = True

    async def _shed(self, count: int) -> None:
        self._world.counts["sent away"] += count
        for proxy in self.streams[:count]:
            proxy.lose()

    @property
    def certificates(self) -> int:
        """How many it has issued."""
        return int(self.metrics.certificates_issued._value.get())

    def die(self) -> None:
        """End without a word: nothing of it runs any more, and its sessions are cut."""
        self.is_serving = False
        world = self._world
        world.counts["certificates"] += self.certificates
        for task in (*self.tasks, self.store._following):
            task.cancel()
        for session in tuple(world.cluster.sessions):
            if session.link is self.link:
                session.terminate()
        for proxy in tuple(self.streams):
            proxy.lose()


async def _connect(cluster: Cluster, link: Link, _: object, *, timeout_s: float = 2.0) -> Any:
    return await cluster.connect(link, timeout_s=timeout_s)


class Proxy:
    """An Envoy that is connected to one instance at a time, and takes what it is sent in its own time."""

    def __init__(self, world: Stage, number: int) -> None:
        self.node_id = f"default.dp-{number}"
        self._world = world
        self._instance: Instance | None = None
        self._lost = asyncio.Event()
        self._woken = asyncio.Event()
        self._sink: Sink | None = None
        self.instance_name = ""

    def lose(self) -> None:
        """The stream has ended."""
        self._lost.set()
        self._woken.set()

    async def live(self) -> None:
        """Connect, and connect again, until cancelled."""
        world = self._world
        while True:
            await asyncio.sleep(world.chance.uniform(0.05, 2.0))
            reachable = [each for each in world.instances if each is not None and each.is_serving]
            if reachable:
                await self._stay(world.chance.choice(reachable))

    async def _stay(self, instance: Instance) -> None:
        world = self._world
        stream_id = f"{self.node_id}-{world.counts['streams']}"
        world.counts["streams"] += 1
        self._lost.clear()
        self._woken.set()
        instance.streams.append(self)
        instance.opened.append(world.loop.time())
        instance.observers.stream_opened(stream_id, Node(self.node_id))
        self._instance, self.instance_name = instance, instance.name
        self._sink = sink = Sink(self.node_id, instance.cache, [])
        sink.watch(self._woken.set)
        try:
            while True:
                await self._woken.wait()
                if self._lost.is_set():
                    return
                self._woken.clear()
                is_slow = world.chance.random() < SLOW_SHARE
                await asyncio.sleep(world.chance.uniform(0.001, SLOW_S if is_slow else 0.05))
                if self._lost.is_set():
                    return
                before = sink.messages
                sink.drink()
                world.counts["messages"] += sink.messages - before
                world.note("took", self.node_id, sink.messages)
                snapshot = instance.cache.get(self.node_id)
                if snapshot is not None and sink.is_synced():
                    instance.observers.stream_synced(stream_id, snapshot)
        finally:
            self._sink = None
            instance.streams.remove(self)
            # An instance whose peer has vanished without a word learns of it by the kernel's keepalive.
            delay_s = KEEPALIVE_S if world.chance.random() < 0.5 else 0.0
            if instance.is_serving:
                world.loop.call_later(delay_s, _close, instance, stream_id)

    def fault(self) -> str | None:
        """What is wrong with it, if anything."""
        if self._sink is None or self._instance is None:
            return f"{self.node_id} is not connected"
        if not self._sink.is_synced():
            return f"{self.node_id} does not hold what {self._instance.name} has for it"
        return None

    def versions(self) -> dict[str, dict[str, str]]:
        """What it is given."""
        assert self._instance is not None
        snapshot = self._instance.cache.get(self.node_id)
        assert snapshot is not None
        return {type_url: dict(snapshot.resource_versions(type_url)) for type_url in sorted(snapshot.type_urls)}


def _close(instance: Instance, stream_id: str) -> None:
    if instance.is_serving:
        instance.observers.stream_closed(stream_id)
