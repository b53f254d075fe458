"""The demo's processes: started apart from one another, ended by their ids on every path.

In: commands. Out: running processes with a log each. Never: a process left behind, or the end of one not started here.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kumafast.cli.failure import CommandError

_STOP_S = 12.0
_LOG_LINES = 15
_POLL_S = 0.02
# Below the ports that systems hand out to outgoing connections, so that no such connection takes one before we do.
_PORTS = range(20000, 30000)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Process:
    """A running process and where its output goes."""

    name: str
    popen: subprocess.Popen[bytes]
    output: Path
    log: Path

    def log_tail(self) -> list[str]:
        """The last lines of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [f"{self.name}: {line}" for line in lines[-_LOG_LINES:]]


class Processes:
    """All processes of a demo, in the order of their start."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[Process] = []

    def start(self, name: str, command: list[str]) -> Process:
        """Start a process in a session of its own: a Ctrl-C on the terminal reaches the demo, which ends the rest."""
        output, log = self._directory / f"{name}.out", self._directory / f"{name}.log"
        with output.open("wb") as out, log.open("wb") as err, _signals_held():
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment(), start_new_session=True
            )
            process = Process(name, popen, output, log)
            self._running.append(process)
        return process

    def stop(self, process: Process) -> int:
        """End a process in order, or at once where it takes too long; its exit code."""
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGTERM)
            try:
                process.popen.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
        if process in self._running:
            self._running.remove(process)
        return process.popen.returncode

    def stop_all(self) -> None:
        """End everything, the last started first."""
        while self._running:
            self.stop(self._running[-1])

    def check(self) -> None:
        """`CommandError` with its last words where a process has ended by itself."""
        for process in self._running:
            code = process.popen.poll()
            if code is not None:
                raise CommandError(f"{process.name} ended by itself with exit code {code}:", process.log_tail())

    def await_value(self, what: str, look: Callable[[], T | None], *, timeout_s: float) -> T:
        """The first value that `look` finds; `CommandError` with all logs where it finds none in time."""
        ends = time.monotonic() + timeout_s
        while True:
            found = look()
            if found is not None:
                return found
            self.check()
            if time.monotonic() > ends:
                tails = [line for process in self._running for line in process.log_tail()]
                raise CommandError(f"{what} did not happen within {timeout_s:g} s; the last lines of the logs:", tails)
            time.sleep(_POLL_S)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM: between its start and its entry in the list, a process would be forgotten."""
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda received, frame: held.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(signal.Signals(held[0]))


def environment() -> dict[str, str]:
    """The demo's own environment without kumafast's variables: they are meant for other control planes."""
    return {key: value for key, value in os.environ.items() if not key.startswith("KUMAFAST_")}


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise CommandError(f"there are no {count} free ports between {_PORTS[0]} and {_PORTS[-1]}")
