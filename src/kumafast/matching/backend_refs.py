"""What references to services find: the destination that a proxy is led to.

In: a reference as routes have it. Out: the tags of its endpoints, or a port of a service by names; None where it
means nothing. Never: the endpoints, or whether there is such a service.

A MeshService without a port is the service of its name, `kuma.io/service`, for that is what outbounds of tags lead to;
with a port it is a resource, as in Kuma. References by labels are not followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from kumafast.matching.backends import BackendPort
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.target_ref import (
    MESH_EXTERNAL_SERVICE,
    MESH_MULTI_ZONE_SERVICE,
    MESH_SERVICE,
    MESH_SERVICE_SUBSET,
)

Tags: TypeAlias = tuple[tuple[str, str], ...]
"""Tags as pairs, sorted by key."""


Destination: TypeAlias = Tags | BackendPort
"""What an outbound or a route leads to."""


def backend(ref: Mapping[str, Any]) -> Destination | None:
    """The destination that a reference means.

    >>> backend({"kind": "MeshServiceSubset", "name": "a", "tags": {"version": "1"}})
    (('kuma.io/service', 'a'), ('version', '1'))
    >>> backend({"kind": "MeshMultiZoneService", "name": "a", "port": 80})
    BackendPort(kind='MeshMultiZoneService', name='a', port=80)
    """
    name, port = ref.get("name"), ref.get("port")
    if not name:
        return None
    match ref.get("kind"):
        case kind if kind == MESH_SERVICE:
            return ((SERVICE_TAG, name),) if port is None else BackendPort(kind, name, port)
        case kind if kind == MESH_MULTI_ZONE_SERVICE and port is not None:
            return BackendPort(kind, name, port)
        case kind if kind == MESH_EXTERNAL_SERVICE:
            return BackendPort(kind, name, 0)
        case kind if kind == MESH_SERVICE_SUBSET:
            return tuple(sorted({**ref.get("tags", {}), SERVICE_TAG: name}.items()))
        case _:
            return None
