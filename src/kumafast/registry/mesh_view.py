"""One mesh as it is now.

In: its Mesh resource and dataplanes. Out: `MeshView`, a value that shares what did not change with the view before.
Never: an index; the registry keeps those, since they have one writer and change in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from immutables import Map

from kumafast.resources import Dataplane, Mesh


@dataclass(frozen=True, slots=True)
class MeshView:
    """The immutable picture of one mesh. A change of one dataplane makes a new view in O(log dataplanes)."""

    name: str
    mesh: Mesh | None = None
    dataplanes: Map[str, Dataplane] = field(default_factory=Map, repr=False)
