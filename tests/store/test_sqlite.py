"""What the SQLite store adds to the contract: a file that outlives it, and that is refused with reasons."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.store import kinds
from tests.store.contract import take
from tests.store.kinds import Box, Label, Note, Thing, key, mesh

from kumafast.errors import ConflictError, NotFoundError, StoreUnavailableError, UnknownTypeError
from kumafast.resources import Resource
from kumafast.store import Commit, Delete, Put, SqliteStore, StoredResource, transfer
from kumafast.store import database as database_module
from kumafast.store import watch as watch_module
from kumafast.store.database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "store.db"


async def test_all_is_there_after_a_restart(path: Path) -> None:
    store = await kinds.open_sqlite(path)
    await store.write([Put(mesh()), Put(Box(mesh="default", name="b", value=1)), Put(Note(mesh="default", name="n"))])
    await store.put(Box(mesh="default", name="b", value=2))
    await store.put(Label(mesh="default", name="b"))
    await store.write([Delete(key("Note", "n")), Put(Thing(name="wörld ☃"))])
    commits = await take(store.watch(after=0), 4)
    listings = [await store.list(type_name) for type_name in kinds.KINDS]
    await store.close()

    again = await kinds.open_sqlite(path)
    assert again.identity == store.identity
    assert await again.revision() == 4
    assert [await again.list(type_name) for type_name in kinds.KINDS] == listings
    assert await take(again.watch(after=0), 4) == commits
    # The rules know what was there before: an owner's deletion, an equal put, an expectation.
    box = await again.get(key("Box", "b"))
    assert await again.put(Box(mesh="default", name="b", value=2), expected_revision=box.revision) == box
    assert await again.delete(key("Box", "b")) == 5
    with pytest.raises(NotFoundError):
        await again.get(key("Label", "b"))
    await again.close()


async def test_another_file_is_another_store(tmp_path: Path) -> None:
    one, two = [await kinds.open_sqlite(tmp_path / name) for name in ("one.db", "two.db")]
    assert one.identity != two.identity
    await one.close()
    await two.close()


async def test_only_the_owner_can_read_it(path: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose.db"
    loose.touch(mode=0o644)
    for at in (path, loose):
        store = await kinds.open_sqlite(at)
        await store.put(Thing(name="secret"))
        files = [file for file in at.parent.iterdir() if file.name.startswith(at.name)]
        assert len(files) == 2  # with its write-ahead log
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        await store.close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_second_one_is_kept_out_and_harms_nothing(path: Path) -> None:
    store = await kinds.open_sqlite(path)
    await store.put(Thing(name="a"))
    program = (
        "import asyncio, sys\n"
        "from kumafast.errors import StoreUnavailableError\n"
        "from kumafast.store import open_store\n"
        "try:\n    asyncio.run(open_store('sqlite:' + sys.argv[1]))\n"
        "except StoreUnavailableError as error:\n    sys.exit(str(error))\n"
    )
    child = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 1
    [message] = child.stderr.splitlines()
    assert f"{path} is in use by another process" in message
    with pytest.raises(StoreUnavailableError, match="in use"):
        await kinds.open_sqlite(path)
    await store.put(Thing(name="b"))
    await store.close()
    again = await kinds.open_sqlite(path)
    assert len((await again.list("Thing")).items) == 2
    await again.close()


async def test_nothing_is_seen_or_acknowledged_before_it_is_recorded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await kinds.open_sqlite(path)
    await store.put(Thing(name="a", value=1))
    may_record, is_recording = threading.Event(), threading.Event()
    record = Database.record

    def slowly(database: Database, commits: Sequence[Commit], *, floor: int) -> None:
        is_recording.set()
        assert may_record.wait(10)
        record(database, commits, floor=floor)

    monkeypatch.setattr(Database, "record", slowly)
    watching = asyncio.ensure_future(anext(store.watch(after=1)))
    writing = asyncio.create_task(store.put(Thing(name="a", value=2)))
    assert await asyncio.to_thread(is_recording.wait, 10)
    await asyncio.sleep(0.01)
    assert (await store.get(key("Thing", "a"))).resource == Thing(name="a", value=1)
    assert await store.revision() == 1
    assert not writing.done()
    assert not watching.done()
    may_record.set()
    assert (await writing).revision == (await watching).revision == 2
    await store.close()


async def test_a_write_that_has_begun_outlives_its_caller(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await kinds.open_sqlite(path)
    may_record, is_recording = threading.Event(), threading.Event()
    record = Database.record

    def slowly(database: Database, commits: Sequence[Commit], *, floor: int) -> None:
        is_recording.set()
        assert may_record.wait(10)
        record(database, commits, floor=floor)

    monkeypatch.setattr(Database, "record", slowly)
    begun = asyncio.create_task(store.put(Thing(name="begun")))
    assert await asyncio.to_thread(is_recording.wait, 10)
    waiting = asyncio.create_task(store.put(Thing(name="waiting")))
    await asyncio.sleep(0)
    begun.cancel()
    waiting.cancel()
    await asyncio.gather(begun, waiting, return_exceptions=True)
    may_record.set()
    assert (await store.put(Thing(name="last"))).revision == 2
    assert [s.resource.name for s in (await store.list("Thing")).items] == ["begun", "last"]
    await store.close()


async def test_writes_at_once_share_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await kinds.open_sqlite(path)
    sizes: list[int] = []
    record = Database.record

    def counted(database: Database, commits: Sequence[Commit], *, floor: int) -> None:
        sizes.append(len(commits))
        record(database, commits, floor=floor)

    monkeypatch.setattr(Database, "record", counted)
    await asyncio.gather(*(store.put(Thing(name=str(number))) for number in range(600)))
    assert sizes == [256, 256, 88]
    await store.close()


async def test_one_that_cannot_be_recorded_does_not_take_others_along(path: Path) -> None:
    def encode(resource: Resource) -> bytes:
        if resource.name == "poison":
            raise RuntimeError("cannot be encoded")
        return kinds.encode(resource)

    store = await SqliteStore.open(path, encode=encode, decode=kinds.decode)
    results = await asyncio.gather(
        store.put(Thing(name="a")),
        store.put(Thing(name="poison")),
        store.put(Thing(name="poison"), expected_revision=0),
        store.put(Thing(name="a"), expected_revision=0),
        store.put(Thing(name="b")),
        return_exceptions=True,
    )
    assert [result.revision for result in results if isinstance(result, StoredResource)] == [1, 2]
    assert [type(result) for result in results if isinstance(result, Exception)] == [
        RuntimeError,
        RuntimeError,
        ConflictError,
    ]
    await store.close()
    again = await kinds.open_sqlite(path)
    assert [s.resource.name for s in (await again.list("Thing")).items] == ["a", "b"]
    await again.close()


async def test_the_log_is_bounded_on_the_disk_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "OWN_CHANGES_MAX", 50)
    monkeypatch.setattr(database_module, "TRIM_STEP", 20)
    store = await kinds.open_sqlite(path)
    for value in range(200):
        await store.put(Thing(name="a", value=value))
    await store.close()
    with sqlite3.connect(path) as file:
        [(oldest, newest, count)] = file.execute("SELECT min(revision), max(revision), count(*) FROM changes")
        [(floor,)] = file.execute("SELECT value FROM meta WHERE name = 'floor'")
    file.close()
    assert (newest, count, floor) == (200, 200 - floor, oldest - 1)
    assert 50 <= count <= 50 + 20 + 1
    again = await kinds.open_sqlite(path)
    commits = await take(again.watch(after=150), 50)
    assert commits[-1].changes[0].stored == await again.get(key("Thing", "a"))
    assert await again.revision() == 200
    await again.close()


async def test_the_log_is_moved_into_the_file_while_nobody_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_CHANGES", 4)
    done: list[str] = []
    record, checkpoint = Database.record, Database.checkpoint

    def note_record(self: Database, commits: Sequence[Commit], *, floor: int) -> None:
        record(self, commits, floor=floor)
        done.append(f"record {len(commits)}")

    def note_checkpoint(self: Database) -> None:
        done.append("checkpoint")
        checkpoint(self)

    monkeypatch.setattr(Database, "record", note_record)
    monkeypatch.setattr(Database, "checkpoint", note_checkpoint)
    store = await kinds.open_sqlite(path)
    for number in range(3):
        await store.put(Thing(name=f"t{number}"))
    # Those that come together share a transaction; then there is enough to be moved, and nothing is twice.
    await asyncio.gather(*(store.put(Thing(name=f"u{number}")) for number in range(3)))
    for number in range(3):
        await store.put(Thing(name=f"v{number}"))
    await store.close()
    assert done == ["record 1"] * 3 + ["record 3", "checkpoint"] + ["record 1"] * 3
    again = await kinds.open_sqlite(path)
    assert len((await again.list("Thing")).items) == 9
    await again.close()


async def test_a_log_that_cannot_be_moved_is_no_harm(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_CHANGES", 1)
    caplog.set_level(logging.INFO)
    store = await kinds.open_sqlite(path)
    monkeypatch.setattr(store._database, "_connection", _Unmovable(store._database._connection))
    for number in range(3):
        await store.put(Thing(name=f"t{number}"))
    await store.close()
    # The file is looked at before the next write, which waits for that and is done.
    assert "can be written again" in caplog.text
    again = await kinds.open_sqlite(path)
    assert len((await again.list("Thing")).items) == 3
    await again.close()


class _Unmovable:
    """A connection that refuses to move the log."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> object:
        if "wal_checkpoint" in statement:
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *values)


async def test_an_open_that_is_cancelled_leaves_no_lock(path: Path) -> None:
    chance = random.Random(3)
    store = await kinds.open_sqlite(path)
    await store.write([Put(Thing(name=str(number))) for number in range(500)])
    await store.close()
    for _ in range(10):
        opening = asyncio.create_task(kinds.open_sqlite(path))
        await asyncio.sleep(chance.random() * 0.01)
        opening.cancel()
        [result] = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(result, SqliteStore):
            await result.close()
    store = await kinds.open_sqlite(path)
    assert len((await store.list("Thing")).items) == 500
    await store.close()


async def _refused(path: Path) -> str:
    """The reason for which a file is refused; it is left as it was, and not locked."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreUnavailableError) as caught:
        await kinds.open_sqlite(path)
    if before is not None:
        assert path.read_bytes() == before
    message = str(caught.value)
    assert str(path) in message
    return message


async def test_a_newer_file_is_refused(path: Path) -> None:
    await (await kinds.open_sqlite(path)).close()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    assert "newer kumafast (schema 99" in await _refused(path)


async def test_what_a_newer_one_has_put_there_passes_by_and_stays(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer = await kinds.open_sqlite(path)
    await newer.write([Put(mesh()), Put(Note(mesh="default", name="a")), Put(Thing(name="with it"))])
    await newer.put(Note(mesh="default", name="b"))
    await newer.delete(key("Note", "b"))
    await newer.close()

    def decode(content: bytes) -> Resource:
        resource = kinds.decode(content)
        if isinstance(resource, Note):
            raise UnknownTypeError("unknown resource type Note")
        return resource

    older = await SqliteStore.open(path, encode=kinds.encode, decode=decode)
    assert caplog.text.count("holds Notes, which a newer kumafast has put there") == 1
    # Revisions go on, and the rest of a commit is there.
    commits = await take(older.watch(after=0), 3)
    assert [[change.key.type for change in commit.changes] for commit in commits] == [["Mesh", "Thing"], [], []]
    with pytest.raises(NotFoundError):
        await older.get(key("Note", "a"))
    with pytest.raises(ConflictError, match="mesh default holds what only a newer kumafast knows"):
        await older.delete(key("Mesh", "default"))
    assert (await older.put(Thing(name="of the older one"))).revision == 4
    await older.close()
    contents = await transfer.read(f"sqlite:{path}")
    assert contents.faults(decode) == []

    again = await kinds.open_sqlite(path)
    assert await again.get(key("Note", "a")) == (await again.list("Note")).items[0]
    assert await again.delete(key("Mesh", "default")) == 5
    await again.close()


async def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.db"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE bookmarks (url TEXT)")
    file.close()
    assert "another program" in await _refused(path)


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"this is not a database, but it is long enough to look like a file's header " * 100)
    assert "damaged" in await _refused(path)


async def test_a_place_that_cannot_hold_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "its folder must be there" in await _refused(tmp_path)
    assert "choose another path" in await _refused(tmp_path / "file" / "store.db")


async def _filled(path: Path) -> None:
    store = await kinds.open_sqlite(path)
    await store.write([Put(Thing(name=f"thing-{number}", value=number)) for number in range(2000)])
    await store.close()


async def test_a_damaged_page_is_noticed(path: Path) -> None:
    await _filled(path)
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096, 5):
        content[page * 4096 : page * 4096 + 512] = random.Random(5).randbytes(512)
    path.write_bytes(content)
    assert "damaged" in await _refused(path)


async def test_a_damaged_index_is_noticed(path: Path) -> None:
    await _filled(path)
    with sqlite3.connect(path) as file:
        [(root,)] = file.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_resources_1'")
    file.close()
    content = bytearray(path.read_bytes())
    # Reading the tables does not touch it; the next write would.
    content[(root - 1) * 4096 + 8 : (root - 1) * 4096 + 512] = random.Random(5).randbytes(504)
    path.write_bytes(content)
    assert "damaged" in await _refused(path)


async def test_a_file_that_was_cut_short_is_noticed(path: Path) -> None:
    await _filled(path)
    os.truncate(path, path.stat().st_size // 2)
    assert "damaged" in await _refused(path)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM changes WHERE revision = 2", "damaged"),
        ("DELETE FROM meta WHERE name = 'identity'", "damaged"),
        ("UPDATE resources SET content = 'nonsense' WHERE name = 'a'", "cannot be read"),
        ("UPDATE resources SET name = 'z' WHERE name = 'a'", "damaged"),
        ("UPDATE resources SET revision = 17 WHERE name = 'a'", "damaged"),
        ("DROP TABLE changes", "no such table"),
    ],
)
async def test_content_that_contradicts_itself_is_noticed(path: Path, statement: str, reason: str) -> None:
    store = await kinds.open_sqlite(path)
    for name in "abc":
        await store.put(Thing(name=name))
    await store.close()
    with sqlite3.connect(path) as file:
        file.execute(statement)
    file.close()
    assert reason in await _refused(path)
