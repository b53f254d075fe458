"""What every store promises, said once: `test_store_contract.py` runs it against each back end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC

import pytest
from tests.store.kinds import Box, Label, Note, Stamp, Thing, key, make, mesh

from kumafast.errors import (
    CompactedError,
    ConflictError,
    KumafastError,
    MeshInUseError,
    MeshNotFoundError,
    NotFoundError,
    StoreUnavailableError,
)
from kumafast.resources import ResourceKey
from kumafast.store import Change, Commit, Delete, Put, Store, StoredResource
from kumafast.store.watch import HISTORY_CHANGES_MAX, HISTORY_COMMITS_MIN, OWN_CHANGES_MAX


async def take(watch: AsyncIterator[Commit], count: int) -> list[Commit]:
    """The next commits of a watch; hangs, and so fails, where they do not come."""
    async with asyncio.timeout(10):
        return [await anext(watch) for _ in range(count)]


async def assert_quiet(watch: AsyncIterator[Commit]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await anext(watch)


def replay(commits: list[Commit]) -> dict[ResourceKey, StoredResource]:
    """What somebody believes who has seen only these commits."""
    held: dict[ResourceKey, StoredResource] = {}
    for commit in commits:
        for change in commit.changes:
            if change.stored is None:
                del held[change.key]
            else:
                held[change.key] = change.stored
    return held


class ReadingAndWriting:
    async def test_what_is_put_can_be_got(self, store: Store) -> None:
        stored = await store.put(Thing(name="a", value=1))
        assert stored == await store.get(key("Thing", "a"))
        assert (stored.resource, stored.revision) == (Thing(name="a", value=1), 1)
        assert stored.creation_time == stored.modification_time
        assert stored.creation_time.tzinfo is UTC

    async def test_an_empty_store_is_at_revision_0(self, store: Store) -> None:
        assert await store.revision() == 0
        assert (await store.list("Thing")).items == ()
        with pytest.raises(NotFoundError):
            await store.get(key("Thing", "a"))

    async def test_every_commit_gets_the_next_revision(self, store: Store) -> None:
        assert (await store.put(Thing(name="a"))).revision == 1
        assert await store.write([Put(Thing(name="b")), Put(Thing(name="c"))]) == 2
        assert await store.delete(key("Thing", "a")) == 3
        assert await store.revision() == 3
        assert (await store.get(key("Thing", "c"))).revision == 2

    async def test_an_update_keeps_the_time_of_creation(self, store: Store) -> None:
        first = await store.put(Thing(name="a", value=1))
        second = await store.put(Thing(name="a", value=2))
        assert second.revision == 2
        assert second.creation_time == first.creation_time
        assert second.modification_time > first.modification_time

    async def test_putting_what_is_there_is_no_commit(self, store: Store) -> None:
        first = await store.put(Thing(name="a", value=1))
        assert await store.put(Thing(name="a", value=1)) == first
        assert await store.put(Thing(name="a", value=1), expected_revision=1) == first
        assert await store.write([Put(Thing(name="a", value=1))]) == 1
        assert await store.write([]) == 1
        assert await store.revision() == 1

    async def test_deleting_what_is_not_there_is_an_error(self, store: Store) -> None:
        with pytest.raises(NotFoundError):
            await store.delete(key("Thing", "a"))
        with pytest.raises(NotFoundError):
            await store.delete(key("Thing", "a"), expected_revision=3)
        assert await store.revision() == 0

    async def test_what_is_made_anew_has_a_new_time_of_creation(self, store: Store) -> None:
        first = await store.put(Thing(name="a"))
        await store.delete(key("Thing", "a"))
        assert (await store.put(Thing(name="a"))).creation_time > first.creation_time

    @pytest.mark.parametrize("expected", [0, 1, 3])
    async def test_another_revision_than_expected_is_a_conflict(self, store: Store, expected: int) -> None:
        await store.put(Thing(name="a", value=1))
        await store.put(Thing(name="a", value=2))
        with pytest.raises(ConflictError):
            await store.put(Thing(name="a", value=3), expected_revision=expected)
        with pytest.raises(ConflictError):  # Equal content does not make the caller right.
            await store.put(Thing(name="a", value=2), expected_revision=expected)
        with pytest.raises(ConflictError):
            await store.delete(key("Thing", "a"), expected_revision=expected)
        assert (await store.get(key("Thing", "a"))).revision == await store.revision() == 2

    async def test_the_expected_revision_is_written_over(self, store: Store) -> None:
        created = await store.put(Thing(name="a"), expected_revision=0)
        updated = await store.put(Thing(name="a", value=1), expected_revision=created.revision)
        assert await store.delete(key("Thing", "a"), expected_revision=updated.revision) == 3

    async def test_an_update_of_what_has_gone_is_a_conflict(self, store: Store) -> None:
        with pytest.raises(ConflictError):
            await store.put(Thing(name="a"), expected_revision=1)

    async def test_a_list_is_in_order_and_of_one_revision(self, store: Store) -> None:
        await store.write([Put(mesh(name)) for name in ("m", "a", "m-1")])
        names = [("m", "b"), ("a", "z"), ("m-1", "a"), ("m", "a"), ("a", "b"), ("m", "c")]
        for in_mesh, name in names:
            await store.put(Note(mesh=in_mesh, name=name))
        await store.delete(key("Note", "c", "m"))
        everywhere = await store.list("Note")
        assert [(s.resource.mesh, s.resource.name) for s in everywhere.items] == sorted(set(names) - {("m", "c")})
        assert everywhere.revision == 8
        assert [s.resource.name for s in (await store.list("Note", "m")).items] == ["a", "b"]
        assert (await store.list("Note", "nowhere")).items == ()
        assert [s.resource.name for s in (await store.list("Mesh")).items] == ["a", "m", "m-1"]

    async def test_a_list_does_not_change_afterwards(self, store: Store) -> None:
        await store.put(Thing(name="a"))
        listing = await store.list("Thing")
        await store.put(Thing(name="b"))
        await store.put(Thing(name="a", value=1))
        assert [(s.resource.name, s.revision) for s in listing.items] == [("a", 1)]

    async def test_one_name_in_two_meshes_is_two_resources(self, store: Store) -> None:
        await store.write([Put(mesh("one")), Put(mesh("two")), Put(Note(mesh="one", name="n", value=1))])
        await store.put(Note(mesh="two", name="n", value=2))
        await store.delete(key("Note", "n", "one"))
        assert [s.resource for s in (await store.list("Note")).items] == [Note(mesh="two", name="n", value=2)]


class WritingTogether:
    async def test_operations_see_those_before_them(self, store: Store) -> None:
        await store.write([Put(mesh()), Put(Box(mesh="default", name="b")), Put(Label(mesh="default", name="b"))])
        await store.write([Delete(key("Box", "b")), Delete(key("Mesh", "default"))])
        assert await store.revision() == 2
        with pytest.raises(ConflictError):
            await store.write([Put(Thing(name="a")), Put(Thing(name="a", value=1), expected_revision=0)])
        await store.write([Put(Thing(name="a")), Put(Thing(name="a", value=1), expected_revision=3)])
        assert (await store.get(key("Thing", "a"))).resource == Thing(name="a", value=1)

    @pytest.mark.parametrize(
        ("last", "error"),
        [
            (Put(Thing(name="old"), expected_revision=0), ConflictError),
            (Put(Note(mesh="nowhere", name="n")), MeshNotFoundError),
            (Put(Label(mesh="default", name="l")), NotFoundError),
            (Delete(key("Thing", "none")), NotFoundError),
            (Delete(key("Mesh", "default")), MeshInUseError),
        ],
    )
    async def test_one_that_fails_undoes_all(
        self, store: Store, last: Put | Delete, error: type[KumafastError]
    ) -> None:
        await store.write([Put(mesh()), Put(Thing(name="old")), Put(Note(mesh="default", name="n"))])
        watch = store.watch(after=1)
        with pytest.raises(error):
            await store.write(
                [
                    Put(Thing(name="new")),
                    Put(Thing(name="old", value=9)),
                    Delete(key("Note", "n")),
                    Put(Box(mesh="default", name="b")),
                    last,
                ]
            )
        assert await store.revision() == 1
        assert [s.resource for s in (await store.list("Thing")).items] == [Thing(name="old")]
        assert (await store.list("Note")).items != ()
        assert (await store.list("Box")).items == ()
        await assert_quiet(watch)
        assert await store.delete(key("Mesh", "default")) == 2

    async def test_what_comes_and_goes_within_a_write_is_no_change(self, store: Store) -> None:
        assert await store.write([Put(Thing(name="a")), Delete(key("Thing", "a"))]) == 0
        assert await store.write([Put(Thing(name="a")), Put(Thing(name="b")), Delete(key("Thing", "a"))]) == 1
        [commit] = await take(store.watch(after=0), 1)
        assert [change.key.name for change in commit.changes] == ["b"]

    async def test_a_commit_names_each_key_once_as_it_is_left(self, store: Store) -> None:
        first = await store.put(Thing(name="a"))
        await store.write(
            [
                Put(Thing(name="b", value=1)),
                Delete(key("Thing", "a")),
                Put(Thing(name="b", value=2)),
                Put(Thing(name="a")),
            ]
        )
        [commit] = await take(store.watch(after=1), 1)
        assert commit == Commit(
            2,
            (
                Change(key("Thing", "b"), await store.get(key("Thing", "b"))),
                Change(key("Thing", "a"), await store.get(key("Thing", "a"))),
            ),
        )
        assert (await store.get(key("Thing", "b"))).resource == Thing(name="b", value=2)
        assert (await store.get(key("Thing", "a"))).creation_time > first.creation_time


class RulesBetweenResources:
    async def test_a_resource_needs_its_mesh(self, store: Store) -> None:
        with pytest.raises(MeshNotFoundError) as caught:
            await store.put(Note(mesh="default", name="n"))
        assert caught.value.mesh == "default"
        await store.put(mesh())
        await store.put(Note(mesh="default", name="n"))
        await store.delete(key("Mesh", "default"))
        with pytest.raises(MeshNotFoundError):
            await store.put(Note(mesh="default", name="n"))

    async def test_a_mesh_that_is_used_stays(self, store: Store) -> None:
        await store.write([Put(mesh()), Put(Box(mesh="default", name="b")), Put(Note(mesh="default", name="n"))])
        with pytest.raises(MeshInUseError) as caught:
            await store.delete(key("Mesh", "default"))
        assert caught.value.mesh == "default"
        assert (await store.get(key("Note", "n"))).revision == await store.revision() == 1

    async def test_a_mesh_takes_what_is_in_it_along(self, store: Store) -> None:
        await store.write([Put(mesh(name)) for name in ("one", "two")])
        await store.write([Put(Note(mesh=in_mesh, name=name)) for name in "ba" for in_mesh in ("one", "two")])
        await store.put(Thing(name="one"))
        assert await store.delete(key("Mesh", "one")) == 4
        [commit] = await take(store.watch(after=3), 1)
        gone = [key("Note", "a", "one"), key("Note", "b", "one"), key("Mesh", "one")]
        assert commit.changes == tuple(Change(at, None) for at in gone)
        assert [s.resource.mesh for s in (await store.list("Note")).items] == ["two", "two"]
        assert len((await store.list("Thing")).items) == 1

    async def test_no_mesh_takes_what_is_global_along(self, store: Store) -> None:
        # Global resources have no mesh, which must not be taken for a mesh whose name is empty.
        await store.write([Put(mesh("")), Put(Thing(name="a"))])
        await store.write([Delete(key("Mesh", "")), Put(mesh("")), Put(Thing(name="b")), Delete(key("Mesh", ""))])
        assert [s.resource.name for s in (await store.list("Thing")).items] == ["a", "b"]

    async def test_an_owner_takes_along_what_came_with_it(self, store: Store) -> None:
        owned = [kind(mesh="default", name="b") for kind in (Box, Label, Stamp)]
        await store.write([Put(mesh()), *(Put(one) for one in owned), Delete(key("Box", "b"))])
        [commit] = await take(store.watch(after=0), 1)
        assert [change.key for change in commit.changes] == [key("Mesh", "default")]

    async def test_an_owner_takes_what_it_owns_along(self, store: Store) -> None:
        await store.put(mesh())
        for name in ("b", "c"):
            await store.write([Put(kind(mesh="default", name=name)) for kind in (Box, Label, Stamp)])
        assert await store.delete(key("Box", "b")) == 4
        [commit] = await take(store.watch(after=3), 1)
        assert commit.changes == tuple(Change(key(name, "b"), None) for name in ("Stamp", "Label", "Box"))
        assert (await store.get(key("Stamp", "c"))).revision == 3
        assert await store.delete(key("Stamp", "c")) == 5
        assert (await store.get(key("Box", "c"))).revision == 3

    async def test_what_is_owned_needs_its_owner(self, store: Store) -> None:
        await store.write([Put(mesh()), Put(mesh("other")), Put(Box(mesh="other", name="b"))])
        with pytest.raises(NotFoundError) as caught:
            await store.put(Label(mesh="default", name="b"))
        assert "Box b of mesh default" in str(caught.value)
        assert not isinstance(caught.value, MeshNotFoundError)


class Watching:
    async def test_a_watch_gets_what_was_and_what_comes(self, store: Store) -> None:
        for value in range(3):
            await store.put(Thing(name="a", value=value))
        watch = store.watch(after=1)
        assert [commit.revision for commit in await take(watch, 2)] == [2, 3]
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        stored = await store.put(Thing(name="b"))
        assert await waiting == Commit(4, (Change(key("Thing", "b"), stored),))
        await store.put(Thing(name="b"))
        await assert_quiet(watch)

    async def test_every_watch_gets_every_commit_of_many_writers(self, store: Store) -> None:
        writers, each, watchers = 12, 25, 8
        watches = [asyncio.create_task(take(store.watch(after=0), writers * each)) for _ in range(watchers)]

        async def write(writer: int) -> None:
            for number in range(each):
                await store.put(Thing(name=f"{writer}-{number}"))
                await asyncio.sleep(0)

        await asyncio.gather(*(write(writer) for writer in range(writers)))
        seen = await asyncio.gather(*watches)
        assert [commit.revision for commit in seen[0]] == list(range(1, writers * each + 1))
        assert all(commits == seen[0] for commits in seen)
        assert len({change.key for commit in seen[0] for change in commit.changes}) == writers * each
        assert sorted(replay(seen[0])) == [s.resource.key for s in (await store.list("Thing")).items]

    async def test_a_watch_that_stops_leaves_the_others_alone(self, store: Store) -> None:
        tasks = [asyncio.ensure_future(anext(store.watch(after=0))) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        await store.put(Thing(name="a"))
        assert [(await tasks[index]).revision for index in (0, 2)] == [1, 1]

    async def test_a_watch_that_waited_in_vain_goes_on(self, store: Store) -> None:
        watch = store.watch(after=0)
        await assert_quiet(watch)
        await store.put(Thing(name="a"))
        assert [commit.revision for commit in await take(watch, 1)] == [1]

    async def test_a_watch_that_is_too_slow_is_told(self, store: Store) -> None:
        await store.put(Thing(name="first"))
        slow = store.watch(after=0)
        await take(slow, 1)
        size = HISTORY_CHANGES_MAX // HISTORY_COMMITS_MIN + 1
        for number in range(HISTORY_COMMITS_MIN + 1):
            await store.write([Put(Thing(name=str(index), value=number + 1)) for index in range(size)])
        revision = await store.revision()
        assert revision == HISTORY_COMMITS_MIN + 2
        with pytest.raises(CompactedError):
            await anext(slow)
        with pytest.raises(CompactedError):
            await anext(store.watch(after=0))
        # Those of which a watch may not have heard yet, and some more.
        count = OWN_CHANGES_MAX // size // 2
        newest = await take(store.watch(after=revision - count), count)
        assert newest[-1].revision == revision

    async def test_a_revision_that_is_not_the_stores_is_refused(self, store: Store) -> None:
        await store.put(Thing(name="a"))
        with pytest.raises(CompactedError):
            await anext(store.watch(after=2))
        with pytest.raises(ValueError, match="-1"):
            store.watch(after=-1)

    async def test_a_writer_in_a_loop_lets_watches_keep_up(self, store: Store) -> None:
        size, count = HISTORY_CHANGES_MAX // HISTORY_COMMITS_MIN + 1, HISTORY_COMMITS_MIN + 10
        watching = asyncio.create_task(take(store.watch(after=0), count))
        for number in range(count):
            await store.write([Put(Thing(name=str(index), value=number + 1)) for index in range(size)])
        assert [commit.revision for commit in await watching] == list(range(1, count + 1))


class WritingAtOnce:
    async def test_writers_at_once_get_revisions_without_gaps(self, store: Store) -> None:
        stored = await asyncio.gather(*(store.put(Thing(name=str(number))) for number in range(300)))
        assert sorted(one.revision for one in stored) == list(range(1, 301))
        assert await store.revision() == 300

    async def test_each_write_at_once_fails_for_itself(self, store: Store) -> None:
        await store.put(mesh())
        results = await asyncio.gather(
            store.put(Thing(name="a"), expected_revision=0),
            store.put(Thing(name="a"), expected_revision=0),
            store.put(Note(mesh="nowhere", name="n")),
            store.put(Box(mesh="default", name="b")),
            store.delete(key("Mesh", "default")),
            store.delete(key("Thing", "none")),
            store.put(Thing(name="c")),
            return_exceptions=True,
        )
        kept = [result.revision for result in results if isinstance(result, StoredResource)]
        failed = [type(result) for result in results if isinstance(result, Exception)]
        assert kept == [2, 3, 4]
        assert failed == [ConflictError, MeshNotFoundError, MeshInUseError, NotFoundError]

    async def test_no_update_is_lost_between_writers(self, store: Store) -> None:
        await store.put(Thing(name="counter"))

        async def increment() -> None:
            while True:
                now = await store.get(key("Thing", "counter"))
                value = now.resource.model_dump()["value"] + 1
                try:
                    await store.put(make(key("Thing", "counter"), value), expected_revision=now.revision)
                    return
                except ConflictError:
                    continue

        await asyncio.gather(*(increment() for _ in range(20)))
        assert (await store.get(key("Thing", "counter"))).resource == Thing(name="counter", value=20)

    async def test_a_caller_that_is_cancelled_spoils_nothing(self, store: Store) -> None:
        chance = random.Random(7)
        acknowledged: set[str] = set()

        async def write(name: str) -> None:
            await store.write([Put(Thing(name=name)), Put(Thing(name=f"{name}-twin"))])
            acknowledged.add(name)

        for turn in range(20):
            tasks = [asyncio.create_task(write(f"{turn}-{number}")) for number in range(10)]
            for task in chance.sample(tasks, 5):
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                await asyncio.sleep(chance.choice([0, 0.0002]))
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await store.put(Thing(name="last"))
        names = {s.resource.name for s in (await store.list("Thing")).items}
        commits = await take(store.watch(after=0), await store.revision())
        assert acknowledged <= names
        assert len(acknowledged) >= 100
        assert {f"{name}-twin" for name in names if not name.endswith(("-twin", "last"))} <= names
        assert {at.name for at in replay(commits)} == names


class Closing:
    async def test_closing_ends_watches_after_what_was_committed(self, store: Store) -> None:
        behind, waiting = store.watch(after=0), store.watch(after=1)
        await store.put(Thing(name="a"))
        ended = asyncio.create_task(anext(waiting, None))
        await asyncio.sleep(0)
        await store.close()
        assert await ended is None
        assert [commit.revision async for commit in behind] == [1]

    async def test_a_closed_store_says_so(self, store: Store) -> None:
        await store.put(Thing(name="a"))
        await asyncio.gather(store.close(), store.close())
        await store.close()
        with pytest.raises(StoreUnavailableError):
            await store.get(key("Thing", "a"))
        with pytest.raises(StoreUnavailableError):
            await store.list("Thing")
        with pytest.raises(StoreUnavailableError):
            await store.put(Thing(name="b"))
        with pytest.raises(StoreUnavailableError):
            await store.delete(key("Thing", "a"))
        with pytest.raises(StoreUnavailableError):
            await store.write([])
        with pytest.raises(StoreUnavailableError):
            await store.revision()
        with pytest.raises(StoreUnavailableError):
            store.watch(after=0)

    async def test_what_waits_is_written_before_the_end(self, store: Store) -> None:
        writes = [asyncio.create_task(store.put(Thing(name=str(number)))) for number in range(600)]
        watch = store.watch(after=0)
        await asyncio.sleep(0)
        await store.close()
        assert sorted([(await write).revision for write in writes]) == list(range(1, 601))
        assert [commit.revision async for commit in watch] == list(range(1, 601))
