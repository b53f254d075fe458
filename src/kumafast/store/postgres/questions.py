"""Questions between instances by way of the PostgreSQL that they share: whoever reaches the store reaches the others.

In: a connection of its own, questions, who lives. Out: what the others say. Never: a table, an address of an instance,
or a word that is kept: what nobody hears is lost, and whoever asked says so.

A question, the sign that it was heard, and the pieces of an answer are notifications, 8,000 bytes each at most. The
connection is not that of the leases, so that an answer of some megabytes delays none of them. What an older kumafast,
which does not listen, has told by its lease counts instead of an answer.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson
import tenacity

from kumafast.store.members import Members
from kumafast.store.postgres import connection as connections
from kumafast.store.postgres.connection import STATEMENT_S, UNREACHABLE, Connection, Target, bounded
from kumafast.store.questions import Answerer, Replies

_LOG = logging.getLogger(__name__)

HEARD_S = 5.0
"""Who has given no sign after so long is not waited for."""
ANSWER_S = 5.0
"""So much longer than it was asked to wait an answer may take."""
QUESTION_BYTES_MAX = 6000
ANSWER_BYTES_MAX = 64 << 20
"""Of what an instance says, before it is compressed."""
AT_ONCE_MAX = 64
"""So many questions of others are answered at a time; who asks more gets no sign."""

_PIECE_BYTES = 5400
_PIECES_AT_ONCE = 256
_ALIVE_S = 15.0
_RECONNECT = tenacity.wait_random_exponential(multiplier=0.1, max=5.0)


@dataclass(slots=True, eq=False)
class _Pending:
    """A question of ours."""

    heard: set[str] = field(default_factory=set)
    pieces: dict[str, dict[int, bytes]] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    is_cut: bool = False
    """Whether the connection has gone meanwhile, and answers with it."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)


class PostgresQuestions:
    """`Questions` between the instances of a store. Belongs to one event loop."""

    def __init__(self, url: str, members: Members, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`url` is the store's, which has been opened with it. Raises `SettingsError`."""
        self._target: Target = connections.parse_url(url)
        self._channel = f"{self._target.channel}_ask"
        self._members = members
        self._monotonic = monotonic
        self._connection: Connection | None = None
        self._sending = asyncio.Lock()
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._pending: dict[str, _Pending] = {}
        self._answering: dict[asyncio.Task[None], None] = {}

    # Asking.

    async def ask(self, question: str, /, *, wait_s: float = 0.0, first: bool = False, since: int = 0) -> Replies:
        """As `Questions.ask`. `missing` is everybody where PostgreSQL cannot be reached in time."""
        deadline = self._monotonic() + wait_s + ANSWER_S
        if not await self._is_ready(deadline, is_sure=bool(since)):
            return Replies(missing=tuple(sorted(self._members.others)))
        asked = set(self._members.others)
        if not asked:
            return Replies()
        name, pending = uuid4().hex, _Pending()
        self._pending[name] = pending
        try:
            words = {"ask": name, "by": self._members.own, "question": question, "wait_s": wait_s}
            if not await self._send([orjson.dumps(words).decode()]):
                return Replies(missing=tuple(sorted(asked)), is_complete=False)
            return await self._collect(pending, asked, deadline, first=first, since=since)
        finally:
            del self._pending[name]

    async def _is_ready(self, deadline: float, *, is_sure: bool) -> bool:
        """Whether it can be asked and, to be sure, is known that nobody else lives."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline - self._monotonic()):
                await self._connected.wait()
                while is_sure and not self._members.is_settled:
                    await self._members.change()
                return True
        return False

    async def _collect(
        self, pending: _Pending, asked: set[str], deadline: float, *, first: bool, since: int
    ) -> Replies:
        heard_by = self._monotonic() + HEARD_S
        while True:
            pending.moved.clear()
            now, others = self._monotonic(), self._members.others
            left = asked - pending.bodies.keys()
            silent = left - pending.heard if now >= heard_by else set()
            told: set[str] = set()
            if silent and since:
                # An older kumafast does not listen, and says no less by its lease.
                self._members.want(since)
                told = {each for each in silent if each in others and others[each].converged >= since}
            waited = {each for each in left - (told if since else silent) if each in others}
            if not waited or pending.is_cut or now >= deadline or (first and any(pending.bodies.values())):
                missing = tuple(sorted(each for each in left - told if each in others))
                is_complete = not pending.is_cut and left <= others.keys()
                return Replies(dict(pending.bodies), missing, is_complete)
            until = deadline if now >= heard_by else min(deadline, heard_by)
            await self._moved(pending, until - now)

    async def _moved(self, pending: _Pending, wait_s: float) -> None:
        """Return when there is news of a question, or of who lives, or after a time."""
        tasks = [asyncio.create_task(pending.moved.wait()), asyncio.create_task(self._members.change())]
        try:
            await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    # Listening.

    async def follow(self, answer: Answerer, /) -> None:
        """As `Questions.follow`; where PostgreSQL is away, try again."""
        retrying = tenacity.AsyncRetrying(wait=_RECONNECT, retry=tenacity.retry_if_exception_type(UNREACHABLE))
        try:
            await retrying(self._listen, answer)
        finally:
            for task in self._answering:
                task.cancel()

    async def _listen(self, answer: Answerer) -> None:
        connection = await connections.connect(self._target)
        try:
            self._lost.clear()
            connection.add_termination_listener(lambda _: self._lost.set())
            async with bounded(connection, STATEMENT_S):
                await connection.add_listener(self._channel, lambda *words: self._hear(str(words[3]), answer))
            self._connection = connection
            self._connected.set()
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ALIVE_S):
                        await self._lost.wait()
                if connection.is_closed():
                    raise ConnectionResetError("the connection for questions has gone")
                # A connection that leads nowhere is found.
                async with self._sending, bounded(connection, STATEMENT_S):
                    await connection.execute("SELECT 1")
        finally:
            self._connection = None
            self._connected.clear()
            for pending in self._pending.values():
                pending.is_cut = True
                pending.moved.set()
            connection.terminate()

    def _hear(self, payload: str, answer: Answerer) -> None:
        try:
            words: dict[str, Any] = orjson.loads(payload)
            by = str(words["by"])
            if by == self._members.own:
                return
            if "ask" in words:
                self._begin(str(words["ask"]), str(words["question"]), float(words["wait_s"]), answer)
            elif "heard" in words:
                self._take(str(words["heard"]), by, None)
            elif "answer" in words:
                self._take(str(words["answer"]), by, words)
        except (ValueError, KeyError, TypeError) as error:
            # From something newer, or nothing of ours.
            _LOG.debug("what came on the channel %s cannot be read: %r", self._channel, error)

    def _take(self, name: str, by: str, words: dict[str, Any] | None) -> None:
        pending = self._pending.get(name)
        if pending is None:
            return
        pending.heard.add(by)
        if words is not None:
            pieces = pending.pieces.setdefault(by, {})
            pieces[int(words["piece"])] = base64.b85decode(words["data"])
            if len(pieces) == int(words["of"]):
                del pending.pieces[by]
                pending.bodies[by] = _inflated(b"".join(pieces[number] for number in sorted(pieces)))
        pending.moved.set()

    def _begin(self, name: str, question: str, wait_s: float, answer: Answerer) -> None:
        if len(self._answering) >= AT_ONCE_MAX:
            _LOG.warning("%d questions of other instances are being answered; another is left out", AT_ONCE_MAX)
            return
        task = asyncio.create_task(self._answer(name, question, wait_s, answer), name="answer to another instance")
        self._answering[task] = None
        task.add_done_callback(lambda _: self._answering.pop(task, None))

    async def _answer(self, name: str, question: str, wait_s: float, answer: Answerer) -> None:
        own = self._members.own
        if not await self._send([orjson.dumps({"heard": name, "by": own}).decode()]):
            return
        try:
            async with asyncio.timeout(wait_s + ANSWER_S):
                body = await answer(question)
        except Exception:
            _LOG.exception("the question %s of another instance has no answer", question.partition("?")[0])
            return
        if len(body) > ANSWER_BYTES_MAX:
            _LOG.warning("an answer of %d bytes to another instance is too long", len(body))
            return
        data = await asyncio.to_thread(zlib.compress, body, 1)
        pieces = [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]
        for start in range(0, len(pieces), _PIECES_AT_ONCE):
            # Others have their turn in between.
            group = [
                orjson.dumps(
                    {
                        "answer": name, "by": own, "piece": number, "of": len(pieces),
                        "data": base64.b85encode(pieces[number]).decode(),
                    }
                ).decode()
                for number in range(start, min(start + _PIECES_AT_ONCE, len(pieces)))
            ]  # fmt: skip
            if not await self._send(group):
                return

    async def _send(self, payloads: list[str]) -> bool:
        """Tell all who listen; False where PostgreSQL is away."""
        async with self._sending:
            connection = self._connection
            if connection is None:
                return False
            try:
                async with bounded(connection, STATEMENT_S):
                    await connection.execute(
                        "SELECT pg_notify($1, words) FROM unnest($2::text[]) AS words", self._channel, payloads
                    )
            except UNREACHABLE as error:
                _LOG.info("%s: a word to the other instances is lost: %s", self._target.name, error)
                connection.terminate()
                return False
        return True


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    body = inflating.decompress(data, ANSWER_BYTES_MAX)
    if not inflating.eof:
        raise ValueError("an answer is longer than it may be")
    return body
