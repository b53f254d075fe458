"""What the embedded store has acknowledged, held against what its file is found to hold after an error of the disk.

In: the image and the log in memory, an open file. Out: the file as it was acknowledged, and what was wrong with it.
Never: trust in what a disk holds after it has refused a write or a sync (docs/decisions/027-after-a-disk-failed.md).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from kumafast.resources.resource import ResourceKey
from kumafast.store.contents import Decode, Encode, Row, to_us
from kumafast.store.image import Image
from kumafast.store.sqlite_file import UnwritableError
from kumafast.store.store import Change, StoredResource
from kumafast.store.watch import CommitLog

_RESOURCE = f"INSERT OR REPLACE INTO resources ({', '.join(Row._fields)}) VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What a file has to hold. `unread` are rows of types that this kumafast does not know, which are named too."""

    image: Image
    log: CommitLog
    identity: str
    unread: Mapping[ResourceKey, Row]
    unknown_types: Collection[str]

    def restore(self, connection: sqlite3.Connection, *, encode: Encode, decode: Decode, name: str) -> list[str]:
        """Make it so in one transaction, which writes in any case; what was wrong, in words.

        O(what is stored). Raises `UnwritableError` for another store, `sqlite3.Error` where the disk fails.
        """
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        if meta.get("identity") != self.identity:
            raise UnwritableError(
                f"{name} is another than this process was started with; start it anew if that is meant"
            )
        wrong = dict(self._wrong_rows(connection, decode))
        is_log_whole = self._is_log_whole(connection)
        connection.execute("BEGIN IMMEDIATE")
        rows = (self._row(key, encode) for key in wrong)
        connection.executemany(_RESOURCE, (row for row in rows if row is not None))
        gone = (key for key in wrong if self._row(key, None) is None)
        connection.executemany("DELETE FROM resources WHERE type = ? AND mesh = ? AND name = ?", gone)
        # Without a log that leads to what is stored there is none: whoever watched lists again after a restart.
        floor = self.log.floor if is_log_whole else self.log.revision
        ahead = connection.execute("DELETE FROM changes WHERE revision > ?", (self.log.revision,)).rowcount
        connection.execute("DELETE FROM changes WHERE revision <= ?", (floor,))
        anew = {"floor": floor, "verified": self.log.revision}
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", anew.items())
        connection.execute("COMMIT")
        return [*wrong.values(), *(["its log was not as announced"] if ahead or not is_log_whole else [])]

    def _wrong_rows(self, connection: sqlite3.Connection, decode: Decode) -> Iterator[tuple[ResourceKey, str]]:
        wanted: dict[ResourceKey, StoredResource | Row] = {stored.resource.key: stored for stored in self.image.all()}
        wanted.update(self.unread)
        for values in connection.execute(f"SELECT {', '.join(Row._fields)} FROM resources"):
            row = Row(*values)
            expected = wanted.pop(row.key, None)
            if expected is None:
                yield row.key, f"{row.key} was there at revision {row.revision}, which was never acknowledged"
            elif not _is_same(row, expected, decode):
                yield row.key, f"{row.key} was not as acknowledged"
        for key in wanted:
            yield key, f"{key} was lost"

    def _row(self, key: ResourceKey, encode: Encode | None) -> Row | None:
        stored = self.image.find(key)
        if stored is None:
            return self.unread.get(key)
        content = b"" if encode is None else encode(stored.resource)
        return Row(*key, stored.revision, to_us(stored.creation_time), to_us(stored.modification_time), content)

    def _is_log_whole(self, connection: sqlite3.Connection) -> bool:
        """Whether what was announced is in the file's log, as far as we know it ourselves."""
        expected = [
            (revision, position, *change.key, change.stored is None)
            for revision in range(self.log.floor + 1, self.log.revision + 1)
            for position, change in enumerate(_changes(self.log, revision))
        ]
        rows = connection.execute(
            "SELECT revision, position, type, mesh, name, content IS NULL FROM changes"
            " WHERE revision > ? AND revision <= ? ORDER BY revision, position",
            (self.log.floor, self.log.revision),
        )
        found = [(*row[:-1], bool(row[-1])) for row in rows if row[2] not in self.unknown_types]
        return found == expected


def _changes(log: CommitLog, revision: int) -> tuple[Change, ...]:
    commit = log.read(revision)
    return () if commit is None else commit.changes


def _is_same(row: Row, expected: StoredResource | Row, decode: Decode) -> bool:
    if isinstance(expected, Row):
        return row == expected
    if row.revision != expected.revision:
        return False
    try:
        return decode(row.content) == expected.resource
    except Exception:
        return False
