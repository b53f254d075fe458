"""When Python looks for cycles of dead objects: a little at a time, and never while anybody waits.

In: nothing. Out: `left_alone` for the time in which a large state is built, `keep_what_is` when it stands; `begin` and
`follow` for a process that serves, and `return_large`. Never: memory that is freed by hand; what is not in a cycle goes
as soon as nobody refers to it, as ever.

A look through the objects of 50,000 connected dataplanes takes seconds, in which nobody is served. So what has survived
three looks is kept: no look comes back to it, and each is as short as what was made since the last. A cycle that was
kept and dies later stays; when memory has grown by so much that this may be why, all is looked through once, at a
moment when there is nothing else to do. What was read at the start, and streams that came, is growth with a reason:
a crowd that comes to an instance that has just started is no cause for a look in the middle of it. Reasons and figures:
docs/decisions/007.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

YOUNG_MAX = 1_000
"""New objects before these are looked through: a few hundred microseconds."""
MIDDLE_LOOKS = 4
"""Looks at the new before those that survived them are looked through once more."""
OLD_LOOKS = 4
"""Looks of that kind before what survived is looked through for the last time, some 16,000 objects, and kept."""

GROWTH_DUE = 1.25
"""By how much memory grows before all is looked through at the next quiet moment, as Python itself has it."""
GROWTH_MAX = 2.0
"""By how much it grows at the most, if there is no such moment."""
GROWTH_MIN_BLOCKS = 500_000
"""Growth that is never worth a look: some 40 MB."""
QUIET_S = 1.0
"""How long little must have been done for a moment to count as quiet."""
QUIET_SHARE = 0.05
"""The share of a core that is little."""

LARGE_BYTES = 512 << 10
"""From here on memory is the operating system's own mapping, which goes back to it when it is freed."""
TOP_BYTES_MAX = 1 << 20
"""How much the C library keeps at the end of its heap for what comes next."""
# Of mallopt(3), glibc's.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def return_large() -> None:
    """Have what is large go back to the operating system when it is freed, for as long as this process lives.

    With the first large block that is freed glibc raises that bound to its size, up to 32 MB, and takes the next ones
    from its heap. An answer of 3 MB each few seconds that finds no gap of its size then makes the heap longer, and what
    was put behind it keeps it so: memory rises by steps for hours, with nothing in it. Elsewhere this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, TOP_BYTES_MAX)


@contextmanager
def left_alone() -> Iterator[None]:
    """Look for no cycles meanwhile: reading makes many objects and no cycles, and looking takes most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def keep_what_is() -> None:
    """Look for cycles only among what is made from now on: for a process that has just read all that it serves."""
    gc.freeze()
    _LOOKS.rest()


class _Looks:
    """Looks that come by what is made. Python's own count is of what is made less what goes, so where much is replaced
    it stands still while the new gather."""

    def __init__(self) -> None:
        self.is_on = False
        self.base = 0
        """The blocks that there were when all was looked through, and those that have a reason to be there since."""
        self._made = 0
        self._looks = 0

    def rest(self) -> None:
        """What there is now is no growth."""
        self.base = sys.getallocatedblocks()

    def add(self, objects: int) -> None:
        self._made += objects
        if self._made < YOUNG_MAX or not gc.isenabled():
            return
        self._made = 0
        self._looks += 1
        if self._looks % MIDDLE_LOOKS:
            gc.collect(0)
        else:
            gc.collect(1 if self._looks % (MIDDLE_LOOKS * OLD_LOOKS) else 2)


# Python has one collector, so there is one of these.
_LOOKS = _Looks()


def made(objects: int) -> None:
    """Note that about so many objects were made that stay for now; after some thousand they are looked through."""
    if _LOOKS.is_on:
        _LOOKS.add(objects)


def came(blocks: int) -> None:
    """Note that memory has grown by about so many blocks for a reason that lasts; it goes with the same, below 0."""
    _LOOKS.base += blocks


def begin() -> Callable[[], None]:
    """From now on look a little at a time, and keep what survives; the returned function ends that.

    For the process that serves, once.
    """
    _LOOKS.is_on = True
    thresholds = gc.get_threshold()
    gc.set_threshold(YOUNG_MAX, MIDDLE_LOOKS, OLD_LOOKS)
    gc.callbacks.append(_keep_survivors)

    def end() -> None:
        _LOOKS.is_on = False
        gc.callbacks.remove(_keep_survivors)
        gc.set_threshold(*thresholds)
        gc.unfreeze()

    return end


def _keep_survivors(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


async def follow() -> None:
    """Look through everything whenever memory has grown enough and it disturbs nobody, until cancelled.

    It sleeps while nothing is made: only looks at what is new wake it.
    """
    grown = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake(phase: str, info: dict[str, int]) -> None:
        # The look may be in any thread.
        if phase == "stop" and info["generation"] == 2 and not loop.is_closed():
            loop.call_soon_threadsafe(grown.set)

    gc.callbacks.append(wake)
    try:
        _LOOKS.rest()
        while True:
            await grown.wait()
            grown.clear()
            # What shrinks makes room that is not to be filled with the dead.
            _LOOKS.base = min(_LOOKS.base, sys.getallocatedblocks())
            if not _has_grown(GROWTH_DUE):
                continue
            await _quiet()
            if _has_grown(GROWTH_DUE):
                look_through_all()
                grown.clear()
    finally:
        gc.callbacks.remove(wake)


def look_through_all() -> int:
    """Look through everything that there is, also what is kept; how many dead objects that found. O(all objects)."""
    gc.unfreeze()
    found = gc.collect()
    gc.freeze()
    _LOOKS.rest()
    return found


def _has_grown(share: float) -> bool:
    blocks = sys.getallocatedblocks()
    return blocks > _LOOKS.base * share and blocks - _LOOKS.base > GROWTH_MIN_BLOCKS


async def _quiet() -> None:
    """Return when little has been done for a while, or memory has grown to its limit."""
    while not _has_grown(GROWTH_MAX):
        began, used = time.monotonic(), time.process_time()
        await asyncio.sleep(QUIET_S)
        if time.process_time() - used <= QUIET_SHARE * (time.monotonic() - began):
            return
