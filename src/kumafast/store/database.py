"""The SQLite file of the embedded store: its tables, how it is opened, read and written.

In: a path; commits that are planned. Out: the image and the log that the file holds; durability once `record` returns.
Never: asyncio, or deciding what may be written. One thread at a time may use it.

`resources` holds what is stored now; `changes` is the log, one row for each change, with no content where the commit
deleted (a tombstone). Revisions in the log have no gaps; those up to `floor` were forgotten. The log is as long as the
history in memory (watch.py) and at most `TRIM_STEP` revisions longer, since forgetting is done in bulk.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

from kumafast import garbage
from kumafast.errors import StoreUnavailableError
from kumafast.resources.resource import Resource, ResourceKey
from kumafast.store.contents import Contents, LogRow, Row
from kumafast.store.image import Image
from kumafast.store.sealing import SEALED_TYPES
from kumafast.store.store import Change, Commit, StoredResource
from kumafast.store.watch import CommitLog

_LOG = logging.getLogger(__name__)

Encode = Callable[[Resource], bytes]
Decode = Callable[[bytes], Resource]
Renew = Callable[[bytes], bytes | None]
"""What a stored content should be instead; None where it should be as it is."""

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6B756D61
"""`kuma` in ASCII, in the file's header: what tells our file from another program's database."""
TRIM_STEP = 1_000
CHECKPOINT_CHANGES = 64
"""Changes after which the write-ahead log is moved into the file at the next moment without a write: in some
milliseconds. SQLite would do it within a commit, of 4 MB at once, and whoever waits for that waits 25 to 55 ms."""
LOCK_WAIT_S = 1.0
"""How long opening waits for a process that is just letting go of the file."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_SCHEMA = f"""
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE resources (
        type TEXT NOT NULL, mesh TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
        creation_us INTEGER NOT NULL, modification_us INTEGER NOT NULL, content BLOB NOT NULL,
        PRIMARY KEY (type, mesh, name)
    );
    CREATE TABLE changes (
        revision INTEGER NOT NULL, position INTEGER NOT NULL,
        type TEXT NOT NULL, mesh TEXT NOT NULL, name TEXT NOT NULL,
        creation_us INTEGER, modification_us INTEGER, content BLOB,
        PRIMARY KEY (revision, position)
    ) WITHOUT ROWID;
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
"""

_PUT = """
    INSERT INTO resources (type, mesh, name, revision, creation_us, modification_us, content)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (type, mesh, name) DO UPDATE SET
        revision = excluded.revision, creation_us = excluded.creation_us,
        modification_us = excluded.modification_us, content = excluded.content
"""
_APPEND = """
    INSERT INTO changes (revision, position, type, mesh, name, creation_us, modification_us, content)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


class Database:
    """One open file, locked for every other process until it is closed or its process ends."""

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        *,
        encode: Encode,
        decode: Decode,
        renew: Renew | None = None,
    ) -> None:
        self._path = path
        self._connection = connection
        self._encode = encode
        self._decode = decode
        self._renew = renew
        self._floor = 0
        # Changes in the write-ahead log; where writes leave no moment free SQLite moves it by itself.
        self._unmoved = 0
        # The time that was read last.
        self._created = (0, _EPOCH)
        self.identity = ""

    @classmethod
    def open(cls, path: Path, *, encode: Encode, decode: Decode, renew: Renew | None = None) -> Database:
        """Open a file, making it and its folders where they are missing, readable by its owner only.

        Raises `StoreUnavailableError`, which names the file and says what is the matter, where it cannot be used:
        locked, damaged, not ours, written by a newer kumafast, not to be written.
        """
        path = path.expanduser().absolute()
        try:
            _create(path)
            connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailableError(f"cannot open the store {path}: {error}") from error
        try:
            _prepare(connection, path)
            return cls(path, connection, encode=encode, decode=decode, renew=renew)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise _refusal(path, error) from error
            raise

    def load(self) -> tuple[Image, CommitLog]:
        """All that the file holds. Raises `StoreUnavailableError` where it is damaged or cannot be understood."""
        try:
            meta = dict(self._connection.execute("SELECT name, value FROM meta"))
            self.identity, self._floor = str(meta["identity"]), int(meta["floor"])
            # 50,000 dataplanes take 0.9 s of CPU so and 4.6 s otherwise.
            with garbage.left_alone():
                image = self._load_image()
                log = self._load_log(image)
                self._renew_all()
        except sqlite3.Error as error:
            raise _refusal(self._path, error) from error
        except (KeyError, ValueError) as error:
            raise StoreUnavailableError(f"the store {self._path} is damaged: {error!r}") from error
        if image.revision > log.revision:
            raise StoreUnavailableError(
                f"the store {self._path} is damaged: it holds revision {image.revision}, its log ends at {log.revision}"
            )
        image.revision = log.revision
        return image, log

    def record(self, commits: Sequence[Commit], *, floor: int) -> None:
        """Write commits in one transaction and return when they are on the disk; forget the log up to `floor`.

        Raises `StoreUnavailableError` where the file cannot be written, or what a resource's encoding raises; then
        nothing is written.
        """
        connection = self._connection
        try:
            if connection.in_transaction:
                # What the last call could not finish. Undone here and not there, because this may fail for as long as
                # the disk does; until it works nothing else is written.
                connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            self._insert(commits)
            is_long = floor - self._floor >= TRIM_STEP
            if is_long:
                connection.execute("DELETE FROM changes WHERE revision <= ?", (floor,))
                connection.execute("UPDATE meta SET value = ? WHERE name = 'floor'", (floor,))
            connection.execute("COMMIT")
        except BaseException as error:
            if isinstance(error, sqlite3.Error):
                raise StoreUnavailableError(f"the store {self._path} cannot be written: {error}") from error
            raise
        if is_long:
            self._floor = floor
        self._unmoved += sum(len(commit.changes) for commit in commits)

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether a moment without a write should be used for `checkpoint`."""
        return self._unmoved >= CHECKPOINT_CHANGES

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file. Nothing depends on it: where it fails the log stays as it is."""
        self._unmoved = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            _LOG.warning("the log of the store %s cannot be moved into it: %s", self._path, error)

    def contents(self) -> Contents:
        """All rows, once the file itself is found whole. Raises `StoreUnavailableError`."""
        try:
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)")]
            if found != ["ok"]:
                raise StoreUnavailableError(f"the store {self._path} is damaged: {'; '.join(found)}")
            resources = self._connection.execute(f"SELECT {', '.join(Row._fields)} FROM resources ORDER BY 1, 2, 3")
            log = self._connection.execute(
                f"SELECT {', '.join(LogRow._fields)} FROM changes ORDER BY revision, position"
            )
            floor = _number(self._connection, "SELECT value FROM meta WHERE name = 'floor'")
            newest = _number(self._connection, f"SELECT coalesce(max(revision), {floor}) FROM changes")
            return Contents(newest, floor, [Row(*row) for row in resources], [LogRow(*row) for row in log])
        except sqlite3.Error as error:
            raise _refusal(self._path, error) from error

    def fill(self, contents: Contents) -> None:
        """Take all that another store held, in one transaction. Raises `StoreUnavailableError` where one is here."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            if _number(self._connection, "SELECT (SELECT count(*) FROM resources) + (SELECT count(*) FROM changes)"):
                raise StoreUnavailableError(f"the store {self._path} is in use; only an empty one is filled")
            columns = ", ".join(Row._fields)
            self._connection.executemany(
                f"INSERT INTO resources ({columns}) VALUES ({', '.join('?' * len(Row._fields))})", contents.resources
            )
            self._connection.execute("UPDATE meta SET value = ? WHERE name = 'floor'", (contents.revision,))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"the store {self._path} cannot be written: {error}") from error

    def close(self) -> None:
        """Move the write-ahead log into the file and let go of it."""
        self._connection.close()

    def _insert(self, commits: Sequence[Commit]) -> None:
        log: list[tuple[Any, ...]] = []
        final: dict[ResourceKey, tuple[Any, ...] | None] = {}
        for commit in commits:
            for position, (key, stored) in enumerate((change.key, change.stored) for change in commit.changes):
                if stored is None:
                    log.append((commit.revision, position, *key, None, None, None))
                    final[key] = None
                else:
                    held = (
                        to_us(stored.creation_time),
                        to_us(stored.modification_time),
                        self._encode(stored.resource),
                    )
                    log.append((commit.revision, position, *key, *held))
                    final[key] = (*key, stored.revision, *held)
        self._connection.executemany(_APPEND, log)
        self._connection.executemany(_PUT, (row for row in final.values() if row is not None))
        self._connection.executemany(
            "DELETE FROM resources WHERE type = ? AND mesh = ? AND name = ?",
            (key for key, row in final.items() if row is None),
        )

    def _renew_all(self) -> None:
        """Write anew, in one transaction, what is to be kept in another form, such as under another key."""
        if self._renew is None:
            return
        statements: list[tuple[str, list[tuple[Any, ...]]]] = []
        for table, key in (("resources", ("type", "mesh", "name")), ("changes", ("revision", "position"))):
            rows = self._connection.execute(
                f"SELECT content, {', '.join(key)} FROM {table} WHERE content IS NOT NULL AND type IN {SEALED_TYPES}"
            )
            anew = [(content, *where) for old, *where in rows if (content := self._renew(old)) is not None]
            if anew:
                matching = " AND ".join(f"{name} = ?" for name in key)
                statements.append((f"UPDATE {table} SET content = ? WHERE {matching}", anew))
        if statements:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._connection.executemany(statement, values)
            self._connection.execute("COMMIT")

    def _load_image(self) -> Image:
        image = Image()
        rows = self._connection.execute(
            "SELECT type, mesh, name, revision, creation_us, modification_us, content FROM resources"
        )
        # Closed in any case: a statement that is half read keeps the file locked for as long as its error is looked at.
        with closing(rows):
            for type_name, mesh, name, revision, creation_us, modification_us, content in rows:
                key = ResourceKey(type_name, mesh, name)
                image.place(self._restore(key, revision, creation_us, modification_us, content), key)
                if revision > image.revision:
                    image.revision = revision
        return image

    def _load_log(self, image: Image) -> CommitLog:
        log = CommitLog(revision=self._floor)
        # What is as it is now is in the image already: its content, by far the most of a row, is not read again.
        rows = self._connection.execute(
            "SELECT revision, position, type, mesh, name, content IS NULL FROM changes ORDER BY revision, position"
        )
        with closing(rows):
            for revision, group in groupby(rows, key=itemgetter(0)):
                log.append(Commit(revision, tuple(self._changes(image, revision, group))))
        return log

    def _changes(self, image: Image, revision: int, rows: Iterator[Any]) -> Iterator[Change]:
        for _, position, type_name, mesh, name, is_gone in rows:
            key = ResourceKey(type_name, mesh, name)
            if is_gone:
                yield Change(key, None)
                continue
            current = image.find(key)
            if current is None or current.revision != revision:
                current = self._restore(key, revision, *self._held_then(revision, position))
            yield Change(key, current)

    def _held_then(self, revision: int, position: int) -> Any:
        return self._connection.execute(
            "SELECT creation_us, modification_us, content FROM changes WHERE revision = ? AND position = ?",
            (revision, position),
        ).fetchone()

    def _restore(
        self, key: ResourceKey, revision: int, creation_us: int, modification_us: int, content: bytes
    ) -> StoredResource:
        try:
            resource = self._decode(content)
        except Exception as error:
            raise StoreUnavailableError(f"the store {self._path} holds {key}, which cannot be read: {error}") from error
        if (resource.type.name, resource.mesh, resource.name) != key:
            raise StoreUnavailableError(f"the store {self._path} is damaged: {resource.key} is kept as {key}")
        # Most are as they were created, and those of one commit were created together.
        if creation_us != self._created[0]:
            self._created = (creation_us, from_us(creation_us))
        created = self._created[1]
        modified = created if modification_us == creation_us else from_us(modification_us)
        return StoredResource(resource, revision, created, modified)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        # Not to be opened here: closing a second descriptor would drop the locks of a store that this process has open.
        if path.is_file() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return
    os.close(descriptor)
    # The file's name must outlive a crash too.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    # Before anything is changed: another program's database is left exactly as it is.
    application_id, version = _number(connection, "PRAGMA application_id"), _number(connection, "PRAGMA user_version")
    is_new = application_id == 0 and version == 0 and not _number(connection, "SELECT count(*) FROM sqlite_master")
    if not is_new and application_id != APPLICATION_ID:
        raise StoreUnavailableError(
            f"{path} is a database of another program, not a kumafast store; choose another path"
        )
    if version > SCHEMA_VERSION:
        raise StoreUnavailableError(
            f"the store {path} was written by a newer kumafast (schema {version}, this one knows {SCHEMA_VERSION});"
            " run that one, or choose another path"
        )
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailableError(f"cannot open the store {path}: its file system allows no write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if is_new:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", [("identity", uuid4().hex), ("floor", 0)])
    connection.execute("COMMIT")
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreUnavailableError(f"the store {path} is damaged ({found}); restore it from a copy or move it away")


def _refusal(path: Path, error: sqlite3.Error) -> StoreUnavailableError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreUnavailableError(
            f"the store {path} is in use by another process; stop that one or choose another path"
        )
    if primary in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return StoreUnavailableError(f"the store {path} is damaged ({error}); restore it from a copy or move it away")
    return StoreUnavailableError(f"cannot open the store {path}: {error}")


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def to_us(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def from_us(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)
