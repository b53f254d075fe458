"""How commits are announced: one shared log, and watches that hold a position in it.

In: commits, each with the next revision. Out: to every watch each commit after its revision, in order and once.
Never: a queue for each watch, a timer, or a thread; a watch costs one integer, a slow one costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kumafast.errors import CompactedError
from kumafast.store.store import Commit

OWN_CHANGES_MAX = 2_000
"""Old commits are forgotten once those kept hold more changes than this, some 16 MB of values that are no more. What
was announced in this turn of the loop and in the last one stays: no watch that keeps up is told that it is slow."""
HISTORY_CHANGES_MAX = 10_000
"""The same where other instances go on from the log too, which may be away for minutes …"""
HISTORY_COMMITS_MIN = 512
"""… and there the newest of them are kept whatever they hold."""


class CommitLog:
    """The newest commits, without gaps: all of `floor + 1 … revision`. Belongs to one event loop."""

    def __init__(self, *, revision: int = 0, is_shared: bool = False) -> None:
        """`is_shared` where other processes go on from it as well as this one's watches, which keep up."""
        self._is_shared = is_shared
        # Where this turn of the loop began, and the last one in which there were commits.
        self._turn = self._last_turn = revision
        self._is_same_turn = False
        self._floor = revision
        self._revision = revision
        # Keyed by revision: revisions have no gaps, so that both ends and every position are found in one step.
        self._commits: dict[int, Commit] = {}
        self._change_count = 0
        self._is_closed = False
        self._epoch = 0
        self._news = asyncio.Event()

    @property
    def epoch(self) -> int:
        """Moves when the commits before and after are not of one history: no watch of before can go on."""
        return self._epoch

    @property
    def floor(self) -> int:
        """The newest revision that was forgotten; a watch after it, or after a later one, can be served."""
        return self._floor

    @property
    def revision(self) -> int:
        """The revision of the newest commit."""
        return self._revision

    @property
    def is_closed(self) -> bool:
        """Whether watches end once they have seen what is here."""
        return self._is_closed

    def append(self, commit: Commit) -> None:
        """Add the next commit and wake those who wait for it; forget the oldest where too many changes are kept."""
        if commit.revision != self._revision + 1:
            raise ValueError(f"revision {commit.revision} does not follow {self._revision}")
        self._note_turn()
        self._commits[commit.revision] = commit
        self._revision = commit.revision
        self._change_count += len(commit.changes)
        while self._is_long():
            self._floor += 1
            self._change_count -= len(self._commits.pop(self._floor).changes)
        self._wake()

    def _is_long(self) -> bool:
        if self._is_shared:
            return self._change_count > HISTORY_CHANGES_MAX and len(self._commits) > HISTORY_COMMITS_MIN
        return self._change_count > OWN_CHANGES_MAX and self._floor < self._last_turn

    def _note_turn(self) -> None:
        if self._is_same_turn:
            return
        self._last_turn, self._turn = self._turn, self._revision
        # Whoever reads a log from a file has no loop, and there is nobody who watches yet.
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_soon(self._end_turn)
            self._is_same_turn = True

    def _end_turn(self) -> None:
        self._is_same_turn = False

    def restart(self, anew: CommitLog) -> None:
        """Go on as another log: what is stored has moved in a way that no commits tell. Watches are told so."""
        self._commits = anew._commits
        self._floor, self._revision, self._change_count = anew._floor, anew._revision, anew._change_count
        self._epoch += 1
        self._wake()

    def read(self, revision: int) -> Commit | None:
        """The commit of a revision, or None where it is yet to come.

        Raises `CompactedError` for a revision that was forgotten, and for one that lies more than one ahead: such a
        reader counts the revisions of another store.
        """
        if self._floor < revision <= self._revision:
            return self._commits[revision]
        if revision == self._revision + 1:
            return None
        if revision <= self._floor:
            raise CompactedError(
                f"changes after revision {revision - 1} are no longer kept, only those after {self._floor}; list again"
            )
        raise CompactedError(
            f"revision {revision - 1} is ahead of this store, which is at {self._revision}; list again"
        )

    async def wait(self) -> None:
        """Return after the next commit, or when the log is closed."""
        await self._news.wait()

    def close(self) -> None:
        """End all watches, each after the newest commit."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        # set() schedules everybody who waits now; clear() makes the next to come wait for the next commit. Between
        # looking at the log and waiting a watch does not give way to anybody, so that no wake-up is missed.
        self._news.set()
        self._news.clear()


class Watch(AsyncIterator[Commit]):
    """Every commit after a revision, in order and once. It holds nothing but its position, so it needs no closing."""

    def __init__(self, log: CommitLog, *, after: int) -> None:
        if after < 0:
            raise ValueError(f"a revision is 0 or more, got {after}")
        self._log = log
        self._seen = after
        self._epoch = log.epoch

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Commit:
        while (commit := self._read()) is None:
            if self._log.is_closed:
                raise StopAsyncIteration
            await self._log.wait()
        self._seen = commit.revision
        return commit

    def _read(self) -> Commit | None:
        if self._epoch != self._log.epoch:
            raise CompactedError("the store was read anew from another state; list again")
        return self._log.read(self._seen + 1)
