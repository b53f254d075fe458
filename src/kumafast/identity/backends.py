"""A mesh's backends of certificate authorities: where each has its certificate and key.

In: a backend as the Mesh names it, a way to find secrets. Out: the `Authority`; the secrets that a new one is kept in.
Never: a store; which backend signs now, which is `trust`'s to say.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kumafast.identity.authority import (
    ROOT_LIFETIME,
    Authority,
    AuthorityError,
    KeyPair,
    create_authority,
    load_authority,
)
from kumafast.resources import Secret, secret_data
from kumafast.resources.mesh import CertificateAuthority, Mesh

BUILTIN = "builtin"
PROVIDED = "provided"
LIFETIME = timedelta(hours=24)
"""How long a workload's certificate is valid where its backend does not say it."""
LIFETIME_MIN = timedelta(seconds=5)
"""Below it nothing would be left of a certificate by the time that it has arrived."""

FindSecret = Callable[[str], bytes | None]
"""The content of a secret of the mesh by its name."""

_SOURCES = ("secret", "file", "inline", "inlineString")
_UNITS = {
    "y": timedelta(days=365),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ms|y|w|d|h|m|s)")
_RSA_BITS_MIN, _RSA_BITS_MAX = 2048, 8192


def enabled_backend(mesh: Mesh) -> CertificateAuthority | None:
    """The backend that the mesh's TLS is to use; None where its traffic is in plaintext."""
    if mesh.mtls is None or not mesh.mtls.enabled_backend:
        return None
    return next((each for each in mesh.mtls.backends if each.name == mesh.mtls.enabled_backend), None)


def lifetime_of(backend: CertificateAuthority) -> timedelta:
    """How long its workload certificates are valid."""
    rotation = None if backend.dp_cert is None else backend.dp_cert.rotation
    text = "" if rotation is None else rotation.expiration
    return max(_length(text), LIFETIME_MIN) if text else LIFETIME


def _length(text: str) -> timedelta:
    return sum((float(number) * _UNITS[unit] for number, unit in _LENGTH.findall(text)), timedelta())


def builtin_names(mesh: str, backend: str) -> tuple[str, str]:
    """The secrets in which a builtin backend has its certificate and its key."""
    return f"{mesh}.ca-builtin-cert-{backend}", f"{mesh}.ca-builtin-key-{backend}"


def secret_names(mesh: str, backend: CertificateAuthority) -> tuple[str, ...]:
    """The secrets that a backend is read from."""
    if backend.type == BUILTIN:
        return builtin_names(mesh, backend.name)
    conf: Mapping[str, Any] = backend.conf or {}
    sources = (conf.get(field) for field in ("cert", "key"))
    return tuple(
        source["secret"]
        for source in sources
        if isinstance(source, Mapping) and isinstance(source.get("secret"), str) and source["secret"]
    )


def load_backend(mesh: str, backend: CertificateAuthority, find: FindSecret) -> Authority:
    """The authority behind a backend. Raises `AuthorityError`, which says what is missing or wrong."""
    if backend.type == BUILTIN:
        certificate, key = (_secret(name, find) for name in builtin_names(mesh, backend.name))
    else:
        conf: Mapping[str, Any] = backend.conf or {}
        certificate, key = (read_source(field, conf.get(field), find) for field in ("cert", "key"))
    return load_authority(KeyPair(certificate, key))


def create_builtin(mesh: str, backend: CertificateAuthority, *, now: datetime) -> tuple[Secret, Secret]:
    """A new authority for a builtin backend, as the two secrets that it is kept in. Raises `AuthorityError`."""
    wanted = (backend.conf or {}).get("caCert") or {}
    if not isinstance(wanted, Mapping):
        raise AuthorityError("caCert must be an object")
    bits = wanted.get("rsaBits", wanted.get("RSAbits")) or 0
    if bits and not (isinstance(bits, int) and _RSA_BITS_MIN <= bits <= _RSA_BITS_MAX):
        raise AuthorityError(f"caCert.rsaBits must be a number in the range [{_RSA_BITS_MIN}, {_RSA_BITS_MAX}]")
    text = wanted.get("expiration") or ""
    if text and not (isinstance(text, str) and _length(text)):
        raise AuthorityError("caCert.expiration must be a duration such as 10y")
    pair = create_authority(
        f"{mesh} {backend.name}", now=now, rsa_bits=bits, lifetime=_length(text) if text else ROOT_LIFETIME
    )
    certificate, key = builtin_names(mesh, backend.name)
    return (
        Secret(mesh=mesh, name=certificate, data=secret_data(pair.certificate)),
        Secret(mesh=mesh, name=key, data=secret_data(pair.key)),
    )


def read_source(field: str, source: object, find: FindSecret) -> bytes:
    """What a data source of Kuma's form holds. Raises `AuthorityError`, which names the field and what is wrong."""
    if not isinstance(source, Mapping) or not any(source.get(kind) for kind in _SOURCES):
        raise AuthorityError(f"{field} has to be given as one of {', '.join(_SOURCES)}")
    kind = next(kind for kind in _SOURCES if source.get(kind))
    value = source[kind]
    if not isinstance(value, str):
        raise AuthorityError(f"{field}.{kind} must be a string")
    if kind == "secret":
        return _secret(value, find)
    if kind == "file":
        try:
            return Path(value).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AuthorityError(f"{field}: cannot read the control plane's file {value}: {reason}") from None
    if kind == "inline":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise AuthorityError(f"{field}.inline must be base64") from None
    return value.encode()


def _secret(name: str, find: FindSecret) -> bytes:
    content = find(name)
    if content is None:
        raise AuthorityError(f"there is no secret {name} in the mesh")
    return content
