"""The store's rows in PostgreSQL: all of them, those after a revision, and a group of commits more.

In: a connection in the right transaction; commits that are planned. Out: an image, commits that others have made.
Never: deciding what may be written, waiting for anything but PostgreSQL, or trying again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from kumafast.errors import StoreUnavailableError, UnknownTypeError
from kumafast.resources.resource import ResourceKey
from kumafast.store.contents import Decode, Encode, from_us, to_us
from kumafast.store.database import Renew
from kumafast.store.image import Image
from kumafast.store.postgres.connection import STATEMENT_S, Connection, Target, bounded
from kumafast.store.sealing import SEALED_TYPES
from kumafast.store.store import Change, Commit, StoredResource
from kumafast.store.watch import CommitLog

_LOG = logging.getLogger(__name__)

PIECE_COMMITS = 128
"""How many commits are read, and announced, before everything else has its turn: fewer than every watch is sure to
find (watch.py)."""
_TURN_S = 0.005

_READ = """
    SELECT revision, type, mesh, name, creation_us, modification_us, content, origin FROM changes
    WHERE revision > $1 AND revision <= $2 ORDER BY revision, position
"""
_APPEND = """
    WITH log AS (
        INSERT INTO changes (revision, position, type, mesh, name, creation_us, modification_us, content, origin)
        SELECT *, $9 FROM unnest(
            $1::bigint[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bytea[])
    ), put AS (
        INSERT INTO resources (type, mesh, name, revision, creation_us, modification_us, content)
        SELECT * FROM unnest(
            $10::text[], $11::text[], $12::text[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bytea[])
        ON CONFLICT (type, mesh, name) DO UPDATE SET
            revision = excluded.revision, creation_us = excluded.creation_us,
            modification_us = excluded.modification_us, content = excluded.content
    ), gone AS (
        DELETE FROM resources USING unnest($17::text[], $18::text[], $19::text[]) AS of (type, mesh, name)
        WHERE (resources.type, resources.mesh, resources.name) = (of.type, of.mesh, of.name)
    )
    UPDATE head SET revision = $20
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The counter: the revision of the newest commit, and up to which they were forgotten."""

    revision: int
    floor: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A commit as it was found, and whose it is: which group of writes of which instance."""

    commit: Commit
    origin: str


class PostgresDatabase:
    """How resources become rows, and rows resources."""

    def __init__(self, target: Target, *, encode: Encode, decode: Decode, renew: Renew | None) -> None:
        self._target = target
        self._encode = encode
        self._decode = decode
        self._renew = renew
        # Of the image that was loaded last.
        self._unread: set[ResourceKey] = set()
        self._unknown_types: set[str] = set()

    # Reading.

    async def head(self, connection: Connection) -> Head:
        """The counter as it is now."""
        row: Any = await connection.fetchrow("SELECT revision, floor FROM head")
        return Head(int(row[0]), int(row[1]))

    async def lock(self, connection: Connection) -> Head:
        """The counter, which nobody else moves until this transaction ends; all earlier commits can be seen then."""
        row: Any = await connection.fetchrow("SELECT revision, floor FROM head FOR UPDATE")
        return Head(int(row[0]), int(row[1]))

    async def read(self, connection: Connection, *, after: int, upto: int) -> list[Recorded]:
        """The commits after a revision, at most `PIECE_COMMITS`. Raises `StoreUnavailableError` for one that is not
        understood, or that is missing.
        """
        async with bounded(connection, STATEMENT_S):
            rows = await connection.fetch(_READ, after, min(upto, after + PIECE_COMMITS))
        # A commit may hold the statuses of many proxies: whoever is served here does not wait for them all.
        by_revision = groupby(rows, key=lambda row: int(row[0]))
        found = [self._commit(revision, list(group)) async for revision, group in _in_turns(by_revision)]
        expected = list(range(after + 1, min(upto, after + PIECE_COMMITS) + 1))
        if [recorded.commit.revision for recorded in found] != expected:
            raise StoreUnavailableError(f"{self._target.name} is damaged: its log has a gap after revision {after}")
        return found

    async def load(self, connection: Connection) -> tuple[Image, CommitLog, str]:
        """All that is stored, the log, and the origin of its newest commit; of one moment, in a transaction of its
        own. Raises `StoreUnavailableError` where it cannot be understood.
        """
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            head = await self.head(connection)
            resources = await connection.fetch(
                "SELECT revision, type, mesh, name, creation_us, modification_us, content FROM resources"
            )
            changes = await connection.fetch(_READ, head.floor, head.revision)
        image, log, origin = Image(), CommitLog(revision=head.floor, is_shared=True), ""
        self._unread = image.unread
        async for row in _in_turns(resources):
            stored = self._restore(row)
            if stored is not None:
                image.place(stored)
        image.revision = head.revision
        async for revision, group in _in_turns(groupby(changes, key=lambda row: int(row[0]))):
            recorded = self._commit(revision, list(group), image)
            log.append(recorded.commit)
            origin = recorded.origin
        if log.revision != head.revision:
            raise StoreUnavailableError(
                f"{self._target.name} is damaged: it is at revision {head.revision}, its log ends at {log.revision}"
            )
        return image, log, origin

    async def origin(self, connection: Connection, revision: int) -> str | None:
        """Whose commit a revision is; None where it was forgotten or never was."""
        found = await connection.fetchval("SELECT origin FROM changes WHERE revision = $1 LIMIT 1", revision)
        return None if found is None else str(found)

    async def knows(self, connection: Connection, origin: str) -> bool:
        """Whether a group of writes is in the log."""
        return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM changes WHERE origin = $1)", origin))

    # Writing, in a transaction that holds the counter.

    async def append(self, connection: Connection, commits: Sequence[Commit], *, origin: str) -> None:
        """Add commits to the log and do what they say."""
        log: list[tuple[Any, ...]] = []
        final: dict[ResourceKey, tuple[Any, ...] | None] = {}
        for commit in commits:
            for position, change in enumerate(commit.changes):
                stored = change.stored
                held: tuple[Any, ...] = (None, None, None)
                if stored is not None:
                    created, modified = to_us(stored.creation_time), to_us(stored.modification_time)
                    held = (created, modified, self._encode(stored.resource))
                log.append((commit.revision, position, *change.key, *held))
                final[change.key] = None if stored is None else (*change.key, stored.revision, *held)
        puts = [row for row in final.values() if row is not None]
        gone = [key for key, row in final.items() if row is None]
        await connection.execute(
            _APPEND, *_columns(log, 8), origin, *_columns(puts, 7), *_columns(gone, 3), commits[-1].revision
        )

    async def notify(self, connection: Connection, revision: int) -> None:
        """Wake those who listen and have not seen this revision, once this transaction is committed."""
        await connection.execute("SELECT pg_notify($1, $2)", self._target.channel, str(revision))

    async def forget(self, connection: Connection, *, floor: int) -> None:
        """Drop the log up to a revision."""
        await connection.execute("DELETE FROM changes WHERE revision <= $1", floor)
        await connection.execute("UPDATE head SET floor = $1", floor)

    async def jump(self, connection: Connection, *, revision: int) -> None:
        """Go on counting after a revision that was given out by a history that has gone; the log begins there."""
        await connection.execute("DELETE FROM changes")
        await connection.execute("UPDATE head SET revision = $1, floor = $1", revision)

    async def renew(self, connection: Connection) -> None:
        """Write anew what is to be kept in another form, such as under another key; no commit, nothing else differs."""
        if self._renew is None:
            return
        async with connection.transaction():
            await self.lock(connection)
            for table in ("resources", "changes"):
                rows = await connection.fetch(
                    f"SELECT ctid, content FROM {table} WHERE type = ANY($1) AND content IS NOT NULL", SEALED_TYPES
                )
                for row in rows:
                    content = self._renew(row["content"])
                    if content is not None:
                        await connection.execute(
                            f"UPDATE {table} SET content = $1 WHERE ctid = $2", content, row["ctid"]
                        )

    # Rows.

    def _commit(self, revision: int, rows: Sequence[Any], image: Image | None = None) -> Recorded:
        # A commit of what is not known here is one without changes: revisions have no gaps.
        changes = (self._change(row, image) for row in rows)
        return Recorded(
            Commit(revision, tuple(change for change in changes if change is not None)), origin=str(rows[0]["origin"])
        )

    def _change(self, row: Any, image: Image | None) -> Change | None:
        key = ResourceKey(row["type"], row["mesh"], row["name"])
        if row["content"] is None:
            if key in self._unread:
                self._unread.discard(key)
                return None
            return None if key.type in self._unknown_types else Change(key, None)
        current = None if image is None else image.find(key)
        if current is not None and current.revision == row["revision"]:
            return Change(key, current)
        stored = self._restore(row)
        return None if stored is None else Change(key, stored)

    def _restore(self, row: Any) -> StoredResource | None:
        """What a row holds; None where it is of a type that only a newer kumafast knows, and stays as it is."""
        key = ResourceKey(row["type"], row["mesh"], row["name"])
        try:
            resource = self._decode(row["content"])
        except UnknownTypeError:
            self._unread.add(key)
            if key.type not in self._unknown_types:
                self._unknown_types.add(key.type)
                _LOG.warning(
                    "%s holds %ss, which a newer kumafast has put there: they stay, and do nothing here",
                    self._target.name,
                    key.type,
                )
            return None
        except Exception as error:
            raise StoreUnavailableError(f"{self._target.name} holds {key}, which cannot be read: {error}") from error
        if resource.key != key:
            raise StoreUnavailableError(f"{self._target.name} is damaged: {resource.key} is kept as {key}")
        return StoredResource(resource, row["revision"], from_us(row["creation_us"]), from_us(row["modification_us"]))


def _columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    return [[row[index] for row in rows] for index in range(count)]


async def _in_turns(rows: Iterable[Any]) -> AsyncIterator[Any]:
    """The rows, with pauses in which everything else has its turn: proxies are served while all is read anew."""
    began = time.monotonic()
    for row in rows:
        yield row
        if time.monotonic() - began >= _TURN_S:
            await asyncio.sleep(0)
            began = time.monotonic()
