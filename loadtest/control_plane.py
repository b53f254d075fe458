"""A control plane for a load test: its store filled, kept running, watched.

In: a directory, the size of a mesh, how its clients connect. Out: addresses, samples of what it and the clients use.
Never: load.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from bench.real_wires import process_cost
from bench.regular_mesh import fill
from tests.envoy.harness import ControlPlane
from tests.stream.grpc_client import create_certificate

SAMPLE_EACH_S = 0.25
TASKS_EACH_S = 5.0
PROFILE_HZ = 100
PROFILE_WRITE_S_MAX = 120.0
_DESCRIPTORS_OWN = 200
TLS = ("none", "server", "mutual")


@dataclass(frozen=True, slots=True)
class Sample:
    """What has been used until a monotonic second, of which only differences say something."""

    at: float
    server_cpu_s: float
    server_rss_bytes: int
    clients_cpu_s: dict[int, float]
    """By process id."""
    machine_cpu_s: float
    """Of all processors, by whomever."""
    descriptors: int = 0
    tasks: int = 0
    """Of the server's event loop, when that was asked last."""
    store_bytes: int = 0


class WatchedControlPlane:
    """`kumafast run`, started again whenever it dies, as a service manager does."""

    def __init__(self, directory: Path, *, users: int, tls: str, flame: Path | None = None) -> None:
        """`flame` is where a flame graph of its first process goes, with the frames of the compiled core."""
        self.samples: list[Sample] = []
        self.starts = 0
        self.store = directory / "data" / "kumafast.db"
        self.pid_file = directory / "control-plane.pid"
        self.client_pid: int | None = None
        """The first process of the load; its children are clients too."""
        self.ca = self.certificate = self.key = ""
        flags = ["--log-level", "warning"]
        if tls == "none":
            flags.append("--no-dp-tls")
        else:
            self.ca = str(directory / "data" / "dp-server.crt")
        if tls == "mutual":
            shown = create_certificate(directory)
            self.certificate, self.key = str(shown.certificate), str(shown.key)
            flags += ["--dp-client-ca", self.certificate]
        self._users, self._flame = users, flame
        self._profiler: subprocess.Popen[bytes] | None = None
        self._server = ControlPlane(directory, *flags, is_warm=False)
        self._ended_cpu_s = 0.0
        self._tasks, self._tasks_due = 0, 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def api(self) -> str:
        """Where the API is."""
        return self._server.api

    @property
    def diagnostics(self) -> str:
        """Where its metrics are."""
        return self._server.diagnostics

    @property
    def dp(self) -> tuple[str, int]:
        """Host and port for Envoys."""
        host, _, port = self._server.dp.rpartition("/")[2].rpartition(":")
        return host, int(port)

    @contextlib.contextmanager
    def running(self) -> Iterator[WatchedControlPlane]:
        """With its store filled; it has ended when the block is left, so that the store is at rest."""
        self.store.parent.mkdir(parents=True, exist_ok=True)
        asyncio.run(fill(self.store, self._users, zone="default"))
        self._start()
        if self._flame is not None:
            self._profiler = profile(self._pid(), self._flame)
            (self.pid_file.parent / "profiler.pid").write_text(str(self._profiler.pid), encoding="ascii")
        self._thread.start()
        try:
            yield self
        finally:
            if self._profiler is not None:
                end_profile(self._profiler)
            self._stopping.set()
            self._thread.join()
            self._server.stop()

    def _start(self) -> None:
        self._server.start()
        self.starts += 1
        self.pid_file.write_text(str(self._pid()), encoding="ascii")

    def _pid(self) -> int:
        assert self._server.process is not None
        return self._server.process.child.pid

    def _watch(self) -> None:
        while not self._stopping.wait(SAMPLE_EACH_S):
            process = self._server.process
            if process is not None and process.child.poll() is not None:
                if self.samples:
                    self._ended_cpu_s = self.samples[-1].server_cpu_s
                self._server.stop()
                self._start()
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                self.samples.append(self._sample())

    def _sample(self) -> Sample:
        busy = psutil.cpu_times()
        pid = self._pid()
        return Sample(
            at=time.monotonic(),
            server_cpu_s=self._ended_cpu_s + process_cost.cpu_seconds(pid),
            server_rss_bytes=process_cost.resident_bytes(pid),
            clients_cpu_s={client: process_cost.cpu_seconds(client) for client in self._clients()},
            machine_cpu_s=busy.user + busy.nice + busy.system + busy.irq + busy.softirq,
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            tasks=self._ask_for_tasks(),
            store_bytes=sum(part.stat().st_size for part in self.store.parent.glob(self.store.name + "*")),
        )

    def _ask_for_tasks(self) -> int:
        if time.monotonic() > self._tasks_due:
            self._tasks_due = time.monotonic() + TASKS_EACH_S
            with contextlib.suppress(httpx.TransportError):
                self._tasks = int(self._server.metrics()["kumafast_asyncio_tasks"])
        return self._tasks

    def _clients(self) -> list[int]:
        if self.client_pid is None or not psutil.pid_exists(self.client_pid):
            return []
        return [self.client_pid, *(child.pid for child in psutil.Process(self.client_pid).children(recursive=True))]


def why_no_descriptors(connections: int) -> str:
    """Why a control plane cannot have so many connections here; empty where it can, and from now on may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or hard >= connections + _DESCRIPTORS_OWN:
        return ""
    return f"{connections:,} connections need as many descriptors in the control plane, and {hard:,} are allowed"


def profile(pid: int, flame: Path) -> subprocess.Popen[bytes]:
    """Sample a process until `end_profile`. It is slower for that: what it costs meanwhile is no figure."""
    flame.parent.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--native"]
    command += ["--rate", str(PROFILE_HZ), "--format", "flamegraph", "--output", str(flame)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end_profile(profiler: subprocess.Popen[bytes]) -> None:
    """Have the flame graph written. Raises TimeoutExpired where that takes too long."""
    if profiler.poll() is None:
        profiler.send_signal(signal.SIGINT)
    profiler.wait(PROFILE_WRITE_S_MAX)


def processors() -> int:
    """How many there are for us."""
    return len(os.sched_getaffinity(0))
