"""The tables of the store in PostgreSQL, and how older ones are brought forward.

In: a connection. Out: tables that this kumafast can work on. Never: a change to tables that a newer kumafast needs.

`head` is one row: the counter of commits, which every write locks first, so that commits are ordered as they are
numbered. (A sequence would not do: its numbers become visible in another order than they were given.) `resources` holds
what is stored now; `changes` is the log, one row for each change, without content where the commit deleted. Revisions
in the log have no gaps; those up to `head.floor` were forgotten. `instances` has the leases (leases.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kumafast.errors import StoreUnavailableError
from kumafast.store.postgres.connection import Connection, Target


@dataclass(frozen=True, slots=True)
class Migration:
    """A step from one version of the schema to the next.

    `oldest` is the oldest version of kumafast's schema whose programs can go on working after it.
    """

    version: int
    oldest: int
    sql: str


MIGRATIONS = (
    Migration(
        version=1,
        oldest=1,
        sql="""
        CREATE TABLE head (
            is_head boolean PRIMARY KEY DEFAULT true CHECK (is_head),
            store text NOT NULL, version integer NOT NULL, oldest integer NOT NULL,
            revision bigint NOT NULL, floor bigint NOT NULL
        );
        CREATE TABLE resources (
            type text COLLATE "C" NOT NULL, mesh text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL,
            revision bigint NOT NULL, creation_us bigint NOT NULL, modification_us bigint NOT NULL,
            content bytea NOT NULL,
            PRIMARY KEY (type, mesh, name)
        );
        CREATE TABLE changes (
            revision bigint NOT NULL, position integer NOT NULL,
            type text COLLATE "C" NOT NULL, mesh text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL,
            creation_us bigint, modification_us bigint, content bytea, origin text NOT NULL,
            PRIMARY KEY (revision, position)
        );
        """,
    ),
    Migration(
        version=2,
        oldest=1,
        sql="""
        CREATE TABLE instances (
            id text PRIMARY KEY, seen_at timestamptz NOT NULL, asked bigint NOT NULL, converged bigint NOT NULL,
            pid integer NOT NULL, session timestamptz NOT NULL
        );
        """,
    ),
    Migration(
        version=3,
        oldest=1,
        sql="ALTER TABLE instances ADD COLUMN proxies integer NOT NULL DEFAULT 0",
    ),
)
"""In their order. What a version has once meant is never edited; another is added."""


async def prepare(connection: Connection, target: Target, *, migrations: tuple[Migration, ...] = MIGRATIONS) -> str:
    """Make the tables, or bring them forward; the store's identity.

    Raises `StoreUnavailableError` where only a newer kumafast can work on them.
    """
    newest = migrations[-1].version
    async with connection.transaction():
        # One at a time: several instances may start at once.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"kumafast schema {target.schema}")
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", target.schema):
            await connection.execute(f'CREATE SCHEMA "{target.schema}"')
        held = await _version(connection)
        if held is not None:
            _refuse_newer(held, target, newest=newest)
        version = 0 if held is None else held.version
        for migration in migrations:
            if migration.version > version:
                await connection.execute(migration.sql)
        if held is None:
            await connection.execute(
                "INSERT INTO head (store, version, oldest, revision, floor) VALUES ($1, $2, $3, 0, 0)",
                uuid4().hex,
                newest,
                max(migration.oldest for migration in migrations),
            )
        elif newest > version:
            await connection.execute(
                "UPDATE head SET version = $1, oldest = $2",
                newest,
                max(held.oldest, *(migration.oldest for migration in migrations)),
            )
        return str(await connection.fetchval("SELECT store FROM head"))


async def check(connection: Connection, target: Target) -> None:
    """Raise `StoreUnavailableError` where there is no store, or none that this kumafast can read."""
    held = await _version(connection)
    if held is None:
        raise StoreUnavailableError(f"{target.name} holds no store in its schema {target.schema}")
    _refuse_newer(held, target, newest=MIGRATIONS[-1].version)


def _refuse_newer(held: _Version, target: Target, *, newest: int) -> None:
    if held.oldest > newest:
        raise StoreUnavailableError(
            f"{target.name} was brought forward by a newer kumafast (schema {held.version}, for programs that know "
            f"{held.oldest} or newer; this one knows {newest}); run that one, or restore a backup of before"
        )


@dataclass(frozen=True, slots=True)
class _Version:
    version: int
    oldest: int


async def _version(connection: Connection) -> _Version | None:
    if not await connection.fetchval("SELECT to_regclass('head') IS NOT NULL"):
        return None
    row: Any = await connection.fetchrow("SELECT version, oldest FROM head")
    return None if row is None else _Version(int(row[0]), int(row[1]))
