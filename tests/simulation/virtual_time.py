"""An event loop whose time passes when there is nothing to do: days in seconds, and the same each time.

In: coroutines. Out: what they do, in the order of their times, for some months. Never: a socket, a thread, a signal,
the machine's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

T = TypeVar("T")


class StuckError(Exception):
    """Everybody waits for somebody else, and nothing will ever happen."""


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio's own loop, with a clock that jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        # What the loop asks for news of sockets, and how long to wait for them: for good here.
        self._selector = self
        self.turns = 0
        """How often it has gone round."""

    def time(self) -> float:
        """The seconds since the beginning."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """No socket has news; the time of waiting is over at once."""
        if timeout is None:
            raise StuckError
        self.turns += 1
        self._now += max(timeout, 0.0)
        return []

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


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
