"""How a long command ends early: what it has started ends with it, and one line says what was kept.

In: what is kept then, in words. Out: exit code 130 of Ctrl-C, 143 of SIGTERM. Never: a traceback for whoever only
pressed Ctrl-C.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

NOTHING = "nothing was kept"


@contextlib.contextmanager
def early(kept: Callable[[], str] = lambda: NOTHING) -> Iterator[None]:
    """End the block at Ctrl-C and at SIGTERM, by way of its `finally`s, and say so with what was `kept`."""

    code = 128 + signal.SIGINT

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal code
        code = 128 + number
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
            # As in the background of a shell that has no jobs.
            raise SystemExit(code)
        # asyncio knows how to end at that one.
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        pass
    except SystemExit as error:
        if error.code != 128 + signal.SIGTERM:
            raise
    else:
        return
    sys.stderr.write(f"\nended early: {kept()}\n")
    raise SystemExit(code)


def by_its_parent() -> None:
    """Take no notice of Ctrl-C, which a terminal tells every process: whoever has started this one ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
