"""Work for many streams, a slice in each turn of the loop: a push to ten thousand holds up nobody for long.

In: callbacks, each cheap to be asked for again. Out: each called once, soon, in the order of their first asking.
Never: more than a slice of them in one turn; more than one entry for each callback.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

SLICE = 256
"""Callbacks in one turn of the loop: a stream whose move is known takes some 5 µs."""
SLICE_S = 0.002
"""No more are begun after so long: a stream that nobody has gone before takes some 50 µs, or more."""


class Turns:
    """A queue of callbacks for one loop; holds as many as there are different ones.

    >>> async def main() -> list[str]:
    ...     done: list[str] = []
    ...     turns, callback = Turns(), lambda: done.append("called")
    ...     turns.ask(callback)
    ...     turns.ask(callback)
    ...     await asyncio.sleep(0.01)
    ...     return done
    >>> asyncio.run(main())
    ['called']
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._asked: set[Callable[[], None]] = set()
        self._is_scheduled = False

    def ask(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in one of the next turns; asked again before that, it is called once."""
        if callback in self._asked:
            return
        self._asked.add(callback)
        self._waiting.append(callback)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        self._is_scheduled = False
        ends = time.perf_counter() + SLICE_S
        for _ in range(min(SLICE, len(self._waiting))):
            callback = self._waiting.popleft()
            self._asked.discard(callback)
            callback()
            if time.perf_counter() > ends:
                break
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._take)
