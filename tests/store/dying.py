"""Processes that die at a chosen point of a store's work: `python -m tests.store.dying` starts one for each request.

In: one line of JSON on stdin for each process. Out: how it ended, and what it said until then. Never: two at a time.

All are forks of one that has imported everything, so that a death costs milliseconds. Each writes in fours, watches
what it writes, and says every step in one piece, so that a line that came was said whole.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
from tests.store import kinds
from tests.store.kinds import Thing

from kumafast.errors import ConflictError
from kumafast.store import Delete, Put, Store
from kumafast.store import database as files
from kumafast.store import watch as logs
from kumafast.store.memory import MemoryStore
from kumafast.store.postgres import PostgresStore
from kumafast.store.postgres import store as postgres_stores
from kumafast.store.postgres.database import PostgresDatabase

STATEMENTS = {
    "begin": "BEGIN IMMEDIATE",
    "half": "INSERT INTO resources",
    "commit": "COMMIT",
    "forget": "DELETE FROM changes",
    "checkpoint": "PRAGMA wal_checkpoint",
    "create": "CREATE TABLE",
    "renew": "UPDATE",
}
"""What SQLite is told at each of its points."""
WRITERS = 4


class Point:
    """Kills this process before or after something is done for the n-th time."""

    def __init__(self, *, when: str, after: int) -> None:
        self._when = when
        self._left = after

    def before(self) -> None:
        self._left -= 1
        if self._left < 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self) -> None:
        if self._left < 0 and self._when == "after":
            os.kill(os.getpid(), signal.SIGKILL)


class _Connection(sqlite3.Connection):
    """Dies at a statement."""

    at = ""
    point: Point

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return self._at(sql, lambda: super(_Connection, self).execute(sql, *values))

    def executemany(self, sql: str, values: Any, /) -> sqlite3.Cursor:
        return self._at(sql, lambda: super(_Connection, self).executemany(sql, values))

    def _at(self, sql: str, do: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        if not self.at or not sql.strip().startswith(self.at):
            return do()
        self.point.before()
        result = do()
        self.point.after()
        return result


async def _open_sqlite(url: str, name: str, point: Point) -> Store:
    # A short log, so that it is cut and moved often.
    logs.OWN_CHANGES_MAX, files.TRIM_STEP, files.CHECKPOINT_CHANGES = 40, 5, 8
    _Connection.at, _Connection.point = STATEMENTS.get(name, ""), point
    real = sqlite3.connect
    sqlite3.connect = lambda *given, **named: real(*given, factory=_Connection, **named)  # type: ignore[assignment]
    renew: Callable[[bytes], bytes] | None = None
    if name == "renew":
        files.SEALED_TYPES = ("Thing", "Note")  # type: ignore[attr-defined]
        renew = _renew
    opening = files.Database.open
    files.Database.open = lambda path, **named: opening(path, **{**named, "renew": renew})  # type: ignore[method-assign]
    if name == "announce":
        MemoryStore._announce = _dying(MemoryStore._announce, point)  # type: ignore[method-assign]
    if name == "wake":
        logs.CommitLog.append = _dying(logs.CommitLog.append, point)  # type: ignore[method-assign]
    return await kinds.open_sqlite(Path(url.removeprefix("sqlite:")))


def _renew(content: bytes) -> bytes:
    """Another form of the same."""
    return content.removesuffix(b" ") if content.endswith(b" ") else content + b" "


def _dying(real: Callable[..., Any], point: Point) -> Callable[..., Any]:
    def dies(*given: Any) -> Any:
        point.before()
        result = real(*given)
        point.after()
        return result

    return dies


async def _open_postgres(url: str, name: str, point: Point) -> Store:
    logs.HISTORY_CHANGES_MAX, logs.HISTORY_COMMITS_MIN = 40, 20
    postgres_stores.TRIM_STEP = 5  # type: ignore[attr-defined]
    store: PostgresStore = await kinds.open_postgres(url)
    owner: Any = asyncpg.transaction.Transaction if name == "commit" else PostgresDatabase
    real = getattr(owner, name)

    async def dies(*given: Any, **named: Any) -> Any:
        point.before()
        result = await real(*given, **named)
        point.after()
        return result

    setattr(owner, name, dies)
    return store


async def work(url: str, prefix: str, name: str, point: Point, *, writes: int, say: Callable[[str], object]) -> None:
    """Write until the point is met, or so often."""
    store = await (_open_sqlite if url.startswith("sqlite:") else _open_postgres)(url, name, point)
    revision = await store.revision()
    say(f"opened {revision}")
    watching = asyncio.create_task(_watch(store, revision, say))

    async def write(writer: int) -> None:
        for number in range(writer, writes, WRITERS):
            name = f"{prefix}-{number}"
            say(f"begun {name}")
            if number % 7 == 6:
                # Of two halves the second cannot be.
                try:
                    await store.write([Put(Thing(name=name)), Put(Thing(name=f"{prefix}-first"), expected_revision=0)])
                except ConflictError:
                    say(f"refused {name}")
                continue
            operations: list[Put | Delete] = [Put(Thing(name=name)), Put(Thing(name=name + "-twin"))]
            if number % 5 == 4:
                operations.append(Put(Thing(name=f"{prefix}-gone-{number}")))
                operations.append(Delete(kinds.key("Thing", f"{prefix}-gone-{number}")))
            await store.write(operations)
            say(f"done {name}")

    await store.write([Put(Thing(name=f"{prefix}-first")), Put(Thing(name=f"{prefix}-first-twin"))])
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await store.close()


async def _watch(store: Store, after: int, say: Callable[[str], object]) -> None:
    async for commit in store.watch(after=after):
        say(f"seen {commit.revision}")


def _fork(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        point = Point(when=request["when"], after=request["after"])
        status = 1
        try:
            asyncio.run(
                work(
                    request["url"], request["prefix"], request["point"], point, writes=request["writes"],
                    say=lambda words: os.write(writing, f"{words}\n".encode()),
                )
            )  # fmt: skip
            status = 0
        except BaseException as error:
            os.write(writing, f"failed {error!r}\n".encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as said:
        lines = said.read().splitlines()
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "said": lines}


def main() -> None:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_fork(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
