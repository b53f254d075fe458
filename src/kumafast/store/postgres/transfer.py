"""The contents of the store in PostgreSQL, read and written as a whole.

In: the URL of a store. Out: its `Contents` at one moment, while instances go on; an empty store filled with them.
Never: tables that are made by being read, or rows that are written over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from kumafast.errors import StoreUnavailableError
from kumafast.store.contents import Contents, LogRow, Row
from kumafast.store.postgres import schema
from kumafast.store.postgres.connection import (
    LOAD_S,
    UNREACHABLE,
    Connection,
    Target,
    bounded,
    connect,
    disconnect,
    give_time,
    parse_url,
    unavailable,
)

_FILL = """
    INSERT INTO resources (type, mesh, name, revision, creation_us, modification_us, content)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[])
"""


async def read(url: str) -> Contents:
    """All that is stored. Raises `StoreUnavailableError`."""
    target = parse_url(url)
    async with _connected(target) as connection:
        await schema.check(connection, target)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            revision, floor = await connection.fetchrow("SELECT revision, floor FROM head")
            resources = await connection.fetch(
                "SELECT type, mesh, name, revision, creation_us, modification_us, content FROM resources"
                " ORDER BY type, mesh, name"
            )
            log = await connection.fetch(
                "SELECT revision, type, mesh, name, content FROM changes ORDER BY revision, position"
            )
    return Contents(revision, floor, [Row(*row) for row in resources], [LogRow(*row) for row in log])


async def fill(url: str, contents: Contents) -> None:
    """Write all of it into an empty store, in one transaction. Raises `StoreUnavailableError`."""
    target = parse_url(url)
    async with _connected(target) as connection:
        await schema.prepare(connection, target)
        async with connection.transaction():
            revision = await connection.fetchval("SELECT revision FROM head FOR UPDATE")
            if revision:
                raise StoreUnavailableError(
                    f"{target.name} is in use, at revision {revision}; only an empty store is filled"
                )
            await connection.execute(_FILL, *([row[index] for row in contents.resources] for index in range(7)))
            await connection.execute(
                "UPDATE head SET revision = $1, floor = $1, store = $2", contents.revision, uuid4().hex
            )


@asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[Connection]:
    try:
        connection = await connect(target)
        try:
            async with bounded(connection, LOAD_S):
                await give_time(connection, LOAD_S)
                yield connection
        finally:
            await disconnect(connection)
    except UNREACHABLE as error:
        raise unavailable(target, error, what="cannot be used") from error
