"""What is left of something that fails when all is left out that it fails without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

_Step = TypeVar("_Step")


def shrunk(steps: Sequence[_Step], fails: Callable[[Sequence[_Step]], bool]) -> list[_Step]:
    """A shorter history that still fails: pieces are left out, ever smaller ones, until none can be."""
    kept = list(steps)
    size = max(1, len(kept) // 2)
    while True:
        start, has_shrunk = 0, False
        while start < len(kept):
            without = kept[:start] + kept[start + size :]
            if fails(without):
                kept, has_shrunk = without, True
            else:
                start += size
        if size == 1 and not has_shrunk:
            return kept
        size = max(1, size // 2)
