"""The keys that tokens are signed and verified with now, as the store has them.

In: secrets, as they come and go. Out: keysets, verified claims, new tokens. Never: a look into the store for a token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kumafast.errors import CompactedError, ConflictError, MeshNotFoundError, SettingsError
from kumafast.identity import signing_keys, tokens
from kumafast.identity.signing_keys import Keyset, SigningKeyError, public_keyset
from kumafast.identity.tokens import DataplaneClaims, UserClaims, Verified, Verifier
from kumafast.resources import GlobalSecret, ResourceKey, Secret
from kumafast.store import Store

_NO_KEYS = Keyset({}, {}, frozenset())


class TokenKeys:
    """Issues and verifies tokens. `offline` are public keys for dataplane tokens that are signed elsewhere."""

    def __init__(self, store: Store, *, offline: Keyset = _NO_KEYS) -> None:
        self._store = store
        self._offline = offline
        # By mesh, "" for those of none; parsed when first asked for after a change.
        self._secrets: dict[str, dict[str, bytes]] = {}
        self._keysets: dict[str, Keyset] = {}
        self._users = Verifier(UserClaims, clock=time.time)
        # One for each mesh with dataplanes: their keys change apart from each other.
        self._dataplanes: dict[str, Verifier[DataplaneClaims]] = {}
        # For all meshes without keys of their own, so that nothing is kept for one that somebody has made up.
        self._strangers = Verifier(DataplaneClaims, clock=time.time)
        self._changed: Callable[[str], None] | None = None
        self._revision = 0

    async def load(self) -> None:
        """Read what the store holds now."""
        before = set(self._secrets)
        self._secrets.clear()
        self._keysets.clear()
        revision = await self._store.revision()
        for kind in (Secret.type, GlobalSecret.type):
            for stored in (await self._store.list(kind.name)).items:
                if isinstance(stored.resource, Secret | GlobalSecret):
                    self._take_in(stored.resource.key, stored.resource)
        self._revision = revision
        for mesh in before | set(self._secrets):
            self._note_change(mesh)

    def tell_changes(self, changed: Callable[[str], None]) -> None:
        """Have `changed` called with the mesh whenever its keys or revocations may be others than before."""
        self._changed = changed

    def _note_change(self, mesh: str) -> None:
        if self._changed is not None:
            self._changed(mesh)

    async def follow(self) -> None:
        """Keep up with the store until cancelled."""
        while True:
            try:
                async for commit in self._store.watch(after=self._revision):
                    for change in commit.changes:
                        if change.key.type in (Secret.type.name, GlobalSecret.type.name):
                            resource = None if change.stored is None else change.stored.resource
                            self._take_in(change.key, resource if isinstance(resource, Secret | GlobalSecret) else None)
                    self._revision = commit.revision
                return
            except CompactedError:
                await self.load()

    def _take_in(self, key: ResourceKey, secret: Secret | GlobalSecret | None) -> None:
        held = self._secrets.setdefault(key.mesh, {})
        if secret is None:
            held.pop(key.name, None)
        else:
            held[key.name] = secret.content
        if not held:
            del self._secrets[key.mesh]
            self._dataplanes.pop(key.mesh, None)
        if "token" in key.name:
            self._keysets.pop(key.mesh, None)
            self._note_change(key.mesh)

    def verify_user(self, token: str) -> UserClaims:
        """The claims of a user's token. Raises `TokenError`."""
        return self._users.verify(token, self._keyset(""))

    def verify_dataplane(self, token: str, *, mesh: str) -> DataplaneClaims:
        """The claims of a token for dataplanes of a mesh. Raises `TokenError`."""
        return self.examine_dataplane(token, mesh=mesh).claims

    def examine_dataplane(self, token: str, *, mesh: str) -> Verified[DataplaneClaims]:
        """A good token for dataplanes of a mesh, to be asked later whether it still is. Raises `TokenError`."""
        verifier = self._strangers
        if mesh in self._secrets:
            verifier = self._dataplanes.get(mesh) or self._dataplanes.setdefault(
                mesh, Verifier(DataplaneClaims, clock=time.time)
            )
        return verifier.examine(token, self.dataplane_keys(mesh))

    def dataplane_keys(self, mesh: str) -> Keyset:
        """The keys of now for dataplane tokens of a mesh."""
        return self._keyset(mesh) if mesh in self._secrets else self._offline

    def _keyset(self, mesh: str) -> Keyset:
        keyset = self._keysets.get(mesh)
        if keyset is None:
            secrets: Mapping[str, bytes] = self._secrets.get(mesh, {})
            keyset = (
                signing_keys.merged(signing_keys.dataplane_keyset(mesh, secrets), self._offline)
                if mesh
                else signing_keys.user_keyset(secrets)
            )
            self._keysets[mesh] = keyset
        return keyset

    async def issue_user(self, claims: UserClaims, *, valid_for: timedelta) -> str:
        """A new token for a user; the first makes the key as well."""
        if not self._keyset("").private:
            await self._create(await asyncio.to_thread(signing_keys.first_user_key))
        return tokens.sign(claims, self._keyset(""), valid_for=valid_for, now=datetime.now(UTC))

    async def issue_dataplane(self, claims: DataplaneClaims, *, valid_for: timedelta) -> str:
        """A new token for dataplanes of `claims.mesh`; the first of a mesh makes its key as well.

        Raises `MeshNotFoundError`.
        """
        if not self._keyset(claims.mesh).private:
            await self._create(await asyncio.to_thread(signing_keys.first_dataplane_key, claims.mesh))
        return tokens.sign(claims, self._keyset(claims.mesh), valid_for=valid_for, now=datetime.now(UTC))

    @property
    def is_new(self) -> bool:
        """Whether there is no key for users yet: nobody has got a token here."""
        return not self._keyset("").public

    async def _create(self, secret: Secret | GlobalSecret) -> None:
        if isinstance(secret, Secret) and not secret.mesh:
            raise MeshNotFoundError(secret.mesh)
        try:
            stored = (await self._store.put(secret, expected_revision=0)).resource
        except ConflictError:
            # Another instance, or another request, was faster: its key counts.
            stored = (await self._store.get(secret.key)).resource
        assert isinstance(stored, Secret | GlobalSecret)
        self._take_in(stored.key, stored)


def offline_keys(setting: str) -> Keyset:
    """The public keys that the setting `dp_token_keys` names. Raises `SettingsError`."""
    keys: dict[str, bytes] = {}
    for entry in filter(None, setting.split(",")):
        kid, _, path = entry.strip().partition("=")
        if not kid or not path:
            raise SettingsError(f"dp_token_keys has the form KID=PATH,KID=PATH, got {entry.strip()!r}")
        try:
            keys[kid] = Path(path).expanduser().read_bytes()
        except OSError as error:
            raise SettingsError(f"dp_token_keys: cannot read {path}: {error.strerror}") from error
    try:
        return public_keyset(keys)
    except SigningKeyError as error:
        raise SettingsError(f"dp_token_keys: {error}") from error
