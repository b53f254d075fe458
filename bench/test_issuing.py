"""Certificates: one for each proxy that is sent one, and none for any other; many of them hold up nobody.

Work is counted and asserted; seconds are processor time, asserted where they are bounds several times what they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from bench.conftest import Record, Tell
from bench.regular_mesh import METADATA, Sink, dataplane, name, secured

from kumafast import garbage
from kumafast.identity.authority import Authority
from kumafast.metrics import Metrics
from kumafast.reconciler import Reconciler
from kumafast.resources import Mesh, Resource, Secret
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import SECRET
from kumafast.store import MemoryStore, Put

SMALL, LARGE = 500, 5_000
ISSUING_S_MAX = 5.0
BLOCKED_S_MAX = 0.020
NUMBER = 7
LIFE_S = 24 * 3600.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("as_served")]


@dataclass(slots=True)
class Issued:
    """Certificates that were signed, and the processor seconds that went into them."""

    count: int = 0
    seconds: float = 0.0


@pytest.fixture
def issued(monkeypatch: pytest.MonkeyPatch) -> Issued:
    """Counts what every authority signs."""
    tally, issue = Issued(), Authority.issue

    def counted(authority: Authority, *arguments: object, **named: object) -> object:
        started = time.thread_time()
        pair = issue(authority, *arguments, **named)  # type: ignore[arg-type]
        tally.count += 1
        tally.seconds += time.thread_time() - started
        return pair

    monkeypatch.setattr(Authority, "issue", counted)
    return tally


@dataclass(slots=True)
class Town:
    """A control plane that follows a store with a mesh with TLS, by a clock that is set by hand."""

    size: int
    store: MemoryStore = field(default_factory=MemoryStore)
    cache: SnapshotCache = field(default_factory=SnapshotCache)
    metrics: Metrics = field(default_factory=Metrics)
    sinks: dict[str, Sink] = field(default_factory=dict)
    now: float = 1_800_000_000.0
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.reconciler = Reconciler(
            store=self.store, cache=self.cache, metrics=self.metrics, debounce_ms=5, clock=lambda: self.now
        )

    async def load(self) -> None:
        await self.store.write([Put(each) for each in secured("ca-1")])
        await self.store.write([Put(dataplane(number, self.size)) for number in range(self.size)])
        with garbage.left_alone():
            await self.reconciler.load()
            garbage.keep_what_is()

    def connect(self, number: int) -> None:
        """A proxy comes and takes all that it is sent."""
        node_id = f"default.{name(number)}"
        self.reconciler.connect(node_id, Node(node_id, metadata=METADATA))
        sink = self.sinks[node_id] = Sink(node_id, self.cache, [])
        sink.drink()
        loop = asyncio.get_running_loop()
        sink.watch(partial(loop.call_soon, sink.drink))

    async def turns_of(self, change: Callable[[], object]) -> list[float]:
        """What each turn of the loop took, in processor seconds, until nobody is behind; ascending."""
        turns: list[float] = []

        async def beat() -> None:
            last = time.thread_time()
            while True:
                await asyncio.sleep(0)
                now = time.thread_time()
                turns.append(now - last)
                last = now

        following = asyncio.create_task(self.reconciler.follow())
        await self.reconciler.reached(await self.store.revision())
        beating = asyncio.create_task(beat())
        found = change()
        if asyncio.iscoroutine(found):
            await found
        await self.reconciler.reached(await self.store.revision())
        while self.reconciler.publish_slice():
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        for task in (beating, following):
            task.cancel()
        await asyncio.gather(beating, following, return_exceptions=True)
        return sorted(turns)

    async def put(self, *resources: Resource) -> None:
        """In one commit."""
        await self.store.write([Put(each) for each in resources])


@pytest.mark.gate
def test_many_proxies_get_one_certificate_each_and_another_without_a_pause(
    issued: Issued, tell: Tell, record: Record
) -> None:
    """5,000 at once, and again to an instance that knows nothing of the first; then all by another authority."""

    async def main() -> list[float]:
        town = Town(LARGE)
        await town.load()
        started = time.thread_time()
        for number in range(town.size):
            town.connect(number)
        seconds = time.thread_time() - started
        assert issued.count == town.size
        assert all(sink.is_synced() for sink in town.sinks.values())
        issuing_s = issued.seconds
        tell("issuing_s", round(issuing_s, 2))
        tell("connect_s", round(seconds, 2))
        other = Town(town.size, store=town.store)
        await other.reconciler.load()
        for number in range(town.size):
            node_id = f"default.{name(number)}"
            other.reconciler.connect(node_id, Node(node_id, metadata=METADATA))
            held = town.cache.get(node_id)
            now = other.cache.get(node_id)
            assert held is not None
            assert now is not None
            assert held.resource_versions(SECRET) == now.resource_versions(SECRET)
        assert issued.count == town.size
        assert issued.seconds <= ISSUING_S_MAX
        del other
        started = time.thread_time()
        turns = await town.turns_of(partial(town.put, *secured("ca-2")))
        another_s = time.thread_time() - started
        tell("another_authority_s", round(another_s, 2))
        record(issuing_cpu_s=issuing_s, connect_cpu_s=seconds, another_authority_cpu_s=another_s)
        assert issued.count == 2 * town.size
        return turns

    turns = asyncio.run(main())
    tell("longest_turns_ms", [round(turn * 1e3, 1) for turn in turns[-6:]])
    record(longest_turn_s=turns[-1])
    # Of hundreds of turns one or two may be the machine's own doing; slices that are too long would be all of them.
    assert turns[-4] <= BLOCKED_S_MAX


# What is resolved and issued, for a mesh of so many proxies.
_ALL: Callable[[int], int] = lambda size: size  # noqa: E731
_ONE: Callable[[int], int] = lambda size: 1  # noqa: E731
_NOBODY: Callable[[int], int] = lambda size: 0  # noqa: E731

_KINDS: dict[str, tuple[list[Resource], Callable[[int], int], Callable[[int], int]]] = {
    "another authority": (secured("ca-2"), _ALL, _ALL),
    "no TLS": ([Mesh(name="default")], _ALL, _NOBODY),
    "a label": ([secured("ca-1")[0].model_copy(update={"labels": {"a": "b"}})], _NOBODY, _NOBODY),
    "equal content": (secured("ca-1"), _NOBODY, _NOBODY),
    "a secret that nobody uses": ([Secret(mesh="default", name="unused", data="eA==")], _NOBODY, _NOBODY),
    "an address": ([dataplane(NUMBER, SMALL, host="10.200.200.200")], _ONE, _NOBODY),
    "a tag": ([dataplane(NUMBER, SMALL, tags={"kuma.io/service": "alone"})], _ONE, _ONE),
}


@pytest.mark.gate
@pytest.mark.counted
@pytest.mark.parametrize("kind", _KINDS)
def test_a_change_issues_what_it_changes(issued: Issued, kind: str) -> None:
    changes, resolved, signed = _KINDS[kind]

    async def main() -> None:
        town = Town(SMALL)
        await town.load()
        for number in range(town.size):
            town.connect(number)
        work, count = town.reconciler.work.resolved, issued.count
        await town.turns_of(partial(town.put, *changes))
        assert (town.reconciler.work.resolved - work, issued.count - count) == (resolved(town.size), signed(town.size))
        assert all(sink.is_synced() for sink in town.sinks.values())

    asyncio.run(main())


@pytest.mark.gate
@pytest.mark.counted
@pytest.mark.parametrize("size", [SMALL, 2_000])
def test_a_certificate_that_is_due_is_its_proxy_s_work_alone(issued: Issued, size: int) -> None:
    async def main() -> None:
        town = Town(size)
        await town.load()
        for number in range(size):
            town.connect(number)
        work, count = town.reconciler.work.resolved, issued.count
        messages = sum(sink.messages for sink in town.sinks.values())
        due: list[str] = []
        while not due:
            town.now += LIFE_S / size / 20
            due = town.reconciler.certificates.take_due()
        await town.turns_of(lambda: town.reconciler.expire(due))
        assert town.reconciler.work.resolved - work == len(due) < 5
        assert issued.count - count == len(due)
        assert sum(sink.messages for sink in town.sinks.values()) - messages == len(due)

    asyncio.run(main())
