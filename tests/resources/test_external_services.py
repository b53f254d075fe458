"""External services are refused in Kuma's words, each with all that is wrong with it, and come back as written."""

from __future__ import annotations

from typing import Any

import pytest

from kumafast.resources import ExternalService, parse, to_document, validate
from kumafast.resources.catalog import by_argument, by_path

NETWORKING = "networking.address"
PORT = (NETWORKING, "unable to parse port in address")
RANGE = (NETWORKING, "port must be in the range [1, 65535]")


def document(address: str = "example.com:443", tags: dict[str, str] | None = None, **tls: Any) -> dict[str, Any]:
    networking = {"address": address, **({"tls": tls} if tls else {})}
    fields = {"type": "ExternalService", "mesh": "default", "name": "es", "networking": networking}
    return {**fields, "tags": {"kuma.io/service": "billing"} if tags is None else tags}


def violations(written: dict[str, Any]) -> list[tuple[str, str]]:
    return [(violation.field, violation.message) for violation in validate(parse(written))]


def external(written: dict[str, Any]) -> ExternalService:
    resource = parse(written)
    assert isinstance(resource, ExternalService)
    return resource


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("192.168.0.1:8080", "192.168.0.1", 8080),
        ("example.com:443", "example.com", 443),
        ("[fd00:a123::1]:8080", "fd00:a123::1", 8080),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert violations(document(address)) == []
    assert (external(document(address)).host, external(document(address)).port) == (host, port)


def test_a_port_of_any_length_is_refused_and_not_a_failure() -> None:
    assert violations(document(f"a:{'9' * 9000}")) == [PORT, RANGE]


def test_comes_back_as_written_and_shows_no_key() -> None:
    sources: dict[str, Any] = {
        "caCert": {"inlineString": "PEM"},
        "clientCert": {"secret": "c"},
        "clientKey": {"inline": "a2V5"},
    }
    written = document(enabled=True, serverName="a", allowRenegotiation=True, skipHostnameVerification=True, **sources)
    assert to_document(parse(written)) == written
    assert parse(written) == parse(to_document(parse(written)))
    assert "a2V5" not in repr(parse(written))


def test_tls_counts_only_where_it_is_enabled_and_who_verifies_nothing_is_told() -> None:
    assert external(document(serverName="a")).tls is None
    assert list(external(document(serverName="a")).remarks()) == []
    assert [remark[:15] for remark in external(document(enabled=True)).remarks()] == ["networking.tls:"]
    assert list(external(document(enabled=True, caCert={"secret": "ca"})).remarks()) == []


def test_is_named_as_in_kuma() -> None:
    assert by_path("external-services") == ExternalService.type
    assert by_argument("external-service") == by_argument("ExternalServices") == ExternalService.type
