"""References of routes: to the services whose requests they are about, and to those that they lead to.

In: `to[].targetRef`, `backendRefs` and mirrors of routes. Out: values, and the rules that they break.
Never: which endpoints a reference finds; matching resolves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kumafast.errors import Violation
from kumafast.resources.fields import Count
from kumafast.resources.target_ref import (
    DATAPLANE,
    MESH,
    MESH_EXTERNAL_SERVICE,
    MESH_GATEWAY,
    MESH_MULTI_ZONE_SERVICE,
    MESH_SERVICE,
    MESH_SERVICE_SUBSET,
    MESH_SUBSET,
    TargetRef,
    check_target_ref,
)

ROUTE_TOP_KINDS = (MESH, MESH_GATEWAY, MESH_SERVICE, MESH_SERVICE_SUBSET, MESH_SUBSET, DATAPLANE)
"""Whom a route may be for."""

_TO_KINDS = (MESH_SERVICE, MESH_EXTERNAL_SERVICE, MESH_MULTI_ZONE_SERVICE)
_BACKEND_KINDS = (MESH_SERVICE, MESH_SERVICE_SUBSET, MESH_EXTERNAL_SERVICE, MESH_MULTI_ZONE_SERVICE)
_MIRROR_KINDS = (MESH_SERVICE, MESH_SERVICE_SUBSET)


class BackendRef(TargetRef):
    """One of the services that a route leads to. Weights are relative: not set is 1, and 0 is no share at all."""

    weight: Count | None = None
    port: Count | None = None


def check_route_to(path: str, ref: TargetRef, *, top: str) -> Iterator[Violation]:
    """Whose requests a route is about; those of a gateway are about all."""
    yield from check_target_ref(path, ref, kinds=(MESH,) if top == MESH_GATEWAY else _TO_KINDS)


def check_backend_refs(path: str, refs: Iterable[BackendRef]) -> Iterator[Violation]:
    """What a route leads to."""
    for i, ref in enumerate(refs):
        yield from check_target_ref(f"{path}[{i}]", ref, kinds=_BACKEND_KINDS)
        if ref.kind == MESH_MULTI_ZONE_SERVICE and ref.port is None:
            yield Violation(f"{path}[{i}].port", f"must be defined with kind {ref.kind}")


def check_mirror(path: str, ref: BackendRef) -> Iterator[Violation]:
    """Where copies of requests go."""
    yield from check_target_ref(path, ref, kinds=_MIRROR_KINDS)
