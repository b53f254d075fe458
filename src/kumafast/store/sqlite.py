"""The embedded store: everything in memory, and every commit in one SQLite file before anybody sees it.

In: a path, operations. Out: what the memory store gives, durable: a write returns once its commit is on the disk.
Never: a read that touches the file, or a commit that is announced and not recorded.

Where the file cannot be written, reads go on, writes are refused with the reason, and the file is tried until it can.
After an error that leaves doubt of what is on the disk nothing is written until the file is found to hold what was
acknowledged, or is made to (acknowledged.py).

Writes that come together share one transaction. One thread plans and records a group; then the loop makes it visible
and answers; then the next group begins. So the image has one writer at a time, and what a group has planned upon is
never undone under it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path

from kumafast.errors import StoreUnavailableError
from kumafast.resources import Decoder
from kumafast.store.condition import Condition
from kumafast.store.contents import Decode, Encode
from kumafast.store.database import Database, Renew
from kumafast.store.draft import Draft, Outcome
from kumafast.store.image import Image
from kumafast.store.members import Members
from kumafast.store.memory import Clock, MemoryStore, utc_now
from kumafast.store.sealing import Keyring, Sealing
from kumafast.store.sqlite_file import UnwritableError
from kumafast.store.store import Delete, Put
from kumafast.store.watch import CommitLog

_LOG = logging.getLogger(__name__)

RETRY_S = 1.0
"""How often a file that cannot be written is tried while it cannot."""
GROUP_WRITES_MAX = 256
"""The most writes that share a transaction; fewer than the commits that every watch is sure to find (watch.py)."""

_WRONG_SHOWN = 5


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
        self._condition = Condition(f"the store {database.path}")
        self._retry: asyncio.TimerHandle | None = None
        self._try_at = 0.0

    @property
    def failure(self) -> str:
        """As `Store.failure`."""
        return self._condition.reason

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
        if self._retry is not None:
            self._retry.cancel()
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
        if self._is_try_due():
            trying = asyncio.get_running_loop().run_in_executor(self._executor, self._try)
            trying.add_done_callback(self._end_try)
            return
        group: list[_Request] = []
        while self._waiting and len(group) < GROUP_WRITES_MAX:
            request = self._waiting.popleft()
            if not request.answer.cancelled():
                group.append(request)
        if not group:
            self._end_groups()
            return
        if self._database.is_doubtful:
            # Not one look at the whole file for each write.
            refusal = StoreUnavailableError(self._condition.reason)
            self._end_group(group, [refusal] * len(group))
            return
        recording = asyncio.get_running_loop().run_in_executor(
            self._executor, self._record, [request.operations for request in group], self._log.floor
        )
        # A callback and not a task: nobody can cancel it, so what is recorded is always announced.
        recording.add_done_callback(lambda done: self._end_group(group, done.result()))

    def _end_groups(self) -> None:
        """Nobody waits: rest, or move the log into the file while it keeps no caller from its answer."""
        if self._condition.reason and self._retry is None and self._closing is None:
            self._retry = asyncio.get_running_loop().call_at(self._try_at, self._wake)
        if not self._database.is_checkpoint_due or self._database.is_doubtful:
            self._is_idle.set()
            return
        moving = asyncio.get_running_loop().run_in_executor(self._executor, self._database.checkpoint)
        moving.add_done_callback(self._end_checkpoint)

    def _end_checkpoint(self, moving: asyncio.Future[None]) -> None:
        error = moving.exception()
        if error is not None:
            self._note(error)
        self._begin_group()

    def _end_group(self, group: Sequence[_Request], results: Sequence[Outcome | Exception]) -> None:
        for request, result in zip(group, results, strict=True):
            if isinstance(result, Outcome):
                self._announce(result)
            if request.answer.done():
                continue
            if isinstance(result, Outcome):
                request.answer.set_result(result)
            else:
                request.answer.set_exception(result)
        for result in results:
            self._note(result)
        self._begin_group()

    def _note(self, result: Outcome | BaseException) -> None:
        """What a write says of the file; one that was refused by a rule says nothing."""
        if isinstance(result, UnwritableError):
            if not self._condition.reason:
                # Doubt is looked into at once; room, and the right to write, do not come in a moment.
                pause_s = 0.0 if self._database.is_doubtful else RETRY_S
                self._try_at = asyncio.get_running_loop().time() + pause_s
            self._condition.failed(str(result))
        elif isinstance(result, Outcome) and result.commit is not None:
            self._condition.worked()

    # While it cannot be written.

    def _wake(self) -> None:
        self._retry = None
        # Whoever writes just now looks at it afterwards.
        if self._is_idle.is_set() and self._closing is None:
            self._is_idle.clear()
            self._begin_group()

    def _is_try_due(self) -> bool:
        """Whether the file is to be tried: where it is doubtful before all, else where nobody tries it by a write."""
        if not self._condition.reason or (self._waiting and not self._database.is_doubtful):
            return False
        return asyncio.get_running_loop().time() >= self._try_at

    def _try(self) -> list[str]:
        """In the thread: whether it can be written again; what of the file had to be set right."""
        if self._database.is_doubtful:
            return self._database.verify(self._image, self._log)
        self._database.try_out()
        return []

    def _end_try(self, trying: asyncio.Future[list[str]]) -> None:
        self._try_at = asyncio.get_running_loop().time() + RETRY_S
        error = trying.exception()
        if error is None:
            if wrong := trying.result():
                shown = "; ".join(wrong[:_WRONG_SHOWN])
                _LOG.warning("the file of the store was set right in %d places, by memory: %s", len(wrong), shown)
            self._condition.worked()
        elif isinstance(error, StoreUnavailableError):
            self._condition.failed(str(error))
        else:
            _LOG.error("the store cannot be tried", exc_info=error)
        self._begin_group()

    # In the thread.

    def _record(self, group: Sequence[tuple[Put | Delete, ...]], floor: int) -> list[Outcome | Exception]:
        """Each write's outcome, recorded, or its error. Either way the image is as it was."""
        draft = Draft(self._image)
        results = [self._plan(draft, operations) for operations in group]
        try:
            self._write(results, floor)
            return results
        except Exception as error:
            if self._database.is_doubtful:
                return [result if isinstance(result, Exception) else error for result in results]
            # One that cannot be recorded (too big for what is left of the disk, say) must not take its neighbours with
            # it, nor may they rest on it: plan and record again, each for itself.
            return self._record_singly(group, floor)

    def _record_singly(self, group: Sequence[tuple[Put | Delete, ...]], floor: int) -> list[Outcome | Exception]:
        draft = Draft(self._image)
        results: list[Outcome | Exception] = []
        for operations in group:
            try:
                if self._database.is_doubtful:
                    raise next(result for result in reversed(results) if isinstance(result, UnwritableError))
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
