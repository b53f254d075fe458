"""Several instances on one PostgreSQL, and what they do when it is away, another one, or not theirs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.postgresql import Server, running
from tests.store import kinds
from tests.store.contract import replay, take
from tests.store.kinds import WAIT_S, Box, Label, Note, Thing, insist, key, mesh, reaches

from kumafast.errors import CompactedError, ConflictError, KumafastError, MeshInUseError, StoreUnavailableError
from kumafast.resources import Secret, parse
from kumafast.store import Delete, Keyring, Put
from kumafast.store.database import TRIM_STEP
from kumafast.store.postgres import PostgresStore, connection, schema
from kumafast.store.postgres import store as postgres_store
from kumafast.store.watch import HISTORY_CHANGES_MAX, HISTORY_COMMITS_MIN

pytestmark = pytest.mark.anyio


class TestInstances:
    async def test_all_see_the_commits_of_all_in_one_order(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        stores = [await kinds.open_postgres(url) for _ in range(3)]
        writers, each = 4, 40
        watches = [asyncio.create_task(_take_all(store, len(stores) * writers * each)) for store in stores]

        async def write(number: int, store: PostgresStore, writer: int) -> None:
            for turn in range(each):
                await store.put(Thing(name=f"{number}-{writer}-{turn}"))

        await asyncio.gather(*(write(n, s, w) for n, s in enumerate(stores) for w in range(writers)))
        seen = await asyncio.gather(*watches)
        assert [commit.revision for commit in seen[0]] == list(range(1, len(stores) * writers * each + 1))
        assert seen[0] == seen[1] == seen[2]
        assert all(store.work.readings == 0 for store in stores)
        for store in stores:
            assert sorted(replay(seen[0])) == [s.resource.key for s in (await store.list("Thing")).items]
            await store.close()

    async def test_rules_hold_for_what_others_have_written(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        one, other = [await kinds.open_postgres(url) for _ in range(2)]
        await one.write([Put(mesh()), Put(Box(mesh="default", name="b")), Put(Note(mesh="default", name="n"))])
        # At once, before any wake-up: a write is planned on all that is committed.
        with pytest.raises(ConflictError):
            await other.put(Box(mesh="default", name="b"), expected_revision=0)
        with pytest.raises(MeshInUseError):
            await other.delete(key("Mesh", "default"))
        await other.put(Label(mesh="default", name="b"))
        assert await one.write([Delete(key("Box", "b")), Delete(key("Mesh", "default"))]) == 3
        await reaches(other, 3)
        assert (await other.list("Label")).items == (await other.list("Note")).items == ()
        await asyncio.gather(one.close(), other.close())

    async def test_no_update_is_lost_between_instances(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        stores = [await kinds.open_postgres(url) for _ in range(2)]
        await stores[0].put(Thing(name="counter"))
        await reaches(stores[1], 1)

        async def increment(store: PostgresStore) -> None:
            while True:
                now = await store.get(key("Thing", "counter"))
                assert isinstance(now.resource, Thing)
                try:
                    await store.put(Thing(name="counter", value=now.resource.value + 1), expected_revision=now.revision)
                    return
                except ConflictError:
                    continue

        await asyncio.gather(*(increment(store) for store in stores for _ in range(15)))
        await reaches(stores[0], 31)
        await reaches(stores[1], 31)
        assert [(await s.get(key("Thing", "counter"))).resource.model_dump()["value"] for s in stores] == [30, 30]
        await asyncio.gather(*(store.close() for store in stores))

    async def test_one_that_hangs_in_a_transaction_holds_nobody_up_for_long(
        self, postgresql: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_store, "WRITE_S", WAIT_S)
        url = postgresql.new_store()
        store = await kinds.open_postgres(url)
        await store.put(Thing(name="a"))
        stuck = await connection.connect(connection.parse_url(url))
        await stuck.execute("BEGIN")
        await stuck.execute("SELECT * FROM head FOR UPDATE")
        async with asyncio.timeout(WAIT_S):
            assert (await store.put(Thing(name="b"))).revision == 2
        stuck.terminate()
        await store.close()

    async def test_one_that_slept_too_long_reads_all_anew(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        writer = await kinds.open_postgres(url)
        await writer.put(Thing(name="first"))
        sleeper = await kinds.open_postgres(url)
        watch = sleeper.watch(after=1)
        async with sleeper._turn:  # It has no turn in which it could read.
            size = HISTORY_CHANGES_MAX // HISTORY_COMMITS_MIN + 1
            count = HISTORY_COMMITS_MIN + TRIM_STEP + 200
            for start in range(0, count, 100):
                await asyncio.gather(
                    *(
                        writer.write([Put(Thing(name=str(index), value=number + 1)) for index in range(size)])
                        for number in range(start, min(start + 100, count))
                    )
                )
        await reaches(sleeper, await writer.revision())
        with pytest.raises(CompactedError):
            await take(watch, 1)
        assert sleeper.work.readings == 1
        assert (await sleeper.list("Thing")).items == (await writer.list("Thing")).items
        again = sleeper.watch(after=await sleeper.revision())
        await writer.put(Thing(name="last"))
        assert [change.key.name for change in (await take(again, 1))[0].changes] == ["last"]
        await asyncio.gather(writer.close(), sleeper.close())


async def _take_all(store: PostgresStore, count: int) -> list[Any]:
    watch = store.watch(after=0)
    async with asyncio.timeout(WAIT_S):
        return [await anext(watch) for _ in range(count)]


@pytest.mark.slow
class TestFailover:
    @pytest.mark.parametrize("is_written_to", [True, False])
    async def test_lost_commits_are_read_anew_and_their_revisions_are_not_given_again(
        self, mortal: Server, is_written_to: bool
    ) -> None:
        url = mortal.new_store()
        store = await kinds.open_postgres(url)
        await store.put(Thing(name="kept"))
        standby = await asyncio.to_thread(mortal.standby)
        try:
            for name in ("lost-1", "lost-2", "lost-3"):
                await store.put(Thing(name=name))
            watch, last = store.watch(after=4), await store.revision()
            await asyncio.to_thread(mortal.kill)
            await asyncio.to_thread(standby.start_standby)
            await asyncio.to_thread(standby.promote)
            if is_written_to:
                other = await kinds.open_postgres(url)
                for number in range(5):
                    await other.put(Thing(name="new", value=number))
                await other.close()
            await reaches(store, last + 1)
            with pytest.raises(CompactedError):
                await take(watch, 1)
            names = [s.resource.name for s in (await store.list("Thing")).items]
            assert names == (["kept", "new"] if is_written_to else ["kept"])
            assert store.work.readings == 1
            assert (await store.put(Thing(name="after"))).revision > last + 1
            await store.close()
        finally:
            standby.remove()

    async def test_nothing_lost_is_nothing_read_anew(self, mortal: Server) -> None:
        store = await kinds.open_postgres(mortal.new_store())
        await store.put(Thing(name="kept"))
        watch = store.watch(after=1)
        standby = await asyncio.to_thread(mortal.standby)
        try:
            await asyncio.to_thread(mortal.kill)
            await asyncio.to_thread(standby.start_standby)
            await asyncio.to_thread(standby.promote)
            stored = await insist(store, Thing(name="b"))
            assert stored.revision == 2
            assert [commit.revision for commit in await take(watch, 1)] == [2]
            assert store.work.readings == 0
            await store.close()
        finally:
            standby.remove()


class TestSchema:
    async def test_an_older_one_is_brought_forward(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        target = connection.parse_url(url)
        first = await connection.connect(target)
        await schema.prepare(first, target, migrations=schema.MIGRATIONS[:1])
        more = schema.Migration(
            version=schema.MIGRATIONS[-1].version + 1, oldest=1, sql="ALTER TABLE resources ADD COLUMN more integer"
        )
        await schema.prepare(first, target, migrations=(*schema.MIGRATIONS, more))
        assert await first.fetchval("SELECT version FROM head") == more.version
        # What only adds to it keeps out nobody who is older.
        store = await kinds.open_postgres(url)
        await store.put(Thing(name="a"))
        await store.close()
        await first.execute("UPDATE head SET oldest = 99, version = 99")
        with pytest.raises(StoreUnavailableError, match="newer kumafast"):
            await kinds.open_postgres(url)
        await first.close()

    async def test_many_may_start_at_once(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        stores = await asyncio.gather(*(kinds.open_postgres(url) for _ in range(5)))
        assert len({store.identity for store in stores}) == 1
        await asyncio.gather(*(store.close() for store in stores))

    async def test_another_store_at_the_same_place_is_refused(self, mortal: Server) -> None:
        url = mortal.new_store()
        store = await kinds.open_postgres(url)
        await store.put(Thing(name="a"))
        admin = await connection.connect(connection.parse_url(url))
        await admin.execute("UPDATE head SET store = 'another'")
        await admin.close()
        await asyncio.to_thread(mortal.stop)
        await asyncio.to_thread(mortal.start)
        with pytest.raises(StoreUnavailableError):
            await store.put(Thing(name="b"))
        assert (await store.get(key("Thing", "a"))).revision == 1
        await store.close()


class TestOpening:
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda url: url.replace("kumafast:", "nobody:"), "authentication failed"),
            (lambda url: url.replace("/postgres?", "/elsewhere?"), "does not exist"),
            (lambda url: url.replace("/postgres?", "?"), "names no database"),
            (lambda url: url.partition("schema=")[0] + "schema=a-b", "schema"),
        ],
    )
    async def test_what_cannot_be_used_is_said_without_the_password(
        self, postgresql: Server, change: Any, said: str
    ) -> None:
        with pytest.raises(KumafastError, match=said) as caught:
            await kinds.open_postgres(change(postgresql.new_store()))
        assert "signs" not in str(caught.value)

    async def test_nobody_there(self, postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres_store, "OPEN_S", 0.2)
        with pytest.raises(StoreUnavailableError, match=r"PostgreSQL at 127\.0\.0\.1:1/postgres cannot be used"):
            await kinds.open_postgres("postgres://kuma:hush@127.0.0.1:1/postgres")


class TestSecrets:
    async def test_they_are_sealed_and_another_key_seals_them_anew(self, postgresql: Server) -> None:
        url = postgresql.new_store()
        old, new = bytes(32), bytes(31) + b"\1"
        secret = parse({"type": "Secret", "mesh": "default", "name": "s", "data": "aHVzaA=="})
        store = await PostgresStore.open(url, keyring=Keyring([old]))
        await store.write([Put(parse({"type": "Mesh", "name": "default"})), Put(secret)])
        await store.close()
        admin = await connection.connect(connection.parse_url(url))
        kept = [row["content"] for row in await admin.fetch("SELECT content FROM resources WHERE type = 'Secret'")]
        assert len(kept) == 1
        assert b"aHVzaA" not in kept[0]
        await (await PostgresStore.open(url, keyring=Keyring([new, old]))).close()
        again = await PostgresStore.open(url, keyring=Keyring([new]))
        held = (await again.get(secret.key)).resource
        assert isinstance(held, Secret)
        assert held.content == b"hush"
        assert await again.revision() == 1
        await again.close()
        with pytest.raises(StoreUnavailableError, match="is sealed under key"):
            await PostgresStore.open(url, keyring=Keyring([old]))
        await admin.close()

    async def test_without_a_key_the_others_of_the_moment_are_written(self, postgresql: Server) -> None:
        store = await PostgresStore.open(postgresql.new_store())
        await store.put(parse({"type": "Mesh", "name": "default"}))
        results = await asyncio.gather(
            store.put(parse({"type": "Secret", "mesh": "default", "name": "s", "data": "aHVzaA=="})),
            store.put(parse({"type": "Mesh", "name": "other"})),
            return_exceptions=True,
        )
        assert isinstance(results[0], StoreUnavailableError)
        assert "--secrets-key-file" in str(results[0])
        assert not isinstance(results[1], BaseException)
        assert results[1].revision == 2
        await store.close()


async def test_names_that_postgresql_cannot_hold_are_refused_for_themselves(postgresql: Server) -> None:
    store = await kinds.open_postgres(postgresql.new_store())
    results = await asyncio.gather(store.put(Thing(name="a\0b")), store.put(Thing(name="c")), return_exceptions=True)
    assert isinstance(results[0], StoreUnavailableError)
    assert not isinstance(results[1], BaseException)
    await store.close()


def test_the_servers_own_folder_is_gone_afterwards() -> None:
    with running() as server:
        folder: Path = server.folder
        assert folder.is_dir()
    assert not folder.exists()
