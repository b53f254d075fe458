"""When Python looks for cycles of dead objects: not while much is read, and not among what stays.

In: nothing. Out: `left_alone` for the time in which a large state is built, `keep_what_is` when it stands.
Never: memory that is freed by hand; what is not in a cycle goes as soon as nobody refers to it, as ever.

A look through the objects of 50,000 connected dataplanes takes a second, in which nobody is served.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
    """Look for cycles only among what is made from now on: for a process that has just read all that it serves.

    What is in a cycle now and dies later is never found, so this is for state that has none: resources and indexes.
    """
    gc.freeze()
