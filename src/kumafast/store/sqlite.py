"""The embedded store: everything in memory, and every commit in one SQLite file before anybody sees it.

In: a path, operations. Out: what the memory store gives, durable: a write returns once its commit is on the disk.
Never: a read that touches the file, or a commit that is announced and not recorded.

Writes that come together share one transaction. One thread plans and records a group; then the loop makes it visible
and answers; then the next group begins. So the image has one writer at a time, and what a group has planned upon is
never undone under it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

from kumafast.errors import StoreUnavailableError
from kumafast.resources import Decoder
from kumafast.store.database import Database, Decode, Encode, Renew
from kumafast.store.draft import Draft, Outcome
from kumafast.store.image import Image
from kumafast.store.members import Members
from kumafast.store.memory import Clock, MemoryStore, utc_now
from kumafast.store.sealing import Keyring, Sealing
from kumafast.store.store import Delete, Put
from kumafast.store.watch import CommitLog

GROUP_WRITES_MAX = 256
"""The most writes that share a transaction; fewer than the commits that every watch is sure to find (watch.py)."""


@dataclass(frozen=True, slots=True)
class _Request:
    """One write whose caller waits. There is one for each waiting caller, which bounds the queue."""

    operations: tuple[Put | Delete, ...]
    answer: asyncio.Future[Outcome]


class SqliteStore(MemoryStore):
    """A `Store` in one SQLite file, for one process at a time. Open it with `open`; it belongs to that event loop."""

    def __init__(
        self,
        database: Database,
        executor: ThreadPoolExecutor,
        image: Image,
        log: CommitLog,
        *,
        instance: str,
        clock: Clock,
    ) -> None:
        super().__init__(image=image, log=log, identity=database.identity, members=Members(instance), clock=clock)
        self._database = database
        self._executor = executor
        self._waiting: deque[_Request] = deque()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | PathLike[str],
        *,
        encode: Encode | None = None,
        decode: Decode | None = None,
        keyring: Keyring | None = None,
        instance: str = "",
        clock: Clock = utc_now,
    ) -> SqliteStore:
        """The store in a file, which is made, with its folders, where there is none.

        `encode` and `decode` turn resources into the bytes that are kept, and back; without them secrets are sealed
        under the first key of `keyring`, and refused where there is none. `clock` is called in a thread.
        Raises `StoreUnavailableError`, with the file's name and the reason, where it cannot be opened.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kumafast-store")
        sealing = Sealing(keyring or Keyring())
        renew: Renew | None = None if decode is not None else sealing.renew

        def load() -> tuple[Database, Image, CommitLog]:
            decoder = Decoder()
            database = Database.open(
                Path(path),
                encode=encode or sealing.encode,
                decode=decode or partial(sealing.decode, read=decoder.decode),
                renew=renew,
            )
            try:
                return database, *database.load()
            except BaseException:
                database.close()
                raise
            finally:
                decoder.forget()

        loading = executor.submit(load)
        try:
            database, image, log = await asyncio.wrap_future(loading)
        except BaseException:
            # A caller that does not wait for the end must not leave a locked file behind.
            loading.add_done_callback(_discard)
            executor.shutdown(wait=False)
            raise
        return cls(database, executor, image, log, instance=instance, clock=clock)

    async def close(self) -> None:
        """As `Store.close`: writes that wait are done first."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._finish())
        await asyncio.shield(self._closing)

    async def _finish(self) -> None:
        await self._is_idle.wait()
        self._log.close()
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._database.close)
        finally:
            self._executor.shutdown(wait=False)

    async def _commit(self, operations: tuple[Put | Delete, ...]) -> Outcome:
        self._check_open()
        loop = asyncio.get_running_loop()
        request = _Request(operations, loop.create_future())
        self._waiting.append(request)
        if self._is_idle.is_set():
            self._is_idle.clear()
            # Not at once: whoever else writes in this turn of the loop shares the transaction.
            loop.call_soon(self._begin_group)
        # A caller that is cancelled cancels its answer only; a write that has begun goes on to its end.
        return await request.answer

    def _begin_group(self) -> None:
        group: list[_Request] = []
        while self._waiting and len(group) < GROUP_WRITES_MAX:
            request = self._waiting.popleft()
            if not request.answer.cancelled():
                group.append(request)
        if not group:
            self._end_groups()
            return
        recording = asyncio.get_running_loop().run_in_executor(
            self._executor, self._record, [request.operations for request in group], self._log.floor
        )
        # A callback and not a task: nobody can cancel it, so what is recorded is always announced.
        recording.add_done_callback(lambda done: self._end_group(group, done))

    def _end_groups(self) -> None:
        """Nobody waits: rest, or move the log into the file while it keeps no caller from its answer."""
        if not self._database.is_checkpoint_due:
            self._is_idle.set()
            return
        moving = asyncio.get_running_loop().run_in_executor(self._executor, self._database.checkpoint)
        moving.add_done_callback(lambda _: self._begin_group())

    def _end_group(self, group: Sequence[_Request], recording: asyncio.Future[list[Outcome | Exception]]) -> None:
        for request, result in zip(group, recording.result(), strict=True):
            if isinstance(result, Outcome):
                self._announce(result)
            if request.answer.done():
                continue
            if isinstance(result, Outcome):
                request.answer.set_result(result)
            else:
                request.answer.set_exception(result)
        self._begin_group()

    def _record(self, group: Sequence[tuple[Put | Delete, ...]], floor: int) -> list[Outcome | Exception]:
        """In the thread: each write's outcome, recorded, or its error. Either way the image is as it was."""
        draft = Draft(self._image)
        results = [self._plan(draft, operations) for operations in group]
        try:
            self._write(results, floor)
            return results
        except Exception:
            # One that cannot be recorded (too big for what is left of the disk, say) must not take its neighbours with
            # it, nor may they rest on it: plan and record again, each for itself.
            return self._record_singly(group, floor)

    def _record_singly(self, group: Sequence[tuple[Put | Delete, ...]], floor: int) -> list[Outcome | Exception]:
        draft = Draft(self._image)
        results: list[Outcome | Exception] = []
        for operations in group:
            try:
                outcome = draft.plan(operations, now=self._clock())
                self._write([outcome], floor)
            except Exception as error:
                results.append(error)
            else:
                draft.adopt(outcome)
                results.append(outcome)
        return results

    def _plan(self, draft: Draft, operations: tuple[Put | Delete, ...]) -> Outcome | Exception:
        try:
            outcome = draft.plan(operations, now=self._clock())
        except Exception as error:
            return error
        draft.adopt(outcome)
        return outcome

    def _write(self, results: Sequence[Outcome | Exception], floor: int) -> None:
        commits = [result.commit for result in results if isinstance(result, Outcome) and result.commit is not None]
        if commits:
            self._database.record(commits, floor=floor)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreUnavailableError("the store is closed")


def _discard(loading: Future[tuple[Database, Image, CommitLog]]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result()[0].close()
