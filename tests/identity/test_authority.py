"""Authorities: what they sign, and what cannot be one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from kumafast.identity.authority import AuthorityError, KeyPair, create_authority, load_authority

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SANS = ("spiffe://default/web", "kuma://kuma.io/service/web")


def _leaf(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def test_a_certificate_says_who_its_holder_is_and_what_it_is_for() -> None:
    authority = load_authority(create_authority("default ca-1", now=NOW), now=NOW)
    leaf = _leaf(authority.issue(SANS, now=NOW, lifetime=timedelta(hours=1)))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier)) == SANS
    assert names.critical
    assert leaf.not_valid_after_utc == NOW + timedelta(hours=1)
    assert NOW - timedelta(minutes=1) < leaf.not_valid_before_utc < NOW
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    leaf.verify_directly_issued_by(authority.certificate)


def test_every_certificate_has_both_key_identifiers() -> None:
    authority = load_authority(create_authority("default ca-1", now=NOW), now=NOW)
    leaf = _leaf(authority.issue(SANS, now=NOW, lifetime=timedelta(hours=1)))
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for certificate in (leaf, authority.certificate):
        above = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert above.key_identifier == own
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)


def test_no_certificate_outlives_its_authority() -> None:
    authority = load_authority(create_authority("a", now=NOW, lifetime=timedelta(hours=2)), now=NOW)
    leaf = _leaf(authority.issue(SANS, now=NOW, lifetime=timedelta(days=1)))
    assert leaf.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_an_authority_that_has_ended_signs_what_has_ended() -> None:
    # Nobody takes it, but whoever asks for it goes on.
    ends = NOW + timedelta(hours=1)
    authority = load_authority(create_authority("default ca-1", now=NOW, lifetime=timedelta(hours=1)), now=NOW)
    for late in (timedelta(0), timedelta(seconds=11), timedelta(days=9)):
        assert _leaf(authority.issue(SANS, now=ends + late, lifetime=timedelta(hours=1))).not_valid_after_utc == ends


def test_an_authority_that_is_yet_to_begin_signs_what_begins_with_it() -> None:
    authority = load_authority(create_authority("default ca-1", now=NOW), now=NOW)
    # As where a clock has been set back by years.
    leaf = _leaf(authority.issue(SANS, now=NOW - timedelta(days=3650), lifetime=timedelta(hours=1)))
    assert leaf.not_valid_before_utc == authority.certificate.not_valid_before_utc
    assert leaf.not_valid_after_utc == leaf.not_valid_before_utc + timedelta(hours=1)


def test_no_two_certificates_share_a_key() -> None:
    authority = load_authority(create_authority("a", now=NOW), now=NOW)
    pairs = [authority.issue(SANS, now=NOW, lifetime=timedelta(hours=1)) for _ in range(3)]
    assert len({pair.key for pair in pairs}) == 3


def test_rsa_on_request() -> None:
    authority = load_authority(create_authority("a", now=NOW, rsa_bits=2048), now=NOW)
    key = authority.certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    _leaf(authority.issue(SANS, now=NOW, lifetime=timedelta(hours=1))).verify_directly_issued_by(authority.certificate)


def test_an_authority_below_another_is_sent_along() -> None:
    root = create_authority("root", now=NOW)
    below = _below(root)
    authority = load_authority(KeyPair(below.certificate + root.certificate, below.key), now=NOW)
    issued = authority.issue(SANS, now=NOW, lifetime=timedelta(hours=1))
    chain = x509.load_pem_x509_certificates(issued.certificate)
    assert len(chain) == 3
    chain[0].verify_directly_issued_by(chain[1])
    chain[1].verify_directly_issued_by(chain[2])


def _below(root: KeyPair) -> KeyPair:
    from cryptography.hazmat.primitives import hashes, serialization

    above = load_authority(root, now=NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "below")]))
        .issuer_name(above.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(minutes=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(above.certificate.extensions.get_extension_for_class(x509.KeyUsage).value, critical=True)
        .sign(above.key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), pem)


def _bad(case: str) -> tuple[KeyPair, datetime]:
    good, other = create_authority("a", now=NOW), create_authority("b", now=NOW)
    authority = load_authority(good, now=NOW)
    leaf = authority.issue(SANS, now=NOW, lifetime=timedelta(hours=1))
    later = NOW + timedelta(days=4000)
    return {
        "another's key": (KeyPair(good.certificate, other.key), NOW),
        "no certificate": (KeyPair(b"hello", good.key), NOW),
        "no key": (KeyPair(good.certificate, b"hello"), NOW),
        "a leaf": (leaf, NOW),
        "expired": (good, later),
        "not yet": (good, NOW - timedelta(days=1)),
        "nothing": (KeyPair(b"", b""), NOW),
    }[case]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("another's key", "the key does not belong to the certificate"),
        ("no certificate", "not a certificate in PEM"),
        ("no key", "not a private key in PEM"),
        ("a leaf", "lacks the basic constraint CA"),
        ("expired", "expired at"),
        ("not yet", "not valid before"),
        ("nothing", "not a certificate in PEM"),
    ],
)
def test_says_why_something_cannot_be_an_authority(case: str, reason: str) -> None:
    pair, now = _bad(case)
    with pytest.raises(AuthorityError, match=reason) as caught:
        load_authority(pair, now=now)
    assert "PRIVATE" not in str(caught.value)


def test_a_key_is_not_shown() -> None:
    pair = create_authority("a", now=NOW)
    assert "PRIVATE" not in repr(pair)
    assert "key=" not in repr(load_authority(pair, now=NOW))
