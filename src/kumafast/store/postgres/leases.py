"""Which instances are alive, by leases that each renews in PostgreSQL, and which of them holds the leader's lock.

In: a connection that listens, what this instance has to say. Out: `Members`. Never: the clock of an instance; times are
PostgreSQL's.

An instance is dead once its lease has run out. What is left of it in PostgreSQL, if it is only stopped, is ended then,
so that the leader's lock, which its session holds, is free. After PostgreSQL was away all leases have run out, and the
others may be in the longest of their pauses: nobody is called dead before they have had the time to come back and say
that they live (`return_s`). Where one has just been started and finds a lease that holds, PostgreSQL was not away.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kumafast.store.members import Member, Members
from kumafast.store.postgres.connection import CONNECT_S, RECONNECT_S_MAX, Connection, Target

LOOK_S = 2.0
"""How often the counter is looked at where nobody calls: a wake-up that was lost costs so long, and a connection that
leads nowhere is found. With each look goes a word of the instance."""
LEASE_S = 5.0
"""How long an instance is alive after its last word."""
FORGET_S = 3600.0
"""How long a dead instance's row is kept."""

_RENEW = """
    INSERT INTO instances (id, seen_at, asked, converged, proxies, pid, session)
    SELECT $1, now(), $2, $3, $4, pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, asked = excluded.asked, converged = excluded.converged,
        proxies = excluded.proxies, pid = excluded.pid, session = excluded.session
"""
_OTHERS = """
    SELECT id, asked, converged, proxies, seen_at > now() - make_interval(secs => $2) AS is_alive
    FROM instances WHERE id <> $1
"""
_END_DEAD = """
    SELECT pg_terminate_backend(activity.pid)
    FROM instances JOIN pg_stat_activity AS activity
        ON activity.pid = instances.pid AND activity.backend_start = instances.session
    WHERE instances.id <> $1 AND instances.seen_at < now() - make_interval(secs => $2)
"""


def return_s() -> float:
    """Within how many seconds of PostgreSQL's return everybody who lives has said so.

    In the worst case an attempt to connect has just begun that leads nowhere, the longest pause follows, and then the
    attempt that succeeds; the time of a lease is for what is slow on the way.
    """
    return CONNECT_S + RECONNECT_S_MAX + CONNECT_S + LEASE_S


class Leases:
    """What one instance has to do with the leases. `members` is what it finds."""

    def __init__(self, target: Target, members: Members, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._target = target
        self._members = members
        self._has_lost = False
        self._renewed_at: float | None = None
        # From when on whoever has no lease is dead.
        self._settled_at = 0.0
        self._is_leading = False

    async def renew(self, connection: Connection) -> None:
        """Say that this instance is alive, and see who else is. Call it every `LOOK_S` on one connection."""
        members, own = self._members, self._members.own
        await connection.execute(_RENEW, own, members.asked, members.converged, members.count_proxies())
        rows = await connection.fetch(_OTHERS, own, LEASE_S)
        others = {row["id"]: Member(row["asked"], row["converged"], row["proxies"]) for row in rows if row["is_alive"]}
        is_settled = self._settle(was_left=bool(rows) and not others)
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
        members.see(others, is_leading=self._is_leading, is_settled=is_settled)

    def _settle(self, *, was_left: bool) -> bool:
        """Note that one has looked; whether one has done so for long enough. `was_left`: nobody there has a lease."""
        now, before = self._monotonic(), self._renewed_at
        self._renewed_at = now
        if before is None:
            self._settled_at = now + (return_s() if self._has_lost or was_left else LEASE_S)
        elif now - before > 2 * LOOK_S:
            # PostgreSQL was away for all the others too, though we were not cut off; or it is we who stood still.
            self._settled_at = now + return_s()
        return now > self._settled_at

    def lose(self) -> None:
        """The connection has gone, and the lock with it; who else is there is not known any more."""
        self._has_lost = self._has_lost or self._renewed_at is not None
        self._renewed_at = None
        self._is_leading = False
        self._members.see(self._members.others, is_leading=False, is_settled=False)

    async def leave(self, connection: Connection) -> None:
        """Say that this instance is gone."""
        await connection.execute("DELETE FROM instances WHERE id = $1", self._members.own)
