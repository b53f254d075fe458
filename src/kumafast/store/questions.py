"""What instances of one store ask each other: each knows the proxies that are connected to itself only.

In: a question, which is a path with a query, and how long to wait. Out: the bytes that the others answer, and who did
not. Never: what a question means; who serves the path knows that.

Whoever is asked answers about itself and asks nobody, so that a question makes no further one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

Answerer = Callable[[str], Awaitable[bytes]]
"""What this instance says to a question; empty where it has nothing to say."""


@dataclass(frozen=True, slots=True)
class Replies:
    """What the others said, by their names.

    `missing` are those that live by their leases and did not answer in time, or could not be asked. Complete are the
    replies if nobody went away in between, whose proxies would be somebody else's by now.
    """

    bodies: Mapping[str, bytes] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    is_complete: bool = True


class Questions(Protocol):
    """The way to the other instances."""

    async def follow(self, answer: Answerer, /) -> None:
        """Answer what others ask, until cancelled."""
        ...

    async def ask(self, question: str, /, *, wait_s: float = 0.0, first: bool = False, since: int = 0) -> Replies:
        """What all others answer, each after `wait_s` at most; with `first` no more than until one has something to
        say. `since` is a revision: who gives no sign and has told before that its proxies are there is not missing.
        """
        ...


class _Alone:
    """For stores that have one instance."""

    async def follow(self, _: Answerer, /) -> None:
        """Nobody asks."""

    async def ask(self, _: str, /, *, wait_s: float = 0.0, first: bool = False, since: int = 0) -> Replies:
        """Nobody is there."""
        return Replies()


ALONE: Questions = _Alone()
