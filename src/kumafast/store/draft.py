"""What a write would do: the store's rules, applied to the committed image and to what was planned before.

In: an image and the operations of a write. Out: the commit that they make, or the error that refuses them all.
Never: changing the image, waiting, or files. Every rule between resources that the store keeps is in this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kumafast.errors import ConflictError, MeshInUseError, MeshNotFoundError, NotFoundError
from kumafast.resources.resource import Resource, ResourceKey, Scope
from kumafast.store.image import Image
from kumafast.store.store import Change, Commit, Delete, Put, StoredResource

MESH_TYPE = "Mesh"
"""The type whose resources are what mesh-scoped ones live in."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a write comes to: its commit, or None where it changes nothing; and the revision afterwards."""

    revision: int
    commit: Commit | None
    stored: StoredResource | None
    """What its last operation left at its key."""


class Draft:
    """The store as it will be once the writes adopted here are committed, in their order, over the image."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.revision = image.revision
        self._pending: dict[ResourceKey, StoredResource | None] = {}

    def plan(self, operations: Sequence[Put | Delete], *, now: datetime) -> Outcome:
        """What these operations come to as one write; nothing is changed here until the outcome is adopted.

        Raises `NotFoundError`, `MeshNotFoundError`, `MeshInUseError`, `ConflictError` for the first one that cannot be.
        """
        attempt = _Attempt(self, now=now)
        for operation in operations:
            if isinstance(operation, Put):
                attempt.put(operation.resource, expected_revision=operation.expected_revision)
            else:
                attempt.delete(operation.key, expected_revision=operation.expected_revision)
        return attempt.outcome()

    def adopt(self, outcome: Outcome) -> None:
        """Let the writes planned from now on see this one, which must be the last that was planned."""
        if outcome.commit is not None:
            self._pending.update((change.key, change.stored) for change in outcome.commit.changes)
            self.revision = outcome.revision

    def find(self, key: ResourceKey) -> StoredResource | None:
        """The resource that will be there, or None."""
        return self._pending[key] if key in self._pending else self.image.find(key)

    def in_mesh(self, mesh: str) -> dict[ResourceKey, StoredResource | None]:
        """What will be in a mesh; None where something will be gone."""
        found: dict[ResourceKey, StoredResource | None] = {
            stored.resource.key: stored for stored in self.image.in_mesh(mesh)
        }
        found.update(_of_mesh(self._pending, mesh))
        return found


class _Attempt:
    """One write while it is planned: what it has changed so far, over a draft."""

    def __init__(self, draft: Draft, *, now: datetime) -> None:
        self._draft = draft
        self._revision = draft.revision + 1
        self._now = now
        # In the order in which keys were first touched: a mesh that is made anew stays before what is then put into it.
        self._changed: dict[ResourceKey, StoredResource | None] = {}
        self._stored: StoredResource | None = None

    def put(self, resource: Resource, *, expected_revision: int | None) -> None:
        key = resource.key
        self._check_surroundings(resource)
        before = self._find(key)
        if expected_revision is not None and expected_revision != (before.revision if before is not None else 0):
            raise ConflictError(_conflict(key, expected=expected_revision, found=before))
        if before is not None and before.resource == resource:
            self._stored = before
            return
        creation_time = before.creation_time if before is not None else self._now
        self._stored = StoredResource(resource, self._revision, creation_time, self._now)
        self._changed[key] = self._stored
        self._draft.image.learn(resource.type)

    def delete(self, key: ResourceKey, *, expected_revision: int | None) -> None:
        before = self._find(key)
        if before is None:
            raise NotFoundError(f"{_describe(key)} is not found")
        if expected_revision is not None and expected_revision != before.revision:
            raise ConflictError(_conflict(key, expected=expected_revision, found=before))
        if key.type == MESH_TYPE:
            self._empty_mesh(key.name)
        self._remove(key)
        self._stored = None

    def outcome(self) -> Outcome:
        changes = tuple(
            Change(key, stored)
            for key, stored in self._changed.items()
            # What came and went within the write was never there for anybody else.
            if stored is not None or self._draft.find(key) is not None
        )
        if not changes:
            return Outcome(self._draft.revision, None, self._stored)
        return Outcome(self._revision, Commit(self._revision, changes), self._stored)

    def _find(self, key: ResourceKey) -> StoredResource | None:
        return self._changed[key] if key in self._changed else self._draft.find(key)

    def _check_surroundings(self, resource: Resource) -> None:
        type_ = resource.type
        if type_.scope is Scope.MESH and self._find(ResourceKey(MESH_TYPE, "", resource.mesh)) is None:
            raise MeshNotFoundError(resource.mesh)
        if type_.owner is not None:
            owner = ResourceKey(type_.owner, resource.mesh, resource.name)
            if self._find(owner) is None:
                raise NotFoundError(f"{_describe(owner)}, which {type_.name} belongs to, is not found")

    def _empty_mesh(self, mesh: str) -> None:
        if any(key.mesh == mesh for key in self._draft.image.unread):
            raise ConflictError(f"mesh {mesh} holds what only a newer kumafast knows; delete it there")
        found = self._draft.in_mesh(mesh)
        found.update(_of_mesh(self._changed, mesh))
        inside = sorted(key for key, stored in found.items() if stored is not None)
        for key in inside:
            stored = found[key]
            if stored is not None and stored.resource.type.keeps_mesh:
                raise MeshInUseError(mesh)
        for key in inside:
            self._changed[key] = None

    def _remove(self, key: ResourceKey) -> None:
        # What goes along goes first, so that nothing is without its owner halfway through the commit.
        for type_name in self._draft.image.owned_types(key.type):
            owned = ResourceKey(type_name, key.mesh, key.name)
            if self._find(owned) is not None:
                self._remove(owned)
        self._changed[key] = None


def _of_mesh(overlay: dict[ResourceKey, StoredResource | None], mesh: str) -> dict[ResourceKey, StoredResource | None]:
    return {
        key: stored
        for key, stored in overlay.items()
        if key.mesh == mesh and (stored is None or stored.resource.type.scope is Scope.MESH)
    }


def _describe(key: ResourceKey) -> str:
    return f"{key.type} {key.name}" + (f" of mesh {key.mesh}" if key.mesh else "")


def _conflict(key: ResourceKey, *, expected: int, found: StoredResource | None) -> str:
    if found is None:
        return f"{_describe(key)} is no longer there; revision {expected} was expected"
    if expected == 0:
        return f"{_describe(key)} exists already, at revision {found.revision}"
    return f"{_describe(key)} is at revision {found.revision}, not {expected}: somebody else wrote it"
