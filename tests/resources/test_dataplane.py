"""What the later stages read off a dataplane, and what its rules let pass."""

from __future__ import annotations

from typing import Any

import pytest
from tests import builders

from kumafast.resources import Dataplane, validate
from kumafast.resources.networking import Inbound, Networking


def test_effective_addresses_and_ports() -> None:
    dataplane = builders.dataplane(
        address="10.0.0.1",
        inbound=[
            builders.inbound(80),
            builders.inbound(81, address="10.0.0.2", servicePort=8081, serviceAddress="192.168.0.1"),
        ],
        outbound=[builders.outbound(90), builders.outbound(91, address="127.0.0.9")],
    )
    plain, special = dataplane.inbounds
    assert dataplane.inbound_address(plain) == "10.0.0.1"
    assert (dataplane.inbound_service_address(plain), dataplane.inbound_service_port(plain)) == ("127.0.0.1", 80)
    assert dataplane.inbound_address(special) == "10.0.0.2"
    assert (dataplane.inbound_service_address(special), dataplane.inbound_service_port(special)) == (
        "192.168.0.1",
        8081,
    )
    assert [dataplane.outbound_address(outbound) for outbound in dataplane.outbounds] == ["127.0.0.1", "127.0.0.9"]
    assert dataplane.advertised_address == "10.0.0.1"
    assert builders.dataplane(advertisedAddress="203.0.113.1").advertised_address == "203.0.113.1"


def test_without_networking() -> None:
    dataplane = Dataplane(name="a", mesh="m")
    assert dataplane.inbounds == ()
    assert dataplane.outbounds == ()
    assert dataplane.gateway is None
    assert dataplane.address == dataplane.advertised_address == ""


@pytest.mark.parametrize(
    ("fields", "service", "protocol"),
    [
        ({"tags": {"kuma.io/service": "web", "kuma.io/protocol": "grpc"}}, "web", "grpc"),
        ({"tags": {"kuma.io/service": "web"}}, "web", "tcp"),
        ({"protocol": "http"}, "", "http"),
        ({"protocol": "http", "tags": {"kuma.io/protocol": "http2"}}, "", "http2"),
        ({}, "", "tcp"),
    ],
)
def test_service_and_protocol(fields: dict[str, Any], service: str, protocol: str) -> None:
    inbound = Inbound.model_validate(fields)
    assert (inbound.service, inbound.protocol) == (service, protocol)


@pytest.mark.parametrize(
    ("fields", "is_ready"),
    [
        ({}, True),
        ({"state": "Ready"}, True),
        ({"state": "NotReady"}, False),
        ({"state": "Ignored"}, False),
        ({"health": {"ready": True}}, True),
        ({"health": {"ready": False}}, False),
        # Protobuf leaves a false out, so this is how Kuma itself writes "not ready".
        ({"health": {}}, False),
        ({"state": "NotReady", "health": {"ready": True}}, False),
    ],
)
def test_is_ready(fields: dict[str, Any], is_ready: bool) -> None:
    assert Inbound.model_validate(fields).is_ready is is_ready


def test_section_name() -> None:
    assert Inbound(port=80, name="main").section_name == "main"
    assert Inbound(port=80).section_name == "80"


def test_destination_tags() -> None:
    tags = {"kuma.io/service": "backend", "version": "v1"}
    dataplane = builders.dataplane(outbound=[{"port": 90, "tags": tags}, {"port": 91, "service": "redis"}])
    assert [dict(outbound.destination_tags) for outbound in dataplane.outbounds] == [
        tags,
        {"kuma.io/service": "redis"},
    ]
    assert [outbound.service for outbound in dataplane.outbounds] == ["backend", "redis"]


def test_models_and_dicts_make_equal_dataplanes() -> None:
    model = Dataplane(
        name="web-1",
        mesh="default",
        networking=Networking(address="127.0.0.1", inbound=(Inbound(port=8080, tags=builders.DEFAULT_TAGS),)),
    )
    assert model == builders.dataplane()


@pytest.mark.parametrize(
    "over",
    [
        {"inbound": [builders.inbound(1), builders.inbound(65535, servicePort=65535)]},
        {"inbound": []},
        {"inbound": [{"port": 80}]},
        {"inbound": [builders.inbound(tags={"kuma.io/service": "a", "k8s.kuma.io/name:x": "A.b-c_d:e"})]},
        {"address": "web.example.com"},
        {"address": "localhost"},
        {"address": "fd00::1"},
        {"inbound": [builders.inbound(address="::1", serviceAddress="::1", servicePort=9)]},
        {"inbound": [builders.inbound(serviceAddress="127.0.0.1", servicePort=9)]},
        {"admin": {"port": 9901}},
        {"admin": {}},
        {"address": "10.0.0.1", "admin": {"port": 8080}, "inbound": [builders.inbound(8080, servicePort=81)]},
        {"outbound": [{"port": 90, "backendRef": {"kind": "MeshExternalService", "name": "a"}}]},
        {"outbound": [{"port": 90, "backendRef": {"kind": "MeshService", "labels": {"a": "b"}, "port": 80}}]},
        {"inbound": [], "gateway": {"tags": {"kuma.io/service": "kong"}}, "outbound": [builders.outbound()]},
        {"inbound": [], "gateway": {"tags": {"kuma.io/service": "kong", "kuma.io/protocol": "tcp"}}},
        {"listeners": [{"type": "ZoneIngress", "port": 1}, {"type": "ZoneEgress", "port": 2}]},
    ],
)
def test_what_the_rules_let_pass(over: dict[str, Any]) -> None:
    assert validate(builders.dataplane(**over)) == ()


@pytest.mark.parametrize("name", ["a", "0", "web-1", "a.b-c.d", "a" * 253])
def test_names(name: str) -> None:
    assert validate(builders.dataplane(name)) == ()
    assert validate(builders.mesh(name)) == ()


@pytest.mark.parametrize("mesh", ["default", "my_mesh", "-", "a" * 253])
def test_meshes(mesh: str) -> None:
    assert validate(builders.dataplane(mesh=mesh)) == ()
