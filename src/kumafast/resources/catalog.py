"""Every kind of resource there is, and how it is named in documents, addresses and commands.

In: names. Out: `ResourceType` and the class that models it. Never: a list to keep up by hand: a module in
`resources/policies` that defines a resource is found, and nothing else has to be edited.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from kumafast.resources import policies
from kumafast.resources.dataplane import Dataplane
from kumafast.resources.dataplane_insight import DataplaneInsight
from kumafast.resources.external_service import ExternalService
from kumafast.resources.hostname_generator import HostnameGenerator
from kumafast.resources.mesh import Mesh
from kumafast.resources.mesh_external_service import MeshExternalService
from kumafast.resources.mesh_gateway import MeshGateway
from kumafast.resources.mesh_gateway_route import MeshGatewayRoute
from kumafast.resources.mesh_multi_zone_service import MeshMultiZoneService
from kumafast.resources.mesh_service import MeshService
from kumafast.resources.resource import Resource, ResourceType
from kumafast.resources.secret import GlobalSecret, Secret
from kumafast.resources.virtual_ip import VirtualIP
from kumafast.resources.virtual_outbound import VirtualOutbound


def _policy_models() -> list[type[Resource]]:
    models = []
    for module_info in pkgutil.iter_modules(policies.__path__, prefix=f"{policies.__name__}."):
        module = import_module(module_info.name)
        models += [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Resource)
            and value.__module__ == module.__name__
            and "type" in vars(value)
        ]
    return models


_ALL: list[type[Resource]] = [
    Mesh,
    Dataplane,
    DataplaneInsight,
    ExternalService,
    HostnameGenerator,
    MeshExternalService,
    MeshGateway,
    MeshGatewayRoute,
    MeshMultiZoneService,
    MeshService,
    Secret,
    GlobalSecret,
    VirtualOutbound,
    *_policy_models(),
]
# What the control plane keeps for itself: stores know it, and nobody else is told.
_OWN: list[type[Resource]] = [VirtualIP]
_MODELS = {model.type.name: model for model in sorted(_ALL, key=lambda model: model.type.name)}
_STORED = _MODELS | {model.type.name: model for model in _OWN}

RESOURCE_TYPES: tuple[ResourceType, ...] = tuple(model.type for model in _MODELS.values())
"""All types that users know, by name."""
POLICY_TYPES: tuple[ResourceType, ...] = tuple(kind for kind in RESOURCE_TYPES if kind.policy is not None)
"""Those of them that are policies."""

_BY_PATH = {
    path: resource_type
    for resource_type in RESOURCE_TYPES
    for path in (resource_type.path, resource_type.other_path)
    if path
}


def _as_word(text: str) -> str:
    return text.lower().replace(" ", "").replace("-", "").replace("_", "")


_BY_WORD = {
    _as_word(word): resource_type
    for resource_type in RESOURCE_TYPES
    for word in (
        resource_type.short_name,
        resource_type.singular,
        resource_type.plural,
        resource_type.path,
        resource_type.name,
    )
    if word
}


def by_name(name: str) -> ResourceType | None:
    """The type that documents call `type: name`."""
    model = _MODELS.get(name)
    return None if model is None else model.type


def by_path(path: str) -> ResourceType | None:
    """The type whose collection is at this path of the REST API."""
    return _BY_PATH.get(path)


def by_argument(word: str) -> ResourceType | None:
    """The type that a command names: `dataplane`, `dataplanes`, `dp`, `Dataplane`; case, `-` and `_` do not count."""
    return _BY_WORD.get(_as_word(word))


def model_of(type_name: str) -> type[Resource]:
    """The class that models a type; KeyError where there is no such type."""
    return _STORED[type_name]
