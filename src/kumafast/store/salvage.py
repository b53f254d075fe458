"""What can still be read of a damaged file of the embedded store.

In: its path. Out: `Contents` that another store can be filled with, and in words what is missing. Never: a change of
the damaged file, which is copied before it is opened; a guess at what a page that cannot be read has held.

Three things in the file tell of one another: the table, its index by name, and the log of changes. What one has lost is
taken from another where it is as new; what is only known by name is named.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

from kumafast.errors import StoreUnavailableError
from kumafast.resources.resource import ResourceKey
from kumafast.store import sqlite_file
from kumafast.store.contents import Contents, Decode, Row, described

_COLUMNS = ", ".join(Row._fields)
_ROWS = f"SELECT rowid, {_COLUMNS} FROM resources"
_CHANGES = "SELECT type, mesh, name, revision, creation_us, modification_us, content FROM changes"
_NAMES = "SELECT type, mesh, name FROM resources INDEXED BY sqlite_autoindex_resources_1"
_PAGE = 4096


def salvage(path: Path, decode: Decode) -> tuple[Contents, list[str]]:
    """All that can be read, and what could not. Raises `StoreUnavailableError` where that is nothing."""
    with tempfile.TemporaryDirectory(prefix="kumafast-salvage-") as folder:
        copy = Path(folder) / "store.db"
        try:
            shutil.copyfile(path, copy)
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}-wal", f"{copy}-wal")
        except OSError as error:
            raise sqlite_file.unusable(path, error) from error
        _mend_header(copy)
        try:
            with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                contents, missing = _read(connection, decode)
        except sqlite3.Error as error:
            raise StoreUnavailableError(
                f"nothing can be read of the store {path}: {error}; restore a backup"
            ) from error
    if not contents.resources and not missing:
        raise StoreUnavailableError(f"nothing can be read of the store {path}; restore a backup")
    return contents, missing


def _read(connection: sqlite3.Connection, decode: Decode) -> tuple[Contents, list[str]]:
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    held: dict[ResourceKey, Row] = {}
    for values in _table_rows(connection):
        if _is_row(values):
            held[Row._make(values).key] = Row._make(values)
    gone: set[ResourceKey] = set()
    revision = max((row.revision for row in held.values()), default=0)
    changes = _from_both_ends(connection, _CHANGES, "revision {0}, position {0}")
    for *start, content in sorted(filter(_is_change, changes), key=itemgetter(3)):
        row = Row._make([*start, content or b""])
        revision = max(revision, row.revision)
        if content is None:
            gone.add(row.key)
            held.pop(row.key, None)
        elif row.key not in held or held[row.key].revision < row.revision:
            gone.discard(row.key)
            held[row.key] = row
    found = _from_both_ends(connection, _NAMES, "type {0}, mesh {0}, name {0}")
    names = {ResourceKey(*row) for row in found if all(isinstance(value, str) for value in row)}
    lost = [f"{described(key)} cannot be read" for key in sorted(names - held.keys() - gone)]
    contents = Contents(revision, revision, [held[key] for key in sorted(held)])
    kept, dropped = _usable(contents, decode)
    return kept, [*lost, *dropped]


def _usable(contents: Contents, decode: Decode) -> tuple[Contents, list[str]]:
    """Without those that a store would not take: that say something else than their row, or miss mesh or owner."""
    dropped: list[str] = []
    while True:
        faulty = {row.key: words for row in contents.resources for words in contents.faults_of(row, decode)}
        if not faulty:
            return contents, dropped
        dropped += faulty.values()
        rest = [row for row in contents.resources if row.key not in faulty]
        contents = Contents(contents.revision, contents.floor, rest)


def _table_rows(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    seen: set[int] = set()
    for rowid, *values in _from_both_ends(connection, _ROWS, "rowid {0}"):
        seen.add(rowid)
        yield tuple(values)
    # Between the first and the last page that cannot be read, one by one.
    for rowid in range(min(seen, default=0), max(seen, default=0)):
        if rowid not in seen:
            with suppress(sqlite3.Error):
                yield from (tuple(row[1:]) for row in connection.execute(f"{_ROWS} WHERE rowid = ?", (rowid,)))


def _from_both_ends(connection: sqlite3.Connection, query: str, order: str) -> Iterator[tuple[Any, ...]]:
    """The rows until the first that cannot be read, and from the other end until the last one."""
    for direction in ("ASC", "DESC"):
        try:
            yield from connection.execute(f"{query} ORDER BY {order.format(direction)}")
            return
        except sqlite3.Error:
            continue


def _mend_header(copy: Path) -> None:
    """The first 100 bytes are the same in each of our files but for counters: where they are none, write them anew."""
    with copy.open("r+b") as file:
        header = file.read(100)
        if header.startswith(b"SQLite format 3\0"):
            # One that was cut short is read as far as it goes.
            file.truncate(max(file.seek(0, 2), _PAGE * int.from_bytes(header[28:32], "big")))
            return
        file.seek(0, 2)
        pages = file.tell() // _PAGE
        # https://www.sqlite.org/fileformat.html#the_database_header
        header = struct.pack(
            ">16sHBBBBBB12I20xII",
            *(b"SQLite format 3\0", _PAGE, 2, 2, 0, 64, 32, 32),
            *(1, pages, 0, 0, 1, 4, 0, 0, 1, sqlite_file.SCHEMA_VERSION, 0, sqlite_file.APPLICATION_ID),
            *(1, sqlite3.sqlite_version_info[0] * 1_000_000),
        )
        file.seek(0)
        file.write(header)


def _is_row(values: Sequence[Any]) -> bool:
    """Whether a row has what its columns may hold, which nobody checks in a page that was written over."""
    kinds = (str, str, str, int, int, int, bytes)
    return all(isinstance(value, kind) for value, kind in zip(values, kinds, strict=True))


def _is_change(values: Sequence[Any]) -> bool:
    if values[-1] is None:
        return _is_row((*values[:4], 0, 0, b""))
    return _is_row(values)
