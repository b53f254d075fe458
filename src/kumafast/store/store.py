"""What a store promises: where resources live and how changes are announced.

In: resources to put, keys to delete. Out: stored resources, and every commit in order to those who watch.
Never: validation of what a resource says (its kind does that), or any knowledge of proxies.

Every commit gets the next revision: a counter of the whole store without gaps. What one commit writes becomes visible
at once or not at all. The store keeps two rules between resources, since only it can keep them atomically: a
mesh-scoped resource needs its mesh, and a mesh cannot go while a resource of a type that `keeps_mesh` is in it (the
others go with it, as do resources whose type names the deleted one as `owner`, and such a resource cannot be put where
its owner is not). What goes along is part of the commit, as deletions before the one that was asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from kumafast.resources.resource import Resource, ResourceKey
from kumafast.store.members import Members


@dataclass(frozen=True, slots=True, weakref_slot=True)
class StoredResource:
    """A resource as the store holds it. `revision` is that of the commit that wrote it last; times are UTC.

    The store hands out the same object until the resource is written again, so that what is made of it can go with it.
    """

    resource: Resource
    revision: int
    creation_time: datetime
    modification_time: datetime


@dataclass(frozen=True, slots=True)
class Put:
    """Write a resource. `expected_revision`: None over anything, 0 only if nothing is there, n only over revision n."""

    resource: Resource
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete by key. `expected_revision`: None deletes whatever is there, n only revision n."""

    key: ResourceKey
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit did to one key: the resource it holds now, or None where it was deleted."""

    key: ResourceKey
    stored: StoredResource | None


@dataclass(frozen=True, slots=True)
class Commit:
    """All changes of one revision, each key once, in the order in which they were first asked for."""

    revision: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Resources in the order of their keys, and the revision at which the store looked like this."""

    revision: int
    # Left out of repr(), which asyncio and loggers call on results unasked: 50,000 resources would take seconds.
    items: tuple[StoredResource, ...] = field(repr=False)


class Store(Protocol):
    """The contract that `tests/store/contract.py` holds every back end to."""

    @property
    def identity(self) -> str:
        """Whose revisions these are: stores with one identity count the same commits."""
        ...

    @property
    def members(self) -> Members:
        """The instances that are on this store."""
        ...

    @property
    def failure(self) -> str:
        """Why nothing can be written now; empty while it can, as far as anybody has tried."""
        ...

    async def get(self, key: ResourceKey) -> StoredResource:
        """The stored resource; `NotFoundError` where there is none."""
        ...

    async def list(self, type_name: str, mesh: str | None = None) -> Listing:
        """All resources of a type, of one mesh or of all."""
        ...

    async def put(self, resource: Resource, *, expected_revision: int | None = None) -> StoredResource:
        """Write one resource and return it as stored once it is durable.

        Writing what is stored already is no commit: the stored resource comes back with its old revision.
        Raises `ConflictError`, `MeshNotFoundError`, `StoreUnavailableError`.
        """
        ...

    async def delete(self, key: ResourceKey, *, expected_revision: int | None = None) -> int:
        """Delete one resource and what goes with it; the revision of the commit.

        Raises `NotFoundError`, `ConflictError`, `MeshInUseError`, `StoreUnavailableError`.
        """
        ...

    async def write(self, operations: Sequence[Put | Delete]) -> int:
        """Do all operations in one commit or none of them; the revision afterwards. Raises as put and delete do.

        Each operation sees what those before it did. Where they come to nothing, there is no commit.
        A caller that is cancelled does not know whether its write was done; it was done whole or not at all. The same
        holds after `StoreUnavailableError` if the process then dies.
        """
        ...

    async def plan(self, operations: Sequence[Put | Delete]) -> tuple[Change, ...]:
        """What `write` would change now, and raise; nothing is written."""
        ...

    async def revision(self) -> int:
        """The revision of the newest commit; 0 where there was none."""
        ...

    def watch(self, *, after: int) -> AsyncIterator[Commit]:
        """Every commit after a revision, in order, none left out and none twice, until the caller stops.

        Iteration raises `CompactedError` where those commits are no longer kept, also in the middle when the caller is
        too slow, and where the revision is ahead of this store's; the caller then lists again.
        Raises `ValueError` for a negative revision.
        """
        ...

    async def close(self) -> None:
        """Finish what was begun, end watches, let go of files and threads; closing twice is closing once.

        Later calls raise `StoreUnavailableError`.
        """
        ...
