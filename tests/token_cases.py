"""Tokens of all kinds for one dataplane, good and bad, for the matrices of streams and of bootstraps.

In: a store with the keys of its meshes. Out: tokens by what is the matter with them. Never: a server.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from jwt.utils import base64url_encode

from kumafast.identity import signing_keys, tokens
from kumafast.identity.signing_keys import Keyset
from kumafast.identity.tokens import DataplaneClaims, UserClaims
from kumafast.resources import GlobalSecret, Secret, secret_data

MESH, OTHER_MESH = "default", "other"


@lru_cache
def pem(which: str) -> bytes:
    """A signing key, the same for the same word; making one takes some 100 ms."""
    return signing_keys.create_signing_key()


def mesh_key(mesh: str, serial: int = 1) -> Secret:
    """A mesh's signing key as a resource."""
    content = pem(f"{mesh}-{serial}")
    return Secret(mesh=mesh, name=signing_keys.dataplane_key_name(mesh, serial), data=secret_data(content))


def user_key() -> GlobalSecret:
    """The users' signing key as a resource."""
    return GlobalSecret(name=signing_keys.user_key_name(1), data=secret_data(pem("users")))


def revocations(*identifiers: str, mesh: str = MESH) -> Secret:
    """A mesh's list of tokens that are not taken any more."""
    content = ",".join(identifiers).encode()
    return Secret(mesh=mesh, name=f"dataplane-token-revocations-{mesh}", data=secret_data(content))


def keys(mesh: str = MESH, serial: int = 1, *, kid: int | None = None) -> Keyset:
    """What signs for a mesh; `kid` is what its tokens say of the key."""
    name = signing_keys.dataplane_key_name(mesh, serial if kid is None else kid)
    return signing_keys.dataplane_keyset(mesh, {name: pem(f"{mesh}-{serial}")})


def sign(
    keyset: Keyset | None = None,
    *,
    valid_for: timedelta = timedelta(hours=1),
    now: datetime | None = None,
    **claims: Any,
) -> str:
    """A token with the given claims, of a dataplane of the mesh where nothing else is said."""
    stated = {"Mesh": MESH, "Type": "dataplane", **claims}
    return tokens.sign(DataplaneClaims(**stated), keyset or keys(), valid_for=valid_for, now=now or datetime.now(UTC))


def user(*groups: str) -> str:
    """A good token of a user."""
    keyset = signing_keys.user_keyset({signing_keys.user_key_name(1): pem("users")})
    claims = UserClaims(Name="anna", Groups=groups)
    return tokens.sign(claims, keyset, valid_for=timedelta(hours=1), now=datetime.now(UTC))


def identifier(token: str) -> str:
    """What a token is revoked by."""
    text: str = jwt.decode(token, options={"verify_signature": False})["jti"]
    return text


def hs256(name: str) -> str:
    """Signed with the public key as if it were a shared secret."""
    public = (
        keys().public["1"].public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    body = {"Name": name, "Mesh": MESH, "Type": "dataplane", "exp": 9e9}
    head, _, _ = jwt.encode(body, "0" * 64, algorithm="HS256", headers={"kid": "1"}).rpartition(".")
    return f"{head}.{base64url_encode(hmac.new(public, head.encode(), hashlib.sha256).digest()).decode()}"


def unsigned(name: str) -> str:
    """The algorithm `none`."""
    body = {"Name": name, "Mesh": MESH, "Type": "dataplane", "exp": 9e9}
    return jwt.encode(body, "", algorithm="none", headers={"kid": "1"})


@dataclass(frozen=True)
class Case:
    """What a client shows, and a word of the reason for which it is refused; None where it is let in."""

    authorization: str
    why: str | None
    is_mismatch: bool = False
    """A good token of somebody else: the bootstrap answers 403 and not 401."""
    name: str = "a"


@dataclass(frozen=True)
class Cases:
    """All of them, for the dataplane `a` of the mesh `default` with the tags of a service `a`."""

    revoked: str = field(default_factory=lambda: sign(Name="a"))

    def all(self) -> dict[str, Case]:
        """By what is the matter."""
        now, hour = datetime.now(UTC), timedelta(hours=1)
        service = {"kuma.io/service": ("a", "c")}
        return {
            "right": Case(sign(Name="a"), None),
            "right, after Bearer": Case(f"Bearer {sign(Name='a')}", None),
            "right by its tags": Case(sign(Tags=service), None),
            "right for any of the mesh": Case(sign(), None),
            "other name": Case(sign(Name="b"), "is for dataplane b", is_mismatch=True),
            "other mesh": Case(sign(keys(OTHER_MESH), Name="a", Mesh=OTHER_MESH), "signature is not good"),
            "other mesh, signed here": Case(sign(Name="a", Mesh=OTHER_MESH), "is for mesh other", is_mismatch=True),
            "expired": Case(sign(Name="a", now=now - 2 * hour), "has expired"),
            "not yet valid": Case(sign(Name="a", now=now + hour), "not valid yet"),
            "revoked": Case(self.revoked, "has been revoked"),
            "unknown kid": Case(sign(keys(kid=7), Name="a"), "a key that is not known here"),
            "key of nobody": Case(sign(keys("nowhere", kid=1), Name="a"), "signature is not good"),
            "alg none": Case(unsigned("a"), "not signed with RS256"),
            "HS256 with the public key": Case(hs256("a"), "not signed with RS256"),
            "wrong type": Case(sign(Name="a", Type="zone"), "not one of a dataplane", is_mismatch=True),
            "user token": Case(user("mesh-system:admin"), "signature is not good"),
            "none": Case("", "kumafast generate dataplane-token"),
            "Bearer and nothing": Case("Bearer", "not a JWT"),
            "garbage": Case("garbage", "not a JWT"),
            "garbage in three parts": Case("a.b.c", "not a JWT"),
            "too long": Case("x" * 20_000, "too long"),
            "tags mismatch": Case(sign(Name="a", Tags={"kuma.io/service": ("b",)}), "does not allow", is_mismatch=True),
            "tags that it has not": Case(sign(Tags={**service, "team": ("x",)}), "does not allow", is_mismatch=True),
        }
