"""Any order of writes, conflicts, watches and restarts leaves all back ends as the naive model says."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.postgresql import Server
from tests.store import kinds
from tests.store.model import Entry, Model

from kumafast.errors import KumafastError
from kumafast.resources import ResourceKey
from kumafast.store import Commit, Delete, MemoryStore, Put, SqliteStore, Store, StoredResource

T = TypeVar("T")

KEYS = st.builds(
    kinds.key, st.sampled_from(sorted(kinds.KINDS)), st.sampled_from(["x", "y"]), st.sampled_from(["x", "y"])
)
REVISIONS = st.none() | st.integers(0, 12)
PUTS = st.builds(Put, st.builds(kinds.make, KEYS, st.integers(0, 2)), REVISIONS)
DELETES = st.builds(Delete, KEYS, REVISIONS)
WRITES = st.lists(PUTS | DELETES, max_size=5)


class Stores(RuleBasedStateMachine):
    """The back ends and the model, told the same: of PostgreSQL two instances, one of which is told at a time."""

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "store.db"
        self.model = Model()
        ticks = itertools.count()
        # Each planned write gets a time of its own, so that equal times mean the same write.
        self.clock = lambda: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(microseconds=next(ticks))

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(what)

    @initialize()
    def open(self) -> None:
        self.memory = MemoryStore(clock=self.clock)
        self.sqlite: SqliteStore = self.run(kinds.open_sqlite(self.path, clock=self.clock))
        self.url = self.server.new_store()
        self.instances = [self.run(kinds.open_postgres(self.url, clock=self.clock)) for _ in range(2)]
        self.watches: list[tuple[Store, int, AsyncIterator[Commit], list[Commit]]] = []

    @property
    def stores(self) -> tuple[Store, ...]:
        """Those that are told what happens."""
        return self.memory, self.sqlite, self.instances[0]

    @rule()
    def turn(self) -> None:
        """Tell the other instance from now on."""
        self.instances.reverse()

    @rule(put=PUTS)
    def put(self, put: Put) -> None:
        error = self.model.write([put])
        for store in self.stores:
            stored = self.attempt(store.put(put.resource, expected_revision=put.expected_revision), error)
            if stored is not None:
                self.check_entry(stored, self.model.entries[put.resource.key])

    @rule(delete=DELETES)
    def delete(self, delete: Delete) -> None:
        error = self.model.write([delete])
        for store in self.stores:
            revision = self.attempt(store.delete(delete.key, expected_revision=delete.expected_revision), error)
            assert revision is None or revision == self.model.revision

    @rule(operations=WRITES)
    def write(self, operations: list[Put | Delete]) -> None:
        error = self.model.write(operations)
        for store in self.stores:
            revision = self.attempt(store.write(operations), error)
            assert revision is None or revision == self.model.revision

    @rule(writes=st.lists(WRITES, min_size=2, max_size=6))
    def write_at_once(self, writes: list[list[Put | Delete]]) -> None:
        errors = [self.model.write(operations) for operations in writes]

        async def all_of(store: Store) -> list[object]:
            return await asyncio.gather(*(store.write(operations) for operations in writes), return_exceptions=True)

        # Both take writes in the order in which they were begun, so the model can foretell each one.
        for store in self.stores:
            results = self.run(all_of(store))
            assert [type(result) if isinstance(result, Exception) else None for result in results] == errors

    @rule(data=st.data())
    def watch(self, data: st.DataObject) -> None:
        after = data.draw(st.integers(0, self.model.revision))
        for store in (*self.stores, self.instances[1]):
            self.watches.append((store, after, store.watch(after=after), []))

    @rule()
    def catch_up(self) -> None:
        for _, after, watch, seen in self.watches:
            for _ in range(self.model.revision - after - len(seen)):
                seen.append(self.run(_next(watch)))
            self.check_commits(after, seen)

    @rule()
    def reopen(self) -> None:
        identity = self.sqlite.identity
        self.run(self.sqlite.close())
        self.watches = [watch for watch in self.watches if watch[0] is not self.sqlite]
        self.sqlite = self.run(kinds.open_sqlite(self.path, clock=self.clock))
        assert self.sqlite.identity == identity

    @rule()
    def reopen_instance(self) -> None:
        gone = self.instances.pop()
        self.run(gone.close())
        self.watches = [watch for watch in self.watches if watch[0] is not gone]
        self.instances.append(self.run(kinds.open_postgres(self.url, clock=self.clock)))
        assert self.instances[1].identity == gone.identity

    @invariant()
    def all_hold_what_the_model_holds(self) -> None:
        self.run(_reach(self.instances[1], self.model.revision))
        for store in (*self.stores, self.instances[1]):
            assert self.run(store.revision()) == self.model.revision
            held = [s for type_name in sorted(kinds.KINDS) for s in self.run(store.list(type_name)).items]
            assert [s.resource.key for s in held] == sorted(self.model.entries)
            for stored in held:
                self.check_entry(stored, self.model.entries[stored.resource.key])
                assert self.run(store.get(stored.resource.key)) is stored

    def attempt(self, write: Coroutine[Any, Any, T], error: type[KumafastError] | None) -> T | None:
        raised: type[KumafastError] | None = None
        result: T | None = None
        try:
            result = self.run(write)
        except KumafastError as caught:
            raised = type(caught)
        assert raised is error
        return result

    def check_entry(self, stored: StoredResource, entry: Entry) -> None:
        assert (stored.resource, stored.revision) == (entry.resource, entry.revision)
        assert (stored.creation_time == stored.modification_time) == (entry.created == entry.revision)

    def check_commits(self, after: int, seen: list[Commit]) -> None:
        assert [commit.revision for commit in seen] == list(range(after + 1, self.model.revision + 1))
        for commit, expected in zip(seen, self.model.commits[after:], strict=True):
            announced: dict[ResourceKey, StoredResource | None] = {c.key: c.stored for c in commit.changes}
            assert len(announced) == len(commit.changes)
            assert announced.keys() == expected.keys()
            for key, entry in expected.items():
                stored = announced[key]
                assert (stored is None) == (entry is None)
                if stored is not None and entry is not None:
                    self.check_entry(stored, entry)

    def teardown(self) -> None:
        self.catch_up()
        # Whatever happened, a watch from the beginning tells the whole story, after a restart too.
        self.reopen()
        self.reopen_instance()
        for store in (*self.stores, self.instances[1]):
            self.watches.append((store, 0, store.watch(after=0), []))
        self.catch_up()
        for store in (self.sqlite, *self.instances):
            self.run(store.close())
        self.runner.close()
        self.folder.cleanup()


async def _next(watch: AsyncIterator[Commit]) -> Commit:
    async with asyncio.timeout(10):
        return await anext(watch)


async def _reach(store: Store, revision: int) -> None:
    """Another instance's commits come a moment later."""
    async with asyncio.timeout(60):
        while await store.revision() < revision:
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def _server(postgresql: Server) -> None:
    Stores.server = postgresql


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
