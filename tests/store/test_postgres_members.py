"""Who is alive on one PostgreSQL, and who leads: whichever way an instance goes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.postgresql import Server
from tests.store import kinds

from kumafast.store.members import Members
from kumafast.store.postgres import connection, leases

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WAIT_S = 60.0


class TestMembers:
    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leases, "LEASE_S", 1.0)
        monkeypatch.setattr(leases, "LOOK_S", 0.2)

    async def test_one_leads_and_another_takes_its_place(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        one = await kinds.open_postgres(url, instance="one")
        await _until(lambda: one.members.is_leading)
        other = await kinds.open_postgres(url, instance="other")
        await _until(lambda: "other" in one.members.others and "one" in other.members.others)
        await _until(lambda: one.members.is_settled and other.members.is_settled)
        assert (one.members.is_leading, other.members.is_leading) == (True, False)
        assert not other.members.is_dead("one")
        assert other.members.is_dead("somebody else")
        await one.close()
        await _until(lambda: other.members.is_leading and other.members.is_alone)
        assert other.members.is_dead("one")
        await other.close()

    async def test_one_that_hangs_is_dead_and_its_lead_is_taken(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        with subprocess.Popen(
            [sys.executable, "-c", _MEMBER, url], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
        ) as child:
            try:
                assert child.stdout is not None
                assert await asyncio.to_thread(child.stdout.readline) == b"leads\n"
                store = await kinds.open_postgres(url, instance="here")
                await _until(lambda: "child" in store.members.others and store.members.is_settled)
                assert not store.members.is_leading
                # Its kernel answers for it, so that nothing but its lease says that it is gone.
                child.send_signal(signal.SIGSTOP)
                await _until(lambda: store.members.is_leading and store.members.is_dead("child"))
                child.send_signal(signal.SIGCONT)
                await _until(lambda: "child" in store.members.others and store.members.is_leading)
                await store.close()
            finally:
                child.kill()

    async def test_nobody_is_called_dead_because_postgresql_was_away(self, mortal: Server) -> None:
        url = mortal.new_store()
        stores = [await kinds.open_postgres(url, instance=str(number)) for number in range(2)]
        await _until(lambda: all(store.members.is_settled and store.members.others for store in stores))
        called: list[int] = []

        async def look(number: int) -> None:
            members = stores[number].members
            while True:
                await members.change()
                if members.is_dead(str(1 - number)):
                    called.append(number)

        looking = [asyncio.create_task(look(number)) for number in range(2)]
        await asyncio.to_thread(mortal.stop)
        await asyncio.sleep(2 * leases.LEASE_S)
        await asyncio.to_thread(mortal.start)
        await _until(lambda: all(store.members.is_settled and store.members.others for store in stores))
        assert called == []
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)
        await asyncio.gather(*(store.close() for store in stores))

    async def test_the_proxies_of_all_are_waited_for(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        one, other = [await kinds.open_postgres(url, instance=name) for name in ("one", "other")]
        await _until(lambda: bool(one.members.others and other.members.others and one.members.is_settled))
        waiting = asyncio.create_task(one.members.all_converged(7))
        await _until(lambda: other.members.wanted == 7)
        assert not waiting.done()
        other.members.have_converged(7)
        async with asyncio.timeout(WAIT_S):
            await waiting
        await asyncio.gather(one.close(), other.close())


class Rows:
    """The rows of other instances, with as much of a connection as leases use."""

    def __init__(self) -> None:
        self.alive: dict[str, bool] = {}
        self.ended = 0

    async def execute(self, sql: str, *_: Any) -> None:
        self.ended += sql == leases._END_DEAD

    async def fetch(self, *_: Any) -> list[dict[str, Any]]:
        return [
            {"id": name, "asked": 0, "converged": 0, "proxies": 0, "is_alive": is_alive}
            for name, is_alive in self.alive.items()
        ]

    async def fetchval(self, *_: Any) -> bool:
        return False


class TestWhenWhoHasNoLeaseIsDead:
    @pytest.fixture
    def rows(self) -> Rows:
        return Rows()

    async def _dead_after(self, one: leases.Leases, members: Members, rows: Rows, now: list[float]) -> float:
        """The seconds, from now on, after which the other one is called dead."""
        began = now[0]
        rows.alive = {"other": False, **{name: alive for name, alive in rows.alive.items() if name != "other"}}
        while True:
            await one.renew(cast(connection.Connection, rows))
            if members.is_dead("other"):
                assert rows.ended
                return now[0] - began
            assert not rows.ended
            now[0] += 0.1

    def _one(self) -> tuple[leases.Leases, Members, list[float]]:
        now = [100.0]
        members = Members("one", is_alone=False)
        target = connection.parse_url("postgres://a@b/c")
        return leases.Leases(target, members, monotonic=lambda: now[0]), members, now

    async def test_after_postgresql_was_away_all_have_the_time_to_come_back(self, rows: Rows) -> None:
        one, members, now = self._one()
        rows.alive = {"other": True}
        await one.renew(cast(connection.Connection, rows))
        one.lose()
        longest_s = connection.RECONNECT_S_MAX + 2 * connection.CONNECT_S
        assert await self._dead_after(one, members, rows, now) > longest_s + leases.LEASE_S - 0.01

    async def test_it_was_away_too_where_nothing_came_for_long(self, rows: Rows) -> None:
        one, members, now = self._one()
        rows.alive = {"other": True}
        await one.renew(cast(connection.Connection, rows))
        now[0] += 2 * leases.LOOK_S + 0.1
        assert await self._dead_after(one, members, rows, now) >= leases.return_s() - 0.01

    async def test_one_that_starts_and_finds_a_lease_knows_that_it_was_not_away(self, rows: Rows) -> None:
        one, members, now = self._one()
        rows.alive = {"third": True}
        assert await self._dead_after(one, members, rows, now) < leases.LEASE_S + 0.3

    async def test_one_that_starts_among_leases_that_are_over_does_not_know(self, rows: Rows) -> None:
        one, members, now = self._one()
        assert await self._dead_after(one, members, rows, now) >= leases.return_s() - 0.01

    async def test_in_quiet_times_a_lease_that_is_over_is_enough(self, rows: Rows) -> None:
        one, members, now = self._one()
        rows.alive = {"other": True}
        for _ in range(10):
            await one.renew(cast(connection.Connection, rows))
            now[0] += leases.LOOK_S
        rows.ended = 0
        # Its lease ran out before it is seen to have: together within 10 s of its death.
        rows.alive = {"other": False}
        await one.renew(cast(connection.Connection, rows))
        assert members.is_dead("other")
        assert leases.LEASE_S + leases.LOOK_S < 10


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


_MEMBER = """
import asyncio, sys
from kumafast.store.members import Members
from kumafast.store.postgres import connection, leases
from tests.store import kinds

async def main(url):
    leases.LEASE_S, leases.LOOK_S = 1.0, 0.2
    store = await kinds.open_postgres(url, instance="child")
    while not store.members.is_leading:
        await asyncio.sleep(0.01)
    print("leads", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(sys.argv[1]))
"""
