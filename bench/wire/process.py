"""The benchmark's processes as seen from outside: their CPU time, memory and threads, and a line of JSON at a time.

In: a command. Out: answers to lines, figures of the kernel. Never: a wait without an end; a figure that a server tells
of itself where the kernel knows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
ANSWER_S = 150.0
"""How long an answer may take: ten thousand TLS handshakes on a busy machine, with a server that is slow at it."""

_LOOK_S = 0.005
_QUIET_LOOKS = 4
_IDLE_SHARE = 0.02
_QUIET_S = 30.0


class BenchmarkError(Exception):
    """A process ended, said nothing in time, or never came to rest."""


class Process:
    """A process that answers a line on stdin by a line of JSON on stdout. Use it as a context manager."""

    def __init__(self, command: Sequence[str], *, name: str) -> None:
        self.name = name
        self._unread = b""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment, bufsize=0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError, BenchmarkError):
            self.tell("quit")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Send a line; its answer is to be `hear`d."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    def hear(self, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """The next answer. Raises `BenchmarkError` where there is none in time."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise BenchmarkError(f"{self.name} has not answered for {timeout_s:.0f} s")
            parts.append(os.read(descriptor, 1 << 20))
            if not parts[-1]:
                raise BenchmarkError(f"{self.name} has ended")
        line, _, self._unread = b"".join(parts).partition(b"\n")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line and wait for its answer."""
        self.tell(line)
        return self.hear()

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self._process.send_signal(number)

    def cpu_us(self) -> float:
        """CPU time of all its threads so far, of those that have ended too, by the kernel's own clock."""
        # As clock_getcpuclockid(3) makes it: the complement of the process's number, and 2 for the scheduler's clock.
        return time.clock_gettime_ns((~self._process.pid << 3) | 2) / 1e3

    def resident_kb(self) -> float:
        """What is resident of its memory, in KiB."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024

    def wait_until_quiet(self, *, idle_share: float = _IDLE_SHARE) -> None:
        """Return when every thread sleeps and hardly any CPU time passes: all that came has been read and dealt with.

        `idle_share` of a core is taken for the timers of a runtime that does nothing else. A process with something to
        do is runnable, however long a busy machine makes it wait, so sleep is no accident.
        """
        deadline = time.monotonic() + _QUIET_S
        looks = 0
        before_us, before_s = self.cpu_us(), time.monotonic()
        while looks < _QUIET_LOOKS:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.name} has not come to rest for {_QUIET_S:.0f} s")
            time.sleep(_LOOK_S)
            now_us, now_s = self.cpu_us(), time.monotonic()
            is_idle = now_us - before_us < idle_share * (now_s - before_s) * 1e6
            looks = looks + 1 if is_idle and not self._is_runnable() else 0
            before_us, before_s = now_us, now_s

    def _is_runnable(self) -> bool:
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # The state follows the name, which is in parentheses and may hold anything.
                if (thread / "stat").read_text().rpartition(")")[2].split()[0] in "RD":
                    return True
        return False
