"""The server under attack: the production `XdsServer` with its cache, alone in a process, and what it costs there."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any, cast

import uvloop
from bench import ending

from kumafast.insights import WorkloadHealth
from kumafast.resources import Dataplane, Mesh
from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.resource import CLUSTER
from kumafast.store import MemoryStore
from kumafast.stream import Hds, TlsFiles, XdsServer, port

PROBED = Dataplane.model_validate(
    {
        "name": "probed",
        "mesh": "default",
        "networking": {
            "address": "127.0.0.1",
            "inbound": [{"port": 80, "tags": {"kuma.io/service": "a"}, "serviceProbe": {"tcp": {}}}],
        },
    }
)
"""The dataplane of the node `default.probed`, which has something to probe."""
STAMP = b"pushed at "
TICK_S = 0.002
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The nodes `n-0`, `n-1`, … get a push each `each_s`, the node `big` one of megabytes each `big_each_s`."""

    nodes: int
    each_s: float = 1.0
    big_bytes: int = 8 << 20
    big_each_s: float = 0.5
    silence_s: float = 1.0
    tls: TlsFiles | None = None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the server's process holds and has spent."""

    rss_bytes: int
    rss_max_bytes: int
    malloc_bytes: int
    blocks: int
    objects: int
    descriptors: int
    tasks: int
    connections: int
    streams: int
    cpu_s: float
    turn_max_s: float
    """The longest time, in CPU of this process, that its loop did not turn since the last call."""
    pushes: int


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2`: ten counts, of which the fifth is mapped and the eighth is in use."""

    _fields_ = [("counts", ctypes.c_size_t * 10)]


def _malloc_bytes() -> int:
    """What the C library's allocator has given out; Python's own small blocks are not in it."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return 0
    libc.mallinfo2.restype = _MallInfo
    counts = libc.mallinfo2().counts
    return int(counts[4] + counts[7])


def _rss_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES


def loop_second() -> float:
    """CPU seconds of a million turns of an empty loop: the unit in which a turn of the server's is compared."""
    began = time.thread_time()
    for _ in range(1_000_000):
        pass
    return time.thread_time() - began


class Victim:
    """Serves and pushes until its pipe says `stop`."""

    def __init__(self, setup: Setup, pipe: Pipe) -> None:
        self._setup = setup
        self._pipe = pipe
        self._cache = SnapshotCache()
        self._store = MemoryStore()
        self._health = WorkloadHealth(self._store)
        self._server = XdsServer(self._cache, handlers=Hds(self._health).handlers())
        self._stopped = asyncio.Event()
        self._turn_at = time.thread_time()
        self._turn_max_s = 0.0
        self._rss_max = 0
        self._pushes = 0
        self._next_node = 0

    async def run(self) -> None:
        port.SILENCE_MAX_S = self._setup.silence_s
        loop = asyncio.get_running_loop()
        await self._store.put(Mesh(name="default"))
        await self._store.put(PROBED)
        following = [loop.create_task(self._health.watch()), loop.create_task(self._health.follow())]
        for node in range(self._setup.nodes):
            self._push(f"n-{node}", time.monotonic())
        self._push_big()
        self._cache.set("*", Snapshot.of(XdsResource(CLUSTER, "c", b"x")))
        taken = await self._server.start("127.0.0.1", 0, tls=self._setup.tls)
        loop.add_reader(self._pipe.fileno(), self._command)
        self._watch_turns()
        pushing = loop.create_task(self._push_at_times())
        self._pipe.send(taken)
        await self._stopped.wait()
        for task in (pushing, *following):
            task.cancel()
        loop.remove_reader(self._pipe.fileno())
        await self._server.stop(1.0)

    def _push(self, node: str, due: float) -> None:
        # Stamped with the time at which it was due: a loop that stands still is late with its pushes too.
        body = STAMP + int(due * 1e9).to_bytes(8, "big") + bytes(1500)
        self._cache.set(node, Snapshot.of(XdsResource(CLUSTER, "c", body)))
        self._pushes += 1

    def _push_big(self) -> None:
        body = time.monotonic_ns().to_bytes(8, "big") + bytes(self._setup.big_bytes)
        self._cache.set("big", Snapshot.of(XdsResource(CLUSTER, "c", body)))

    async def _push_at_times(self) -> None:
        """One node after the other, evenly, so that a delay is the wire's and not that of the nodes before."""
        setup, due = self._setup, time.monotonic()
        big_due = due + setup.big_each_s
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            while setup.nodes and due < now:
                self._push(f"n-{self._next_node}", due)
                self._next_node = (self._next_node + 1) % setup.nodes
                due += setup.each_s / setup.nodes
            if big_due < now:
                big_due = now + setup.big_each_s
                self._push_big()

    def _watch_turns(self) -> None:
        now = time.thread_time()
        self._turn_max_s = max(self._turn_max_s, now - self._turn_at)
        self._turn_at = now
        self._rss_max = max(self._rss_max, _rss_bytes())
        asyncio.get_running_loop().call_later(0.002, self._watch_turns)

    def _command(self) -> None:
        try:
            command = self._pipe.recv()
        except EOFError:
            command = "stop"
        if command == "stop":
            self._stopped.set()
        elif command == "census":
            gc.collect()
            self._pipe.send(Counter(type(each).__qualname__ for each in gc.get_objects()))
        elif command == "unit":
            self._pipe.send(min(loop_second() for _ in range(3)))
            self._turn_at = time.thread_time()
        else:
            try:
                self._pipe.send(self._usage(is_exact=command == "usage"))
            except Exception as error:
                self._pipe.send(error)

    def _usage(self, *, is_exact: bool) -> Usage:
        turn_max_s = self._turn_max_s
        if is_exact:
            gc.collect()
        usage = Usage(
            rss_bytes=_rss_bytes(),
            rss_max_bytes=self._rss_max,
            malloc_bytes=_malloc_bytes(),
            blocks=sys.getallocatedblocks(),
            objects=len(gc.get_objects()) if is_exact else 0,
            descriptors=len(os.listdir("/proc/self/fd")),
            tasks=len(asyncio.all_tasks()),
            connections=len(cast(Any, self._server)._connections),
            streams=self._server.stream_count,
            cpu_s=time.process_time(),
            turn_max_s=turn_max_s,
            pushes=self._pushes,
        )
        # What asking costs is not the attacker's doing.
        self._turn_max_s, self._rss_max, self._turn_at = 0.0, 0, time.thread_time()
        return usage


def serve(setup: Setup, pipe: Pipe) -> None:
    """The main function of the server's process."""
    ending.by_its_parent()
    logging.disable(logging.CRITICAL)
    uvloop.run(Victim(setup, pipe).run())


class VictimProcess:
    """The process from outside. `port` is where it serves; `idle_descriptors`: what it had before anybody came."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.port = cast(int, self._ask(None, 60.0))
        self.idle_descriptors = self.usage().descriptors

    def _ask(self, command: str | None, timeout_s: float) -> object:
        if command is not None:
            self._pipe.send(command)
        if not self._pipe.poll(timeout_s):
            raise TimeoutError(f"the server does not answer within {timeout_s} s")
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def usage(self) -> Usage:
        """What it holds, once the garbage is collected."""
        return cast(Usage, self._ask("usage", 60.0))

    def glance(self) -> Usage:
        """The same at no cost: nothing is collected, and objects are not counted."""
        return cast(Usage, self._ask("glance", 60.0))

    def census(self) -> Counter[str]:
        """How many objects there are of each type, once the garbage is collected."""
        return cast("Counter[str]", self._ask("census", 60.0))

    def unit_s(self) -> float:
        return cast(float, self._ask("unit", 60.0))

    def settle(self, is_settled: Callable[[Usage], bool], timeout_s: float = 20.0) -> Usage:
        """Wait until what the process holds is as it should be; the last look, whether or not it came to that."""
        deadline = time.monotonic() + timeout_s
        while True:
            usage = self.usage()
            if is_settled(usage) or time.monotonic() > deadline:
                return usage
            time.sleep(0.1)


@contextmanager
def victim(setup: Setup) -> Iterator[VictimProcess]:
    """A server in a process of its own; it is ended with the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(setup, there), daemon=True)
    process.start()
    there.close()
    try:
        yield VictimProcess(here)
        here.send("stop")
        process.join(10)
    finally:
        process.kill()
        process.join()
