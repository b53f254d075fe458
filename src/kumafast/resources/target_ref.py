"""References to what a policy is for: the top-level `targetRef`, and those of `to` and `from`.

In: references of the right structure, the kinds that their place allows. Out: violations, in Kuma's order and words.
Never: whom a reference finds; matching compiles it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from kumafast.errors import Violation
from kumafast.resources.fields import FrozenMap, Tags, Text
from kumafast.resources.resource import Frozen
from kumafast.resources.validation import check_selector_entries, check_tags

MESH = "Mesh"
DATAPLANE = "Dataplane"
MESH_SUBSET = "MeshSubset"
MESH_GATEWAY = "MeshGateway"
MESH_SERVICE = "MeshService"
MESH_SERVICE_SUBSET = "MeshServiceSubset"
MESH_EXTERNAL_SERVICE = "MeshExternalService"
MESH_MULTI_ZONE_SERVICE = "MeshMultiZoneService"
MESH_HTTP_ROUTE = "MeshHTTPRoute"

PROXIES = (MESH, DATAPLANE, MESH_SUBSET, MESH_GATEWAY, MESH_SERVICE, MESH_SERVICE_SUBSET)
"""What chooses the proxies that a policy is for."""
SERVICES = (MESH_SERVICE, MESH_EXTERNAL_SERVICE, MESH_MULTI_ZONE_SERVICE)
"""What proxies send to."""

_NAME = re.compile(r"[0-9a-z.\-_]*")
_NAME_MESSAGE = "invalid characters: must consist of lower case alphanumeric characters, '-', '.' and '_'."


class TargetRef(Frozen):
    """What a policy, or a part of it, is for."""

    kind: Text = ""
    name: Text = ""
    namespace: Text = ""
    mesh: Text = ""
    tags: Tags = FrozenMap()
    labels: Tags = FrozenMap()
    section_name: Text = ""
    proxy_types: tuple[Literal["Sidecar", "Gateway"], ...] = ()


def includes_gateways(ref: TargetRef) -> bool:
    """Whether a policy for this may be one for gateways' listeners, as Kuma takes it."""
    if ref.kind in (MESH, MESH_SUBSET):
        return not ref.proxy_types or "Gateway" in ref.proxy_types
    return ref.kind in (MESH_GATEWAY, MESH_HTTP_ROUTE)


def is_only_gateways(ref: TargetRef) -> bool:
    """Whether a policy for this is for gateways' listeners and nothing else."""
    return includes_gateways(ref) and (ref.kind == MESH_GATEWAY or set(ref.proxy_types) == {"Gateway"})


def check_target_ref(
    path: str,
    ref: TargetRef,
    *,
    kinds: Collection[str],
    is_inbound: bool = False,
    unsupported: str = "value is not supported",
) -> Iterator[Violation]:
    """A reference in a place that allows some kinds; `is_inbound` where its policy is about inbounds.

    `unsupported` is what is said of any other kind.
    """
    if not ref.kind:
        yield Violation(f"{path}.kind", "must be defined")
    elif ref.kind not in kinds:
        yield Violation(f"{path}.kind", unsupported)
    elif ref.kind == MESH:
        if ref.name:
            yield Violation(f"{path}.name", f"using name with kind {MESH} is not yet supported")
        yield from _refuse(path, ref, "mesh", "tags", "labels", "namespace", "sectionName")
    elif ref.kind == DATAPLANE:
        yield from _refuse(path, ref, "tags", "mesh", "proxyTypes")
        if ref.labels and (ref.name or ref.namespace):
            yield Violation(f"{path}.labels", "either labels or name and namespace must be specified")
        if ref.section_name and not is_inbound:
            yield Violation(f"{path}.sectionName", "can only be used with inbound policies")
    elif ref.kind == MESH_SUBSET:
        yield from _refuse(path, ref, "name", "mesh")
        yield from check_tags(f"{path}.tags", ref.tags)
        yield from _refuse(path, ref, "labels", "namespace", "sectionName")
    elif ref.kind in (MESH_SERVICE_SUBSET, MESH_GATEWAY):
        yield from _require_name(path, ref)
        yield from _check_name(path, ref)
        yield from _refuse(path, ref, "mesh", "proxyTypes")
        yield from check_selector_entries(f"{path}.tags", ref.tags)
        yield from _refuse(path, ref, "labels", "namespace", "sectionName")
    else:
        yield from _check_named(path, ref)


def _check_named(path: str, ref: TargetRef) -> Iterator[Violation]:
    """A reference to a resource, by its name or by its labels."""
    is_external = ref.kind == MESH_EXTERNAL_SERVICE
    yield from _check_name(path, ref)
    yield from _refuse(path, ref, "mesh", "tags", "proxyTypes")
    if not ref.labels:
        yield from _require_name(path, ref)
    elif ref.name or ref.namespace:
        names = "name" if is_external else "name and namespace"
        yield Violation(f"{path}.labels", f"either labels or {names} must be specified")
    if is_external:
        yield from _refuse(path, ref, "sectionName")
    elif ref.labels and ref.section_name:
        yield Violation(f"{path}.sectionName", "sectionName should not be combined with labels")


def _refuse(path: str, ref: TargetRef, *fields: str) -> Iterator[Violation]:
    values: Mapping[str, object] = {
        "name": ref.name,
        "namespace": ref.namespace,
        "mesh": ref.mesh,
        "tags": ref.tags,
        "labels": ref.labels,
        "sectionName": ref.section_name,
        "proxyTypes": ref.proxy_types,
    }
    for field in fields:
        if values[field]:
            yield Violation(f"{path}.{field}", f"must not be set with kind {ref.kind}")


def _require_name(path: str, ref: TargetRef) -> Iterator[Violation]:
    if not ref.name:
        yield Violation(f"{path}.name", f"must be set with kind {ref.kind}")


def _check_name(path: str, ref: TargetRef) -> Iterator[Violation]:
    if not _NAME.fullmatch(ref.name):
        yield Violation(f"{path}.name", _NAME_MESSAGE)
