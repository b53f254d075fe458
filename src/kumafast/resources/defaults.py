"""What the server adds to a resource that a user wrote, and how it names it.

In: a resource and the zone of this control plane. Out: the resource as it is stored; its resource identifier.
Never: a different answer the second time: adding defaults twice is adding them once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kumafast.resources.dataplane import Dataplane
from kumafast.resources.fields import FrozenMap
from kumafast.resources.networking import Networking
from kumafast.resources.resource import Resource, Scope
from kumafast.resources.tags import ZONE_TAG

ENV_LABEL = "kuma.io/env"
MESH_LABEL = "kuma.io/mesh"
ORIGIN_LABEL = "kuma.io/origin"
PROXY_TYPE_LABEL = "kuma.io/proxy-type"
ZONE_LABEL = "kuma.io/zone"


def with_defaults(resource: Resource, *, zone: str) -> Resource:
    """The resource with the labels and, for a dataplane, the zone tags that the server sets.

    Where a user wrote them with other values, the server's win.
    """
    if resource.type.scope is Scope.GLOBAL or resource.type.is_read_only:
        return resource
    labels = {
        **resource.labels,
        ENV_LABEL: "universal",
        MESH_LABEL: resource.mesh,
        ORIGIN_LABEL: "zone",
        ZONE_LABEL: zone,
    }
    changes: dict[str, Any] = {}
    if isinstance(resource, Dataplane):
        labels[PROXY_TYPE_LABEL] = "sidecar" if resource.gateway is None else "gateway"
        if resource.networking is not None:
            changes["networking"] = _with_zone(resource.networking, zone)
    changes["labels"] = _sorted(labels)
    return resource.model_copy(update=changes)


def _with_zone(networking: Networking, zone: str) -> Networking:
    # An inbound without tags stays without: with the zone alone it would lack the service tag.
    inbound = tuple(
        item.model_copy(update={"tags": _sorted({**item.tags, ZONE_TAG: zone})}) if item.tags else item
        for item in networking.inbound
    )
    gateway = networking.gateway
    if gateway is not None:
        gateway = gateway.model_copy(update={"tags": _sorted({**gateway.tags, ZONE_TAG: zone})})
    return networking.model_copy(update={"inbound": inbound, "gateway": gateway})


def _sorted(tags: Mapping[str, str]) -> FrozenMap[str, str]:
    return FrozenMap(sorted(tags.items()))


def kri(resource: Resource, *, zone: str) -> str:
    """The resource identifier `kri_<short name>_<mesh>_<zone>_<namespace>_<name>_<section>`.

    Empty for types without a short name. Namespace and section are empty on Universal; a global type has neither mesh
    nor zone.
    """
    if not resource.type.short_name:
        return ""
    where = zone if resource.type.scope is Scope.MESH else ""
    return f"kri_{resource.type.short_name}_{resource.mesh}_{where}__{resource.name}_"
