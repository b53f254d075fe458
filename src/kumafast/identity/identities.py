"""What each mesh's identities are made of now: who signs, whom to trust, how strictly.

In: meshes and their secrets as stored. Out: a `MeshIdentity` for each mesh with TLS, and in which meshes it changed.
Never: a store, proxies, plaintext where TLS was asked for and cannot be had.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from kumafast.identity import backends
from kumafast.identity.authority import Authority, AuthorityError
from kumafast.identity.trust import Trust, trust_name
from kumafast.resources import Mesh, Resource, ResourceKey, Secret
from kumafast.resources.mesh import CertificateAuthority

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MeshIdentity:
    """What the certificates of a mesh are made of. Equal values make certificates of equal worth."""

    mesh: str
    backend: str
    digest: str
    """Of the authority that signs."""
    trusted: tuple[str, ...]
    """The authorities to trust: chains in PEM."""
    lifetime: timedelta
    is_permissive: bool
    authority: Authority = field(compare=False, repr=False)


class Identities:
    """The identities of all meshes, kept up with what is stored. One writer."""

    def __init__(self) -> None:
        self._meshes: dict[str, Mesh] = {}
        self._secrets: dict[str, dict[str, Secret]] = {}
        self._identities: dict[str, MeshIdentity] = {}
        # Meshes that ask for TLS and have no authority for it.
        self._broken: set[str] = set()

    def fork(self) -> Identities:
        """The same, to be changed on their own. O(meshes + secrets)."""
        forked = Identities()
        forked._meshes = self._meshes.copy()
        forked._secrets = {mesh: secrets.copy() for mesh, secrets in self._secrets.items()}
        forked._identities = self._identities.copy()
        forked._broken = self._broken.copy()
        return forked

    def get(self, mesh: str) -> MeshIdentity | None:
        """The mesh's identity; None where its traffic is in plaintext, and where `is_broken`."""
        return self._identities.get(mesh)

    def is_broken(self, mesh: str) -> bool:
        """Whether the mesh asks for TLS and its authority cannot be loaded: its proxies must keep what they have."""
        return mesh in self._broken

    def secret(self, mesh: str, name: str) -> bytes | None:
        """The content of a secret, of those that authorities are made of or could be."""
        secret = self._secrets.get(mesh, {}).get(name)
        return None if secret is None else secret.content

    def secrets(self) -> Iterator[Secret]:
        """All secrets that it holds, in no order."""
        for secrets in self._secrets.values():
            yield from secrets.values()

    def apply(self, changes: Iterable[tuple[ResourceKey, Resource | None]]) -> set[str]:
        """Take in meshes and secrets, put or (None) deleted; the meshes whose identity is another now."""
        touched: set[str] = set()
        for key, resource in changes:
            if key.type == Mesh.type.name:
                touched.add(key.name)
                if isinstance(resource, Mesh):
                    self._meshes[key.name] = resource
                else:
                    self._meshes.pop(key.name, None)
            elif key.type == Secret.type.name:
                touched.add(key.mesh)
                if isinstance(resource, Secret):
                    self._secrets.setdefault(key.mesh, {})[key.name] = resource
                else:
                    self._secrets.get(key.mesh, {}).pop(key.name, None)
        return {mesh for mesh in touched if self._renew(mesh)}

    def _renew(self, mesh: str) -> bool:
        before = (self._identities.get(mesh), mesh in self._broken)
        self._broken.discard(mesh)
        stored = self._meshes.get(mesh)
        backend = None if stored is None else backends.enabled_backend(stored)
        if backend is None:
            self._identities.pop(mesh, None)
        else:
            try:
                self._identities[mesh] = self._identity(mesh, backend)
            except AuthorityError as error:
                # What was in force stays in force. Where nothing was, nobody is told anything: not to have an
                # authority must never mean plaintext.
                _LOG.error("mesh %s: backend %s cannot be used: %s", mesh, backend.name, error)
                if mesh not in self._identities:
                    self._broken.add(mesh)
        return before != (self._identities.get(mesh), mesh in self._broken)

    def _identity(self, mesh: str, backend: CertificateAuthority) -> MeshIdentity:
        trust = self._trust(mesh)
        signing = backend
        authority: Authority | None = None
        if trust is not None:
            authority = self._load_signer(mesh, trust)
            signing = trust.backend if authority is not None else backend
        if authority is None:
            authority = backends.load_backend(mesh, backend, lambda name: self.secret(mesh, name))
        chains = [each.chain for each in trust.trusted] if trust is not None else []
        own = authority.chain.decode()
        if own not in chains:
            chains.append(own)
        return MeshIdentity(
            mesh=mesh,
            backend=signing.name,
            digest=authority.digest,
            trusted=tuple(chains),
            lifetime=backends.lifetime_of(backend),
            is_permissive=backend.mode == "PERMISSIVE",
            authority=authority,
        )

    def _trust(self, mesh: str) -> Trust | None:
        content = self.secret(mesh, trust_name(mesh))
        if content is None:
            return None
        try:
            return Trust.from_content(content)
        except ValueError as error:
            _LOG.error("mesh %s: the secret %s: %s", mesh, trust_name(mesh), error)
            return None

    def _load_signer(self, mesh: str, trust: Trust) -> Authority | None:
        """The authority that signs for now; None where it is gone or another, and the Mesh's own has to do."""
        try:
            authority = backends.load_backend(mesh, trust.backend, lambda name: self.secret(mesh, name))
        except AuthorityError:
            return None
        return authority if authority.digest == trust.digest else None

    def __iter__(self) -> Iterator[MeshIdentity]:
        return iter(self._identities.values())
