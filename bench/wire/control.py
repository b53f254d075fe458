"""How a server of the benchmark is told what to do: a line on stdin, a line of JSON on stdout for each.

In: functions by command. Out: their answers. Never: anything while it is not asked; the end of stdin is `quit`.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

Commands = dict[str, Callable[[], dict[str, Any]]]

_TICK_S = 0.001


def raise_descriptor_limit() -> None:
    """Let this process have as many connections as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settle() -> dict[str, Any]:
    """Give back what is not in use, so that what is resident is what is needed."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return {}


class TurnClock:
    """The longest turn of an event loop while it is watched, in CPU time: what a neighbour takes does not count.

    A timer each millisecond looks how much CPU time has passed since it last ran. It costs some itself, so it runs only
    in rounds of which the CPU time is not reported.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._longest_s = 0.0

    def watch(self) -> dict[str, Any]:
        """Begin anew."""
        self._longest_s = 0.0
        self._task = asyncio.get_running_loop().create_task(self._tick())
        return {}

    def tell(self) -> dict[str, Any]:
        """End it; `longest_turn_ms` is the result."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        return {"longest_turn_ms": self._longest_s * 1e3}

    async def _tick(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.thread_time()
            self._longest_s = max(self._longest_s, now - before)
            before = now


async def obey(port: int, commands: Commands) -> None:
    """Say the port, then obey until `quit`."""
    _say({"port": port})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    clock = TurnClock()
    known: Commands = {"settle": settle, "watch": clock.watch, "turns": clock.tell, **commands}
    while line := (await reader.readline()).decode().strip():
        if line == "quit":
            return
        _say(known[line]())


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
