"""What writes would do: `?dry_run=true` of one, `POST /_diff` of several that come together.

In: what would be written or deleted. Out: what would become of each resource, and which proxies would get what else.
Never: a write. What is refused is refused as the write would be.

`POST /_diff` takes `{"resources": [documents], "deletions": [{"type", "mesh", "name"}]}`, documents first and in their
order; violations name the document as `resources[2]`. At `/meshes/{mesh}/_diff` it is for those who may write in that
mesh, and about what is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from kumafast.errors import (
    InvalidResourceError,
    KumafastError,
    MalformedResourceError,
    MeshNotFoundError,
    Violation,
)
from kumafast.preview import Edit, Failed, Group, Preview
from kumafast.registry import DataplaneId
from kumafast.resources import catalog
from kumafast.resources.resource import ResourceKey, ResourceType, Scope
from kumafast.rest.body import read_object
from kumafast.rest.errors import json_response
from kumafast.rest.proposals import Proposal, find, propose
from kumafast.rest.services import Foresee
from kumafast.store.store import Change, Delete, Put, Store, StoredResource

DIFF_REQUEST: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "resources": {"type": "array", "items": {"type": "object"}},
        "deletions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "name"],
                "properties": {name: {"type": "string"} for name in ("type", "mesh", "name")},
            },
        },
    },
}
DOCUMENTS_MAX: Final = 1_000


class DryRuns:
    """Answers what writes would do."""

    def __init__(self, store: Store, foresee: Foresee, *, zone: str, creates_routes: bool) -> None:
        self._store = store
        self._foresee = foresee
        self._zone = zone
        self._creates_routes = creates_routes

    async def put(self, kind: ResourceType, key: ResourceKey, document: Mapping[str, Any]) -> Response:
        """What writing one resource would do."""
        proposal = await propose(kind, key, document, self._store, zone=self._zone)
        return await self._answer(self._operations(proposal), [_Asked(key, proposal.warnings)])

    async def delete(self, key: ResourceKey) -> Response:
        """What deleting one resource would do."""
        return await self._answer([Delete(key)], [_Asked(key)])

    async def diff(self, request: Request) -> Response:
        """What writing some resources and deleting others would do."""
        body = await read_object(request)
        documents, deletions = _objects(body, "resources"), _objects(body, "deletions")
        mesh: str | None = request.path_params.get("mesh")
        pending = _Pending(self._store)
        operations: list[Put | Delete] = []
        asked: list[_Asked] = []
        violations: list[Violation] = []
        for number, document in enumerate(documents):
            try:
                kind, key = _place(document, mesh)
                proposal = await propose(kind, key, document, pending, zone=self._zone)
            except KumafastError as error:
                violations += _placed(error, f"resources[{number}]")
                continue
            written = self._operations(proposal)
            pending.note(written)
            operations += written
            asked.append(_Asked(key, proposal.warnings))
        for number, document in enumerate(deletions):
            try:
                _, key = _place(document, mesh)
            except KumafastError as error:
                violations += _placed(error, f"deletions[{number}]")
                continue
            operations.append(Delete(key))
            asked.append(_Asked(key))
        if violations:
            raise InvalidResourceError(violations)
        return await self._answer(operations, asked)

    def _operations(self, proposal: Proposal) -> list[Put]:
        return proposal.operations(zone=self._zone, routes=self._creates_routes)

    async def _answer(self, operations: Sequence[Put | Delete], asked: Sequence[_Asked]) -> Response:
        changes = await self._store.plan(operations)
        before = {change.key: await find(self._store, change.key) for change in changes}
        preview = await self._foresee(changes)
        by_key = {change.key: change for change in changes}
        shown = [_outcome(each.key, by_key.get(each.key), before, each.warnings) for each in asked]
        # What comes or goes along, but for what proxies said of themselves.
        along = [change for change in changes if change.key not in {each.key for each in asked}]
        shown += [
            {**_outcome(change.key, change, before), "isAlong": True}
            for change in along
            if not _kind_of(change.key).is_read_only
        ]
        return json_response({"resources": shown, **_document(preview)})


@dataclass(frozen=True, slots=True)
class _Asked:
    """A resource that the request is about."""

    key: ResourceKey
    warnings: tuple[str, ...] = ()


class _Pending:
    """The store as it would be once what is noted here is written: for what is checked against it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted: dict[ResourceKey, StoredResource] = {}

    async def get(self, key: ResourceKey) -> StoredResource:
        return self._noted[key] if key in self._noted else await self._store.get(key)

    def note(self, written: Iterable[Put]) -> None:
        now = datetime.now(UTC)
        self._noted.update((put.resource.key, StoredResource(put.resource, 0, now, now)) for put in written)


def _objects(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = body.get(name, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise MalformedResourceError(f"{name} must be an array of objects")
    if len(found) > DOCUMENTS_MAX:
        raise MalformedResourceError(f"{name} must not be more than {DOCUMENTS_MAX}")
    return found


def _place(document: Mapping[str, Any], mesh: str | None) -> tuple[ResourceType, ResourceKey]:
    """The type and key of a document; `mesh` is the one that it has to be in, where the request is about one."""
    kind = catalog.by_name(str(document.get("type", "")))
    if kind is None or kind.is_read_only:
        raise InvalidResourceError([Violation("type", "must be the type of a resource that can be written")])
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidResourceError([Violation("name", "cannot be empty")])
    in_mesh = str(document.get("mesh", "")) if kind.scope is Scope.MESH else ""
    if mesh is not None and (kind.scope is not Scope.MESH or kind.is_secret):
        raise InvalidResourceError([Violation("type", "must be the type of what is in a mesh, and no secret")])
    if mesh is not None and in_mesh != mesh:
        raise InvalidResourceError([Violation("mesh", "mesh from the URL has to be the same as in body")])
    return kind, ResourceKey(kind.name, in_mesh, name)


def _placed(error: KumafastError, place: str) -> list[Violation]:
    """What is wrong with one document, said of its place; raises what is not about the document."""
    match error:
        case InvalidResourceError():
            return [Violation(f"{place}.{each.field}", each.message) for each in error.violations]
        case MalformedResourceError():
            found = [Violation(f"{place}.{each.field}", each.message) for each in error.violations]
            return found or [Violation(place, error.detail)]
        case MeshNotFoundError():
            return [Violation(f"{place}.mesh", str(error))]
    raise error


def _kind_of(key: ResourceKey) -> ResourceType:
    kind = catalog.by_name(key.type)
    assert kind is not None, "what is stored has a type"
    return kind


def _outcome(
    key: ResourceKey,
    change: Change | None,
    before: Mapping[ResourceKey, StoredResource | None],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    if change is None:
        outcome = "unchanged"
    elif change.stored is None:
        outcome = "deleted"
    else:
        outcome = "created" if before[key] is None else "updated"
    where = {"mesh": key.mesh} if key.mesh else {}
    told = {"warnings": list(warnings)} if warnings else {}
    return {"type": key.type, **where, "name": key.name, "outcome": outcome, **told}


# A preview as JSON.


def _document(preview: Preview) -> dict[str, Any]:
    return {
        "proxies": {
            "affected": len(preview.proxies),
            "connected": preview.connected,
            "total": preview.total,
            "names": _names(preview.proxies),
        },
        "groups": [_group(group) for group in preview.groups],
        "failed": [_failed(each) for each in preview.failed],
        "leftOut": {"proxies": preview.proxies_left_out, "edits": preview.edits_left_out},
    }


def _names(proxies: Iterable[DataplaneId]) -> list[dict[str, str]]:
    return [{"mesh": each.mesh, "name": each.name} for each in proxies]


def _group(group: Group) -> dict[str, Any]:
    return {
        "proxies": len(group.proxies),
        "names": _names(group.proxies),
        "edits": [_edit(edit) for edit in group.edits],
    }


def _failed(failed: Failed) -> dict[str, Any]:
    return {
        "proxies": len(failed.proxies),
        "names": _names(failed.proxies),
        "typeUrl": failed.type_url,
        "resources": list(failed.names),
        "message": failed.message,
        "policies": [key._asdict() for key in failed.policies],
    }


def _edit(edit: Edit) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": edit.kind.value, "typeUrl": edit.type_url, "resources": list(edit.names)}
    if edit.differences:
        told["differences"] = [
            {"path": each.path, "before": each.before, "after": each.after} for each in edit.differences
        ]
    if edit.content is not None:
        told["content"] = edit.content
    return told
