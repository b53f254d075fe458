"""The reading half of the store in PostgreSQL: the whole state in memory, kept up with what all instances commit.

In: connections, the log in PostgreSQL. Out: an image, and every commit in order. Never: a write, or a read that asks
PostgreSQL.

`NOTIFY` only wakes; what there is to know is read from the log, after a revision. All is read anew only where the log
no longer reaches back so far, or where another history goes on: after a failover that lost commits the counter goes on
beyond what anybody has seen of the lost ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import tenacity

from kumafast.errors import StoreUnavailableError
from kumafast.store.condition import Condition
from kumafast.store.draft import Outcome
from kumafast.store.image import Image
from kumafast.store.members import Members
from kumafast.store.memory import Clock, MemoryStore
from kumafast.store.postgres import connection as connections
from kumafast.store.postgres import leases
from kumafast.store.postgres.connection import (
    LOAD_S,
    RECONNECT_S_MAX,
    STATEMENT_S,
    UNREACHABLE,
    Connect,
    Connection,
    History,
    Target,
    bounded,
    give_time,
)
from kumafast.store.postgres.database import Head, PostgresDatabase
from kumafast.store.postgres.leases import Leases
from kumafast.store.watch import CommitLog

_LOG = logging.getLogger(__name__)

_WORDS = "instances"
"""What wakes the others for something else than a commit."""

_RECONNECT = tenacity.wait_random_exponential(multiplier=0.1, max=RECONNECT_S_MAX)


@dataclass(slots=True)
class Work:
    """What has been done since the store was opened."""

    transactions: int = 0
    looks: int = 0
    readings: int = 0
    """How often all was read anew."""


@dataclass(slots=True)
class Unsure:
    """A group whose commit was asked for and not confirmed: it is in the log, or never will be."""

    origin: str
    revision: int
    results: list[Outcome | Exception]
    is_found: bool = False
    is_forgotten: bool = False


class Replica(MemoryStore):
    """A store that follows PostgreSQL from the moment it was loaded. Belongs to one event loop."""

    def __init__(
        self,
        target: Target,
        database: PostgresDatabase,
        loaded: tuple[Image, CommitLog, str],
        *,
        history: History,
        instance: str,
        clock: Clock,
        monotonic: Callable[[], float],
        connect: Connect,
    ) -> None:
        image, log, self._origin = loaded
        members = Members(instance, is_alone=False)
        super().__init__(image=image, log=log, identity=history.store, members=members, clock=clock)
        self._monotonic, self._connect = monotonic, connect
        self._leases = Leases(target, members, monotonic=monotonic)
        members.tell(self._speak)
        self._target = target
        self._database = database
        self._history = history
        # Whoever reads commits and shows them, or plans on them, does so alone.
        self._turn = asyncio.Lock()
        self._unsure: Unsure | None = None
        self._wake = asyncio.Event()
        self._has_words = self._has_heard = False
        self._condition = Condition(target.name, monotonic=monotonic)
        self._away_since: float | None = None
        self._away_reason = ""
        self.work = Work()
        self._following = asyncio.create_task(self._follow(), name="postgres")

    @property
    def failure(self) -> str:
        """As `Store.failure`."""
        return self._away_reason if self._away_since is not None else self._condition.reason

    async def close(self) -> None:
        """As `Store.close`."""
        await super().close()
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)

    async def _resume(self, connection: Connection, *, within_s: float = STATEMENT_S) -> Connection:
        """A new connection, once it is sure that the history that we know goes on there."""
        try:
            async with bounded(connection, within_s):
                identity = str(await connection.fetchval("SELECT store FROM head"))
                history = await connections.history(connection, identity)
            if history.store != self.identity:
                raise StoreUnavailableError(
                    f"{self._target.name} holds another store than the one that this instance was started with; "
                    "start it anew if that is meant"
                )
            if history != self._history:
                await self._change_history(connection, history)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _change_history(self, connection: Connection, history: History) -> None:
        """Go on in the history of a database that was promoted or restored."""
        seen = self._image.revision
        async with bounded(connection, STATEMENT_S), connection.transaction():
            head = await self._database.lock(connection)
            origin = await self._database.origin(connection, seen) or ""
            is_same = head.revision >= seen and origin == self._origin
            if not is_same and head.revision <= seen:
                # Revisions that were lost are given to nobody else: clients and watches have seen them.
                await self._database.jump(connection, revision=seen + 1)
                await self._database.notify(connection, seen + 1)
        if is_same:
            _LOG.info("%s is on another timeline, with all that was read before", self._target.name)
        else:
            _LOG.warning("%s is on another timeline, without commits that were read before", self._target.name)
            await self._read_anew(connection)
        self._history = history

    async def _read_anew(self, connection: Connection) -> None:
        """Take the whole state from PostgreSQL; who watches lists again, from memory."""
        async with bounded(connection, LOAD_S):
            await give_time(connection, LOAD_S)
            image, log, origin = await self._database.load(connection)
            await give_time(connection, STATEMENT_S)
            unsure = self._unsure
            if unsure is not None:
                unsure.is_found = unsure.is_found or await self._database.knows(connection, unsure.origin)
                unsure.is_forgotten = not unsure.is_found and unsure.revision <= log.floor
        self._image, self._origin = image, origin
        self._log.restart(log)
        self.work.readings += 1

    async def _step(self, connection: Connection, head: Head) -> bool:
        """Read and announce a piece of what others have written up to the counter; whether there is more of it."""
        if head.floor > self._image.revision:
            await self._read_anew(connection)
            return False
        if head.revision <= self._image.revision:
            return False
        found = await self._database.read(connection, after=self._image.revision, upto=head.revision)
        for recorded in found:
            self._image.apply(recorded.commit)
            self._log.append(recorded.commit)
            self._origin = recorded.origin
            if self._unsure is not None and self._unsure.origin == recorded.origin:
                self._unsure.is_found = True
        return head.revision > self._image.revision

    async def _follow(self) -> None:
        """Keep up with PostgreSQL until cancelled; where it is away, try again, each instance at its own times."""
        retrying = tenacity.AsyncRetrying(
            wait=_RECONNECT,
            retry=tenacity.retry_if_exception_type((StoreUnavailableError, *UNREACHABLE)),
            before_sleep=self._note_away,
        )
        await retrying(self._listen)

    async def _listen(self) -> None:
        connection = await self._connect(self._target)
        try:
            async with self._turn:
                await self._resume(connection)
            async with bounded(connection, STATEMENT_S):
                await connection.add_listener(self._target.channel, self._hear)
            connection.add_termination_listener(lambda _: self._wake.set())
            renewed = -leases.LOOK_S
            while True:
                self._wake.clear()
                has_more = await self._look(connection)
                # It answers: whoever writes may try.
                self._note_back()
                due_s = renewed + leases.LOOK_S - self._monotonic()
                if self._has_words or self._has_heard or due_s <= 0:
                    renewed, due_s = self._monotonic(), leases.LOOK_S
                    await self._renew(connection)
                if has_more:
                    await asyncio.sleep(0)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due_s):
                        await self._wake.wait()
        finally:
            self._leases.lose()
            if self.members.own and self._log.is_closed and not connection.is_closed():
                with contextlib.suppress(*UNREACHABLE):
                    async with bounded(connection, 1.0):
                        await self._leases.leave(connection)
            connection.terminate()

    async def _renew(self, connection: Connection) -> None:
        if not self.members.own:
            return
        has_words, self._has_words, self._has_heard = self._has_words, False, False
        async with bounded(connection, STATEMENT_S):
            await self._leases.renew(connection)
            if has_words:
                await connection.execute("SELECT pg_notify($1, $2)", self._target.channel, _WORDS)

    def _speak(self) -> None:
        self._has_words = True
        self._wake.set()

    def _hear(self, _connection: Connection, _pid: int, _channel: str, revision: str) -> None:
        if revision == _WORDS:
            self._has_heard = True
            self._wake.set()
            return
        # Our own commits are known, or are about to be confirmed to whoever waits for that.
        known = max(self._image.revision, 0 if self._unsure is None else self._unsure.revision)
        if not revision.isdecimal() or int(revision) > known:
            self._wake.set()

    async def _look(self, connection: Connection) -> bool:
        """Read a piece of what is new; whether there is more."""
        async with self._turn:
            async with bounded(connection, STATEMENT_S):
                head = await self._database.head(connection)
            self.work.looks += 1
            return await self._step(connection, head)

    def _note_away(self, state: tenacity.RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        reason = "" if error is None else str(error) or type(error).__name__
        if self._away_since is None or reason != self._away_reason:
            _LOG.warning("%s is away; reads go on, writes are refused: %s", self._target.name, reason)
        if self._away_since is None:
            self._away_since = self._monotonic()
        self._away_reason = reason

    def _note_back(self) -> None:
        if self._away_since is not None:
            away_s = self._monotonic() - self._away_since
            _LOG.info("%s is back after %.1f s, at revision %d", self._target.name, away_s, self._image.revision)
            self._away_since = None
