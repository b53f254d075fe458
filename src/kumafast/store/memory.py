"""The whole contract in memory: the store of tests and of throw-away control planes, and the face of the durable ones.

In: operations. Out: resources, commits. Never: files; what is stored here goes with the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from uuid import uuid4

from kumafast.errors import NotFoundError, StoreUnavailableError
from kumafast.resources.resource import Resource, ResourceKey
from kumafast.store.draft import Draft, Outcome
from kumafast.store.image import Image
from kumafast.store.members import Members
from kumafast.store.store import Change, Commit, Delete, Listing, Put, StoredResource
from kumafast.store.watch import CommitLog, Watch

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class MemoryStore:
    """A `Store` that keeps everything in memory. Belongs to one event loop.

    A durable store extends it: it overrides `_commit`, in which a write becomes a commit, and hands every commit to
    `_announce` once it is safe. Reads, watches and rules stay as they are here.
    """

    def __init__(
        self,
        *,
        image: Image | None = None,
        log: CommitLog | None = None,
        identity: str | None = None,
        members: Members | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.members = Members() if members is None else members
        """As `Store.members`: whoever says nothing is alone."""
        self._image = Image() if image is None else image
        self._log = CommitLog() if log is None else log
        self._clock = clock
        self._identity = uuid4().hex if identity is None else identity

    @property
    def identity(self) -> str:
        """As `Store.identity`."""
        return self._identity

    @property
    def failure(self) -> str:
        """As `Store.failure`."""
        return ""

    async def get(self, key: ResourceKey) -> StoredResource:
        """As `Store.get`."""
        self._check_open()
        stored = self._image.find(key)
        if stored is None:
            raise NotFoundError(f"{key.type} {key.name} is not found")
        return stored

    async def list(self, type_name: str, mesh: str | None = None) -> Listing:
        """As `Store.list`; O(what is listed)."""
        self._check_open()
        return self._image.listing(type_name, mesh)

    async def put(self, resource: Resource, *, expected_revision: int | None = None) -> StoredResource:
        """As `Store.put`."""
        stored = (await self._commit((Put(resource, expected_revision),))).stored
        assert stored is not None, "a put leaves something"
        return stored

    async def delete(self, key: ResourceKey, *, expected_revision: int | None = None) -> int:
        """As `Store.delete`."""
        return (await self._commit((Delete(key, expected_revision),))).revision

    async def write(self, operations: Sequence[Put | Delete]) -> int:
        """As `Store.write`."""
        return (await self._commit(tuple(operations))).revision

    async def plan(self, operations: Sequence[Put | Delete]) -> tuple[Change, ...]:
        """As `Store.plan`."""
        self._check_open()
        commit = Draft(self._image).plan(operations, now=self._clock()).commit
        return () if commit is None else commit.changes

    async def revision(self) -> int:
        """As `Store.revision`."""
        self._check_open()
        return self._image.revision

    def watch(self, *, after: int) -> AsyncIterator[Commit]:
        """As `Store.watch`; how much is kept for it is said in watch.py."""
        self._check_open()
        return Watch(self._log, after=after)

    async def close(self) -> None:
        """As `Store.close`; closing twice is closing once."""
        self._log.close()

    async def _commit(self, operations: tuple[Put | Delete, ...]) -> Outcome:
        self._check_open()
        outcome = Draft(self._image).plan(operations, now=self._clock())
        self._announce(outcome)
        # A caller that writes in a loop lets those who watch have their turn, or they would find the log run away.
        await asyncio.sleep(0)
        return outcome

    def _announce(self, outcome: Outcome) -> None:
        if outcome.commit is not None:
            self._image.apply(outcome.commit)
            self._log.append(outcome.commit)

    def _check_open(self) -> None:
        if self._log.is_closed:
            raise StoreUnavailableError("the store is closed")
