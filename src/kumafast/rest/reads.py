"""Reading resources: one, those of a mesh, those of all meshes.

In: the store, a request. Out: JSON joined from documents that are encoded once. Never: writing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from kumafast.errors import MeshNotFoundError, NotFoundError
from kumafast.identity.admission import Stored
from kumafast.resources import Mesh
from kumafast.resources.resource import ResourceKey, ResourceType
from kumafast.rest.documents import Documents
from kumafast.rest.errors import encoded_response
from kumafast.rest.paging import label_filters, page, window
from kumafast.store.store import Store, StoredResource


class Reader:
    """Answers GET for every type of resource."""

    def __init__(self, store: Store, documents: Documents, settle: Callable[[], Awaitable[None]]) -> None:
        """`settle` returns once statuses are of what is stored by then."""
        self._store = store
        self._documents = documents
        self._settle = settle

    async def show(self, kind: ResourceType, request: Request) -> Response:
        """One resource, with its revision as ETag."""
        key = ResourceKey(kind.name, request.path_params.get("mesh", ""), request.path_params["name"])
        stored = await self._store.get(key)
        if kind.has_status:
            await self._settle()
        return encoded_response(self._documents.encoded(stored), headers={"ETag": f'"{stored.revision}"'})

    async def list(self, kind: ResourceType, request: Request) -> Response:
        """A page of the resources of a mesh, or of all meshes where the path names none."""
        part = window(request)
        if kind.has_status:
            await self._settle()
        found = select(await list_of(self._store, kind, request.path_params.get("mesh")), request)
        encoded = (self._documents.encoded(stored) for stored in part.of(found))
        return encoded_response(page(request, encoded, total=len(found), window=part))


async def list_of(store: Store, kind: ResourceType, mesh: str | None) -> tuple[StoredResource, ...]:
    """All resources of a type, of one mesh or of all. Raises `MeshNotFoundError`."""
    items = (await store.list(kind.name, mesh)).items
    if not items and mesh is not None:
        # A list that is not empty proves that its mesh is there, so only the empty one needs the question.
        await require_mesh(store, mesh)
    return items


async def require_mesh(store: Stored, mesh: str) -> Mesh:
    """The mesh of a name. Raises `MeshNotFoundError` where there is none."""
    try:
        found = (await store.get(ResourceKey(Mesh.type.name, "", mesh))).resource
    except NotFoundError:
        raise MeshNotFoundError(mesh) from None
    assert isinstance(found, Mesh)
    return found


def select(items: Sequence[StoredResource], request: Request) -> Sequence[StoredResource]:
    """Those whose name contains `name` and whose labels are as the query's filters ask."""
    part_of_name = request.query_params.get("name", "")
    labels = label_filters(request)
    if part_of_name:
        items = [stored for stored in items if part_of_name in stored.resource.name]
    if labels:
        items = [stored for stored in items if _has(stored.resource.labels, labels)]
    return items


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in wanted.items())
