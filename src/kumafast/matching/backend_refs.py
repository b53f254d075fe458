"""What references to services find: the destination that a proxy is led to.

In: a reference as routes have it. Out: the tags of its endpoints, or None where it finds nothing.
Never: the endpoints.

A MeshService is the service of its name, `kuma.io/service`, for that is what outbounds of tags lead to. Services that
are resources of their own are to be resolved here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.target_ref import MESH_SERVICE, MESH_SERVICE_SUBSET

Tags: TypeAlias = tuple[tuple[str, str], ...]
"""Tags as pairs, sorted by key."""


def backend(ref: Mapping[str, Any]) -> Tags | None:
    """The destination that a reference finds.

    >>> backend({"kind": "MeshServiceSubset", "name": "a", "tags": {"version": "1"}})
    (('kuma.io/service', 'a'), ('version', '1'))
    >>> backend({"kind": "MeshMultiZoneService", "name": "a", "port": 80})
    """
    name = ref.get("name")
    if not name:
        return None
    match ref.get("kind"):
        case kind if kind == MESH_SERVICE:
            return ((SERVICE_TAG, name),)
        case kind if kind == MESH_SERVICE_SUBSET:
            return tuple(sorted({**ref.get("tags", {}), SERVICE_TAG: name}.items()))
        case _:
            return None
