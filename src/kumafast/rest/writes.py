"""Writing and deleting resources.

In: the store, a request. Out: the durable write, or every violation at once. Never: anything stored from a request
that was refused.

A write may be made conditional: `If-Match: "<revision>"` writes only over that revision, `If-None-Match: *` only where
nothing is. Both fail with 409.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from kumafast import resources
from kumafast.errors import ConflictError, InvalidResourceError, NotFoundError, Violation
from kumafast.identity.admission import admit
from kumafast.resources.resource import Resource, ResourceKey, ResourceType, Scope
from kumafast.rest.body import read_object
from kumafast.rest.errors import InvalidQueryError, json_response
from kumafast.rest.reads import require_mesh
from kumafast.store.store import Put, Store, StoredResource

REVISION_HEADER: Final = "X-Kumafast-Revision"

WARNINGS_MAX: Final = 20

_ENTITY_TAG: Final = re.compile(r'(?:W/)?"?([0-9]{1,18})"?', re.ASCII)


class Writer:
    """Answers PUT and DELETE for every type of resource that users write."""

    def __init__(self, store: Store, *, zone: str, creates_routes: bool = False) -> None:
        self._store = store
        self._zone = zone
        self._creates_routes = creates_routes

    async def put(self, kind: ResourceType, request: Request) -> Response:
        """Create or replace a resource: 201 or 200, once it is durable."""
        key = ResourceKey(kind.name, request.path_params.get("mesh", ""), request.path_params["name"])
        document = await read_object(request)
        resource = parse(kind, document)
        if kind.scope is Scope.MESH:
            await require_mesh(self._store, key.mesh)
        existing = await self._find(key)
        violations = [*_differences(key, kind, document), *resources.validate(resource)]
        if violations:
            raise InvalidResourceError(violations)
        complete = resources.with_defaults(resource, zone=self._zone)
        admission = await admit(complete, self._store)
        if admission.violations:
            raise InvalidResourceError(admission.violations)
        expected = _expected_revision(request)
        revision, is_new = await self._write(complete, existing, expected, admission.companions)
        warnings = [*_ignored(document), *resource.remarks()]
        body = {"warnings": warnings} if warnings else {}
        return json_response(body, 201 if is_new else 200, {REVISION_HEADER: str(revision)})

    async def delete(self, kind: ResourceType, request: Request) -> Response:
        """Delete a resource and what it owns."""
        key = ResourceKey(kind.name, request.path_params.get("mesh", ""), request.path_params["name"])
        revision = await self._store.delete(key, expected_revision=_expected_revision(request))
        return json_response({}, 200, {REVISION_HEADER: str(revision)})

    async def _find(self, key: ResourceKey) -> StoredResource | None:
        try:
            return await self._store.get(key)
        except NotFoundError:
            return None

    async def _write(
        self,
        resource: Resource,
        existing: StoredResource | None,
        expected_revision: int | None,
        companions: Sequence[Resource],
    ) -> tuple[int, bool]:
        if expected_revision == 0:
            return await self._create(resource, companions), True
        if existing is None and expected_revision is None:
            try:
                return await self._create(resource, companions), True
            except ConflictError:
                # Somebody created it since it was looked for; this request then is an update, and says so.
                pass
        if not companions:
            return (await self._store.put(resource, expected_revision=expected_revision)).revision, False
        puts = [Put(resource, expected_revision), *(Put(each, expected_revision=0) for each in companions)]
        return await self._store.write(puts), False

    async def _create(self, resource: Resource, companions: Sequence[Resource]) -> int:
        with_it = resources.initial_resources(resource, zone=self._zone, routes=self._creates_routes)
        if not with_it and not companions:
            return (await self._store.put(resource, expected_revision=0)).revision
        # In one commit, so that nobody ever sees a mesh without its policies.
        created = (Put(each, expected_revision=0) for each in (resource, *companions))
        return await self._store.write([*created, *map(Put, with_it)])


def parse(kind: ResourceType, document: Mapping[str, Any]) -> Resource:
    """The document as a resource of this type, whatever type it claims. Raises `MalformedResourceError`.

    A name or mesh that is missing reads as an empty one, as in Kuma, so that it is reported with all other violations.
    """
    fields = ("name", "mesh") if kind.scope is Scope.MESH else ("name",)
    missing = {field: "" for field in fields if document.get(field) is None}
    return resources.parse({**document, **missing, "type": kind.name})


def _differences(key: ResourceKey, kind: ResourceType, document: Mapping[str, Any]) -> Iterator[Violation]:
    fields = ["name", "type", "mesh"] if kind.scope is Scope.MESH else ["name", "type"]
    for field in fields:
        if document.get(field) != getattr(key, field):
            yield Violation(field, f"{field} from the URL has to be the same as in body")


def _ignored(document: Mapping[str, Any]) -> Iterator[str]:
    unknown = resources.unknown_fields(document)
    for field in unknown[:WARNINGS_MAX]:
        yield f"{field}: unknown field, ignored"
    if len(unknown) > WARNINGS_MAX:
        yield f"{len(unknown) - WARNINGS_MAX} more unknown fields, ignored"


def _expected_revision(request: Request) -> int | None:
    if request.headers.get("if-none-match", "").strip() == "*":
        return 0
    header = request.headers.get("if-match", "").strip()
    if not header or header == "*":
        return None
    match = _ENTITY_TAG.fullmatch(header)
    if match is None:
        raise InvalidQueryError("Invalid If-Match", Violation("If-Match", "must be the ETag of one revision"))
    return int(match[1])
