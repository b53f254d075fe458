"""Writing and deleting resources.

In: the store, a request. Out: the durable write, or every violation at once. Never: anything stored from a request
that was refused, or that asked with `?dry_run=true` what it would do.

A write may be made conditional: `If-Match: "<revision>"` writes only over that revision, `If-None-Match: *` only where
nothing is. Both fail with 409.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from kumafast import resources
from kumafast.errors import ConflictError, Violation
from kumafast.resources.resource import Resource, ResourceKey, ResourceType
from kumafast.rest.body import read_object
from kumafast.rest.dry_runs import DryRuns
from kumafast.rest.errors import InvalidQueryError, json_response
from kumafast.rest.proposals import propose
from kumafast.store.store import Put, Store, StoredResource

REVISION_HEADER: Final = "X-Kumafast-Revision"

_ENTITY_TAG: Final = re.compile(r'(?:W/)?"?([0-9]{1,18})"?', re.ASCII)


class Writer:
    """Answers PUT and DELETE for every type of resource that users write."""

    def __init__(self, store: Store, dry_runs: DryRuns, *, zone: str, creates_routes: bool = False) -> None:
        self._store = store
        self._dry_runs = dry_runs
        self._zone = zone
        self._creates_routes = creates_routes

    async def put(self, kind: ResourceType, request: Request) -> Response:
        """Create or replace a resource: 201 or 200, once it is durable."""
        key = ResourceKey(kind.name, request.path_params.get("mesh", ""), request.path_params["name"])
        document = await read_object(request)
        if _is_dry_run(request):
            return await self._dry_runs.put(kind, key, document)
        proposal = await propose(kind, key, document, self._store, zone=self._zone)
        expected = _expected_revision(request)
        revision, is_new = await self._write(proposal.resource, proposal.existing, expected, proposal.companions)
        body = {"warnings": list(proposal.warnings)} if proposal.warnings else {}
        return json_response(body, 201 if is_new else 200, {REVISION_HEADER: str(revision)})

    async def delete(self, kind: ResourceType, request: Request) -> Response:
        """Delete a resource and what it owns."""
        key = ResourceKey(kind.name, request.path_params.get("mesh", ""), request.path_params["name"])
        if _is_dry_run(request):
            return await self._dry_runs.delete(key)
        revision = await self._store.delete(key, expected_revision=_expected_revision(request))
        return json_response({}, 200, {REVISION_HEADER: str(revision)})

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


def _is_dry_run(request: Request) -> bool:
    text = request.query_params.get("dry_run", "false")
    if text not in ("true", "false"):
        raise InvalidQueryError("Invalid dry_run", Violation("dry_run", "must be true or false"))
    return text == "true"


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
