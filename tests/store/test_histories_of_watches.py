"""Histories of many writers and watchers on each back end, and judges that catch every breach that is made up."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.store import kinds
from tests.store.histories import Answer, History, Span
from tests.store.kinds import Thing, key

from kumafast.errors import CompactedError, NotFoundError, StoreUnavailableError
from kumafast.resources import ResourceKey
from kumafast.store import Change, Commit, Delete, MemoryStore, Put, Store, StoredResource
from kumafast.store.memory import utc_now
from kumafast.store.postgres import PostgresStore

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WRITES = int(os.environ.get("KUMAFAST_HISTORY_WRITES", "3000"))
"""Of one history; more for a longer look."""
WRITERS = 8


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sequence[Store]]:
    """All instances of one store."""
    opened: list[Store]
    if request.param == "memory":
        opened = [MemoryStore()]
    elif request.param == "sqlite":
        opened = [await kinds.open_sqlite(tmp_path / "store.db")]
    else:
        url = request.getfixturevalue("postgresql").new_store()
        opened = [await kinds.open_postgres(url) for _ in range(3)]
    yield opened
    for store in opened:
        await store.close()


async def listed(store: Store) -> tuple[int, dict[ResourceKey, StoredResource]]:
    listing = await store.list("Thing")
    return listing.revision, {stored.resource.key: stored for stored in listing.items}


async def write(stores: Sequence[Store], seed: int, count: int) -> tuple[list[Answer], int]:
    """Writes of one or several things by one writer, some of which are refused; how many for want of a store."""
    chance = random.Random(seed)
    answers, unavailable = [], 0
    for number in range(count):
        store = chance.choice(stores)
        names = chance.sample(range(40), chance.choice([1, 1, 2, 5]))
        value = seed * 1_000_000 + number
        operations: list[Put | Delete] = [Put(Thing(name=str(name), value=value)) for name in names]
        if chance.random() < 0.2:
            operations[-1] = Delete(key("Thing", str(names[-1])))
        # What is not acknowledged, on a machine that has no time for it, is promised nothing.
        try:
            with suppress(NotFoundError):
                revision = await store.write(operations)
                answers.append(Answer(revision, frozenset(key("Thing", str(name)) for name in names)))
        except StoreUnavailableError:
            unavailable += 1
    return answers, unavailable


async def follow(store: Store, seed: int, last: asyncio.Future[int]) -> list[Span]:
    """A watcher that stops and goes on, now and then lists anew, and is slow at times."""
    chance = random.Random(seed)
    after, state = await listed(store)
    spans = [Span(after, state)]
    while not last.done() or spans[-1].end < last.result():
        span = spans[-1]
        watch = store.watch(after=span.after)
        try:
            for _ in range(chance.randrange(1, 400)):
                async with asyncio.timeout(0.2):
                    span.commits.append(await anext(watch))
                if chance.random() < 0.005:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        except CompactedError:
            spans.append(Span(*await listed(store)))
            continue
        spans.append(Span(*await listed(store)) if chance.random() < 0.1 else Span(span.end))
    return spans


async def test_watches_keep_their_promises(stores: Sequence[Store]) -> None:
    last: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    following = [asyncio.create_task(follow(store, seed, last)) for seed, store in enumerate([*stores, *stores])]
    written = await asyncio.gather(*(write(stores, seed, WRITES // WRITERS) for seed in range(WRITERS)))
    answers = [answer for each, _ in written for answer in each]
    assert sum(unavailable for _, unavailable in written) <= WRITES // 100
    # An instance may not know yet what another wrote last.
    revision = max(answer.revision for answer in answers)
    async with asyncio.timeout(60):
        while (
            max([await store.revision() for store in stores]) < revision
            or len({await store.revision() for store in stores}) > 1
        ):
            await asyncio.sleep(0.01)
    revision, final = await listed(stores[0])
    last.set_result(revision)
    history = History(revision, final, answers, await asyncio.gather(*following))
    assert history.breaches() == []
    # That they were followed at all; on a machine that has no time for it a watcher is left behind, and lists instead.
    assert sum(len(span.commits) for spans in history.watchers for span in spans) > WRITES // 4
    if isinstance(stores[0], PostgresStore):
        assert all(isinstance(store, PostgresStore) and store.work.readings == 0 for store in stores)


def commit(revision: int, *names: str) -> Commit:
    return Commit(revision, tuple(Change(key("Thing", name), stored(name, revision)) for name in names))


def stored(name: str, revision: int) -> StoredResource:
    return StoredResource(Thing(name=name, value=revision), revision, NOW, NOW)


NOW = utc_now()


def good() -> History:
    commits = [commit(1, "a"), commit(2, "b", "c"), commit(3, "a")]
    final = {key("Thing", name): stored(name, revision) for name, revision in (("a", 3), ("b", 2), ("c", 2))}
    answers = [Answer(each.revision, frozenset(change.key for change in each.changes)) for each in commits]
    return History(3, final, answers, [[Span(0, {}, commits[:2]), Span(2, None, commits[2:])], [Span(3, final)]])


BREACHES: list[tuple[str, Callable[[list[Commit]], list[Commit]]]] = [
    ("ordered", lambda commits: [commits[1], commits[0]]),
    ("unique", lambda commits: [commits[0], commits[0], commits[1]]),
    ("reliable", lambda commits: [commits[1]]),
    ("atomic", lambda commits: [commits[0], replace(commits[1], changes=commits[1].changes[:1])]),
    ("resumable", lambda commits: commits[:1]),
    (
        "in the end",
        lambda commits: [replace(commits[0], changes=(Change(key("Thing", "z"), stored("z", 1)),)), commits[1]],
    ),
]


def test_a_good_history_has_no_breach() -> None:
    assert good().breaches() == []


@pytest.mark.parametrize(("promise", "breach"), BREACHES)
def test_every_breach_is_seen(promise: str, breach: Callable[[list[Commit]], list[Commit]]) -> None:
    history = good()
    span = history.watchers[0][0]
    span.commits = breach(span.commits)
    assert any(each.startswith(promise) for each in history.breaches())


def test_a_lost_write_is_seen() -> None:
    history = good()
    history.answers = [*history.answers, Answer(4, frozenset({key("Thing", "a")}))]
    assert any(each.startswith("lost") for each in history.breaches())
