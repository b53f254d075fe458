"""An instance is killed at each point of a write, and PostgreSQL itself: what was acknowledged is there, nothing else.

Beside the instance that dies another writes and watches; it must not notice but by the commits.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from tests.postgresql import Server
from tests.store import kinds
from tests.store.kinds import Thing

from kumafast.errors import CompactedError, StoreUnavailableError
from kumafast.resources import ResourceKey
from kumafast.store import Put, StoredResource
from kumafast.store.postgres import PostgresStore, connection
from kumafast.store.postgres import store as postgres_store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

POINTS = ("append", "commit", "notify", "forget", "lock")
ROUNDS = int(os.environ.get("KUMAFAST_CRASH_ROUNDS", "2"))
"""At each point, before and after; more for a longer look."""
WRITES = 400


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_loses_nothing_and_makes_up_nothing(postgresql: Server, point: str, when: str) -> None:
    chance = random.Random(f"{point} {when}")
    url = postgresql.new_store()
    beside = await kinds.open_postgres(url)
    belief = Belief()
    following = asyncio.create_task(belief.follow(beside))
    acknowledged: set[str] = set()
    for round_ in range(ROUNDS):
        at = chance.randrange(2, 12)
        writing = asyncio.create_task(_write_beside(beside, f"beside-{round_}", acknowledged))
        acknowledged |= await asyncio.to_thread(_until_killed, url, f"{round_}", point, when, at)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await _check(url, acknowledged, last=await beside.revision())
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


async def _write_beside(store: PostgresStore, prefix: str, acknowledged: set[str]) -> None:
    for number in range(100_000):
        name = f"{prefix}-{number}"
        await store.write([Put(Thing(name=name)), Put(Thing(name=name + "-twin"))])
        acknowledged.add(name)
        await asyncio.sleep(0.005)


async def _check(url: str, acknowledged: set[str], *, last: int) -> None:
    """A newcomer finds what was acknowledged, both halves of each write, and a log without gaps."""
    store = await kinds.open_postgres(url)
    held = {stored.resource.name: stored for stored in (await store.list("Thing")).items}
    assert acknowledged <= held.keys()
    for name, stored in held.items():
        twin = name.removesuffix("-twin") if name.endswith("-twin") else name + "-twin"
        assert held[twin].revision == stored.revision
    assert await store.revision() >= last
    await store.close()
    admin = await connection.connect(connection.parse_url(url))
    # Of one moment: a write whose caller was cancelled may still be on its way.
    async with admin.transaction(isolation="repeatable_read"):
        floor, revision = await admin.fetchrow("SELECT floor, revision FROM head")
        rows = await admin.fetch("SELECT DISTINCT revision FROM changes ORDER BY revision")
    assert [row["revision"] for row in rows] == list(range(floor + 1, revision + 1))
    await admin.close()


def _until_killed(url: str, prefix: str, point: str, when: str, at: int) -> set[str]:
    """What a child acknowledged until it killed itself."""
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, url, prefix, point, when, str(at), str(WRITES)],
        capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False, timeout=120,
    )  # fmt: skip
    assert child.returncode == -9, f"it was never at the point: {child.returncode}\n{child.stderr}"
    return {name for name in child.stdout.splitlines() if name}


_CHILD = """
import asyncio, os, signal, sys
import asyncpg
from kumafast.store import Put, watch
from kumafast.store.postgres import database, store as stores
from tests.store import kinds

url, prefix, point, when, at, count = sys.argv[1:]
# A short log, so that it is cut often.
watch.HISTORY_CHANGES_MAX, watch.HISTORY_COMMITS_MIN, stores.TRIM_STEP = 40, 20, 5

owner = asyncpg.transaction.Transaction if point == "commit" else database.PostgresDatabase
real = getattr(owner, point)
left = int(at)

async def fails(*arguments, **named):
    global left
    left -= 1
    if left == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = await real(*arguments, **named)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

async def main():
    store = await kinds.open_postgres(url)
    setattr(owner, point, fails)

    async def write(writer):
        for number in range(writer, int(count), 4):
            name = f"{prefix}-{number}"
            await store.write([Put(kinds.Thing(name=name)), Put(kinds.Thing(name=name + "-twin"))])
            os.write(1, (name + "\\n").encode())

    await asyncio.gather(*(write(writer) for writer in range(4)))

asyncio.run(main())
"""


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
