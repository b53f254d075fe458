"""A mesh on real wires, phase by phase: everybody connects, churn, idleness, a restart, a crash.

In: a directory, a size. Out: the figures of each phase as plain data. Never: a threshold; those are with whoever asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from bench.real_wires import process_cost, truth
from bench.real_wires.arrivals import Awaited
from bench.real_wires.changes import Changes, Write
from bench.real_wires.fleet import Fleet, until
from bench.regular_mesh import fill, name
from tests.envoy.harness import ControlPlane

from kumafast.resources import parse
from kumafast.store import SqliteStore

Figures = dict[str, Any]

ARRIVE_S_MAX = 30.0
CONNECT_S_MAX = 300.0


class RealMesh:
    """A control plane process, and a simulated Envoy for each dataplane of a regular mesh."""

    def __init__(self, directory: Path, size: int) -> None:
        self.size = size
        self.store = directory / "data" / "kumafast.db"
        self.control_plane = ControlPlane(directory, "--no-dp-tls", "--log-level", "warning", is_warm=False)
        self.fleet = Fleet(f"default.{name(number)}" for number in range(size))
        self.changes = Changes(size)
        self._http: httpx.AsyncClient

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[RealMesh]:
        """With the control plane started; nobody is connected yet."""
        self.store.parent.mkdir(parents=True, exist_ok=True)
        await fill(self.store, self.size)
        try:
            # Not in a thread: where this is ended meanwhile nobody would know the process yet.
            self.control_plane.start()
            async with httpx.AsyncClient(base_url=self.control_plane.api, timeout=30) as self._http:
                yield self
        finally:
            await self.fleet.stop()
            await asyncio.to_thread(self.control_plane.stop)

    @property
    def pid(self) -> int:
        """The control plane's process id."""
        assert self.control_plane.process is not None
        return self.control_plane.process.child.pid

    # Phases.

    async def connect(self) -> Figures:
        """Everybody comes at once and gets everything."""
        cpu, started = process_cost.cpu_seconds(self.pid), time.monotonic()
        host, _, port = self.control_plane.dp.rpartition("/")[2].rpartition(":")
        self.fleet.start(host, int(port))
        await until(self._all_have_everything, "everybody has everything", timeout_s=CONNECT_S_MAX)
        configured_s = self.fleet.arrivals.last - started
        await self._settle()
        return {
            "configured_s": round(configured_s, 3),
            "server_cpu_s": round(process_cost.cpu_seconds(self.pid) - cpu, 3),
            "server_rss_mb": round(process_cost.resident_bytes(self.pid) / 1e6, 1),
            "received": self.fleet.take_received().as_document(),
        }

    def _all_have_everything(self) -> bool:
        return self.fleet.connected == self.size and all(envoy.is_configured() for envoy in self.fleet.envoys.values())

    async def churn(self, *, changes: int, interval_s: float) -> Figures:
        """So many changes, one each interval; without an interval each waits until the one before is everywhere."""
        cpu, own, started = process_cost.cpu_seconds(self.pid), time.process_time(), time.monotonic()
        made: list[tuple[Write, Awaited]] = []

        async def make(write: Write) -> None:
            made.append((write, await self._make(write)))

        affected: Counter[str] = Counter()
        async with asyncio.TaskGroup() as writes:
            for number, write in enumerate(itertools.islice(self.changes, changes)):
                affected[write.kind] += len(self.changes.clients(write.resource))
                if interval_s:
                    await asyncio.sleep(max(0.0, started + number * interval_s - time.monotonic()))
                    writes.create_task(make(write))
                else:
                    await make(write)
                    everywhere = f"{write} is everywhere"
                    await until(lambda: not self.fleet.arrivals.missing(), everywhere, timeout_s=ARRIVE_S_MAX)
        with contextlib.suppress(TimeoutError):
            await until(lambda: not self.fleet.arrivals.missing(), "all changes are everywhere", timeout_s=ARRIVE_S_MAX)
        seconds = time.monotonic() - started
        cpu = process_cost.cpu_seconds(self.pid) - cpu
        await self._settle()
        arrivals = sum(len(awaited.arrivals) for _, awaited in made)
        return {
            "changes": dict(sorted(Counter(write.kind for write, _ in made).items())),
            "affected": dict(sorted(affected.items())),
            "seconds": round(seconds, 2),
            "missed": sum(len(awaited.waiting) for _, awaited in made),
            "missed_changes": [f"{write.method} {write.path}" for write, awaited in made if awaited.waiting],
            "from_answer_ms": _quantiles(_delays(made, from_answer=True)),
            "from_request_ms": _quantiles(_delays(made, from_answer=False)),
            "answer_ms": _quantiles([awaited.returned - awaited.started for _, awaited in made]),
            "server_cpu_s": round(cpu, 3),
            "server_cpu_ms_each_change": round(1000 * cpu / changes, 2),
            "server_cpu_us_each_arrival": round(1e6 * cpu / max(1, arrivals), 1),
            "client_cpu_s": round(time.process_time() - own, 3),
            "received": self.fleet.take_received().as_document(),
        }

    async def idle(self, seconds: float) -> Figures:
        """Nothing happens for a while."""
        cpu, woken = process_cost.cpu_seconds(self.pid), process_cost.switches(self.pid)
        await asyncio.sleep(seconds)
        spent = process_cost.cpu_seconds(self.pid) - cpu
        return {
            "seconds": seconds,
            "server_cpu_ms": round(1000 * spent, 2),
            "server_cpu_percent": round(100 * spent / seconds, 4),
            "woken_each_second": round((process_cost.switches(self.pid) - woken) / seconds, 1),
            "received": self.fleet.take_received().as_document(),
        }

    async def restart(self, how: signal.Signals) -> Figures:
        """The control plane ends and comes back, and something changes that nobody can have heard of before.

        A stopped one has its store written while it is away; a killed one answers a write, and dies before anybody has
        read what follows from it.
        """
        streams = dict(self.fleet.streams)
        service = "service-00003"
        write = self.changes.add(f"extra-{how.name.lower()}", service)
        if how is signal.SIGKILL:
            self.fleet.pause()
            awaited = await self._make(write)
            await asyncio.to_thread(self.control_plane.stop, how)
            self.fleet.cut()
        else:
            await asyncio.to_thread(self.control_plane.stop, how)
            awaited = self._expect(write)
            await self._write_past_it(write)
        await until(lambda: self.fleet.connected == 0, "all streams have ended", timeout_s=ARRIVE_S_MAX)
        self.fleet.take_received()
        started = time.monotonic()
        await asyncio.to_thread(self.control_plane.start)
        ready = time.monotonic()
        start_cpu = process_cost.cpu_seconds(self.pid)
        with contextlib.suppress(TimeoutError):
            await until(lambda: not self.fleet.arrivals.missing(), "the change is everywhere", timeout_s=ARRIVE_S_MAX)
        connected = await until(lambda: self.fleet.connected == self.size, "everybody is back", timeout_s=CONNECT_S_MAX)
        await self._converged()
        steady, cpu = time.monotonic(), process_cost.cpu_seconds(self.pid)
        await self._settle()
        return {
            "how": how.name,
            "start_s": round(ready - started, 3),
            "all_back_s": round(connected - ready, 3),
            "steady_s": round(steady - ready, 3),
            "server_cpu_s_of_start": round(start_cpu, 3),
            "server_cpu_s_of_return": round(cpu - start_cpu, 3),
            "streams_opened": self.fleet.streams["opened"] - streams["opened"],
            "affected": len(self.changes.clients(service)),
            "missed": len(awaited.waiting),
            "received": self.fleet.take_received().as_document(),
        }

    def _expect(self, write: Write) -> Awaited:
        """Follow a write from now on, which is about to be made."""
        awaited = self.changes.expect(write, time.monotonic())
        self.fleet.arrivals.expect(awaited)
        return awaited

    async def _make(self, write: Write) -> Awaited:
        """Write it; raises AssertionError for an answer that is not a success."""
        awaited = self._expect(write)
        response = await self._http.request(write.method, write.path, json=write.document)
        awaited.returned = time.monotonic()
        assert response.status_code in (200, 201), response.text
        return awaited

    async def _write_past_it(self, write: Write) -> None:
        assert write.document is not None
        store = await SqliteStore.open(self.store)
        await store.put(parse(write.document))
        await store.close()

    async def differences(self) -> list[str]:
        """In what the Envoys' states are not what a fresh control plane would give them."""
        return await truth.differences(self.store, self.fleet.envoys.values())

    async def _converged(self) -> None:
        """Wait until the control plane says that all are synced, and that all are connected."""
        async with httpx.AsyncClient(timeout=CONNECT_S_MAX) as http:
            deadline = time.monotonic() + CONNECT_S_MAX
            while True:
                answer = await http.get(self.control_plane.api + "/_convergence?revision=0&timeout=60s")
                metrics = (await http.get(self.control_plane.diagnostics + "/metrics")).text
                if answer.json()["is_converged"] and f"kumafast_connected_proxies {float(self.size)}" in metrics:
                    return
                assert time.monotonic() < deadline, "not converged in time"
                await asyncio.sleep(0.02)

    async def _settle(self) -> None:
        """Wait until nothing comes any more: what is late must be counted too."""
        before = -1
        while before != self.fleet.received.bytes:
            before = self.fleet.received.bytes
            await asyncio.sleep(0.5)


def _delays(made: Sequence[tuple[Write, Awaited]], *, from_answer: bool) -> list[float]:
    return [
        # What is there before the answer is has taken no time after it.
        max(0.0, arrival - (awaited.returned if from_answer else awaited.started))
        for _, awaited in made
        for arrival in awaited.arrivals
    ]


def _quantiles(seconds: Sequence[float]) -> Figures:
    ordered = sorted(seconds)
    if not ordered:
        return {}

    def at(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": round(1000 * ordered[-1], 2), "count": len(ordered)}


async def play(directory: Path, *, size: int, changes: int, interval_s: float, idle_s: float) -> Figures:
    """All phases; the figures of each by name."""
    _allow_descriptors(size)
    mesh = RealMesh(directory, size)
    figures: Figures = {"size": size}
    async with mesh.running():
        figures["connect"] = await mesh.connect()
        figures["churn"] = await mesh.churn(changes=changes, interval_s=interval_s)
        figures["differences_after_churn"] = await mesh.differences()
        if idle_s:
            figures["idle"] = await mesh.idle(idle_s)
        figures["stopped"] = await mesh.restart(signal.SIGTERM)
        figures["killed"] = await mesh.restart(signal.SIGKILL)
        figures["differences_at_the_end"] = await mesh.differences()
        figures["server_rss_mb"] = round(process_cost.resident_bytes(mesh.pid) / 1e6, 1)
    figures["load_average"] = os.getloadavg()[0]
    return figures


def _allow_descriptors(size: int) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert hard > size + 100, f"{size} connections need as many descriptors, and {hard} are allowed"
