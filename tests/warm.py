"""`kumafast` as a process that has its modules already: most of what a start costs is reading and making them.

In: arguments, as those of `python -m kumafast`. Out: a child, as `subprocess.Popen` has it. Never: more in common with
other children than modules: each has variables, output and chance of its own.

One process imports all once and forks for each child. What is of the start itself, or has to differ from one process to
the next (the order of sets, which comes from the seed of hashes), is not to be tested so.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).parents[1]
_REQUEST_BYTES_MAX = 1 << 17
_START_TIMEOUT_S = 60
_STATUS = struct.Struct("i")
_MODULES = ("kumafast.cli.main", "kumafast.control_plane", "httpx", "uvicorn", "uvloop")


class Warm:
    """A child; what is here is as in `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], *, stderr: IO[bytes], env: Mapping[str, str]) -> None:
        """`arguments` are those after `python -m kumafast`."""
        reading, writing = os.pipe()
        self._status, status = os.pipe()
        try:
            self.pid = _starter().start(arguments, env, [writing, stderr.fileno(), status])
        finally:
            os.close(writing)
            os.close(status)
        self.stdout: IO[str] | None = os.fdopen(reading, encoding="utf-8")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code if it has ended."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code when it has ended; negative where a signal has ended it."""
        code = self._ended(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("kumafast", timeout)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            told = os.read(self._status, _STATUS.size)
            assert told, "who starts processes has ended before them"
            (self.returncode,) = _STATUS.unpack(told)
            os.close(self._status)
        return self.returncode

    def send_signal(self, how: int) -> None:
        """Send a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, how)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Starter:
    """The process that forks; it ends with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._ours.settimeout(_START_TIMEOUT_S)

    def start(self, arguments: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]) -> int:
        request = json.dumps({"arguments": list(arguments), "env": dict(env), "directory": os.getcwd()}).encode()
        with self._lock:
            socket.send_fds(self._ours, [request], descriptors)
            return int(self._ours.recv(64))

    def stop(self) -> None:
        self._ours.close()
        self._child.wait()


_STARTERS: list[_Starter] = []


def _starter() -> _Starter:
    if not _STARTERS:
        _STARTERS.append(_Starter())
        atexit.register(_STARTERS[0].stop)
    return _STARTERS[0]


class _Server:
    """What the process that forks does."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        # By a descriptor of each child's end: the child, and where its exit code is to go.
        self._children: dict[int, tuple[int, int]] = {}

    def serve(self) -> list[str] | None:
        """Fork for each request. In a child its arguments come back, and None when nobody will ask any more."""
        while True:
            asked = self._requests.fileno()
            ready, _, _ = select.select([asked, *self._children], [], [])
            for each in ready:
                if each != asked:
                    self._tell_end(each)
                    continue
                data, descriptors, _, _ = socket.recv_fds(self._requests, _REQUEST_BYTES_MAX, 3)
                if not data:
                    return None
                request = json.loads(data)
                pid = os.fork()
                if not pid:
                    self._forget_all()
                    return _become(request, *descriptors)
                output, errors, status = descriptors
                os.close(output)
                os.close(errors)
                self._children[os.pidfd_open(pid)] = (pid, status)
                self._requests.send(str(pid).encode())

    def _tell_end(self, end: int) -> None:
        pid, status = self._children.pop(end)
        os.close(end)
        _, how = os.waitpid(pid, 0)
        # Whoever asked may have gone.
        with contextlib.suppress(BrokenPipeError):
            os.write(status, _STATUS.pack(os.waitstatus_to_exitcode(how)))
        os.close(status)

    def _forget_all(self) -> None:
        self._requests.close()
        for end, (_, status) in self._children.items():
            os.close(end)
            os.close(status)


def _become(request: Mapping[str, object], output: int, errors: int, status: int) -> list[str]:
    """Have what a process has that was started by itself; its arguments."""
    os.close(status)
    for descriptor, place in ((output, 1), (errors, 2)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.chdir(str(request["directory"]))
    variables, arguments = request["env"], request["arguments"]
    assert isinstance(variables, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    random.seed()
    gc.unfreeze()
    return arguments


def main() -> None:
    """Import all, then fork."""
    for module in _MODULES:
        importlib.import_module(module)
    gc.collect()
    # What is never looked at is never copied.
    gc.freeze()
    arguments = _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if arguments is not None:
        sys.argv[1:] = arguments
        runpy.run_module("kumafast", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
