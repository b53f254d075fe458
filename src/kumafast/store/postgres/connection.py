"""How PostgreSQL is reached: its URL, a connection that cannot hang, and what tells one history from another.

In: a `postgres://` URL. Out: connections to the primary, bounded in time on both ends. Never: SQL of the store's own
tables; a password in an error or a log.

An instance has two connections and never more: one writes, one listens and reads what others have written. Each step
on them has an end: PostgreSQL ends statements and idle transactions, so that nobody who is stuck holds the counter row;
here a timer cuts a connection whose other end says nothing, as when it is stopped or a network swallows packets.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from kumafast.errors import SettingsError, StoreUnavailableError

Connect: TypeAlias = Callable[..., Awaitable[Any]]
"""As `connect`."""

_LOG = logging.getLogger(__name__)

Connection: TypeAlias = asyncpg.Connection

CONNECT_S = 2.0
"""How long PostgreSQL has to let us in, and to set up the session."""
RECONNECT_S_MAX = 1.0
"""The longest pause before another attempt to reach a PostgreSQL that is away."""
STATEMENT_S = 3.0
"""How long a statement may take in PostgreSQL, and how long a transaction may wait there for its client: an instance
that is stopped in the middle of a write holds the others up for so long."""
LOAD_S = 120.0
"""How long all may take to be read."""

DEFAULT_SCHEMA = "kumafast"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}", re.ASCII)

UNREACHABLE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a connection raises that is of no more use. `TimeoutError` is an `OSError`."""

REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,
)
"""What does not get better by trying again."""

_SESSION = {
    "application_name": "kumafast",
    "statement_timeout": f"{STATEMENT_S * 1000:.0f}",
    "lock_timeout": f"{STATEMENT_S * 1000:.0f}",
    "idle_in_transaction_session_timeout": f"{STATEMENT_S * 1000:.0f}",
    # For a client that has vanished without a word: its session goes, and its locks with it.
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "6000",
    "client_connection_check_interval": "2000",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Which database, and which schema (a namespace of tables) in it; `name` says so without a password."""

    dsn: str
    schema: str
    name: str

    @property
    def channel(self) -> str:
        """Where commits are announced: channels are of the whole database, so that it names the schema."""
        return f"kumafast_{self.schema}"


@dataclass(frozen=True, slots=True)
class History:
    """Whose revisions these are: the cluster, its timeline, which changes at each failover, and the store in it."""

    system: str
    timeline: str
    store: str


def parse_url(url: str) -> Target:
    """A URL as libpq takes it (several hosts, `sslmode`, `sslrootcert`), and `schema=NAME`. Raises `SettingsError`."""
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    schema = next((value for name, value in given if name == "schema"), DEFAULT_SCHEMA)
    if not _NAME.fullmatch(schema):
        raise SettingsError(f"the schema of the store is a name of a-z, 0-9 and _, got {schema!r}")
    if not parts.path.strip("/"):
        # The rest of the URL is not repeated, for it may hold a password.
        raise SettingsError("the store's URL names no database: postgres://USER:PASSWORD@HOST:PORT/DATABASE")
    query = urlencode([(name, value) for name, value in given if name != "schema"], quote_via=quote)
    hosts = parts.netloc.rpartition("@")[2] or "localhost"
    return Target(
        dsn=urlunsplit(("postgresql", parts.netloc, parts.path, query, "")),
        schema=schema,
        name=f"PostgreSQL at {hosts}{parts.path}",
    )


async def connect(target: Target, *, timeout_s: float = CONNECT_S) -> Connection:
    """A connection to the primary, set up for `target.schema`, within a time. Raises one of `UNREACHABLE`."""
    deadline = time.monotonic() + timeout_s
    connection = await asyncpg.connect(target.dsn, timeout=timeout_s, target_session_attrs="primary")
    try:
        async with bounded(connection, max(deadline - time.monotonic(), 0.0)):
            # Said afterwards and not at the beginning, since poolers in between know few of these.
            settings = {**_SESSION, "search_path": target.schema}
            await connection.execute(
                "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS given (name, value)",
                list(settings),
                list(settings.values()),
            )
            # What is acknowledged must outlive a crash; a stronger setting than that is the operator's to choose.
            await connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'"
            )
    except BaseException:
        connection.terminate()
        raise
    return connection


@asynccontextmanager
async def bounded(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """Cut the connection where what is done in here does not end in time; what waits on it then raises TimeoutError.

    A timer and not asyncpg's own time-outs, which open another connection to ask PostgreSQL to stop.
    """
    is_cut = False

    def cut() -> None:
        nonlocal is_cut
        is_cut = True
        connection.terminate()

    timer = asyncio.get_running_loop().call_later(seconds, cut)
    try:
        yield
    except Exception as error:
        if is_cut:
            # Cut between two of its steps, the driver stumbles over what it has thrown away (AttributeError).
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()


async def give_time(connection: Connection, seconds: float) -> None:
    """How long a statement on this connection may take."""
    await connection.execute("SELECT set_config('statement_timeout', $1, false)", f"{seconds * 1000:.0f}")


async def disconnect(connection: Connection) -> None:
    """Let go of a connection, in order where the other end plays along."""
    if connection.is_closed():
        return
    try:
        async with bounded(connection, 1.0):
            await connection.close()
    except UNREACHABLE:
        connection.terminate()


def unavailable(target: Target, error: BaseException, *, what: str) -> StoreUnavailableError:
    """An error of the driver in words for whoever can mend it."""
    return StoreUnavailableError(f"{target.name} {what}: {reason(error)}")


def reason(error: BaseException) -> str:
    """What the driver said."""
    if isinstance(error, TimeoutError) and not str(error):
        return "it does not answer"
    return str(error) or type(error).__name__


async def history(connection: Connection, store: str) -> History:
    """The history that a connection's commits belong to."""
    row: Any = await connection.fetchrow(
        "SELECT system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_system()"
    )
    return History(system=str(row[0]), timeline=str(row[1]), store=store)
