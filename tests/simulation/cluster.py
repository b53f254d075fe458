"""A PostgreSQL in virtual time, as far as the store's own statements look into it: sessions, one row lock, a log.

In: the calls of the store's `PostgresDatabase`, over links that may be slow or cut. Out: what PostgreSQL would answer,
or nothing for as long as it is stopped or cut off. Never: SQL; contents are handed over as they are.

A commit happens in one moment; its answer travels afterwards and may be lost, and so may the question before it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, cast

import asyncpg

from kumafast.resources import ResourceKey
from kumafast.store import Commit, StoredResource
from kumafast.store.image import Image
from kumafast.store.postgres import leases
from kumafast.store.postgres.connection import STATEMENT_S, Connection, Target, bounded
from kumafast.store.postgres.database import PIECE_COMMITS, Head, PostgresDatabase, Recorded
from kumafast.store.watch import CommitLog

TARGET = Target(dsn="", schema="kumafast", name="PostgreSQL in virtual time")
LATENCY_S = (0.0002, 0.002)
VANISHED_S = 6.0
"""After so long PostgreSQL ends the session of a client that it hears nothing of."""


class Link:
    """Between one instance and PostgreSQL."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.is_cut = False
        # In the order in which they came: a set's is another in each run.
        self.waiting: list[Callable[[], None]] = []

    def latency_s(self) -> float:
        """How long something takes one way."""
        return self._chance.uniform(*LATENCY_S)

    def mend(self) -> None:
        """Let everything through that has waited."""
        self.is_cut = False
        waiting, self.waiting = self.waiting, []
        for arrive in waiting:
            arrive()


@dataclass(slots=True)
class _Lease:
    seen_at: float
    asked: int
    converged: int
    proxies: int


@dataclass
class Cluster:
    """What is stored, who is connected, who holds the counter's row and who leads."""

    time: Callable[[], float]
    revision: int = 0
    floor: int = 0
    resources: dict[ResourceKey, StoredResource] = field(default_factory=dict)
    log: dict[int, tuple[Commit, str]] = field(default_factory=dict)
    leases: dict[str, _Lease] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    holder: Session | None = None
    leader: Session | None = None
    queue: deque[tuple[Session, asyncio.Future[None]]] = field(default_factory=deque)
    is_up: bool = True
    stopped: Link | None = None
    """While it is stopped: where everything waits."""

    async def connect(self, link: Link, *, timeout_s: float = 2.0) -> Connection:
        """A session, as `connections.connect` makes one. Raises `OSError`."""
        session = Session(self, link)
        try:
            async with asyncio.timeout(timeout_s):
                await session.ask(lambda: None)
        except BaseException:
            session.terminate()
            raise
        self.sessions.append(session)
        return cast(Connection, session)

    def stop(self, chance: random.Random) -> None:
        """SIGSTOP."""
        self.stopped = self.stopped or Link(chance)

    def go_on(self) -> None:
        """SIGCONT."""
        stopped, self.stopped = self.stopped, None
        if stopped is not None:
            stopped.mend()

    def kill(self) -> None:
        """All sessions end; what was committed stays."""
        self.is_up = False
        for session in tuple(self.sessions):
            session.terminate()
            self.end(session)

    def end(self, session: Session) -> None:
        """A session is no more, nor what it held."""
        if session in self.sessions:
            self.sessions.remove(session)
        if self.leader is session:
            self.leader = None
        self.queue = deque(each for each in self.queue if each[0] is not session)
        session.pending.clear()
        self.release(session)

    def release(self, session: Session) -> None:
        """Give the row to whoever waits for it first."""
        if self.holder is not session:
            return
        self.holder = None
        while self.queue and self.holder is None:
            following, future = self.queue.popleft()
            if not future.done():
                self.holder = following
                future.set_result(None)

    def apply(self, commits: Sequence[Commit], origin: str) -> None:
        """Commit."""
        for commit in commits:
            if commit.revision != self.revision + 1:
                raise AssertionError(f"revision {commit.revision} after {self.revision}")
            self.revision = commit.revision
            self.log[commit.revision] = (commit, origin)
            for change in commit.changes:
                if change.stored is None:
                    del self.resources[change.key]
                else:
                    self.resources[change.key] = change.stored

    def notify(self, words: str) -> None:
        """Tell all who listen."""
        for session in self.sessions:
            if session.listener is not None:
                asyncio.get_running_loop().call_later(session.link.latency_s(), session.hear, words)


class Session:
    """One connection, with as much of asyncpg's `Connection` as the store uses."""

    def __init__(self, cluster: Cluster, link: Link) -> None:
        self.cluster, self.link = cluster, link
        self.listener: Callable[..., None] | None = None
        self.pending: list[Callable[[], None]] = []
        self._is_closed = False
        self._waiting: list[asyncio.Future[None]] = []
        self._ended: list[Callable[[Any], None]] = []

    # What travels.

    async def ask(self, do: Callable[[], Any]) -> Any:
        """Have PostgreSQL do something that takes no time; its answer."""
        answer: list[Any] = []

        def travel(future: asyncio.Future[None]) -> None:
            def arrive() -> None:
                try:
                    answer.append(do())
                except Exception as error:
                    future.set_exception(error)
                else:
                    self._send(future, partial(_finish, future))

            self._send(future, arrive)

        await self.wait(travel)
        return answer[0]

    async def travel(self) -> None:
        """One way between the two."""
        await self.wait(lambda future: self._send(future, partial(_finish, future)))

    def _send(self, future: asyncio.Future[None], then: Callable[[], None]) -> None:
        """Have something arrive, as long as somebody waits for what follows from it."""
        asyncio.get_running_loop().call_later(self.link.latency_s(), self._arrive, future, then)

    def _arrive(self, future: asyncio.Future[None], then: Callable[[], None]) -> None:
        link = self.link if self.link.is_cut else self.cluster.stopped
        if future.done():
            return
        if link is not None:
            link.waiting.append(partial(self._arrive, future, then))
        elif self.cluster.is_up:
            then()
        else:
            future.set_exception(ConnectionRefusedError("nobody listens"))
            self.terminate()

    async def wait(self, register: Callable[[asyncio.Future[None]], object]) -> None:
        """Wait for a future that somebody finishes, or the end of the session. Raises what the driver would."""
        if self._is_closed:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        register(future)
        try:
            await future
        finally:
            self._waiting.remove(future)

    def hear(self, words: str) -> None:
        """A notification arrives, unless nothing does."""
        if self.listener is not None and not self._is_closed and not self.link.is_cut:
            self.listener(self, 0, "", words)

    # As asyncpg's.

    def is_closed(self) -> bool:
        """Whether it is of no more use."""
        return self._is_closed

    def terminate(self) -> None:
        """End it at once. PostgreSQL learns of it when it can."""
        if self._is_closed:
            return
        self._is_closed = True
        for future in self._waiting:
            if not future.done():
                future.set_exception(asyncpg.ConnectionDoesNotExistError("connection was closed"))
        for ended in self._ended:
            ended(self)
        delay_s = VANISHED_S if self.link.is_cut else self.link.latency_s()
        asyncio.get_running_loop().call_later(delay_s, self.cluster.end, self)

    async def close(self) -> None:
        """End it in order."""
        self.terminate()

    async def add_listener(self, _: str, hear: Callable[..., None]) -> None:
        """LISTEN."""

        def listen() -> None:
            self.listener = hear

        await self.ask(listen)

    def add_termination_listener(self, ended: Callable[[Any], None]) -> None:
        """Tell of the end."""
        self._ended.append(ended)

    def transaction(self, **_: object) -> Transaction:
        """BEGIN, once it is started."""
        return Transaction(self)

    async def execute(self, sql: str, *values: Any) -> None:
        """The statements of leases, and notifications of their own."""
        cluster = self.cluster
        if sql == leases._RENEW:
            await self.ask(lambda: cluster.leases.__setitem__(values[0], _Lease(cluster.time(), *values[1:])))
        elif "pg_notify" in sql:
            await self.ask(lambda: cluster.notify(values[1]))
        elif sql.startswith("DELETE FROM instances WHERE id"):
            await self.ask(lambda: cluster.leases.pop(values[0], None))
        else:
            # What is left of the dead is ended by time here, and settings of a session are none of ours.
            await self.ask(lambda: None)

    async def fetch(self, _: str, own: str, lease_s: float) -> list[dict[str, Any]]:
        """The leases of others."""

        def others() -> list[dict[str, Any]]:
            return [
                {
                    "id": name,
                    "asked": lease.asked,
                    "converged": lease.converged,
                    "proxies": lease.proxies,
                    "is_alive": lease.seen_at > self.cluster.time() - lease_s,
                }
                for name, lease in self.cluster.leases.items()
                if name != own
            ]

        return cast(list[dict[str, Any]], await self.ask(others))

    async def fetchval(self, sql: str, *_: Any) -> Any:
        """The leader's lock, or the store's identity."""
        return await self.ask(self._lead if "advisory_lock" in sql else lambda: "store")

    async def fetchrow(self, _: str) -> tuple[str, str]:
        """The history."""
        return cast(tuple[str, str], await self.ask(lambda: ("system", "timeline")))

    def _lead(self) -> bool:
        cluster = self.cluster
        if cluster.leader is None and not self._is_closed:
            cluster.leader = self
        return cluster.leader is self


class Transaction:
    """A transaction that holds the row at most."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def start(self) -> None:
        """BEGIN."""
        await self._session.ask(lambda: None)

    async def commit(self) -> None:
        """COMMIT."""
        await self._session.ask(self._commit)

    def _commit(self) -> None:
        session = self._session
        if session.cluster.holder is session:
            for do in session.pending:
                do()
        session.pending.clear()
        session.cluster.release(session)

    async def rollback(self) -> None:
        """ROLLBACK."""
        self._session.pending.clear()
        await self._session.ask(lambda: self._session.cluster.release(self._session))

    async def __aenter__(self) -> Transaction:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.commit() if error is None else self.rollback())


class ClusterDatabase(PostgresDatabase):
    """What the store asks of PostgreSQL, answered by a `Cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(TARGET, encode=_never, decode=_never, renew=None)
        self._cluster = cluster

    async def head(self, connection: Connection) -> Head:
        return cast(Head, await _of(connection).ask(self._head))

    def _head(self) -> Head:
        return Head(self._cluster.revision, self._cluster.floor)

    async def lock(self, connection: Connection) -> Head:
        session, cluster = _of(connection), self._cluster

        await session.travel()
        if cluster.holder is None:
            cluster.holder = session
        else:
            timers = []

            def queue(future: asyncio.Future[None]) -> None:
                cluster.queue.append((session, future))
                timers.append(asyncio.get_running_loop().call_later(STATEMENT_S, _cancel, future))

            try:
                await session.wait(queue)
            finally:
                timers[0].cancel()
        # Who holds it and does nothing loses it with the session.
        asyncio.get_running_loop().call_later(2 * STATEMENT_S, self._end_idle, session, cluster.revision)
        head = self._head()
        await session.travel()
        return head

    def _end_idle(self, session: Session, revision: int) -> None:
        if self._cluster.holder is session and self._cluster.revision == revision:
            session.terminate()
            self._cluster.end(session)

    async def read(self, connection: Connection, *, after: int, upto: int) -> list[Recorded]:
        def read() -> list[Recorded]:
            return [
                Recorded(*self._cluster.log[revision])
                for revision in range(after + 1, min(upto, after + PIECE_COMMITS) + 1)
            ]

        async with bounded(connection, STATEMENT_S):
            return cast(list[Recorded], await _of(connection).ask(read))

    async def load(self, connection: Connection) -> tuple[Image, CommitLog, str]:
        def load() -> tuple[Image, CommitLog, str]:
            image, log = Image(), CommitLog(revision=self._cluster.floor)
            for stored in self._cluster.resources.values():
                image.place(stored)
            image.revision = self._cluster.revision
            origin = ""
            for revision in range(self._cluster.floor + 1, self._cluster.revision + 1):
                commit, origin = self._cluster.log[revision]
                log.append(commit)
            return image, log, origin

        return cast(tuple[Image, CommitLog, str], await _of(connection).ask(load))

    async def knows(self, connection: Connection, origin: str) -> bool:
        log = self._cluster.log
        return bool(await _of(connection).ask(lambda: any(each == origin for _, each in log.values())))

    async def append(self, connection: Connection, commits: Sequence[Commit], *, origin: str) -> None:
        session = _of(connection)
        await session.ask(lambda: session.pending.append(lambda: self._cluster.apply(commits, origin)))

    async def notify(self, connection: Connection, revision: int) -> None:
        session = _of(connection)
        await session.ask(lambda: session.pending.append(lambda: self._cluster.notify(str(revision))))

    async def forget(self, connection: Connection, *, floor: int) -> None:
        session, cluster = _of(connection), self._cluster

        def forget() -> None:
            for revision in range(cluster.floor + 1, floor + 1):
                del cluster.log[revision]
            cluster.floor = floor

        await session.ask(lambda: session.pending.append(forget))


def _of(connection: Connection) -> Session:
    return cast(Session, connection)


def _never(*_: object) -> Any:
    raise AssertionError("contents are handed over as they are")


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _cancel(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(asyncpg.QueryCanceledError("canceling statement due to statement timeout"))
