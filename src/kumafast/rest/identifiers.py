"""Resource identifiers: `kri_<kind>_<mesh>_<zone>_<namespace>_<name>_<section>`, and the resource that one names.

In: an identifier as text. Out: its parts; the resource, as its own path shows it. Never: a secret, nor a resource of
another zone.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from kumafast.errors import NotFoundError
from kumafast.resources import catalog
from kumafast.resources.resource import ResourceKey, ResourceType, Scope
from kumafast.rest.documents import Documents
from kumafast.rest.endpoint import Handler
from kumafast.rest.errors import BadRequestError, encoded_response
from kumafast.store.store import Store

_PREFIX: Final = "kri"
_PARTS: Final = 7


class Identifier(NamedTuple):
    """The parts of an identifier; `kind` is the short name of a type."""

    kind: str
    mesh: str
    zone: str
    namespace: str
    name: str
    section: str

    def __str__(self) -> str:
        return "_".join((_PREFIX, *self))


def parse_identifier(text: str) -> Identifier:
    """The parts of an identifier. Raises `BadRequestError` in Kuma's words."""
    parts = text.split("_")
    if len(parts) < _PARTS:
        raise BadRequestError(f"invalid identifier string: {json.dumps(text)}")
    if parts[0] != _PREFIX:
        raise BadRequestError(f"identifier must start with '{_PREFIX}': {json.dumps(text)}")
    kind, mesh, zone, namespace, name = parts[1 : _PARTS - 1]
    return Identifier(kind, mesh, zone, namespace, name, "".join(parts[_PARTS - 1 :]))


def show_by_identifier(store: Store, documents: Documents, *, zone: str) -> Handler:
    """`GET /_kri/{kri}`."""

    async def show(request: Request) -> Response:
        """The resource that an identifier names."""
        identifier = parse_identifier(request.path_params["kri"])
        kind = _kind(identifier)
        if identifier.namespace or identifier.zone not in ("", zone):
            raise NotFoundError(ResourceKey(kind.name, identifier.mesh, identifier.name))
        mesh = identifier.mesh if kind.scope is Scope.MESH else ""
        stored = await store.get(ResourceKey(kind.name, mesh, identifier.name))
        return encoded_response(documents.encoded(stored), headers={"ETag": f'"{stored.revision}"'})

    return show


def _kind(identifier: Identifier) -> ResourceType:
    for kind in catalog.RESOURCE_TYPES:
        if kind.short_name and kind.short_name == identifier.kind and not kind.is_secret:
            return kind
    raise BadRequestError(f"unknown short name of resource type: {json.dumps(identifier.kind)}")
