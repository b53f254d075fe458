"""The SQLite file of the embedded store: its tables, how it is opened, read and written.

In: a path; commits that are planned. Out: the image and the log that the file holds; durability once `record` returns.
Never: asyncio, or deciding what may be written. One thread at a time may use it.

`resources` holds what is stored now; `changes` is the log, one row for each change, with no content where the commit
deleted (a tombstone). Revisions in the log have no gaps; those up to `floor` were forgotten. The log is as long as the
history in memory (watch.py) and at most `TRIM_STEP` revisions longer, since forgetting is done in bulk.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from kumafast import garbage
from kumafast.errors import StoreUnavailableError, UnknownTypeError
from kumafast.resources.resource import ResourceKey
from kumafast.store import sqlite_file
from kumafast.store.acknowledged import Acknowledged
from kumafast.store.contents import Contents, Decode, Encode, LogRow, Row, from_us, to_us
from kumafast.store.image import Image
from kumafast.store.sealing import SEALED_TYPES
from kumafast.store.store import Change, Commit, StoredResource
from kumafast.store.watch import CommitLog

_LOG = logging.getLogger(__name__)

Renew = Callable[[bytes], bytes | None]
"""What a stored content should be instead; None where it should be as it is."""

TRIM_STEP = 1_000
CHECKPOINT_CHANGES = 64
"""Changes after which the write-ahead log is moved into the file at the next moment without a write: in some
milliseconds. SQLite would do it within a commit, of 4 MB at once, and whoever waits for that waits 25 to 55 ms."""


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
        self.path = self._path = path
        self._connection = connection
        self._encode = encode
        self._decode = decode
        self._renew = renew
        self._inode = sqlite_file.inode(path)
        self._floor = 0
        self._unread: dict[ResourceKey, Row] = {}
        self._unknown_types: set[str] = set()
        self.is_doubtful = False
        """Whether the file may not be what was acknowledged: `verify` it before anything is written."""
        # Changes in the write-ahead log; where writes leave no moment free SQLite moves it by itself.
        self._unmoved = 0
        # The time that was read last.
        self._created = (0, from_us(0))
        self.identity = ""

    @classmethod
    def open(cls, path: Path, *, encode: Encode, decode: Decode, renew: Renew | None = None) -> Database:
        """Open a file, making it and its folders where they are missing, readable by its owner only.

        Raises `StoreUnavailableError`, which names the file and says what is the matter, where it cannot be used:
        locked, damaged, not ours, written by a newer kumafast, not to be written.
        """
        path = path.expanduser().absolute()
        return cls(path, sqlite_file.connect(path), encode=encode, decode=decode, renew=renew)

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
            raise sqlite_file.refusal(self._path, error) from error
        except (KeyError, ValueError) as error:
            raise sqlite_file.damaged(self._path, repr(error)) from error
        if image.revision > log.revision:
            raise sqlite_file.damaged(self._path, f"it holds revision {image.revision}, its log ends at {log.revision}")
        image.revision = log.revision
        return image, log

    def record(self, commits: Sequence[Commit], *, floor: int) -> None:
        """Write commits in one transaction and return when they are on the disk; forget the log up to `floor`.

        Raises `StoreUnavailableError` where the file cannot be written, or what a resource's encoding raises; then
        nothing is written, or `is_doubtful` says that this is not sure.
        """
        connection = self._connection
        self._check_place()
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
        except sqlite3.Error as error:
            raise self._failure(error) from error
        if is_long:
            self._floor = floor
        self._unmoved += sum(len(commit.changes) for commit in commits)

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether a moment without a write should be used for `checkpoint`."""
        return self._unmoved >= CHECKPOINT_CHANGES

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file. Raises `StoreUnavailableError`; the log stays as it is then."""
        self._unmoved = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def try_out(self) -> None:
        """Write something that is of no meaning. Raises `StoreUnavailableError` where that cannot be done."""
        self._check_place()
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('tried', ?)", (time.time_ns(),))
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def verify(self, image: Image, log: CommitLog) -> list[str]:
        """Find out what is on the disk, and make it what was acknowledged: `image` and `log`. What was wrong, in words.

        The file is opened anew, past what the kernel remembers of it. One that is damaged, or gone, is written anew.
        Raises `StoreUnavailableError` where that cannot be done; `is_doubtful` then stays.
        """
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        acknowledged = Acknowledged(image, log, self.identity, self._unread, self._unknown_types)
        try:
            sqlite_file.forget_cached(self._path)
            try:
                wrong = self._reopen(acknowledged)
            except sqlite_file.DamagedError as error:
                wrong = [str(error).partition(";")[0]]
                self._write_anew(acknowledged)
            self._inode = sqlite_file.inode(self._path)
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise self._failure(error) from error
        except OSError as error:
            raise sqlite_file.unusable(self._path, error) from error
        self._floor = sqlite_file.number(self._connection, "SELECT value FROM meta WHERE name = 'floor'")
        self._unmoved, self.is_doubtful = 0, False
        return wrong

    def _reopen(self, acknowledged: Acknowledged) -> list[str]:
        if not self._path.exists():
            raise sqlite_file.damaged(self._path, "it is not there")
        self._connection = sqlite_file.connect(self._path, identity=self.identity)
        try:
            return self._restore_to(acknowledged, self._connection)
        except sqlite3.Error as error:
            self._connection.close()
            raise sqlite_file.refusal(self._path, error) from error

    def _write_anew(self, acknowledged: Acknowledged) -> None:
        # Beside it, so that whoever dies in the middle does not leave a store with less in it than there was.
        beside = sqlite_file.anew(self._path)
        with contextlib.closing(sqlite_file.connect(beside, identity=self.identity)) as connection:
            self._restore_to(acknowledged, connection)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sqlite_file.take_place(self._path, beside)
        self._connection = sqlite_file.connect(self._path)

    def _restore_to(self, acknowledged: Acknowledged, connection: sqlite3.Connection) -> list[str]:
        name = f"the store {self._path}"
        return acknowledged.restore(connection, encode=self._encode, decode=self._decode, name=name)

    def _check_place(self) -> None:
        """Whether the file is still the one that was opened: writes to one that was removed would be lost."""
        if sqlite_file.inode(self._path) != self._inode:
            self.is_doubtful = True
            raise sqlite_file.UnwritableError(
                f"the store {self._path} was removed, or another file was put in its place"
            )

    def _failure(self, error: sqlite3.Error) -> sqlite_file.UnwritableError:
        # A full disk, and one that may not be written to, take nothing. Whatever else it was, that a commit failed does
        # not say that it is not on the disk, nor that what was there before still is.
        if sqlite_file.primary_code(error) not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_TOOBIG}:
            self.is_doubtful = True
        return sqlite_file.refusal(self._path, error, what="cannot be written")

    def contents(self) -> Contents:
        """All rows, once the file itself is found whole. Raises `StoreUnavailableError`."""
        try:
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)")]
            if found != ["ok"]:
                raise sqlite_file.damaged(self._path, "; ".join(found))
            resources = self._connection.execute(f"SELECT {', '.join(Row._fields)} FROM resources ORDER BY 1, 2, 3")
            log = self._connection.execute(
                f"SELECT {', '.join(LogRow._fields)} FROM changes ORDER BY revision, position"
            )
            floor = sqlite_file.number(self._connection, "SELECT value FROM meta WHERE name = 'floor'")
            newest = sqlite_file.number(self._connection, f"SELECT coalesce(max(revision), {floor}) FROM changes")
            return Contents(newest, floor, [Row(*row) for row in resources], [LogRow(*row) for row in log])
        except sqlite3.Error as error:
            raise sqlite_file.refusal(self._path, error) from error

    def fill(self, contents: Contents) -> None:
        """Take all that another store held, in one transaction. Raises `StoreUnavailableError` where one is here."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            if sqlite_file.number(
                self._connection, "SELECT (SELECT count(*) FROM resources) + (SELECT count(*) FROM changes)"
            ):
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
                stored = self._restore(key, revision, creation_us, modification_us, content)
                if stored is not None:
                    image.place(stored, key)
                else:
                    image.unread.add(key)
                    self._unread[key] = Row(*key, revision, creation_us, modification_us, content)
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
                # A commit of what is not known here is one without changes: revisions have no gaps.
                if type_name not in self._unknown_types:
                    yield Change(key, None)
                continue
            current = image.find(key)
            if current is None or current.revision != revision:
                current = self._restore(key, revision, *self._held_then(revision, position))
            if current is not None:
                yield Change(key, current)

    def _held_then(self, revision: int, position: int) -> Any:
        return self._connection.execute(
            "SELECT creation_us, modification_us, content FROM changes WHERE revision = ? AND position = ?",
            (revision, position),
        ).fetchone()

    def _restore(
        self, key: ResourceKey, revision: int, creation_us: int, modification_us: int, content: bytes
    ) -> StoredResource | None:
        """What a row holds; None where it is of a type that only a newer kumafast knows, and stays as it is."""
        try:
            resource = self._decode(content)
        except UnknownTypeError:
            if key.type not in self._unknown_types:
                self._unknown_types.add(key.type)
                _LOG.warning(
                    "the store %s holds %ss, which a newer kumafast has put there: they stay, and do nothing here",
                    self._path,
                    key.type,
                )
            return None
        except Exception as error:
            raise StoreUnavailableError(f"the store {self._path} holds {key}, which cannot be read: {error}") from error
        if (resource.type.name, resource.mesh, resource.name) != key:
            raise sqlite_file.damaged(self._path, f"{resource.key} is kept as {key}")
        # Most are as they were created, and those of one commit were created together.
        if creation_us != self._created[0]:
            self._created = (creation_us, from_us(creation_us))
        created = self._created[1]
        modified = created if modification_us == creation_us else from_us(modification_us)
        return StoredResource(resource, revision, created, modified)
