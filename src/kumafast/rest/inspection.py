"""What requests about one proxy have in common: its dataplane with its policies, and how resources are referred to.

In: a request. Out: the proxy that it names, as the live picture has it. Never: an answer; each has its module.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from starlette.requests import Request

from kumafast.errors import MeshNotFoundError
from kumafast.matching import Bindings
from kumafast.registry import DataplaneId
from kumafast.registry.gateways import Gateway, is_builtin
from kumafast.resources import Dataplane, Mesh, MeshGateway, MeshGatewayRoute, Resource, ResourceKey, catalog, kri
from kumafast.resources.defaults import ZONE_LABEL
from kumafast.resources.fields import FrozenMap
from kumafast.resources.networking import Inbound
from kumafast.resources.resource import PolicyTraits, ResourceType
from kumafast.rest.errors import AbsentError, UnknownPathError
from kumafast.rest.services import ApiServices, Picture

T = TypeVar("T")

SENT_AS_TAKEN: Final = frozenset(
    kind.name for kind in catalog.POLICY_TYPES if kind.policy is not None and kind.policy.both_ways
)
"""The kinds that say nothing of what is sent, and yet hold for it: Kuma shows them beside what comes in only."""

GATEWAY_KINDS: Final = frozenset({MeshGateway.type.name, MeshGatewayRoute.type.name})
"""What is for built-in gateways as policies are for proxies."""

_TURN_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Proxy:
    """A dataplane and its policies, in the picture of one moment; good until something is awaited."""

    mesh: Mesh
    dataplane: Dataplane
    bindings: Bindings
    picture: Picture

    @property
    def dataplane_id(self) -> DataplaneId:
        """Its mesh and name."""
        return DataplaneId(self.dataplane.mesh, self.dataplane.name)

    @property
    def gateway(self) -> Gateway | None:
        """What it is as a built-in gateway; None where it is none, or selected by no MeshGateway."""
        state = self.picture.state(self.mesh.name)
        return None if state is None else state.gateways.get(self.dataplane.name)

    @property
    def inbounds(self) -> tuple[Inbound, ...]:
        """What it takes requests by: its inbounds or, of a built-in gateway, the listeners, by their host names."""
        if not is_builtin(self.dataplane):
            return self.dataplane.inbounds
        own = {} if self.dataplane.gateway is None else self.dataplane.gateway.tags
        listeners = () if self.gateway is None else (attached.listener for attached in self.gateway.listeners)
        return tuple(
            Inbound(port=each.port, name=each.hostname, tags=FrozenMap({**own, **each.tags})) for each in listeners
        )


async def find_proxy(services: ApiServices, request: Request) -> Proxy:
    """The proxy that a path names. Raises `MeshNotFoundError` and `AbsentError`."""
    await services.settle()
    return proxy_named(services.picture, request.path_params["mesh"], request.path_params["name"])


def proxy_named(picture: Picture, mesh: str, name: str) -> Proxy:
    """A proxy by its name. Raises `MeshNotFoundError` and `AbsentError`."""
    view = picture.mesh(mesh)
    if view is None or view.mesh is None:
        raise MeshNotFoundError(mesh)
    dataplane = view.dataplanes.get(name)
    if dataplane is None:
        raise AbsentError("Could not retrieve Dataplane")
    return Proxy(view.mesh, dataplane, picture.bindings(DataplaneId(mesh, name)), picture)


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """Items one by one; after some milliseconds with them everything else has its turn, and the picture may change."""
    began = time.monotonic()
    for item in items:
        yield item
        if time.monotonic() - began >= _TURN_S:
            await asyncio.sleep(0)
            began = time.monotonic()


async def find_policy(services: ApiServices, request: Request) -> Resource:
    """The policy that a path names. Raises `UnknownPathError`, `MeshNotFoundError` and `AbsentError`."""
    kind = catalog.by_path(request.path_params["path"])
    if kind is None or kind.policy is None:
        raise UnknownPathError
    return await _written(services, request, kind)


async def find_selecting(services: ApiServices, request: Request) -> Resource:
    """The same, or what is for gateways as policies are: a MeshGateway, or a MeshGatewayRoute."""
    kind = catalog.by_path(request.path_params["path"])
    if kind is not None and kind.name in GATEWAY_KINDS:
        return await _written(services, request, kind)
    return await find_policy(services, request)


async def _written(services: ApiServices, request: Request, kind: ResourceType) -> Resource:
    await services.settle()
    mesh = request.path_params["mesh"]
    view = services.picture.mesh(mesh)
    if view is None or view.mesh is None:
        raise MeshNotFoundError(mesh)
    stored = services.picture.written(ResourceKey(kind.name, mesh, request.path_params["name"]))
    if stored is None:
        raise AbsentError("Could not retrieve policy")
    return stored.resource


def traits_of(kind: str) -> PolicyTraits:
    """What the catalogue knows of a kind of policy."""
    found = catalog.by_name(kind)
    assert found is not None
    assert found.policy is not None
    return found.policy


def meta(resource: Resource) -> dict[str, Any]:
    """How answers refer to a resource."""
    return {
        "labels": dict(resource.labels),
        "mesh": resource.mesh,
        "name": resource.name,
        "type": resource.type.name,
    }


def kri_of(resource: Resource) -> str:
    """The identifier of a resource, as answers about policies give it."""
    return kri(resource, zone=resource.labels.get(ZONE_LABEL, ""))


def inbound_document(inbound: Inbound) -> Mapping[str, Any]:
    """How answers refer to an inbound."""
    name = {"name": inbound.name} if inbound.name else {}
    return {**name, "port": inbound.port, "tags": dict(inbound.tags)}
