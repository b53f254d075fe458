"""External services are refused in Kuma's words, each with all that is wrong with it, and come back as written."""

from __future__ import annotations

from typing import Any

import pytest

from kumafast.resources import ExternalService, parse, to_document, validate
from kumafast.resources.catalog import by_argument, by_path

NETWORKING = "networking.address"
PARSE = (NETWORKING, "unable to parse address")
HOST = (NETWORKING, "address has to be a valid IP address or a domain name")
PORT = (NETWORKING, "unable to parse port in address")
RANGE = (NETWORKING, "port must be in the range [1, 65535]")
PROTOCOLS = "Allowed values: grpc, http, http2, kafka, tcp"
EMPTY = "data source cannot be empty"


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


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", [(NETWORKING, "address can't be empty")]),
        ("..>_<..:8080", [HOST]),
        ("http://example.com:8080", [PARSE, HOST, PORT, RANGE]),
        ("fd00:1234::1:8080", [PARSE, HOST, PORT, RANGE]),
        ("example.com", [PARSE, HOST, PORT, RANGE]),
        (":80", [HOST]),
        ("example.com:", [PORT, RANGE]),
        ("example.com:http", [PORT, RANGE]),
        ("example.com:-1", [PORT, RANGE]),
        ("192.168.0.1:65536", [RANGE]),
        ("192.168.0.1:0", [RANGE]),
        (f"a:{'9' * 9000}", [PORT, RANGE]),
    ],
)
def test_addresses_that_are_not_valid(address: str, expected: list[tuple[str, str]]) -> None:
    assert violations(document(address)) == expected


def test_tags_and_tls_that_are_not_valid() -> None:
    assert violations({"type": "ExternalService", "mesh": "default", "name": "es"}) == [
        ("networking", "should have networking"),
        ("tags", 'mandatory tag "kuma.io/service" is missing'),
    ]
    protocol = 'tags["kuma.io/protocol"]'
    assert violations(document(tags={"kuma.io/service": "a", "kuma.io/protocol": ""})) == [
        (protocol, f'tag "kuma.io/protocol" has an invalid value "". {PROTOCOLS}'),
        (protocol, "tag value must be non-empty"),
    ]
    assert violations(document(tags={"kuma.io/service": "a", "kuma.io/protocol": "smtp"})) == [
        (protocol, f'tag "kuma.io/protocol" has an invalid value "smtp". {PROTOCOLS}'),
    ]
    assert violations(document(tags={"kuma.io/service": "example.com"})) == [
        ('tags["kuma.io/service"]', "cannot be the same as networking.address")
    ]
    sources: dict[str, Any] = {"caCert": {"inline": ""}, "clientCert": {}, "clientKey": {"secret": ""}}
    assert violations(document(enabled=True, serverName="", **sources)) == [
        ("networking.tls.serverName", "cannot be empty"),
        ("networking.tls.caCert", EMPTY),
        ("networking.tls.clientCert", EMPTY),
        ("networking.tls.clientKey", EMPTY),
    ]


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
