"""The keys that sign tokens: which secrets hold them, and how a new one is made.

In: secrets of a mesh, or those of all meshes. Out: keys by their `kid`; the identifiers of tokens that were revoked.
Never: tokens themselves; a private key in an error.

Names are Kuma's: `dataplane-token-signing-key-<mesh>-<serial>` and `dataplane-token-revocations-<mesh>` are secrets of
their mesh; `user-token-signing-key-<serial>` and `user-token-revocations` belong to none. The greatest serial signs,
all verify: to rotate, add a key with the next serial, and delete the old one when no token of it is in use.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kumafast.errors import KumafastError
from kumafast.resources import GlobalSecret, Secret, secret_data

_LOG = logging.getLogger(__name__)

RSA_BITS = 2048
FIRST_SERIAL = 1


class SigningKeyError(KumafastError):
    """There is no key to sign with, or it is of no use; the message says where it belongs."""


@dataclass(frozen=True, slots=True)
class Keyset:
    """What tokens of one kind are verified with, and signed."""

    public: Mapping[str, rsa.RSAPublicKey]
    """By `kid`."""
    private: Mapping[str, rsa.RSAPrivateKey]
    revoked: frozenset[str]
    """The `jti` of tokens that are not taken any more."""

    def signer(self) -> tuple[str, rsa.RSAPrivateKey]:
        """The key with the greatest serial. Raises `SigningKeyError` where there is none."""
        if not self.private:
            raise SigningKeyError("there is no signing key; make one with `kumafast generate signing-key`")
        kid = max(self.private, key=_serial)
        return kid, self.private[kid]


def dataplane_key_name(mesh: str, serial: int | str) -> str:
    """The secret with a mesh's key for dataplane tokens."""
    return f"dataplane-token-signing-key-{mesh}-{serial}"


def user_key_name(serial: int | str) -> str:
    """The secret with a key for user tokens."""
    return f"user-token-signing-key-{serial}"


def dataplane_keyset(mesh: str, secrets: Mapping[str, bytes]) -> Keyset:
    """The keys for dataplane tokens among the secrets of a mesh, by their names."""
    return _keyset(secrets, dataplane_key_name(mesh, ""), f"dataplane-token-revocations-{mesh}")


def user_keyset(secrets: Mapping[str, bytes]) -> Keyset:
    """The keys for user tokens among the secrets that belong to no mesh."""
    return _keyset(secrets, user_key_name(""), "user-token-revocations")


def public_keyset(keys: Mapping[str, bytes]) -> Keyset:
    """Public keys in PEM by `kid`, for tokens that are signed elsewhere. Raises `SigningKeyError`."""
    return Keyset({kid: _public(kid, pem) for kid, pem in keys.items()}, {}, frozenset())


def merged(first: Keyset, second: Keyset) -> Keyset:
    """Both together; where both have a `kid`, the first counts."""
    return Keyset(
        {**second.public, **first.public}, {**second.private, **first.private}, first.revoked | second.revoked
    )


def create_signing_key() -> bytes:
    """A new RSA key as PEM; some 100 ms."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def first_dataplane_key(mesh: str) -> Secret:
    """What a mesh has from its beginning; some 100 ms."""
    return Secret(mesh=mesh, name=dataplane_key_name(mesh, FIRST_SERIAL), data=secret_data(create_signing_key()))


def first_user_key() -> GlobalSecret:
    """What a control plane has from its beginning; some 100 ms."""
    return GlobalSecret(name=user_key_name(FIRST_SERIAL), data=secret_data(create_signing_key()))


def _keyset(secrets: Mapping[str, bytes], prefix: str, revocations: str) -> Keyset:
    private: dict[str, rsa.RSAPrivateKey] = {}
    public: dict[str, rsa.RSAPublicKey] = {}
    for name, content in secrets.items():
        kid = name.removeprefix(prefix)
        if not name.startswith(prefix) or not kid:
            continue
        try:
            key = _private(name, content)
            private[kid], public[kid] = key, key.public_key()
        except SigningKeyError as private_error:
            # A mesh may be given public keys alone: its tokens are then signed elsewhere.
            try:
                public[kid] = _public(name, content)
            except SigningKeyError:
                _LOG.error("%s; it is left out", private_error)
    listed = secrets.get(revocations, b"").decode("utf-8", "replace")
    revoked = frozenset(each.strip() for each in listed.replace("\n", ",").split(",") if each.strip())
    return Keyset(public, private, revoked)


def _private(name: str, pem: bytes) -> rsa.RSAPrivateKey:
    try:
        # An administrator put it here: that it is a good one is not proved anew, which takes 40 ms of everybody's time.
        key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SigningKeyError(f"the secret {name} holds no RSA key in PEM")
    return key


def _public(name: str, pem: bytes) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPublicKey):
        raise SigningKeyError(f"{name} is no public RSA key in PEM")
    return key


def _serial(kid: str) -> tuple[int, str]:
    return (int(kid), "") if kid.isascii() and kid.isdigit() and len(kid) <= 18 else (-1, kid)
