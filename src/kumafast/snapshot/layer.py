"""What several proxies share: a group of Envoy resources that were generated together.

In: resources. Out: `Layer`, compared by identity, and how one layer differs from another that takes its place.
Never: a change after it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from weakref import ref

from kumafast._core import SnapshotDigest, untrack
from kumafast.snapshot.resource import XdsResource


class Change:
    """What differs between two layers in one type, of which both have the same names."""

    __slots__ = ("after", "before", "delta", "names", "resources")

    def __init__(self) -> None:
        self.before: dict[str, XdsResource] = {}
        """By name what was there, of those whose content is another."""
        self.after: dict[str, XdsResource] = {}
        self.delta = SnapshotDigest()
        """What is to be added to the digest of whatever held the one, to have that of the other."""
        self.names: tuple[str, ...] = ()
        self.resources: tuple[XdsResource, ...] = ()
        """The names and resources of `after`, once that is complete."""

    def complete(self) -> None:
        """Nothing is added to it any more: what all who move from the one to the other are sent is theirs together."""
        self.names, self.resources = tuple(self.after), tuple(self.after.values())
        untrack(self.names, self.resources)


class Layer:
    """Resources that come and go together. Snapshots refer to layers; equal parts of two proxies are one layer."""

    __slots__ = ("__weakref__", "_by_type", "_successor", "resources")

    def __init__(self, resources: Iterable[XdsResource]) -> None:
        self.resources = tuple(resources)
        self._by_type: dict[str, dict[str, XdsResource]] | None = None
        # The layer that was last put in the place of this one, and how it differs: all snapshots that move from one to
        # the other ask for that. Weak, or a layer that stays would keep all that came after it.
        self._successor: tuple[ref[Layer], dict[str, Change] | None] | None = None
        # Here and in a snapshot nothing refers back, and there are too many of them to be looked through.
        untrack(self, self.resources, *self.resources)

    def __iter__(self) -> Iterator[XdsResource]:
        return iter(self.resources)

    def __len__(self) -> int:
        return len(self.resources)

    def __repr__(self) -> str:
        return f"Layer({', '.join(repr(resource.name) for resource in self.resources)})"

    def by_type(self) -> Mapping[str, Mapping[str, XdsResource]] | None:
        """The resources by type and name, found once for all who have the layer; None where a name stands twice."""
        if self._by_type is None:
            found: dict[str, dict[str, XdsResource]] = {}
            for resource in self.resources:
                found.setdefault(resource.type_url, {})[resource.name] = resource
            untrack(found, *found.values())
            self._by_type = found
        return self._by_type if sum(map(len, self._by_type.values())) == len(self.resources) else None

    def changes_to(self, newer: Layer) -> dict[str, Change] | None:
        """By type what is another in `newer`; None where it has other names, or names in another order."""
        if self._successor is not None and self._successor[0]() is newer:
            return self._successor[1]
        changes = self._compare(newer)
        self._successor = (ref(newer), changes)
        return changes

    def _compare(self, newer: Layer) -> dict[str, Change] | None:
        if len(self) != len(newer):
            return None
        changes: dict[str, Change] = {}
        for was, now in zip(self.resources, newer.resources, strict=True):
            if was is now:
                continue
            if (was.type_url, was.name) != (now.type_url, now.name):
                return None
            if was.version == now.version:
                continue
            change = changes.get(was.type_url)
            if change is None:
                change = changes[was.type_url] = Change()
            if was.name in change.after:
                # A name that stands twice hides itself: that is for the long way.
                return None
            change.before[was.name], change.after[was.name] = was, now
            change.delta.replace(was.name, was.version, now.version)
        for change in changes.values():
            change.complete()
        return changes


class LateLayer(Layer):
    """A layer whose resources are made when somebody looks at them: for those who compare layers before they do."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Iterable[XdsResource]]) -> None:
        self._make = make
        self._made: tuple[XdsResource, ...] | None = None
        self._by_type = None
        self._successor = None

    @property
    def resources(self) -> tuple[XdsResource, ...]:  # type: ignore[override]
        """What it holds."""
        if self._made is None:
            self._made = tuple(self._make())
        return self._made

    @property
    def is_made(self) -> bool:
        """Whether somebody has looked."""
        return self._made is not None
