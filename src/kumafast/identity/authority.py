"""Certificate authorities of meshes: made, read, checked, and what they sign.

In: PEM, or how a new one is to be. Out: `Authority`, which issues workload certificates.
Never: where keys are kept, when a certificate is renewed; a private key in an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kumafast.errors import KumafastError

ROOT_LIFETIME = timedelta(days=3650)
CLOCK_SKEW = timedelta(seconds=10)
"""How far a certificate's validity reaches back, for clocks that are behind."""

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class AuthorityError(KumafastError):
    """A certificate and key that cannot be an authority; the message says why, and shows neither."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate, or a chain of them from the leaf up, and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """Who signs a mesh's workload certificates."""

    certificate: x509.Certificate
    chain: bytes
    """All certificates that came with it, PEM; the first is its own."""
    key: _PrivateKey = field(repr=False)
    digest: str
    """Names it: the SHA-256 of its certificate, in hexadecimal."""

    def issue(self, sans: Sequence[str], *, now: datetime, lifetime: timedelta) -> KeyPair:
        """A new key, EC P-256, and a certificate for these URIs, for clients and servers. Some 0.15 ms.

        It ends with the authority at the latest, and has ended where that has; it begins with it where that has yet to.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        public_key = key.public_key()
        begins = max(now - CLOCK_SKEW, self.certificate.not_valid_before_utc)
        ends = min(max(now, begins) + lifetime, self.certificate.not_valid_after_utc)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(san) for san in sans])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins if begins < ends else self.certificate.not_valid_before_utc)
            .not_valid_after(ends)
            # Without a subject the names have to be critical.
            .add_extension(names, critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_LEAF_USAGE, critical=True)
            .add_extension(_LEAF_PURPOSES, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(_key_identifier(self.certificate), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        # What stands between the leaf and the root goes along; a root of its own is what clients have already.
        above = b"" if _is_root(self.certificate) else self.chain
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM) + above, _key_pem(key))


def create_authority(name: str, *, now: datetime, rsa_bits: int = 0, lifetime: timedelta = ROOT_LIFETIME) -> KeyPair:
    """A new root authority: EC P-256, or RSA where bits are given (2,048 take some 100 ms)."""
    key: _PrivateKey = (
        rsa.generate_private_key(public_exponent=65537, key_size=rsa_bits)
        if rsa_bits
        else ec.generate_private_key(ec.SECP256R1())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "kumafast"), _common_name(name)])
    public_key = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ROOT_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key))


def load_authority(pair: KeyPair, *, now: datetime | None = None) -> Authority:
    """The authority of a certificate (or a chain, its own first) and a key. Raises `AuthorityError` with the reason."""
    chain = _certificates(pair.certificate)
    certificate = chain[0]
    key = _private_key(pair.key)
    if key.public_key().public_numbers() != _public_numbers(certificate):
        raise AuthorityError("the key does not belong to the certificate")
    _check_may_sign(certificate)
    now = datetime.now(UTC) if now is None else now
    if now >= certificate.not_valid_after_utc:
        raise AuthorityError(f"the certificate expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if now + CLOCK_SKEW < certificate.not_valid_before_utc:
        raise AuthorityError(
            f"the certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
        )
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Authority(certificate, pem, key, sha256(der).hexdigest())


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise AuthorityError("not a certificate in PEM") from None


def _private_key(pem: bytes) -> _PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise AuthorityError("the key is encrypted; give one that is not") from None
    except (ValueError, UnsupportedAlgorithm):
        raise AuthorityError("not a private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise AuthorityError("the key must be EC or RSA")
    return key


def _public_numbers(certificate: x509.Certificate) -> object:
    key = certificate.public_key()
    return key.public_numbers() if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey) else None


def _check_may_sign(certificate: x509.Certificate) -> None:
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_authority = False
    if not is_authority:
        raise AuthorityError("the certificate is not an authority's: it lacks the basic constraint CA")
    try:
        may_sign = certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except (x509.ExtensionNotFound, ValueError):
        may_sign = False
    if not may_sign:
        raise AuthorityError("the certificate may not sign others: it lacks the key usage certSign")


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def _key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        # A certificate that was brought along may lack it; the key itself says what it would be.
        key = authority.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _common_name(name: str) -> x509.NameAttribute[str]:
    # X.509 ends it at 64 characters; it is for people, who see the beginning.
    return x509.NameAttribute(NameOID.COMMON_NAME, name[:64])


def _key_pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


_ROOT_USAGE = _usage(signs=True)
_LEAF_USAGE = _usage(signs=False)
_LEAF_PURPOSES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
