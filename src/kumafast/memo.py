"""What pure functions came to, kept for as long as somebody asks for it.

In: functions of hashable arguments; how much has changed. Out: the same functions, which remember. Never: a result that
is kept because there is room for it.

A cache that is bounded by a number of entries alone fills with what was true once: each edit of a policy leaves what it
came to behind, and memory rises for days until the bound is reached. So entries are in two generations. After so many
changes the older one goes, the younger one becomes the older, and what is asked for moves to the younger again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

POLICY: Final = 64
"""What an edit of a policy counts: what it came to may be some entries for each service."""
DATAPLANE: Final = 1
"""What a dataplane that comes or changes counts: of these most are as others."""
GENERATION: Final = 4_096
"""How much has changed when the older generation goes: 64 edits of policies, or 4,096 dataplanes."""

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def remembered(entries_max: int) -> Callable[[Callable[_Given, _Result]], Callable[_Given, _Result]]:
    """A function of a module that computes anew only what was not asked for during the last one to two generations.

    At most `entries_max` results in each of the two; beyond it the least recently used go first.
    """

    def decorate(compute: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
        memo = _Memo(compute, entries_max)
        _MEMOS.append(memo)

        @wraps(compute)
        def ask(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
            return memo.ask(*args, **kwargs)

        return ask

    return decorate


def note_change(size: int) -> None:
    """Note that something has changed, a `POLICY` or a `DATAPLANE`, so that what nobody asks for any more can go."""
    # The functions that remember are the process's own too.
    global _changed
    _changed += size
    if _changed >= GENERATION:
        _changed = 0
        for memo in _MEMOS:
            memo.age()


class _Memo(Generic[_Given, _Result]):
    """The two generations of one function. Both are the interpreter's own caches: a hit costs one look-up."""

    def __init__(self, compute: Callable[_Given, _Result], entries_max: int) -> None:
        self._compute = compute
        self._entries_max = entries_max
        # What a miss in the younger generation asks: a list, so that it can be told that there is none before it.
        self._older: list[Callable[_Given, _Result]] = [compute]
        self.ask = self._generation(self._older)

    def age(self) -> None:
        # The older one is referred to from here alone.
        self._older[0] = self._compute
        self._older = [self.ask]
        self.ask = self._generation(self._older)

    def _generation(self, older: list[Callable[_Given, _Result]]) -> Callable[_Given, _Result]:
        def fill(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
            return older[0](*args, **kwargs)

        # It takes the same as what it wraps, which its type does not say.
        return cast(Callable[_Given, _Result], lru_cache(maxsize=self._entries_max)(fill))


_MEMOS: Final[list[_Memo[Any, Any]]] = []
_changed = 0
