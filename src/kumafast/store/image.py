"""What is stored, in memory: the committed resources, found by key and in order.

In: commits, each with the next revision. Out: single resources, and those of a type or a mesh in order.
Never: deciding what may be written (draft.py does), waiting, or files.
"""

from __future__ import annotations

from collections.abc import Iterator

from kumafast.resources.resource import ResourceKey, ResourceType, Scope
from kumafast.store.store import Commit, Listing, StoredResource


class Shelf:
    """The resources of one type in one mesh (or of one global type), by name."""

    __slots__ = ("_by_name", "_order")

    def __init__(self) -> None:
        self._by_name: dict[str, StoredResource] = {}
        self._order: list[str] | None = None

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> StoredResource | None:
        """The resource of a name, or None."""
        return self._by_name.get(name)

    def place(self, name: str, stored: StoredResource) -> None:
        """Put a resource in, in the place of its predecessor if it has one."""
        if name not in self._by_name:
            self._order = None
        self._by_name[name] = stored

    def remove(self, name: str) -> None:
        """Take a resource out; it must be there."""
        del self._by_name[name]
        self._order = None

    def in_order(self) -> Iterator[StoredResource]:
        """All of them, by name; sorted anew only after names came or went, and then from a nearly sorted beginning."""
        if self._order is None:
            self._order = sorted(self._by_name)
        return map(self._by_name.__getitem__, self._order)


class Image:
    """The committed state of a store. It has one writer at a time; `apply` shows a commit whole or not at all."""

    def __init__(self) -> None:
        self.revision = 0
        self.unread: set[ResourceKey] = set()
        """What is stored and not here, for this kumafast does not know its type; a newer one put it there."""
        self._shelves: dict[str, dict[str, Shelf]] = {}
        self._owned_types: dict[str, set[str]] = {}

    def find(self, key: ResourceKey) -> StoredResource | None:
        """The stored resource, or None."""
        shelf = self._shelves.get(key.type, {}).get(key.mesh)
        return None if shelf is None else shelf.find(key.name)

    def listing(self, type_name: str, mesh: str | None = None) -> Listing:
        """All resources of a type in the order of (mesh, name), or those of one mesh by name; O(what is listed)."""
        shelves = self._shelves.get(type_name, {})
        meshes = sorted(shelves) if mesh is None else [mesh]
        return Listing(
            self.revision, tuple(stored for name in meshes if name in shelves for stored in shelves[name].in_order())
        )

    def all(self) -> Iterator[StoredResource]:
        """Every resource."""
        for shelves in self._shelves.values():
            for shelf in shelves.values():
                yield from shelf.in_order()

    def in_mesh(self, mesh: str) -> Iterator[StoredResource]:
        """Every resource of a mesh-scoped type in a mesh."""
        for shelves in self._shelves.values():
            if mesh in shelves:
                yield from (stored for stored in shelves[mesh].in_order() if stored.resource.type.scope is Scope.MESH)

    def learn(self, type_: ResourceType) -> None:
        """Note what owns resources of a type, so that deleting an owner needs no catalogue of all types."""
        if type_.owner is not None:
            self._owned_types.setdefault(type_.owner, set()).add(type_.name)

    def owned_types(self, owner: str) -> list[str]:
        """The types, of those learnt, whose resources go when the one of type `owner` does; by name."""
        return sorted(self._owned_types.get(owner, ()))

    def apply(self, commit: Commit) -> None:
        """Make a commit visible: O(its changes)."""
        for change in commit.changes:
            if change.stored is not None:
                self.place(change.stored)
            else:
                self._remove(change.key)
        self.revision = commit.revision

    def place(self, stored: StoredResource, key: ResourceKey | None = None) -> None:
        """Put in one resource that is known to be committed, as when a file is read, under its own key."""
        if key is None:
            key = stored.resource.key
        shelf = self._shelves.get(key.type, {}).get(key.mesh)
        if shelf is None:
            self.learn(stored.resource.type)
            shelf = self._shelves.setdefault(key.type, {})[key.mesh] = Shelf()
        shelf.place(key.name, stored)

    def _remove(self, key: ResourceKey) -> None:
        shelves = self._shelves[key.type]
        shelves[key.mesh].remove(key.name)
        if not shelves[key.mesh]:
            del shelves[key.mesh]
