"""An external service is an endpoint with what its TLS needs, and none at all where that cannot be had."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline import external_service, service

from kumafast import external
from kumafast.generation.proxy import ExternalEndpoint, ExternalTls
from kumafast.resources import ExternalService

SECRETS = {"ca": b"CA", "key": b"KEY"}


def endpoint(address: str, tls: dict[str, Any] | None = None) -> ExternalEndpoint | None:
    resource = external_service("es", address, service("billing", version="1", region="eu"), tls=tls)
    assert isinstance(resource, ExternalService)
    return external.endpoint(resource, SECRETS.get)


def test_without_tls_it_is_where_it_is() -> None:
    tags = (("region", "eu"), ("version", "1"))
    assert endpoint("example.com:80") == ExternalEndpoint("example.com", 80, tags)
    assert endpoint("[2001:db8::1]:80") == ExternalEndpoint("2001:db8::1", 80, tags)


@pytest.mark.parametrize(
    ("address", "tls", "name", "verified"),
    [
        ("example.com:443", {}, "example.com", "example.com"),
        ("example.com:443", {"serverName": "other"}, "other", "other"),
        ("example.com:443", {"skipHostnameVerification": True}, "example.com", ""),
        ("192.0.2.1:443", {}, "", "192.0.2.1"),
        ("192.0.2.1:443", {"serverName": "other"}, "other", "other"),
    ],
)
def test_a_server_is_called_and_verified_by_its_name(
    address: str, tls: dict[str, Any], name: str, verified: str
) -> None:
    found = endpoint(address, tls)
    assert found is not None
    assert found.tls == ExternalTls(server_name=name, verified_name=verified)


def test_certificates_come_from_secrets_files_and_the_document(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_bytes(b"CHAIN")
    found = endpoint(
        "192.0.2.1:443",
        {
            "allowRenegotiation": True,
            "caCert": {"secret": "ca"},
            "clientCert": {"file": str(tmp_path / "chain.pem")},
            "clientKey": {"inline": base64.b64encode(b"KEY").decode()},
        },
    )
    assert found is not None
    expected = ExternalTls("", b"CA", "192.0.2.1", b"CHAIN", b"KEY", allows_renegotiation=True)
    assert found.tls == expected
    assert "KEY" not in repr(found)
    inline = endpoint("192.0.2.1:443", {"caCert": {"inlineString": "CA"}})
    assert inline is not None
    assert inline.tls is not None
    assert inline.tls.authority == b"CA"


@pytest.mark.parametrize(
    "source", [{"secret": "nowhere"}, {"file": "/nowhere/ca.pem"}, {"inline": "not base64"}, {"file": "\0"}]
)
def test_what_cannot_be_had_makes_it_no_endpoint(source: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert endpoint("192.0.2.1:443", {"caCert": source}) is None
    assert "external service es is no endpoint: " in caplog.text
