"""The endpoints of a destination as some of its clients see them, or under another name.

In: endpoints, encoded. Out: a layer of them. Never: which endpoints there are; whoever has them all says what changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kumafast.generation.localities import View
from kumafast.resources.tags import ZONE_TAG
from kumafast.snapshot import EndpointEntry, Layer, LoadAssignment

_TAGS = 2
"""Where an endpoint's order has its tags."""


class Viewed:
    """The endpoints of a destination as some of its clients see them, kept while one of these has it."""

    __slots__ = ("__weakref__", "_assignment", "_layer")

    def __init__(self, cluster_name: str, view: View | None, entries: Iterable[EndpointEntry]) -> None:
        self._assignment = LoadAssignment(cluster_name) if view is None else _placed(cluster_name, view)
        self._assignment.alter([], list(entries))
        self._layer: Layer | None = None

    def alter(self, removed: Sequence[EndpointEntry], added: Sequence[EndpointEntry]) -> None:
        """Follow the destination. O(what changed)."""
        self._assignment.alter(removed, added)
        self._layer = None

    def layer(self) -> tuple[Layer, bool]:
        """The endpoints as one layer, and whether it was put together just now."""
        if self._layer is not None:
            return self._layer, False
        self._layer = self._assignment.layer()
        return self._layer, True


def _placed(cluster_name: str, view: View) -> LoadAssignment:
    return LoadAssignment(
        cluster_name,
        place=lambda entry: view.place({**dict(entry.order[_TAGS]), ZONE_TAG: entry.zone}),
        overprovisioning=view.overprovisioning,
    )
