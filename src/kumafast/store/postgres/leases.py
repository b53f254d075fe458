"""Which instances are alive, by leases that each renews in PostgreSQL, and which of them holds the leader's lock.

In: a connection that listens, what this instance has to say. Out: `Members`. Never: the clock of an instance; times are
PostgreSQL's.

An instance is dead once its lease has run out. What is left of it in PostgreSQL, if it is only stopped, is ended then,
so that the leader's lock, which its session holds, is free. After PostgreSQL was away all leases have run out: nobody
is called dead before one has been looking, without a break, for as long as a lease lasts.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kumafast.store.members import Member, Members
from kumafast.store.postgres.connection import Connection, Target

LEASE_S = 5.0
"""How long an instance is alive after its last word; it has one every `LOOK_S` (replica.py)."""
FORGET_S = 3600.0
"""How long a dead instance's row is kept."""

_RENEW = """
    INSERT INTO instances (id, seen_at, asked, converged, proxies, pid, session)
    SELECT $1, now(), $2, $3, $4, pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, asked = excluded.asked, converged = excluded.converged,
        proxies = excluded.proxies, pid = excluded.pid, session = excluded.session
"""
_OTHERS = """
    SELECT id, asked, converged, proxies FROM instances WHERE id <> $1 AND seen_at > now() - make_interval(secs => $2)
"""
_END_DEAD = """
    SELECT pg_terminate_backend(activity.pid)
    FROM instances JOIN pg_stat_activity AS activity
        ON activity.pid = instances.pid AND activity.backend_start = instances.session
    WHERE instances.id <> $1 AND instances.seen_at < now() - make_interval(secs => $2)
"""


class Leases:
    """What one instance has to do with the leases. `members` is what it finds."""

    def __init__(self, target: Target, members: Members, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._target = target
        self._members = members
        self._since: float | None = None
        self._is_leading = False

    async def renew(self, connection: Connection) -> None:
        """Say that this instance is alive, and see who else is. Call it every `LOOK_S` on one connection."""
        members, own = self._members, self._members.own
        if self._since is None:
            self._since = self._monotonic()
        await connection.execute(_RENEW, own, members.asked, members.converged, members.count_proxies())
        is_settled = self._monotonic() - self._since > LEASE_S
        if is_settled:
            await connection.execute(_END_DEAD, own, LEASE_S)
        if not self._is_leading:
            self._is_leading = bool(
                await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", f"leader {self._target.schema}")
            )
            if self._is_leading:
                await connection.execute(
                    "DELETE FROM instances WHERE seen_at < now() - make_interval(secs => $1)", FORGET_S
                )
        rows = await connection.fetch(_OTHERS, own, LEASE_S)
        others = {row["id"]: Member(row["asked"], row["converged"], row["proxies"]) for row in rows}
        members.see(others, is_leading=self._is_leading, is_settled=is_settled)

    def lose(self) -> None:
        """The connection has gone, and the lock with it; who else is there is not known any more."""
        self._since = None
        self._is_leading = False
        self._members.see(self._members.others, is_leading=False, is_settled=False)

    async def leave(self, connection: Connection) -> None:
        """Say that this instance is gone."""
        await connection.execute("DELETE FROM instances WHERE id = $1", self._members.own)
