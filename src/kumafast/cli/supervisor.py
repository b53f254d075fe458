"""`kumafast run --workers N`: one process that has others serve, and sees to it that they do.

In: settings, signals. Out: N workers on the same ports, one `ready` line, one set of diagnostics over all of them.
Never: a connection of a proxy or a user of the API; a control plane's code beyond what starts one.

A worker that dies is replaced, later and later where its successors die as well. SIGHUP replaces one after the other,
each once its successor serves: proxies are sent away over `drain_s` and come to those that are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry, Counter, Gauge

from kumafast.cli.failure import CommandError
from kumafast.cli.run import announce, cannot_start
from kumafast.cli.shared_ports import SharedPorts
from kumafast.cli.worker import DRAIN
from kumafast.rest.diagnostics import create_diagnostics
from kumafast.rest.http_server import HttpServer
from kumafast.settings import Settings
from kumafast.worker_metrics import WorkerMetrics

_LOG = logging.getLogger("kumafast.run")

RESTART_S, RESTART_S_MAX = 0.1, 5.0
"""How long a dead worker's successor waits, twice as long each time, up to this."""
LASTING_S = 30.0
"""A worker that has served for so long was no failure of its start."""
STOP_S = 9.5
"""Stopping must end within 10 s, whatever workers do."""
READY_S = 120.0
_LAST_WORDS_S = 10.0
_METRICS_S = 2.0


class Worker:
    """One process. `ready` has what it says when it serves; `ended` its exit code."""

    def __init__(self, process: asyncio.subprocess.Process, number: int, socket: Path) -> None:
        self.process = process
        self.number = number
        self.socket = socket
        self.ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._began = time.monotonic()
        self.lasted_s = 0.0
        """How long it was there, once it has ended."""
        self.last_metrics = b""
        self.ended = asyncio.create_task(self._follow(), name=f"worker {number}")

    @classmethod
    async def start(cls, settings: Settings, number: int, directory: Path) -> Worker:
        """A process that has been told what to serve."""
        socket = directory / f"{number}-{time.monotonic_ns()}.sock"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kumafast.cli.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 24,
            # Signals of a terminal are for the supervisor, which tells its workers in its own time.
            start_new_session=True,
        )  # fmt: skip
        order = {"settings": dataclasses.asdict(settings), "worker": number, "socket": str(socket)}
        worker = cls(process, number, socket)
        worker._tell(json.dumps(order).encode() + b"\n")
        return worker

    async def _follow(self) -> int:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            if "metrics" in said:
                self.last_metrics = said["metrics"].encode()
            elif not self.ready.done():
                self.ready.set_result(said)
        code = await self.process.wait()
        self.lasted_s = time.monotonic() - self._began
        if not self.ready.done():
            self.ready.set_exception(CommandError(f"worker {self.number} has ended before it served ({_end(code)})"))
            # Whoever does not wait for it has no use for the error.
            self.ready.exception()
        self.socket.unlink(missing_ok=True)
        return code

    @property
    def is_serving(self) -> bool:
        return self.ready.done() and self.ready.exception() is None and not self.ended.done()

    def drain(self) -> None:
        """Have it send its proxies away, and end."""
        self._tell(DRAIN)

    def send(self, number: signal.Signals) -> None:
        """A signal, as far as it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _tell(self, words: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, RuntimeError):
            self.process.stdin.write(words)

    async def metrics(self) -> bytes | None:
        """What it shows now; None where it does not answer."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        try:
            async with httpx.AsyncClient(transport=transport, timeout=_METRICS_S) as client:
                return (await client.get("http://worker/metrics")).content
        except httpx.TransportError:
            return None


class Supervisor:
    """The workers of one command, by their numbers."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._serving: dict[int, Worker] = {}
        self._all: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._replacing: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._metrics = WorkerMetrics()
        self._registry = CollectorRegistry()
        Gauge("kumafast_workers", "Workers that serve.", registry=self._registry).set_function(self._count)
        self._restarts = Counter(
            "kumafast_worker_restarts", "Workers that have died and were replaced.", registry=self._registry
        )

    def _count(self) -> int:
        return sum(worker.is_serving for worker in self._serving.values())

    @property
    def is_ready(self) -> bool:
        """Whether somebody serves; at first, once all do."""
        return not self._is_stopping and self._count() > 0

    async def start(self) -> dict[str, Any]:
        """All workers; what the first of them says. Raises `CommandError` where one ends before it serves."""
        # The first makes what there is to be made once: tables, a certificate, the administrator's token.
        first = await self._started(1)
        await asyncio.gather(*(self._started(number) for number in range(2, self._settings.workers + 1)))
        for number in self._serving:
            self._spawn(self._keep(number))
        return first

    async def _started(self, number: int) -> dict[str, Any]:
        """A worker that serves under a number from now on, and what it says. Raises `CommandError`."""
        worker = await Worker.start(self._settings, number, self._directory)
        self._all.add(worker)
        self._spawn(self._bury(worker))
        try:
            async with asyncio.timeout(READY_S):
                said = await asyncio.shield(worker.ready)
        except TimeoutError:
            worker.send(signal.SIGKILL)
            raise CommandError(f"worker {number} has not begun to serve within {READY_S:.0f} s") from None
        self._serving[number] = worker
        return said

    async def _bury(self, worker: Worker) -> None:
        """What a worker has counted outlives it."""
        await asyncio.wait({worker.ended})
        if worker.last_metrics:
            self._metrics.see(worker.socket.name, worker.last_metrics)
        self._metrics.retire(worker.socket.name)
        self._all.discard(worker)

    async def _keep(self, number: int) -> None:
        """Replace the worker of a number whenever it has died."""
        failures = 0
        while not self._is_stopping:
            worker = self._serving[number]
            await asyncio.wait({worker.ended})
            if self._is_stopping or self._serving[number] is not worker:
                continue
            failures = 0 if worker.lasted_s > LASTING_S else failures
            delay_s = min(RESTART_S * 2**failures, RESTART_S_MAX) * random.uniform(0.75, 1.25)
            failures += 1
            _LOG.warning(
                "worker %d has died (%s); another starts in %.1f s", number, _end(worker.ended.result()), delay_s
            )
            await asyncio.sleep(delay_s)
            self._restarts.inc()
            # Where that fails the next turn waits longer: the dead one is still there under the number.
            with contextlib.suppress(CommandError):
                await self._started(number)

    def replace(self) -> None:
        """Replace all workers, one after the other. Asked again meanwhile, it begins anew afterwards."""
        before = self._replacing

        async def work() -> None:
            if before is not None:
                await asyncio.wait({before})
            await self._replace()

        self._replacing = self._spawn(work())

    async def _replace(self) -> None:
        for number, old in sorted(self._serving.items()):
            if self._is_stopping or self._serving[number] is not old or old.ended.done():
                continue
            try:
                await self._started(number)
            except CommandError as error:
                _LOG.error("worker %d is not replaced, and those after it are not: %s", number, error)
                return
            _LOG.info("worker %d is replaced; its proxies leave within %g s", number, self._settings.drain_s)
            old.drain()
            done, _ = await asyncio.wait({old.ended}, timeout=self._settings.drain_s + _LAST_WORDS_S)
            if not done:
                old.send(signal.SIGKILL)

    async def exposition(self) -> bytes:
        """The metrics of all workers together, and the supervisor's own."""
        workers = [worker for worker in self._all if worker.is_serving]
        for worker, shown in zip(workers, await asyncio.gather(*(each.metrics() for each in workers)), strict=True):
            if shown is not None and not worker.ended.done():
                self._metrics.see(worker.socket.name, shown)
        return self._metrics.exposition(self._registry)

    async def stop(self) -> bool:
        """Stop all workers at once; False where one had to be killed."""
        self._is_stopping = True
        workers = list(self._all)
        for worker in workers:
            worker.send(signal.SIGTERM)
        pending: set[asyncio.Task[int]] = set()
        if workers:
            _, pending = await asyncio.wait({worker.ended for worker in workers}, timeout=STOP_S)
        self.kill()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *pending, return_exceptions=True)
        return not pending

    def kill(self) -> None:
        """End what is left, now."""
        for worker in tuple(self._all):
            worker.send(signal.SIGKILL)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _end(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


async def serve(settings: Settings) -> int:
    """Have workers serve until a signal says to stop; the exit code. Raises `CommandError`."""
    try:
        ports = SharedPorts(settings)
    except OSError as error:
        raise cannot_start(error, settings) from error
    # Only this user may enter it, and it goes with the last worker.
    directory = Path(tempfile.mkdtemp(prefix="kumafast-"))
    try:
        return await _serve(ports.settings, directory)
    finally:
        ports.close()
        shutil.rmtree(directory, ignore_errors=True)


async def _serve(settings: Settings, directory: Path) -> int:
    supervisor = Supervisor(settings, directory)
    has_begun = False
    diagnostics = HttpServer(create_diagnostics(lambda: has_begun and supervisor.is_ready, supervisor.exposition))
    stopping = asyncio.Event()
    _handle_signals(stopping, supervisor.kill, supervisor.replace)
    try:
        try:
            port = await diagnostics.start(settings.host, settings.diagnostics_port)
        except OSError as error:
            raise cannot_start(error, settings) from error
        starting, asked = asyncio.create_task(supervisor.start()), asyncio.create_task(stopping.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            said = starting.result()
            has_begun = True
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            addresses = {"api": said["api"], "dp": said["dp"], "diagnostics": f"http://{host}:{port}"}
            announce(settings, addresses, admin_token=said["admin_token"], api_tls_url=said["api_tls"])
            await asked
        starting.cancel()
        asked.cancel()
        _LOG.info("stopping")
    finally:
        is_stopped = await supervisor.stop()
        await diagnostics.stop(0.1)
    return 0 if is_stopped else 1


def _handle_signals(stopping: asyncio.Event, kill: Callable[[], None], replace: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if stopping.is_set():
            # The second signal means now, for workers too.
            kill()
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)
    loop.add_signal_handler(signal.SIGHUP, replace)
