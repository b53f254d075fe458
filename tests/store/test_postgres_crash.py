"""An instance is killed at each point of a write, and PostgreSQL itself: what was acknowledged is there, nothing else.

Beside the instance that dies another writes and watches; it must not notice but by the commits.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.postgresql import Server
from tests.store import kinds
from tests.store.crashes import POSTGRES_POINTS, Dying, History, Rounds
from tests.store.kinds import Thing

from kumafast.errors import CompactedError, StoreUnavailableError
from kumafast.resources import ResourceKey
from kumafast.store import Put, StoredResource
from kumafast.store.postgres import PostgresStore
from kumafast.store.postgres import store as postgres_store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROUNDS = int(os.environ.get("KUMAFAST_CRASH_ROUNDS", "2"))
"""At each point, before and after; more for a longer look."""


@pytest.fixture(scope="module")
def dying() -> Iterator[Dying]:
    with Dying() as source:
        yield source


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POSTGRES_POINTS)
async def test_a_kill_loses_nothing_and_makes_up_nothing(
    postgresql: Server, dying: Dying, tmp_path: Path, point: str, when: str
) -> None:
    chance = random.Random(f"{point} {when}")
    url = postgresql.new_store()
    rounds = Rounds(dying, tmp_path, url)
    beside = await kinds.open_postgres(url)
    belief = Belief()
    following = asyncio.create_task(belief.follow(beside))
    for number in range(ROUNDS):
        writing = asyncio.create_task(_write_beside(beside, f"beside-{number}", rounds.history))
        result = await rounds.one(point, when, number=number, chance=chance, beside=writing)
        assert not result.broken
    last = await beside.put(Thing(name="last"))
    async with asyncio.timeout(60):
        while belief.revision < last.revision and not following.done():
            await asyncio.sleep(0.01)
    assert belief.held == {stored.resource.key: stored for stored in (await beside.list("Thing")).items}
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await beside.close()


class Belief:
    """What a watcher believes, who lists again where it is told to."""

    def __init__(self) -> None:
        self.revision = 0
        self.held: dict[ResourceKey, StoredResource] = {}

    async def follow(self, store: PostgresStore) -> None:
        while True:
            listing = await store.list("Thing")
            self.held = {stored.resource.key: stored for stored in listing.items}
            self.revision = listing.revision
            with suppress(CompactedError):
                async for commit in store.watch(after=self.revision):
                    assert commit.revision == self.revision + 1
                    for change in commit.changes:
                        self.held.pop(change.key, None)
                        if change.stored is not None:
                            self.held[change.key] = change.stored
                    self.revision = commit.revision


async def _write_beside(store: PostgresStore, prefix: str, history: History) -> None:
    for number in range(100_000):
        name = f"{prefix}-{number}"
        history.begun.add(name)
        await store.write([Put(Thing(name=name)), Put(Thing(name=name + "-twin"))])
        history.acknowledged.add(name)
        await asyncio.sleep(0.005)


async def test_postgresql_is_killed_among_writes(mortal: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # However long a restart takes here: writes are tried again, and what became of them is found out.
    monkeypatch.setattr(postgres_store, "WRITE_S", 60.0)
    stores = [await kinds.open_postgres(url) for url in [mortal.new_store()] * 2]
    acknowledged: set[str] = set()
    refused: set[str] = set()

    async def write(writer: int) -> None:
        number = 0
        while True:
            number += 1
            name = f"{writer}-{number}"
            try:
                await stores[writer % 2].write([Put(Thing(name=name)), Put(Thing(name=name + "-twin"))])
                acknowledged.add(name)
            except StoreUnavailableError:
                refused.add(name)

    writers = [asyncio.create_task(write(writer)) for writer in range(8)]
    for _ in range(3):
        before = len(acknowledged)
        async with asyncio.timeout(60):
            while len(acknowledged) < before + 100:
                await asyncio.sleep(0.01)
        await asyncio.to_thread(mortal.kill)
        await asyncio.to_thread(mortal.start)
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    last = await stores[0].put(Thing(name="last"))
    async with asyncio.timeout(60):
        while await stores[1].revision() < last.revision:
            await asyncio.sleep(0.01)
    things = [(await store.list("Thing")).items for store in stores]
    assert things[0] == things[1]
    held = {stored.resource.name for stored in things[0]}
    assert acknowledged <= held
    assert not refused
    # Written once: whoever was answered late was not written twice under another revision.
    assert last.revision == len(held - {"last"}) / 2 + 1
    assert all(store.work.readings == 0 for store in stores)
    await asyncio.gather(*(store.close() for store in stores))
