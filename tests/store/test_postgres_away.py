"""PostgreSQL is away, or says nothing: writes end in their time, reads go on, and nothing is done twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest
from tests.postgresql import Server
from tests.store import kinds
from tests.store.contract import take
from tests.store.kinds import WAIT_S, Thing, insist, key, reaches

from kumafast.errors import StoreUnavailableError
from kumafast.store.postgres import store as postgres_store
from kumafast.store.postgres.database import PostgresDatabase

pytestmark = pytest.mark.anyio


class TestAway:
    @pytest.mark.slow
    async def test_stopped_it_refuses_writes_in_time_and_goes_on_where_it_was(self, mortal: Server) -> None:
        store = await kinds.open_postgres(mortal.new_store())
        await store.put(Thing(name="a"))
        watch = store.watch(after=0)
        mortal.send(signal.SIGSTOP)
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="PostgreSQL at 127"):
                await store.put(Thing(name="b"))
            # 4 s, and some for a machine that has other things to do.
            assert time.monotonic() - began < postgres_store.WRITE_S + 6
        assert [s.resource.name for s in (await store.list("Thing")).items] == ["a"]
        assert [commit.revision for commit in await take(watch, 1)] == [1]
        mortal.send(signal.SIGCONT)
        stored = await insist(store, Thing(name="c"))
        # What was refused may have been done, and was said so; nothing else was.
        names = [change.key.name for commit in await take(watch, stored.revision - 1) for change in commit.changes]
        assert names in (["c"], ["b", "c"])
        assert store.work.readings == 0
        await store.close()

    @pytest.mark.slow
    async def test_a_network_that_swallows_everything_is_noticed(self, postgresql: Server) -> None:
        network = Network(postgresql.port)
        async with network.serve() as port:
            url = postgresql.new_store()
            store = await kinds.open_postgres(url.replace(f":{postgresql.port}/", f":{port}/"))
            other = await kinds.open_postgres(url)
            await store.put(Thing(name="a"))
            watch = store.watch(after=1)
            network.passes.clear()
            with pytest.raises(StoreUnavailableError):
                await store.put(Thing(name="b"))
            # What it may hold in PostgreSQL holds nobody up for long, and it hears nothing of what is written.
            await insist(other, Thing(name="c"))
            assert await store.revision() == 1
            network.passes.set()
            commits = await take(watch, await other.revision() - 1)
            assert commits[-1].changes[-1].key.name == "c"
            assert store.work.readings == 0
            await asyncio.gather(store.close(), other.close())

    async def test_a_restart_is_waited_out(self, mortal: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        # However slow this machine is: it is shown that the same write is tried again.
        monkeypatch.setattr(postgres_store, "WRITE_S", WAIT_S)
        store = await kinds.open_postgres(mortal.new_store())
        await store.put(Thing(name="a"))
        await asyncio.to_thread(mortal.stop)
        write = asyncio.create_task(store.put(Thing(name="b")))
        await asyncio.sleep(0.2)
        assert not write.done()
        assert (await store.get(key("Thing", "a"))).revision == 1
        await asyncio.to_thread(mortal.start)
        assert (await write).revision == 2
        assert store.work.readings == 0
        await store.close()

    async def test_a_long_absence_is_told_at_once(self, mortal: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres_store, "WRITE_S", 0.3)
        store = await kinds.open_postgres(mortal.new_store())
        await asyncio.to_thread(mortal.stop)
        async with asyncio.timeout(WAIT_S):
            while True:
                with pytest.raises(StoreUnavailableError) as caught:
                    await store.put(Thing(name="a"))
                if "has been away for" in str(caught.value):
                    break
                await asyncio.sleep(0.05)
        assert "nothing can be written until it is back" in str(caught.value)
        await store.close()

    async def test_a_write_is_answered_in_its_time_wherever_it_hangs_and_not_done_later(
        self, postgresql: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = postgresql.new_store()
        store, other = await kinds.open_postgres(url), await kinds.open_postgres(url)
        await store.put(Thing(name="a"))
        goes_on, append = asyncio.Event(), PostgresDatabase.append

        async def hang(database: PostgresDatabase, *arguments: Any, **options: Any) -> None:
            await goes_on.wait()
            await append(database, *arguments, **options)

        monkeypatch.setattr(postgres_store, "WRITE_S", 0.3)
        # The task that writes is never cut off here: what answers is the caller's own timer.
        monkeypatch.setattr(postgres_store, "COMMIT_S", WAIT_S)
        with monkeypatch.context() as hanging:
            hanging.setattr(PostgresDatabase, "append", hang)
            writes = [asyncio.create_task(store.put(Thing(name=name))) for name in ("b", "c")]
            await asyncio.sleep(0)
            writes.append(asyncio.create_task(store.put(Thing(name="d"))))
            async with asyncio.timeout(WAIT_S):
                answers = await asyncio.gather(*writes, return_exceptions=True)
            assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
            assert all("cannot be written to now" in str(answer) for answer in answers)
            goes_on.set()
        monkeypatch.setattr(postgres_store, "WRITE_S", WAIT_S)
        assert (await store.put(Thing(name="e"))).revision == 2
        await reaches(other, 2)
        assert [stored.resource.name for stored in (await other.list("Thing")).items] == ["a", "e"]
        await asyncio.gather(store.close(), other.close())

    async def test_whoever_waits_for_a_commit_that_hangs_is_told_that_it_may_be_done(
        self, postgresql: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = await kinds.open_postgres(postgresql.new_store())
        await store.put(Thing(name="a"))
        goes_on, commit = asyncio.Event(), asyncpg.transaction.Transaction.commit

        async def hang(transaction: asyncpg.transaction.Transaction) -> None:
            await goes_on.wait()
            await commit(transaction)

        monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", hang)
        monkeypatch.setattr(postgres_store, "WRITE_S", 0.3)
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(StoreUnavailableError, match="may have been written or not"):
                await store.put(Thing(name="b"))
        monkeypatch.setattr(postgres_store, "WRITE_S", WAIT_S)
        goes_on.set()
        assert (await store.put(Thing(name="c"))).revision in (2, 3)
        await store.close()

    async def test_those_with_time_left_are_not_refused_with_the_first(
        self, postgresql: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = await kinds.open_postgres(postgresql.new_store())
        now, attempts = [0.0], []
        monkeypatch.setattr(store, "_monotonic", lambda: now[0])
        attempt = store._attempt

        async def fail_at_first(group: Any, deadline: float) -> Any:
            attempts.append([request.operations[0].resource.name for request in group])
            if len(attempts) == 1:
                # The first one's time is over; the others came just now.
                now[0] = 2 * postgres_store.WRITE_S
                for request in group[1:]:
                    request.began = now[0]
                raise ConnectionResetError("away")
            return await attempt(group, deadline)

        monkeypatch.setattr(store, "_attempt", fail_at_first)
        answers = await asyncio.gather(
            *(store.put(Thing(name=name)) for name in ("a", "b", "c")), return_exceptions=True
        )
        assert isinstance(answers[0], StoreUnavailableError)
        assert [answer.revision for answer in answers[1:]] == [1, 2]  # type: ignore[union-attr]
        assert attempts == [["a", "b", "c"], ["b", "c"]]
        await store.close()

    @pytest.mark.parametrize("is_done", [True, False])
    async def test_a_commit_without_an_answer_is_looked_for(
        self, postgresql: Server, monkeypatch: pytest.MonkeyPatch, is_done: bool
    ) -> None:
        store = await kinds.open_postgres(postgresql.new_store())
        before = await store.put(Thing(name="a"))
        commit = asyncpg.transaction.Transaction.commit
        cuts = [1]

        async def cut(transaction: asyncpg.transaction.Transaction) -> None:
            if cuts and cuts.pop():
                if is_done:
                    await commit(transaction)
                transaction._connection.terminate()
                raise ConnectionResetError("cut")
            await commit(transaction)

        monkeypatch.setattr(asyncpg.transaction.Transaction, "commit", cut)
        stored = await store.put(Thing(name="b"))
        assert not cuts
        assert stored.revision == 2 == await store.revision()
        assert [commit.revision for commit in await take(store.watch(after=0), 2)] == [1, 2]
        assert stored == await store.get(key("Thing", "b"))
        assert before == await store.get(key("Thing", "a"))
        await store.close()


class Network:
    """A way to PostgreSQL that can swallow all that is sent on it, without a word to either end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.passes = asyncio.Event()
        self.passes.set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        tasks: set[asyncio.Task[None]] = set()

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await reader.read(65_536):
                    await self.passes.wait()
                    writer.write(data)
            await self.passes.wait()
            writer.close()

        async def take_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, to_there = await asyncio.open_connection("127.0.0.1", self._port)
            for each in (pump(reader, to_there), pump(there, writer)):
                task = asyncio.create_task(each)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(take_in, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
