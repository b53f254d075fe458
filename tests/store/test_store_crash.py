"""What a process has acknowledged outlives its death, and a full disk refuses writes without harm."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.store import kinds
from tests.store.contract import take

pytestmark = pytest.mark.anyio

ROUNDS = 6
WRITES = 200


async def test_what_was_acknowledged_outlives_kill(tmp_path: Path) -> None:
    chance = random.Random(11)
    path = tmp_path / "store.db"
    acknowledged: set[str] = set()
    interrupted = 0
    for round_ in range(ROUNDS):
        names = await asyncio.to_thread(_write_until_killed, path, round_=round_, after=chance.randrange(1, WRITES))
        interrupted += len(names) < WRITES
        acknowledged |= names

        store = await kinds.open_sqlite(path)
        held = {stored.resource.name: stored for stored in (await store.list("Thing")).items}
        assert acknowledged <= held.keys()
        revision = await store.revision()
        commits = await take(store.watch(after=0), revision)
        assert [commit.revision for commit in commits] == list(range(1, revision + 1))
        # Each commit puts a thing and its twin: both are there or none is.
        assert sorted(stored.revision for stored in held.values()) == sorted(2 * list(range(1, revision + 1)))
        await store.close()
    assert interrupted >= ROUNDS // 2, "the child was hardly ever killed in the middle"


def _write_until_killed(path: Path, *, round_: int, after: int) -> set[str]:
    """Let a child write, kill it some time after so many acknowledgements; what it acknowledged until its death."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), str(round_), str(WRITES)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        names = [child.stdout.readline().strip() for _ in range(after)]
        child.send_signal(signal.SIGKILL)
        names += child.stdout.read().splitlines()
    # A line that the kill cut short acknowledges nothing; the child writes each in one piece.
    return {name for name in names if name}


_CHILD = """
import asyncio, os, sys
from pathlib import Path
from kumafast.store import Put
from tests.store import kinds

async def main(path, round_, count):
    store = await kinds.open_sqlite(Path(path))

    async def write(writer):
        for number in range(writer, int(count), 4):
            name = f"{round_}-{number}"
            await store.write([Put(kinds.Thing(name=name)), Put(kinds.Thing(name=name + "-twin"))])
            os.write(1, (name + "\\n").encode())

    await asyncio.gather(*(write(writer) for writer in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""


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
