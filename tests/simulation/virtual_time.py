"""An event loop whose time passes when there is nothing to do: days in seconds, and the same each time.

In: coroutines. Out: what they do, in the order of their times, for some months. Never: a socket, a thread, a signal,
the machine's clock.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from datetime import UTC, datetime
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
_Ts = TypeVarTuple("_Ts")


class StuckError(Exception):
    """Everybody waits for somebody else, and nothing will ever happen."""


class _Timer(asyncio.TimerHandle):
    """asyncio's handle with nothing that is for debugging: there are some ten million in a day of the simulation."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> None:
        self._when, self._callback, self._args = when, callback, args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        """Have it never run, or not keep what it would have run with."""
        self._cancelled = True
        self._callback, self._args = _nothing, ()


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's own loop, with a clock that jumps to the next timer instead of waiting for it.

    Timers of one moment run in the order in which they were set.
    """

    _ready: deque[_Timer]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self.timers = 0
        """How many timers have been set."""
        self.turns = 0
        """How often it has gone round."""

    def time(self) -> float:
        """The seconds since the beginning."""
        return self._now

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's."""
        handle = _Timer(self._now, callback, args, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's."""
        timer = _Timer(when, callback, args, context)
        self.timers += 1
        heapq.heappush(self._timers, (when, self.timers, timer))
        return timer

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise StuckError
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer._cancelled:
                ready.append(timer)
        self.turns += 1
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"exception in {handle._callback}", "exception": error})


def _nothing() -> None:
    """What a cancelled timer does."""


class WallClock:
    """What a machine believes that time it is. It may be set to another at any moment."""

    def __init__(self, monotonic: Callable[[], float], *, start: float = 1_790_000_000.0) -> None:
        self._monotonic = monotonic
        self._start = start

    def __call__(self) -> float:
        """Seconds since 1970."""
        return self._start + self._monotonic()

    def utc(self) -> datetime:
        """The same as a time."""
        return datetime.fromtimestamp(self(), UTC)

    def jump(self, seconds: float) -> None:
        """Set it forward, or back."""
        self._start += seconds


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Play a coroutine to its end in virtual time."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
        asyncio.set_event_loop(None)
