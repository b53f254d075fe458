"""Tokens: who a dataplane or a user is, signed.

In: claims, keys. Out: tokens as text; the claims of tokens that are good, each verified once.
Never: what its holder may do; a token in an error or a log line.

A token is a JWT with RS256 and a `kid`, no other algorithm, in Kuma's form: dataplanes have `Name`, `Mesh`, `Tags`,
`Type` and `Workload`, users have `Name` and `Groups`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError

from kumafast.errors import KumafastError
from kumafast.identity.signing_keys import Keyset

ALGORITHM = "RS256"
DATAPLANE_TYPE = "dataplane"
TOKEN_LENGTH_MAX = 16_384
VERIFIED_MAX = 65_536
"""Tokens that are remembered as verified; the least recently used goes first."""
_BACKDATED = timedelta(minutes=5)
"""How long before it was issued a token is good, for clocks that are behind."""


class TokenError(KumafastError):
    """A token that does not prove what it says; the message says why, and shows none of it."""


class TokenMismatchError(TokenError):
    """A good token of somebody else."""


class DataplaneClaims(BaseModel):
    """Which dataplanes may use a token: empty means any. `tags` are the values allowed for each tag."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: StrictStr = Field(default="", alias="Name")
    mesh: StrictStr = Field(default="", alias="Mesh")
    tags: dict[StrictStr, tuple[StrictStr, ...]] = Field(default_factory=dict, alias="Tags")
    type: StrictStr = Field(default="", alias="Type")
    workload: StrictStr = Field(default="", alias="Workload")

    def mismatch(self, *, mesh: str, name: str, tag_sets: Iterable[Mapping[str, str]] | None) -> str | None:
        """Why a dataplane may not use the token; None where it may. Without `tag_sets` tags are not looked at."""
        if self.type not in ("", DATAPLANE_TYPE):
            return "the token is not one of a dataplane"
        if self.mesh and self.mesh != mesh:
            return f"the token is for mesh {self.mesh}, the dataplane is in {mesh}"
        if self.name and self.name != name:
            return f"the token is for dataplane {self.name}, this is {name}"
        if tag_sets is None:
            return None
        sets = tuple(tag_sets)
        if self.tags and not sets:
            return "the token is for certain tags, and the dataplane has none"
        for tag, allowed in self.tags.items():
            if any(tags.get(tag) not in allowed for tags in sets):
                return f"the token does not allow the dataplane's value of the tag {tag}"
        return None


class UserClaims(BaseModel):
    """Who a user is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: StrictStr = Field(alias="Name", min_length=1)
    groups: tuple[StrictStr, ...] = Field(default=(), alias="Groups")


Claims = TypeVar("Claims", bound=BaseModel)


def bearer(authorization: str) -> str:
    """The token in a header `authorization`, which Envoys send bare and others after `Bearer`."""
    scheme, separator, token = authorization.strip().partition(" ")
    return token.strip() if separator and scheme.lower() == "bearer" else authorization.strip()


def sign(claims: BaseModel, keys: Keyset, *, valid_for: timedelta, now: datetime) -> str:
    """A token, signed with the newest key. Raises `SigningKeyError` where there is none."""
    kid, key = keys.signer()
    times = {"iat": now, "nbf": now - _BACKDATED, "exp": now + valid_for, "jti": str(uuid.uuid4())}
    written = claims.model_dump(by_alias=True)
    return jwt.encode({**written, **times}, key, algorithm=ALGORITHM, headers={"kid": kid})


@dataclass(frozen=True, slots=True)
class Verified(Generic[Claims]):
    """A token whose signature was good, and what decides whether the token still is."""

    claims: Claims
    not_before: float
    expires: float
    """Seconds since 1970."""
    kid: str
    key: rsa.RSAPublicKey
    identifier: str | None

    def check(self, keys: Keyset, *, now: float) -> None:
        """Raise `TokenError` where the token is not good with the keys of now; no signature is looked at for that."""
        key = keys.public.get(self.kid)
        # The keys of a mesh are parsed anew when one of them changes; the others are what they were.
        if key is None or (key is not self.key and key != self.key):
            raise TokenError("the token is signed with a key that is not known here")
        if self.identifier in keys.revoked:
            raise TokenError("the token has been revoked")
        if now >= self.expires:
            raise TokenError("the token has expired")
        if now < self.not_before:
            raise TokenError("the token is not valid yet")


class Verifier(Generic[Claims]):
    """Verifies tokens of one kind. One whose signature was good is known by its digest from then on.

    Whether its key is still there, whether it was revoked and whether it is its time is asked each time.
    """

    def __init__(self, claims: type[Claims], *, clock: Callable[[], float]) -> None:
        self._claims = claims
        self._clock = clock
        self._verified: OrderedDict[bytes, Verified[Claims]] = OrderedDict()
        self.signatures = 0
        """How many signatures were looked at: the costly part."""

    def verify(self, token: str, keys: Keyset) -> Claims:
        """The claims of a good token. Raises `TokenError`."""
        return self.examine(token, keys).claims

    def examine(self, token: str, keys: Keyset) -> Verified[Claims]:
        """A good token, with what tells later whether it still is. Raises `TokenError`."""
        if len(token) > TOKEN_LENGTH_MAX:
            raise TokenError("the token is too long")
        if not token.isascii():
            raise TokenError("the token is not a JWT")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is None:
            known = self._verified[digest] = self._verify(token, keys)
            if len(self._verified) > VERIFIED_MAX:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(digest)
        try:
            known.check(keys, now=self._clock())
        except TokenError:
            # Kept for nobody: with other keys the same `kid` may belong to another.
            del self._verified[digest]
            raise
        return known

    def _verify(self, token: str, keys: Keyset) -> Verified[Claims]:
        document, kid, key = self._decode(token, keys)
        try:
            claims = self._claims.model_validate(document)
        except ValidationError:
            raise TokenError("the token has not the claims of its kind") from None
        expires, not_before = document["exp"], document.get("nbf", 0)
        if not all(isinstance(time, int | float) for time in (expires, not_before)):
            raise TokenError("the token's times are not numbers")
        identifier = document.get("jti")
        return Verified(
            claims, float(not_before), float(expires), kid, key, identifier if isinstance(identifier, str) else None
        )

    def _decode(self, token: str, keys: Keyset) -> tuple[dict[str, Any], str, rsa.RSAPublicKey]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            raise TokenError("the token is not a JWT") from None
        if header.get("alg") != ALGORITHM:
            raise TokenError(f"the token is not signed with {ALGORITHM}")
        kid = header.get("kid")
        key = keys.public.get(kid) if isinstance(kid, str) else None
        if kid is None or key is None:
            raise TokenError("the token is signed with a key that is not known here")
        self.signatures += 1
        # Times are compared each time that the token is used, not only now.
        options: Any = {
            "verify_exp": False,
            "verify_nbf": False,
            "verify_iat": False,
            "verify_aud": False,
            "require": ["exp"],
        }
        try:
            document: dict[str, Any] = jwt.decode(token, key, algorithms=[ALGORITHM], options=options)
        except jwt.MissingRequiredClaimError:
            raise TokenError("the token says not until when it is valid") from None
        except jwt.InvalidTokenError:
            raise TokenError("the token's signature is not good") from None
        return document, kid, key
