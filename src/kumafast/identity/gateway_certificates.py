"""Certificates that gateways show to whoever comes from outside of the mesh.

In: a data source with a certificate, its chain and its key in PEM, a way to find secrets. Out: what Envoy is given, or
why it cannot be. Never: a judgement of who signed it, or for whom; that is for clients.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kumafast.identity.authority import AuthorityError
from kumafast.identity.backends import FindSecret, read_source
from kumafast.resources.data_source import DataSource

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----\n?", re.DOTALL)
_RSA, _ECDSA = "rsa", "ecdsa"


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """A certificate with its chain and key, PEM. `kind` is that of the key: `rsa` or `ecdsa`."""

    kind: str
    chain: bytes
    key: bytes = field(repr=False)


def read_certificate(source: DataSource, find: FindSecret) -> ServedCertificate:
    """What a source holds. Raises `AuthorityError`, which says what is missing or wrong, and never what is in it."""
    content = read_source("certificate", source.model_dump(by_alias=True), find)
    blocks = [(match[1], match[0].rstrip(b"\n") + b"\n") for match in _BLOCK.finditer(content)]
    certificates = [block for kind, block in blocks if kind == b"CERTIFICATE"]
    keys = [block for kind, block in blocks if kind.endswith(b"PRIVATE KEY")]
    if not certificates:
        raise AuthorityError("there is no certificate in PEM")
    if len(keys) != 1:
        raise AuthorityError(f"one private key in PEM is needed beside the certificate, and there are {len(keys)}")
    try:
        served = x509.load_pem_x509_certificates(b"".join(certificates))[0]
        key = serialization.load_pem_private_key(keys[0], password=None)
        is_pair = served.public_key() == key.public_key()
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"what is in PEM cannot be read: {type(error).__name__}") from None
    if not is_pair:
        raise AuthorityError("the private key is not that of the first certificate")
    if isinstance(key, rsa.RSAPrivateKey):
        return ServedCertificate(_RSA, b"".join(certificates), keys[0])
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return ServedCertificate(_ECDSA, b"".join(certificates), keys[0])
    raise AuthorityError("the private key is of a kind that Envoy does not take; RSA and ECDSA it does")
