"""The store of many instances: everything in memory, every commit in PostgreSQL before anybody sees it.

In: a URL, operations. Out: what the memory store gives, durable, and the commits of all other instances, in order.
Never: a read that asks PostgreSQL, a commit that is announced and not recorded, or a caller who waits without an end.

A write locks the counter row, reads what others have committed since, is planned on that and committed with the next
revision: so plans hold, and whoever sees a revision has seen all before it. Writes that come together share a
transaction.

Where PostgreSQL is away reads and watches go on from memory, and a write fails `WRITE_S` after it came, wherever it is
by then: nothing that one waits for here is waited for beyond that, and its caller is answered by a timer of his own. A
commit whose answer did not come is looked for in the log, by the mark that each transaction leaves there; who is
answered before that is known is told so.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import tenacity

from kumafast import garbage
from kumafast.errors import KumafastError, StoreUnavailableError
from kumafast.store.contents import Decode, Encode
from kumafast.store.database import TRIM_STEP, Renew
from kumafast.store.draft import Draft, Outcome
from kumafast.store.image import Image
from kumafast.store.memory import Clock, utc_now
from kumafast.store.postgres import connection as connections
from kumafast.store.postgres.connection import (
    CONNECT_S,
    LOAD_S,
    REFUSALS,
    STATEMENT_S,
    UNREACHABLE,
    Connect,
    Connection,
    History,
    Target,
    bounded,
    give_time,
    unavailable,
)
from kumafast.store.postgres.database import PIECE_COMMITS, PostgresDatabase
from kumafast.store.postgres.replica import Replica, Unsure
from kumafast.store.postgres.schema import prepare
from kumafast.store.sealing import Keyring, Sealing
from kumafast.store.store import Delete, Put
from kumafast.store.watch import CommitLog

WRITE_S = 4.0
"""How long a write may take from its arrival on, the time in which it waits for others included; no commit is begun
after that. A restart or a failover within it is noticed by nobody."""
COMMIT_S = 0.8
"""How much longer its caller waits for the answer to a commit that was begun: what became of it is worth knowing."""
OPEN_S = 5.0
"""How long opening waits for a PostgreSQL that is just starting."""
RESERVE_SHARE = 0.25
"""The share of a write's time that must be left when its turn comes: it would be refused in the middle, and with it
all those that share its transaction."""
GROUP_WRITES_MAX = 256
"""The most writes that share a transaction; fewer than the commits that every watch is sure to find (watch.py)."""

_RETRY = tenacity.wait_random_exponential(multiplier=0.02, max=0.4)

# What is the matter with a write itself, and not with PostgreSQL.
_FAULTS = (
    asyncpg.exceptions.DataError,
    asyncpg.exceptions.IntegrityConstraintViolationError,
    asyncpg.exceptions.ProgramLimitExceededError,
)


@dataclass(slots=True, eq=False)
class _Request:
    """One write whose caller waits. There is one for each waiting caller, which bounds the queue."""

    operations: tuple[Put | Delete, ...]
    answer: asyncio.Future[Outcome]
    began: float
    is_unsure: bool = False
    """Whether a commit with it was begun of which nobody knows whether it was done."""

    @property
    def is_refused(self) -> bool:
        """Whether its caller was told that it is not done. One who has gone was told nothing."""
        return self.answer.done() and not self.answer.cancelled()


class PostgresStore(Replica):
    """A `Store` in PostgreSQL, for any number of instances. Open it with `open`; it belongs to that event loop."""

    def __init__(
        self,
        target: Target,
        database: PostgresDatabase,
        loaded: tuple[Image, CommitLog, str],
        *,
        history: History,
        instance: str,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        connect: Connect = connections.connect,
    ) -> None:
        super().__init__(
            target,
            database,
            loaded,
            history=history,
            instance=instance,
            clock=clock,
            monotonic=monotonic,
            connect=connect,
        )
        self._floor = self._log.floor
        self._writer: Connection | None = None
        # Why the last group was not written; empty where it was.
        self._failure = ""
        self._answers_no = False
        self._waiting: deque[_Request] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        encode: Encode | None = None,
        decode: Decode | None = None,
        keyring: Keyring | None = None,
        instance: str = "",
        clock: Clock = utc_now,
    ) -> PostgresStore:
        """The store in the database that a URL names; its tables are made, or brought forward.

        `encode` and `decode` turn resources into the bytes that are kept, and back; without them secrets are sealed
        under the first key of `keyring`. `instance` is what others know this one by; without it, it is none of them:
        it leads nobody, and nobody misses it.
        Raises `SettingsError` for a URL that cannot be read, `StoreUnavailableError`, without the password, where
        PostgreSQL cannot be used.
        """
        target = connections.parse_url(url)
        sealing = Sealing(keyring or Keyring())
        renew: Renew | None = None if decode is not None else sealing.renew
        database = PostgresDatabase(
            target, encode=encode or sealing.encode, decode=decode or sealing.decode, renew=renew
        )
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_before_delay(OPEN_S),
            wait=_RETRY,
            retry=tenacity.retry_if_exception_type(UNREACHABLE) & tenacity.retry_if_not_exception_type(REFUSALS),
            reraise=True,
        )
        try:
            connection: Connection = await retrying(connections.connect, target)
        except UNREACHABLE as error:
            raise unavailable(target, error, what="cannot be used as the store") from error
        try:
            async with bounded(connection, LOAD_S):
                await give_time(connection, LOAD_S)
                identity = await prepare(connection, target)
                await database.renew(connection)
                # As in database.py: looking for dead cycles among what is read takes most of the time.
                with garbage.left_alone():
                    loaded = await database.load(connection)
                history = await connections.history(connection, identity)
                await give_time(connection, STATEMENT_S)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, UNREACHABLE):
                raise unavailable(target, error, what="cannot be used as the store") from error
            raise
        store = cls(target, database, loaded, history=history, instance=instance, clock=clock)
        store._writer = connection
        return store

    async def close(self) -> None:
        """As `Store.close`: writes that wait are done first, as far as PostgreSQL is there."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._finish())
        await asyncio.shield(self._closing)

    async def _finish(self) -> None:
        while self._writing is not None:
            await asyncio.wait({self._writing})
        await super().close()
        if self._writer is not None:
            await connections.disconnect(self._writer)
            self._writer = None

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreUnavailableError("the store is closed")

    # Writing.

    async def _commit(self, operations: tuple[Put | Delete, ...]) -> Outcome:
        self._check_open()
        loop = asyncio.get_running_loop()
        request = _Request(operations, loop.create_future(), self._monotonic())
        self._waiting.append(request)
        if self._writing is None:
            # A task of the store's own: nobody who is cancelled takes others along, or what is to be announced.
            self._writing = asyncio.create_task(self._write_waiting(), name="postgres writes")
        timer = loop.call_later(WRITE_S, self._expire, request)
        try:
            return await request.answer
        finally:
            timer.cancel()

    def _expire(self, request: _Request, *, is_last: bool = False) -> None:
        """Answer whoever has waited for long enough, whatever the task that writes is waiting for."""
        if request.answer.done():
            return
        if not request.is_unsure:
            request.answer.set_exception(self._too_late())
        elif is_last:
            request.answer.set_exception(self._unknown())
        else:
            asyncio.get_running_loop().call_later(COMMIT_S, lambda: self._expire(request, is_last=True))

    async def _write_waiting(self) -> None:
        try:
            while group := self._next_group():
                results: Sequence[Outcome | Exception | None]
                try:
                    self._refuse_when_away()
                    results = await self._record(group)
                except Exception as error:
                    results = [error] * len(group)
                for request, result in zip(group, results, strict=True):
                    if request.answer.done() or result is None:
                        continue
                    if isinstance(result, Outcome):
                        request.answer.set_result(result)
                    else:
                        request.answer.set_exception(result)
                # They have time left: their turn comes again before that of those who came later.
                later = [request for request, result in zip(group, results, strict=True) if result is None]
                self._waiting.extendleft(reversed(later))
                # Before more is announced: whoever watches gets its turn.
                await asyncio.sleep(0)
        finally:
            self._writing = None

    def _next_group(self) -> list[_Request]:
        group: list[_Request] = []
        while self._waiting and len(group) < GROUP_WRITES_MAX:
            request = self._waiting.popleft()
            if request.answer.done():
                continue
            if self._monotonic() < request.began + WRITE_S * (1 - RESERVE_SHARE):
                group.append(request)
            else:
                request.answer.set_exception(self._too_late())
        return group

    async def _record(self, group: Sequence[_Request]) -> Sequence[Outcome | Exception | None]:
        """Each write's outcome, recorded and announced, or its error; tried again until the first has waited too long.

        None is for those that have time left. Raises what holds for all of them.
        """
        deadline = group[0].began + WRITE_S
        retrying = tenacity.AsyncRetrying(
            stop=lambda state: self._monotonic() + state.upcoming_sleep >= deadline,
            wait=_RETRY,
            retry=tenacity.retry_if_exception_type(UNREACHABLE) & tenacity.retry_if_not_exception_type(_FAULTS),
            before_sleep=lambda state: self._note_failure(state.outcome and state.outcome.exception()),
            reraise=True,
        )
        try:
            results: list[Outcome | Exception] = await retrying(self._attempt, group, deadline)
            self._failure, self._answers_no = "", False
            return results
        except (KumafastError, *UNREACHABLE) as error:
            is_own = isinstance(error, _FAULTS) or not isinstance(error, UNREACHABLE)
            if is_own and len(group) > 1 and self._unsure is None:
                # One that cannot be recorded must not take its neighbours with it.
                return [result for request in group for result in await self._record_alone(request)]
            refusal = self._refusal(error)
            if is_own or self._unsure is not None:
                raise refusal from error
            self._note_failure(error)
            return [self._too_late(), *[None] * (len(group) - 1)]
        finally:
            if self._unsure is not None:
                self._unsure = None
                self._wake.set()

    async def _record_alone(self, request: _Request) -> Sequence[Outcome | Exception | None]:
        try:
            return await self._record([request])
        except KumafastError as error:
            return [error]

    def _refusal(self, error: Exception) -> KumafastError:
        if self._unsure is not None:
            return self._unknown()
        if isinstance(error, KumafastError):
            return error
        return unavailable(self._target, error, what="cannot be written to now")

    def _too_late(self) -> StoreUnavailableError:
        reason = self._failure or "it does not answer in time, or too many write"
        refusal = StoreUnavailableError(f"{self._target.name} cannot be written to now: {reason}")
        if self._answers_no and self._away_since is None:
            self._condition.failed(str(refusal))
        return refusal

    def _note_failure(self, error: object) -> None:
        if isinstance(error, Exception):
            self._failure = connections.reason(error)
            # It answers, and takes nothing: its disk is full, or it is read-only.
            self._answers_no = isinstance(error, asyncpg.PostgresError)

    def _unknown(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._target.name} went away in the middle of a commit: it may have been written or not; read it "
            "again before you write"
        )

    def _refuse_when_away(self) -> None:
        if self._away_since is not None and self._monotonic() - self._away_since > WRITE_S:
            away_s = self._monotonic() - self._away_since
            raise StoreUnavailableError(
                f"{self._target.name} has been away for {away_s:.0f} s, and nothing can be written until it is back; "
                f"what was read before is still served ({self._away_reason})"
            )

    async def _attempt(self, group: Sequence[_Request], deadline: float) -> list[Outcome | Exception]:
        async with asyncio.timeout(self._left(deadline)):
            await self._turn.acquire()
        try:
            if self._writer is None or self._writer.is_closed():
                connection = await self._connect(self._target, timeout_s=min(CONNECT_S, self._left(deadline)))
                self._writer = await self._resume(connection, within_s=min(STATEMENT_S, self._left(deadline)))
            try:
                return await self._transact(self._writer, group, deadline)
            except BaseException:
                # Whatever it was, its transaction is not left behind.
                self._writer.terminate()
                raise
        finally:
            self._turn.release()

    async def _transact(
        self, connection: Connection, group: Sequence[_Request], deadline: float
    ) -> list[Outcome | Exception]:
        transaction = await self._lock(connection, deadline)
        unsure, self._unsure = self._unsure, None
        if unsure is not None and (unsure.is_found or unsure.is_forgotten):
            async with bounded(connection, self._left(deadline)):
                await transaction.rollback()
            if unsure.is_found:
                return unsure.results
            self._unsure = unsure
            raise StoreUnavailableError("the log of before is no longer kept")
        for request in group:
            request.is_unsure = False
        draft = Draft(self._image)
        results = [_plan(draft, request.operations, self._clock) for request in group]
        outcomes = [result for result in results if isinstance(result, Outcome)]
        commits = [outcome.commit for outcome in outcomes if outcome.commit is not None]
        if not commits:
            async with bounded(connection, self._left(deadline)):
                await transaction.rollback()
            return results
        await self._finish_transaction(connection, transaction, group, results, deadline)
        for outcome in outcomes:
            self._announce(outcome)
        return results

    async def _finish_transaction(
        self,
        connection: Connection,
        transaction: Any,
        group: Sequence[_Request],
        results: list[Outcome | Exception],
        deadline: float,
    ) -> None:
        """Record what is planned, unless it is too late for that."""
        commits = [each.commit for each in results if isinstance(each, Outcome) and each.commit is not None]
        origin = uuid4().hex
        # A commit that is cut short may have been done or not: better a moment late.
        async with bounded(connection, min(STATEMENT_S, self._left(deadline) + COMMIT_S)):
            await self._database.append(connection, commits, origin=origin)
            if self._log.floor - self._floor >= TRIM_STEP:
                await self._database.forget(connection, floor=self._log.floor)
            await self._database.notify(connection, commits[-1].revision)
            if self._monotonic() >= deadline or any(request.is_refused for request in group):
                raise TimeoutError
            self._unsure = Unsure(origin, commits[-1].revision, results)
            for request in group:
                request.is_unsure = True
            await transaction.commit()
        self._unsure = None
        self._condition.worked()
        self._origin = origin
        self.work.transactions += 1

    def _left(self, deadline: float) -> float:
        left_s: float = max(deadline - self._monotonic(), 0.05)
        return left_s

    async def _lock(self, connection: Connection, deadline: float) -> Any:
        """A transaction in which nobody else writes and our picture is that of PostgreSQL."""
        while True:
            transaction = connection.transaction()
            async with bounded(connection, min(STATEMENT_S, self._left(deadline))):
                await transaction.start()
                head = await self._database.lock(connection)
                self._floor = head.floor
                is_far = head.revision - self._image.revision > PIECE_COMMITS or head.floor > self._image.revision
                if not is_far:
                    await self._step(connection, head)
                    return transaction
                # A long way to catch up is gone while others can write.
                await transaction.rollback()
            while await self._step(connection, head):
                await asyncio.sleep(0)


def _plan(draft: Draft, operations: tuple[Put | Delete, ...], clock: Clock) -> Outcome | Exception:
    try:
        outcome = draft.plan(operations, now=clock())
    except Exception as error:
        return error
    draft.adopt(outcome)
    return outcome
