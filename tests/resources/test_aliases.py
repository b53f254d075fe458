"""Documents of Kuma 0.1.0 to 0.6 mean what they meant, in today's form."""

from __future__ import annotations

from typing import Any

import pytest

from kumafast.resources import Dataplane, parse, to_document, unknown_fields, validate
from kumafast.resources.aliases import ACCESS_LOG_FORMAT


def _networking(networking: dict[str, Any]) -> object:
    resource = parse({"type": "Dataplane", "mesh": "default", "name": "cart-1", "networking": networking})
    assert validate(resource) == ()
    return to_document(resource)["networking"]


def test_the_whole_of_a_dataplane_of_0_1_0() -> None:
    assert _networking(
        {
            "inbound": [{"interface": "10.0.0.7:9000:8080", "tags": {"service": "cart", "version": "v1"}}],
            "outbound": [{"interface": ":10000", "service": "redis"}],
            "transparentProxying": {"redirectPort": 15001},
        }
    ) == {
        "address": "10.0.0.7",
        "inbound": [
            {
                "address": "10.0.0.7",
                "port": 9000,
                "servicePort": 8080,
                "tags": {"kuma.io/service": "cart", "version": "v1"},
            }
        ],
        "outbound": [{"address": "127.0.0.1", "port": 10000, "tags": {"kuma.io/service": "redis"}}],
        "transparentProxying": {"redirectPortOutbound": 15001},
    }


def test_inbounds_with_addresses_of_their_own() -> None:
    networking = {
        "inbound": [
            {"interface": "10.0.0.7:1:65535", "tags": {"service": "a"}},
            {"interface": "10.0.0.8:65535:1", "tags": {"service": "b"}},
        ]
    }
    resource = parse({"type": "Dataplane", "mesh": "default", "name": "a", "networking": networking})
    assert isinstance(resource, Dataplane)
    assert resource.address == "10.0.0.7"
    assert [(resource.inbound_address(i), i.port, i.service_port) for i in resource.inbounds] == [
        ("10.0.0.7", 1, 65535),
        ("10.0.0.8", 65535, 1),
    ]


def test_an_address_that_is_given_stays() -> None:
    networking = {"address": "10.1.1.1", "inbound": [{"interface": "10.0.0.7:80:81", "tags": {"service": "a"}}]}
    assert _networking(networking) == {
        "address": "10.1.1.1",
        "inbound": [{"address": "10.0.0.7", "port": 80, "servicePort": 81, "tags": {"kuma.io/service": "a"}}],
    }


def test_outbound_with_address_and_with_service_in_today_s_place() -> None:
    inbound = {"port": 80, "tags": {"kuma.io/service": "web"}}
    networking = {
        "address": "10.0.0.1",
        "inbound": [inbound],
        "outbound": [
            {"interface": "127.0.0.9:1234", "service": "a"},
            {"port": 90, "service": "b"},
            {"port": 91, "tags": {"service": "c"}},
            {"port": 92, "service": "d", "tags": {"version": "v1"}},
        ],
    }
    assert _networking(networking) == {
        "address": "10.0.0.1",
        "inbound": [inbound],
        "outbound": [
            {"address": "127.0.0.9", "port": 1234, "tags": {"kuma.io/service": "a"}},
            {"port": 90, "tags": {"kuma.io/service": "b"}},
            {"port": 91, "tags": {"kuma.io/service": "c"}},
            {"port": 92, "tags": {"kuma.io/service": "d", "version": "v1"}},
        ],
    }


def test_service_tag_of_a_gateway() -> None:
    assert _networking({"address": "10.0.0.1", "gateway": {"tags": {"service": "kong"}}}) == {
        "address": "10.0.0.1",
        "gateway": {"tags": {"kuma.io/service": "kong"}},
    }


def test_a_service_tag_of_the_user_s_own_stays() -> None:
    networking = {
        "address": "10.0.0.1",
        "inbound": [{"port": 80, "tags": {"kuma.io/service": "web", "service": "mine"}}],
    }
    assert _networking(networking) == networking


def test_old_fields_are_not_unknown() -> None:
    dataplane = {
        "type": "Dataplane",
        "networking": {
            "inbound": [{"interface": "10.0.0.1:80:81", "tags": {"service": "a"}}, {"interface": "nonsense"}],
            "outbound": [{"interface": ":90", "service": "b"}],
            "transparentProxying": {"redirectPort": 1},
        },
    }
    mesh = {
        "type": "Mesh",
        "mtls": {"enabled": True, "ca": {"builtin": {}}},
        "logging": {"accessLogs": {"enabled": True, "filePath": "/tmp/log"}},
    }
    assert unknown_fields(dataplane) == ()
    assert unknown_fields(mesh) == ()


def test_python_s_constructor_understands_them_too() -> None:
    dataplane = Dataplane.model_validate(
        {"name": "a", "mesh": "m", "networking": {"inbound": [{"interface": "10.0.0.1:80:81"}]}}
    )
    assert dataplane.inbounds[0].port == 80


@pytest.mark.parametrize(
    ("mtls", "expected"),
    [
        (
            {"enabled": True, "ca": {"builtin": {}}},
            {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
        ),
        ({"enabled": True}, {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}),
        ({"enabled": False, "ca": {"builtin": {}}}, {"backends": [{"name": "ca-1", "type": "builtin"}]}),
        (
            {"ca": {"provided": {"cert": {}}}},
            {"backends": [{"name": "ca-1", "type": "provided", "conf": {"cert": {}}}]},
        ),
        ({"enabled": False}, {}),
        ({"enabled": None, "ca": None}, {}),
    ],
    ids=["on", "on-without-ca", "off-with-ca", "provided", "off", "null"],
)
def test_mtls(mtls: dict[str, Any], expected: dict[str, Any]) -> None:
    resource = parse({"type": "Mesh", "name": "default", "mtls": mtls})
    assert to_document(resource)["mtls"] == expected
    assert validate(resource) == ()


def test_today_s_mtls_wins_over_the_old_one() -> None:
    document = {"type": "Mesh", "name": "m", "mtls": {"enabled": True, "backends": [{"name": "a", "type": "builtin"}]}}
    assert to_document(parse(document))["mtls"] == {"backends": [{"name": "a", "type": "builtin"}]}
    assert unknown_fields(document) == ("mtls.enabled",)


def test_access_logs() -> None:
    resource = parse(
        {"type": "Mesh", "name": "m", "logging": {"accessLogs": {"enabled": True, "filePath": "/var/log/mesh.log"}}}
    )
    assert validate(resource) == ()
    assert to_document(resource)["logging"] == {
        "defaultBackend": "file-1",
        "backends": [
            {"name": "file-1", "format": ACCESS_LOG_FORMAT, "type": "file", "conf": {"path": "/var/log/mesh.log"}}
        ],
    }
    (remark,) = resource.remarks()
    assert "where a TrafficLog is for them" in remark


@pytest.mark.parametrize("logs", [None, {}, {"enabled": False, "filePath": "/tmp/log"}])
def test_access_logs_that_are_off(logs: object) -> None:
    resource = parse({"type": "Mesh", "name": "m", "logging": {"accessLogs": logs}})
    assert to_document(resource)["logging"] == {}
