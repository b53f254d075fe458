"""What several proxies share: a group of Envoy resources that were generated together.

In: resources. Out: `Layer`, compared by identity. Never: a change after it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kumafast.snapshot.resource import XdsResource


class Layer:
    """Resources that come and go together. Snapshots refer to layers; equal parts of two proxies are one layer."""

    __slots__ = ("__weakref__", "resources")

    def __init__(self, resources: Iterable[XdsResource]) -> None:
        self.resources = tuple(resources)

    def __iter__(self) -> Iterator[XdsResource]:
        return iter(self.resources)

    def __len__(self) -> int:
        return len(self.resources)

    def __repr__(self) -> str:
        return f"Layer({', '.join(repr(resource.name) for resource in self.resources)})"
