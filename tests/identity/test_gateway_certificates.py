"""Certificates of gateways: read in whole, or refused with the reason and without a word of what is in them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from tests.gateways import certificate

from kumafast.identity.authority import AuthorityError
from kumafast.identity.gateway_certificates import read_certificate
from kumafast.resources.data_source import DataSource

PEM = certificate("edge.example.com")
SERVED, _, KEY = PEM.partition(b"-----BEGIN PRIVATE KEY-----")
KEY = b"-----BEGIN PRIVATE KEY-----" + KEY
OTHER = certificate("other.example.com").partition(b"-----BEGIN PRIVATE KEY-----")[0]


def private(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read(content: bytes) -> tuple[str, bytes, bytes]:
    found = read_certificate(DataSource(secret="it"), {"it": content}.get)
    return found.kind, found.chain, found.key


def test_the_parts_come_in_any_order_with_anything_between() -> None:
    assert read(PEM) == read(b"# mine\n" + KEY + b"\n" + SERVED) == ("ecdsa", SERVED, KEY)
    # The first is served, others are of its chain.
    assert read(SERVED + OTHER + KEY)[1] == SERVED + OTHER


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "there is no certificate in PEM"),
        (KEY, "there is no certificate in PEM"),
        (SERVED, "one private key in PEM is needed beside the certificate, and there are 0"),
        (PEM + KEY, "one private key in PEM is needed beside the certificate, and there are 2"),
        (OTHER + KEY, "the private key is not that of the first certificate"),
        (SERVED.replace(b"MII", b"AAA", 1) + KEY, "what is in PEM cannot be read: ValueError"),
        (
            SERVED + private(rsa.generate_private_key(65537, 2048)),
            "the private key is not that of the first certificate",
        ),
        (
            SERVED + private(ed25519.Ed25519PrivateKey.generate()),
            "the private key is not that of the first certificate",
        ),
    ],
)
def test_what_cannot_be_served(content: bytes, reason: str) -> None:
    with pytest.raises(AuthorityError) as caught:
        read(content)
    assert str(caught.value) == reason


def test_a_secret_that_is_not_there() -> None:
    with pytest.raises(AuthorityError, match="there is no secret it in the mesh"):
        read_certificate(DataSource(secret="it"), lambda _: None)


def test_a_key_is_never_shown() -> None:
    found = read_certificate(DataSource(secret="it"), {"it": PEM}.get)
    assert "PRIVATE" not in repr(found)
