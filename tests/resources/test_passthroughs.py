"""MeshPassthrough is refused in Kuma's words and comes back as written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kumafast.resources import parse, to_document, unknown_fields, validate

SAME = (
    "using the same port in multiple matches requires the same protocol for the following protocols: [grpc http http2]"
)
WILDCARD = "wildcard domains doesn't work for all ports and layer 7 protocol"
PARTIAL = "provided DNS has incorrect value, partial wildcard is currently not supported"
DNS = "provided DNS has incorrect value"
PORT = "port must be a valid (1-65535)"


def passthrough(*matches: Any, mode: str = "Matched") -> dict[str, Any]:
    spec = {
        "targetRef": {"kind": "Mesh", "proxyTypes": ["Sidecar"]},
        "default": {"passthroughMode": mode, "appendMatch": list(matches)},
    }
    return {"type": "MeshPassthrough", "mesh": "default", "name": "p", "spec": spec}


def test_what_is_valid_comes_back_as_written() -> None:
    document = passthrough(
        {"type": "Domain", "value": "api.example.com", "port": 443, "protocol": "tls"},
        {"type": "Domain", "value": "*.example.com", "protocol": "tls"},
        {"type": "Domain", "value": "*", "port": 80, "protocol": "http"},
        {"type": "IP", "value": "10.0.0.1", "port": 80, "protocol": "http"},
        {"type": "CIDR", "value": "2001:db8::/32", "protocol": "tcp"},
    )
    assert validate(parse(document)) == ()
    assert unknown_fields(document) == ()
    assert to_document(parse(document)) == document


def test_a_mode_is_one_of_three() -> None:
    (violation,) = validate(parse(passthrough(mode="Some")))
    assert violation.field == "spec.default.passthroughMode"
    assert violation.message == '"passthroughMode" must be one of ["All", "Matched", "None"]'


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        ("[{type: IP, value: 10.0.0.1, port: 0, protocol: tcp}]", [("[0].port", PORT)]),
        ("[{type: IP, value: 10.0.0.1, port: 65536, protocol: tcp}]", [("[0].port", PORT)]),
        (
            "[{type: IP, value: 10.0.0.1, protocol: udp}]",
            [("[0].protocol", '"protocol" must be one of ["tcp", "tls", "grpc", "http", "http2"]')],
        ),
        ("[{type: IP, value: 10.0.0.300, protocol: tcp}]", [("[0].value", "provided IP has incorrect value")]),
        ("[{type: CIDR, value: 10.0.0.1, protocol: tcp}]", [("[0].value", "provided CIDR has incorrect value")]),
        ("[{type: CIDR, value: 10.0.0.0/33, protocol: tcp}]", [("[0].value", "provided CIDR has incorrect value")]),
        (
            "[{type: Host, value: a, protocol: tcp}]",
            [("[0].type", "provided type Host is not supported, one of Domain, IP, or CIDR is supported")],
        ),
        (
            "[{type: Domain, value: a.test, port: 1, protocol: tcp}]",
            [("[0].protocol", "protocol tcp is not supported for a domain")],
        ),
        ("[{type: Domain, value: 'a b', port: 1, protocol: tls}]", [("[0].value", DNS)]),
        ("[{type: Domain, value: '*a.test', port: 1, protocol: tls}]", [("[0].value", PARTIAL)]),
        ("[{type: Domain, value: '*.a.test', protocol: http}]", [("[0].port", WILDCARD)]),
        (
            "[{type: Domain, value: a, port: 1, protocol: http}, {type: IP, value: 10.0.0.1, port: 1, protocol: grpc}]",
            [("[1].port", SAME)],
        ),
        (
            "[{type: Domain, value: a, port: 1, protocol: tls}, {type: Domain, value: a, port: 1, protocol: tls}]",
            [("[1].value", "value a is already defiend for this port and protocol")],
        ),
    ],
)
def test_what_is_not_is_refused(matches: str, expected: list[tuple[str, str]]) -> None:
    found = validate(parse(passthrough(*yaml.safe_load(matches))))
    prefix = "spec.default.appendMatch"
    assert [(each.field.removeprefix(prefix), each.message) for each in found] == expected
