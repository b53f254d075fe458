"""What a request asks to be written: checked, completed and with what comes along, before anything is.

In: a document, what is stored or about to be. Out: `Proposal`, or every violation at once. Never: a write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kumafast import resources
from kumafast.errors import InvalidResourceError, NotFoundError, Violation
from kumafast.identity.admission import Stored, admit
from kumafast.resources.resource import Resource, ResourceKey, ResourceType, Scope
from kumafast.resources.sharing import sharing
from kumafast.rest.reads import require_mesh
from kumafast.store.store import Put, StoredResource

WARNINGS_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Proposal:
    """A resource that may be written."""

    resource: Resource
    existing: StoredResource | None
    companions: tuple[Resource, ...]
    """What has to be there with it and is not; each only where nothing is at its key."""
    warnings: tuple[str, ...]

    def operations(self, *, zone: str, routes: bool) -> list[Put]:
        """All that is written with it; to a new mesh with `routes` belong some too."""
        is_new = self.existing is None
        with_it = resources.initial_resources(self.resource, zone=zone, routes=routes) if is_new else ()
        return [Put(self.resource), *(Put(each, 0) for each in self.companions), *map(Put, with_it)]


async def propose(
    kind: ResourceType, key: ResourceKey, document: Mapping[str, Any], store: Stored, *, zone: str
) -> Proposal:
    """Check a document that is to be written at a key. Raises `InvalidResourceError`, `MeshNotFoundError`."""
    resource = parse(kind, document)
    mesh = await require_mesh(store, key.mesh) if kind.scope is Scope.MESH else None
    existing = await find(store, key)
    violations = [*_differences(key, kind, document), *resources.validate(resource)]
    if violations:
        raise InvalidResourceError(violations)
    complete = resources.with_defaults(resource, zone=zone)
    admission = await admit(complete, store)
    if admission.violations:
        raise InvalidResourceError(admission.violations)
    in_mesh = () if mesh is None else resource.remarks_in(mesh)
    warnings = (*_ignored(document), *resource.remarks(), *in_mesh)
    if existing is not None:
        complete = sharing(complete, existing.resource)
    return Proposal(complete, existing, admission.companions, warnings)


async def find(store: Stored, key: ResourceKey) -> StoredResource | None:
    """What is stored at a key, or None."""
    try:
        return await store.get(key)
    except NotFoundError:
        return None


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
