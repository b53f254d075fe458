"""What instances ask each other over one PostgreSQL: whoever lives answers, and whoever does not is named."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.postgresql import Server
from tests.store import kinds

from kumafast.store import open_questions
from kumafast.store.members import Member
from kumafast.store.postgres import PostgresStore, leases, questions
from kumafast.store.postgres.questions import PostgresQuestions
from kumafast.store.questions import Answerer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WAIT_S = 60.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 4.0)
    monkeypatch.setattr(leases, "LOOK_S", 0.2)
    # A machine that has other things to do is no instance that gives no sign.
    monkeypatch.setattr(questions, "HEARD_S", WAIT_S)
    monkeypatch.setattr(questions, "ANSWER_S", WAIT_S)


@asynccontextmanager
async def _instance(
    url: str, name: str, answer: Answerer | None = None
) -> AsyncIterator[tuple[PostgresStore, PostgresQuestions]]:
    """One on a store; without an answer it is older than questions."""
    store = await kinds.open_postgres(url, instance=name)
    asked = open_questions(store, url)
    assert isinstance(asked, PostgresQuestions)
    following = None if answer is None else asyncio.create_task(asked.follow(answer))
    try:
        yield store, asked
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await store.close()


async def _until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await asyncio.sleep(0.02)


async def _nothing(_: str) -> bytes:
    return b""


async def test_all_others_answer_and_oneself_is_not_asked(postgresql: Server) -> None:
    url = postgresql.new_store()
    # Some hundred notifications, in more than one go.
    large = os.urandom(3_000_000)

    async def say(question: str) -> bytes:
        return large if question == "/large" else question.encode()

    async with _instance(url, "one", say) as (store, asked):
        assert (await asked.ask("/alone")).bodies == {}
        async with _instance(url, "two", say), _instance(url, "three", _nothing):
            await _until(lambda: len(store.members.others) == 2)
            replies = await asked.ask("/a?b=c")
            assert (replies.bodies, replies.missing) == ({"two": b"/a?b=c", "three": b""}, ())
            assert replies.is_complete
            several = await asyncio.gather(*(asked.ask(f"/{number}") for number in range(20)), asked.ask("/large"))
            assert [each.bodies["two"] for each in several] == [*(b"/%d" % n for n in range(20)), large]


async def test_what_somebody_says_first_is_enough_where_one_can_know(postgresql: Server) -> None:
    url = postgresql.new_store()

    async def wait(_: str) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def say(_: str) -> bytes:
        return b"here"

    async with _instance(url, "one", _nothing) as (store, asked), _instance(url, "slow", wait):
        async with _instance(url, "two", say):
            await _until(lambda: len(store.members.others) == 2)
            replies = await asked.ask("/who", wait_s=WAIT_S, first=True)
        assert (replies.bodies, replies.missing) == ({"two": b"here"}, ("slow",))


async def test_who_gives_no_sign_is_missing_unless_its_lease_says_enough(
    postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "HEARD_S", 0.5)
    monkeypatch.setattr(questions, "ANSWER_S", 0.5)
    url = postgresql.new_store()
    async with _instance(url, "one", _nothing) as (store, asked), _instance(url, "older") as (older, _):
        await _until(lambda: store.members.others)
        assert (await asked.ask("/who", wait_s=WAIT_S)).missing == ("older",)
        assert (await asked.ask("/who", since=3)).missing == ("older",)
        waiting = asyncio.create_task(asked.ask("/who", wait_s=WAIT_S, since=5))
        # It is asked by the lease, and answers in it.
        await _until(lambda: older.members.wanted == 5)
        older.members.have_converged(5)
        replies = await waiting
        assert (replies.missing, replies.is_complete) == ((), True)
        assert store.members.others == {"older": Member(3, 5)} or store.members.others["older"].converged == 5


async def test_who_dies_over_its_answer_is_not_missing_but_what_was_said_is_incomplete(postgresql: Server) -> None:
    url = postgresql.new_store()
    is_asked = asyncio.Event()

    async def wait(_: str) -> bytes:
        is_asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with _instance(url, "one", _nothing) as (store, asked):
        async with _instance(url, "dying", wait):
            await _until(lambda: store.members.others)
            waiting = asyncio.create_task(asked.ask("/who", wait_s=WAIT_S))
            await is_asked.wait()
        replies = await waiting
    assert (replies.bodies, replies.missing, replies.is_complete) == ({}, (), False)


@pytest.mark.alone
async def test_while_postgresql_is_away_nobody_can_be_asked_and_afterwards_everybody(
    mortal: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = mortal.new_store()

    async def say(_: str) -> bytes:
        return b"here"

    async with _instance(url, "one", say) as (store, asked), _instance(url, "two", say):
        await _until(lambda: store.members.others)
        assert (await asked.ask("/who", wait_s=WAIT_S)).bodies == {"two": b"here"}
        await asyncio.to_thread(mortal.stop)
        # Nobody will answer; who does needs longer on a busy machine.
        with monkeypatch.context() as soon:
            soon.setattr(questions, "ANSWER_S", 0.5)
            assert (await asked.ask("/who")).missing == ("two",)
        await asyncio.to_thread(mortal.start)
        # A question that comes before the other listens again is heard by nobody.
        monkeypatch.setattr(questions, "HEARD_S", 2.0)
        async with asyncio.timeout(WAIT_S):
            while (await asked.ask("/who", wait_s=WAIT_S)).bodies != {"two": b"here"}:
                await asyncio.sleep(0.05)


async def test_words_that_cannot_be_read_are_left_out(postgresql: Server) -> None:
    url = postgresql.new_store()

    async def say(_: str) -> bytes:
        return b"here"

    async with _instance(url, "one", say) as (store, asked), _instance(url, "two", say):
        await _until(lambda: store.members.others)
        assert (await asked.ask("/who", wait_s=WAIT_S)).bodies == {"two": b"here"}
        for words in ("", "[]", "{}", '{"by": "x"}', '{"by": "x", "ask": 1}', '{"by": "x", "answer": "a"}'):
            asked._hear(words, say)
        assert (await asked.ask("/who", wait_s=WAIT_S)).bodies == {"two": b"here"}
