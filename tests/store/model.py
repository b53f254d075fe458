"""A naive store: a dict that is copied for each write, and the rules written down again as plainly as can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.store.kinds import KINDS, Kind

from kumafast.errors import ConflictError, KumafastError, MeshInUseError, MeshNotFoundError, NotFoundError
from kumafast.resources import ResourceKey, Scope
from kumafast.store import Delete, Put

OWNERS = {"Label": "Box", "Stamp": "Label"}


@dataclass(frozen=True)
class Entry:
    """A resource, the revision that made it and the revision that wrote it last."""

    resource: Kind
    created: int
    revision: int


@dataclass
class Model:
    """What the store should hold, and what each commit should have announced: each key's new entry, None if gone."""

    entries: dict[ResourceKey, Entry] = field(default_factory=dict)
    commits: list[dict[ResourceKey, Entry | None]] = field(default_factory=list)

    @property
    def revision(self) -> int:
        return len(self.commits)

    def write(self, operations: Sequence[Put | Delete]) -> type[KumafastError] | None:
        """Do them all, or return the error that is due and do nothing."""
        entries = dict(self.entries)
        for operation in operations:
            error = self._put(entries, operation) if isinstance(operation, Put) else self._delete(entries, operation)
            if error is not None:
                return error
        changed = {
            key: entries.get(key)
            for key in entries.keys() | self.entries.keys()
            if entries.get(key) != self.entries.get(key)
        }
        if changed:
            self.entries = entries
            self.commits.append(changed)
        return None

    def _put(self, entries: dict[ResourceKey, Entry], put: Put) -> type[KumafastError] | None:
        key = put.resource.key
        there = entries.get(key)
        if KINDS[key.type].type.scope is Scope.MESH and ResourceKey("Mesh", "", key.mesh) not in entries:
            return MeshNotFoundError
        if key.type in OWNERS and ResourceKey(OWNERS[key.type], key.mesh, key.name) not in entries:
            return NotFoundError
        if put.expected_revision is not None and put.expected_revision != (there.revision if there else 0):
            return ConflictError
        if there is None or there.resource != put.resource:
            assert isinstance(put.resource, Kind)
            entries[key] = Entry(put.resource, there.created if there else self.revision + 1, self.revision + 1)
        return None

    def _delete(self, entries: dict[ResourceKey, Entry], delete: Delete) -> type[KumafastError] | None:
        there = entries.get(delete.key)
        if there is None:
            return NotFoundError
        if delete.expected_revision not in {None, there.revision}:
            return ConflictError
        if delete.key.type == "Mesh":
            if any(key.type == "Box" and key.mesh == delete.key.name for key in entries):
                return MeshInUseError
            for key in [key for key in entries if key.mesh == delete.key.name]:
                del entries[key]
        del entries[delete.key]
        while orphans := [
            key
            for key in entries
            if key.type in OWNERS and ResourceKey(OWNERS[key.type], key.mesh, key.name) not in entries
        ]:
            for key in orphans:
                del entries[key]
        return None
