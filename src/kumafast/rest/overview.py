"""Dataplanes together with what they told us: the overview.

In: dataplanes and their insights. Out: `DataplaneOverview` documents, filtered and in pages. Never: writing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from kumafast import resources
from kumafast.errors import NotFoundError, Violation
from kumafast.resources import Dataplane, DataplaneInsight
from kumafast.resources.resource import Resource, ResourceKey
from kumafast.rest.documents import HEAD_FIELDS, DocumentCache, Documents
from kumafast.rest.errors import InvalidQueryError, encoded_response
from kumafast.rest.paging import page, window
from kumafast.rest.reads import list_of, select
from kumafast.store.store import Store, StoredResource

_GATEWAYS: Final = ("true", "false", "builtin", "delegated")


class Overview:
    """Answers `…/dataplanes/_overview` and its aliases."""

    def __init__(self, store: Store, documents: Documents) -> None:
        self._store = store
        self._documents = documents
        self._cache = DocumentCache()

    async def show(self, request: Request) -> Response:
        """One dataplane with its insight."""
        key = ResourceKey(Dataplane.type.name, request.path_params["mesh"], request.path_params["name"])
        return encoded_response(await self._encoded(await self._store.get(key)))

    async def list(self, request: Request) -> Response:
        """A page of dataplanes with their insights, of a mesh or of all."""
        part = window(request)
        is_wanted = _filter(request)
        status = _choice(request, "status", ("online", "offline"))
        mesh = request.path_params.get("mesh")
        found: Sequence[StoredResource] = select(await list_of(self._store, Dataplane.type, mesh), request)
        if is_wanted is not None:
            found = [stored for stored in found if is_wanted(stored.resource)]
        if status is not None:
            online = await self._online(mesh)
            found = [stored for stored in found if (_place(stored.resource) in online) == (status == "online")]
        encoded = [await self._encoded(stored) for stored in part.of(found)]
        return encoded_response(page(request, encoded, total=len(found), window=part))

    async def _online(self, mesh: str | None) -> frozenset[tuple[str, str]]:
        insights = (await self._store.list(DataplaneInsight.type.name, mesh)).items
        return frozenset(_place(stored.resource) for stored in insights if _is_online(stored.resource))

    async def _encoded(self, dataplane: StoredResource) -> bytes:
        key = dataplane.resource.key
        try:
            insight = await self._store.get(key._replace(type=DataplaneInsight.type.name))
        except NotFoundError:
            insight = None
        revision = 0 if insight is None else insight.revision
        found = self._cache.get(dataplane, revision)
        if found is None:
            found = self._cache.put(dataplane, orjson.dumps(self._document(dataplane, insight)), revision)
        return found

    def _document(self, dataplane: StoredResource, insight: StoredResource | None) -> dict[str, Any]:
        return {
            **self._documents.head(dataplane),
            "type": "DataplaneOverview",
            "dataplane": _specification(dataplane.resource),
            "dataplaneInsight": {} if insight is None else _specification(insight.resource),
        }


def _specification(resource: Resource) -> dict[str, Any]:
    document = resources.to_document(resource)
    return {name: value for name, value in document.items() if name not in HEAD_FIELDS}


def _place(resource: Resource) -> tuple[str, str]:
    return resource.mesh, resource.name


def _is_online(resource: Resource) -> bool:
    return isinstance(resource, DataplaneInsight) and resources.status(resource) == "Online"


def _filter(request: Request) -> Callable[[Resource], bool] | None:
    """Whether a dataplane is one of those that `tag` and `gateway` ask for; None where they ask for nothing."""
    tags = _tags(request)
    gateway = _choice(request, "gateway", _GATEWAYS)
    if not tags and gateway is None:
        return None

    def is_wanted(resource: Resource) -> bool:
        if not isinstance(resource, Dataplane):
            return False
        return _has_tags(resource, tags) and (gateway is None or _is_gateway(resource, gateway))

    return is_wanted


def _tags(request: Request) -> Mapping[str, str]:
    tags: dict[str, str] = {}
    for text in request.query_params.getlist("tag"):
        key, colon, value = text.partition(":")
        if not key or not colon or not value:
            raise InvalidQueryError("Invalid tag", Violation("tag", "must have the form KEY:VALUE"))
        if tags.setdefault(key, value) != value:
            raise InvalidQueryError(
                "Invalid tag", Violation("tag", f"{key} must not be given twice with different values")
            )
    return tags


def _choice(request: Request, parameter: str, choices: Sequence[str]) -> str | None:
    text = request.query_params.get(parameter, "").lower()
    if not text:
        return None
    if text not in choices:
        message = f"must be one of: {', '.join(choices)}"
        raise InvalidQueryError(f"Invalid {parameter}", Violation(parameter, message))
    return text


def _has_tags(dataplane: Dataplane, tags: Mapping[str, str]) -> bool:
    """As in Kuma's selectors: one inbound, or the gateway, has all of them; `*` stands for any value."""
    candidates = [inbound.tags for inbound in dataplane.inbounds]
    if dataplane.gateway is not None:
        candidates.append(dataplane.gateway.tags)
    return not tags or any(_matches(tags, candidate) for candidate in candidates)


def _matches(wanted: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    return all(key in tags and value in ("*", tags[key]) for key, value in wanted.items())


def _is_gateway(dataplane: Dataplane, wanted: str) -> bool:
    gateway = dataplane.gateway
    if wanted in ("true", "false"):
        return (gateway is not None) == (wanted == "true")
    return gateway is not None and gateway.type.lower() == wanted
