"""What the store costs: writes one by one and together, lists, opening; and beside them what SQLite alone takes.

All are reported and none is asserted, since a disk's time to sync is the machine's, not ours.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from kumafast.resources import Resource, encode, parse
from kumafast.store import MemoryStore, Put, SqliteStore, Store

SIZE = 50_000
WRITERS = 64

pytestmark = pytest.mark.informational


def _dataplane(number: int) -> Resource:
    service = f"service-{number % 100}"
    return parse(
        {
            "type": "Dataplane",
            "mesh": "default",
            "name": f"dp-{number:05}",
            "networking": {
                "address": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
                "inbound": [{"port": 8080, "tags": {"kuma.io/service": service, "version": str(number % 3)}}],
                "outbound": [
                    {"port": 10_000 + index, "tags": {"kuma.io/service": f"service-{(number + index) % 100}"}}
                    for index in range(5)
                ],
            },
        }
    )


def _measure(benchmark: BenchmarkFixture, write: Callable[[], None], *, writes: int) -> None:
    """Do it once (a write that is repeated is no write) and note how many writes that makes a second."""
    benchmark.extra_info["writes"] = writes
    benchmark.pedantic(write, rounds=1)  # type: ignore[no-untyped-call]
    if benchmark.stats is not None:
        benchmark.extra_info["writes_per_s"] = round(writes / benchmark.stats["mean"])


@pytest.fixture(scope="module")
def dataplanes() -> list[Resource]:
    return [_dataplane(number) for number in range(SIZE)]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as opened:
        yield opened


async def _open(name: str, folder: Path) -> Store:
    store: Store = MemoryStore() if name == "memory" else await SqliteStore.open(folder / "store.db")
    await store.put(parse({"type": "Mesh", "name": "default"}))
    return store


@pytest.mark.parametrize("back_end", ["memory", "sqlite"])
def test_single_writes(
    benchmark: BenchmarkFixture, runner: asyncio.Runner, tmp_path: Path, dataplanes: list[Resource], back_end: str
) -> None:
    store = runner.run(_open(back_end, tmp_path))
    count = 2_000

    async def write() -> None:
        for resource in dataplanes[:count]:
            await store.put(resource)

    _measure(benchmark, lambda: runner.run(write()), writes=count)
    assert runner.run(store.revision()) == count + 1
    runner.run(store.close())


@pytest.mark.parametrize("back_end", ["memory", "sqlite"])
def test_writes_of_64_writers(
    benchmark: BenchmarkFixture, runner: asyncio.Runner, tmp_path: Path, dataplanes: list[Resource], back_end: str
) -> None:
    store = runner.run(_open(back_end, tmp_path))
    count = 20_000

    async def write(writer: int) -> None:
        for resource in dataplanes[writer:count:WRITERS]:
            await store.put(resource)

    async def write_all() -> None:
        await asyncio.gather(*(write(writer) for writer in range(WRITERS)))

    _measure(benchmark, lambda: runner.run(write_all()), writes=count)
    assert runner.run(store.revision()) == count + 1
    runner.run(store.close())


def test_single_writes_of_sqlite_alone(benchmark: BenchmarkFixture, tmp_path: Path, dataplanes: list[Resource]) -> None:
    """The floor: the same bytes, one row and one synced transaction each, no log, no event loop."""
    connection = sqlite3.connect(tmp_path / "floor.db", isolation_level=None)
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE resources (name TEXT PRIMARY KEY, content BLOB)")
    rows = [(resource.name, encode(resource)) for resource in dataplanes[:2_000]]

    def write() -> None:
        for row in rows:
            connection.execute("INSERT INTO resources VALUES (?, ?)", row)

    _measure(benchmark, write, writes=len(rows))
    connection.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, dataplanes: list[Resource]) -> Path:
    """A store with 50,000 dataplanes, each written once, in its own file."""
    folder = tmp_path_factory.mktemp("filled")

    async def fill() -> None:
        store = await _open("sqlite", folder)
        for start in range(0, SIZE, 500):
            await store.write([Put(resource) for resource in dataplanes[start : start + 500]])
        await store.close()

    asyncio.run(fill())
    return folder / "store.db"


def test_open_with_50k(benchmark: BenchmarkFixture, runner: asyncio.Runner, filled: Path) -> None:
    async def open_and_close() -> int:
        store = await SqliteStore.open(filled)
        count = len((await store.list("Dataplane")).items)
        await store.close()
        return count

    count = benchmark.pedantic(lambda: runner.run(open_and_close()), rounds=3)  # type: ignore[no-untyped-call]
    assert count == SIZE


def test_list_of_50k(benchmark: BenchmarkFixture, runner: asyncio.Runner, filled: Path) -> None:
    store = runner.run(SqliteStore.open(filled))
    listing = benchmark(lambda: runner.run(store.list("Dataplane")))
    assert len(listing.items) == SIZE
    runner.run(store.close())


def test_list_of_50k_after_a_name_came(
    benchmark: BenchmarkFixture, runner: asyncio.Runner, dataplanes: list[Resource]
) -> None:
    """The worst case of a list: names are sorted anew."""

    async def fill() -> MemoryStore:
        store = MemoryStore()
        await store.write([Put(parse({"type": "Mesh", "name": "default"})), *(Put(each) for each in dataplanes[1:])])
        return store

    store = runner.run(fill())
    key = dataplanes[0].key

    async def put_and_list() -> int:
        await store.put(dataplanes[0])
        count = len((await store.list("Dataplane")).items)
        await store.delete(key)
        return count

    assert benchmark(lambda: runner.run(put_and_list())) == SIZE
