"""What a write must meet beyond the rules of its own kind, and what else is written with it.

In: a resource that is to be written, the store. Out: violations, and resources for the same commit.
Never: a write; rules that the resource alone can tell.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from kumafast.errors import NotFoundError, Violation
from kumafast.identity import backends
from kumafast.identity.authority import AuthorityError
from kumafast.identity.membership import check_membership
from kumafast.identity.trust import Trust, trust_name
from kumafast.resources import Dataplane, Mesh, Resource, ResourceKey, Secret
from kumafast.resources.mesh import CertificateAuthority
from kumafast.store import StoredResource


class Stored(Protocol):
    """Where resources are looked up: a store, or one as it would be."""

    async def get(self, key: ResourceKey) -> StoredResource:
        """The stored resource; `NotFoundError` where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a resource may be written: without violations it may, together with `companions`."""

    violations: tuple[Violation, ...] = ()
    companions: tuple[Resource, ...] = ()
    """What has to be there with it and is not; each only where nothing is at its key."""


async def admit(resource: Resource, store: Stored) -> Admission:
    """Whether a resource may be written now, and what has to be written along with it."""
    if isinstance(resource, Mesh) and resource.mtls is not None and resource.mtls.backends:
        return await _admit_authorities(resource, store)
    if isinstance(resource, Dataplane):
        return await _admit_member(resource, store)
    return Admission()


async def _admit_member(dataplane: Dataplane, store: Stored) -> Admission:
    try:
        mesh = (await store.get(ResourceKey(Mesh.type.name, "", dataplane.mesh))).resource
    except NotFoundError:
        # The store refuses the write, in its own words.
        return Admission()
    assert isinstance(mesh, Mesh)
    return Admission(tuple(check_membership(dataplane, mesh)))


async def _admit_authorities(mesh: Mesh, store: Stored) -> Admission:
    assert mesh.mtls is not None
    found = await _find(mesh, store)
    enabled = backends.enabled_backend(mesh)
    violations: list[Violation] = []
    companions: list[Resource] = []
    for i, backend in enumerate(mesh.mtls.backends):
        path = f"mtls.backends[{i}].conf"
        try:
            if backend.type == backends.BUILTIN and backend is enabled:
                made = await _missing(mesh, backend, found)
                companions += made
                found.update({secret.name: secret.content for secret in made})
            if backend.type == backends.PROVIDED or backend is enabled:
                authority = backends.load_backend(mesh.name, backend, found.get)
                if backend is enabled and trust_name(mesh.name) not in found:
                    companions.append(Trust.of(backend, authority).to_secret(mesh.name))
        except AuthorityError as error:
            if not mesh.mtls.skip_validation:
                violations.append(Violation(path, str(error)))
    return Admission(tuple(violations), tuple(companions))


async def _missing(mesh: Mesh, backend: CertificateAuthority, found: dict[str, bytes]) -> tuple[Secret, ...]:
    """The secrets of a builtin backend that was never enabled before."""
    if any(name in found for name in backends.builtin_names(mesh.name, backend.name)):
        return ()
    # RSA keys take a tenth of a second and more, which nobody else should wait for.
    return await asyncio.to_thread(backends.create_builtin, mesh.name, backend, now=datetime.now(UTC))


async def _find(mesh: Mesh, store: Stored) -> dict[str, bytes]:
    assert mesh.mtls is not None
    names = {name for backend in mesh.mtls.backends for name in backends.secret_names(mesh.name, backend)}
    found: dict[str, bytes] = {}
    for name in sorted({*names, trust_name(mesh.name)}):
        try:
            stored = (await store.get(ResourceKey(Secret.type.name, mesh.name, name))).resource
        except NotFoundError:
            continue
        assert isinstance(stored, Secret)
        found[name] = stored.content
    return found
