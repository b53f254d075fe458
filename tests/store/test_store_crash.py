"""What a process has acknowledged outlives its death, and a full disk refuses writes without harm."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.store import kinds
from tests.store.contract import take
from tests.store.crashes import sqlite_points, sqlite_rounds

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("KUMAFAST_CRASH_ROUNDS", "1"))
"""At each point, on each side of it; `python -m tests.store.crashes` is the longer look, at both back ends."""


@pytest.mark.slow
async def test_a_kill_loses_nothing_and_makes_up_nothing(tmp_path: Path) -> None:
    chance = random.Random(11)
    with sqlite_rounds(tmp_path) as rounds:
        for number in range(ROUNDS):
            for point, when in sqlite_points():
                result = await rounds.one(point, when, number=number, chance=chance)
                assert not result.broken
    assert len(rounds.history.acknowledged) > 100 * ROUNDS


async def test_a_full_disk_refuses_writes_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _FULL, str(path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=60,
    )
    assert child.returncode == 0, child.stderr
    written, *_ = map(int, child.stdout.split())
    assert written > 10
    again = await kinds.open_sqlite(path)
    # As many as were acknowledged, and the one that came after there was room again.
    assert await again.revision() == written + 1
    assert len((await again.list("Thing")).items) == written + 1
    assert len(await take(again.watch(after=0), written + 1)) == written + 1
    await again.close()


_FULL = """
import asyncio, resource, sys
from pathlib import Path
from kumafast.errors import StoreUnavailableError
from kumafast.store import Put
from tests.store import kinds

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(path):
    store = await kinds.open_sqlite(Path(path))
    limit(512 * 1024)
    written = 0
    try:
        while written < 10_000:
            await store.put(kinds.Thing(name=f"thing-{written}"))
            written += 1
    except StoreUnavailableError as error:
        assert path in str(error), error
    else:
        raise SystemExit("the limit was never met")
    # Reads and watches go on with what was acknowledged; the refused one was not announced.
    assert len((await store.list("Thing")).items) == await store.revision() == written
    assert (await store.get(kinds.key("Thing", "thing-0"))).revision == 1
    watch = store.watch(after=written - 1)
    assert (await anext(watch)).revision == written
    # Each of many at once is refused for itself, and again.
    results = await asyncio.gather(
        *(store.put(kinds.Thing(name=f"more-{number}")) for number in range(50)), return_exceptions=True
    )
    assert {type(result) for result in results} == {StoreUnavailableError}, results
    limit(resource.RLIM_INFINITY)
    assert (await store.put(kinds.Thing(name="room"))).revision == written + 1
    assert (await anext(watch)).revision == written + 1
    await store.close()
    print(written)

asyncio.run(main(sys.argv[1]))
"""
