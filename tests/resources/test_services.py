"""Services within and outside are refused in Kuma's words, each with all that is wrong, and come back as written."""

from __future__ import annotations

from typing import Any

import pytest

from kumafast.errors import MalformedResourceError
from kumafast.resources import (
    HostnameGenerator,
    MeshExternalService,
    MeshMultiZoneService,
    MeshService,
    parse,
    to_document,
    unknown_fields,
    validate,
)
from kumafast.resources.catalog import by_argument, by_path
from kumafast.resources.hostname_generator import HostnameError, initial_generators

PORTS = "must be in the range [1, 65535]"
TLS = '"TLSAuto", "TLS10", "TLS11", "TLS12", "TLS13"'


def document(kind: str, name: str = "backend", /, **spec: Any) -> dict[str, Any]:
    mesh = {} if kind == "HostnameGenerator" else {"mesh": "default"}
    return {"type": kind, **mesh, "name": name, "spec": spec}


def violations(kind: str, name: str = "backend", /, **spec: Any) -> list[tuple[str, str]]:
    return [(each.field, each.message) for each in validate(parse(document(kind, name, **spec)))]


@pytest.mark.parametrize("model", [MeshService, MeshExternalService, MeshMultiZoneService, HostnameGenerator])
def test_is_found_by_its_names(model: type[MeshService]) -> None:
    for word in (model.type.path, model.type.short_name, model.type.name):
        assert by_argument(word) is model.type
    assert by_path(model.type.path) is model.type


SERVICE = {
    "selector": {"dataplaneTags": {"app": "web"}},
    "ports": [
        {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"},
        {"port": 81, "targetPort": "admin"},
        {"port": 82},
    ],
}


def test_a_service_comes_back_as_written() -> None:
    written = document("MeshService", **SERVICE)
    service = parse(written)
    assert isinstance(service, MeshService)
    assert to_document(service) == written
    assert [(port.target, port.protocol, port.section_name) for port in service.spec.ports] == [
        (8080, "http", "http"),
        ("admin", "tcp", "81"),
        (82, "tcp", "82"),
    ]
    assert validate(service) == ()


def test_what_the_control_plane_says_is_no_unknown_field() -> None:
    written = {**document("MeshService", state="Available", identities=[{"type": "ServiceTag", "value": "a"}])}
    assert unknown_fields({**written, "status": {"vips": [{"ip": "241.0.0.0"}]}, "odd": 1}) == ("odd",)
    assert unknown_fields({**document("HostnameGenerator"), "status": {}}) == ("status",)


def test_services_that_are_not_valid() -> None:
    assert violations("MeshService") == []
    assert violations("MeshService", "a" * 64) == [("name", "must not be longer than 63 characters")]
    several = {"dataplaneTags": {"app": "a"}, "dataplaneLabels": {"matchLabels": {"app": "a"}}}
    message = "must specify only one of: dataplaneTags, dataplaneRef, or dataplaneLabels"
    assert violations("MeshService", selector=several) == [("spec.selector", message)]
    ports = [{"port": 0}, {"port": 80, "targetPort": 65536}, {"port": 80, "targetPort": "any"}]
    assert violations("MeshService", ports=ports) == [
        ("spec.ports[0].port", f"port {PORTS}"),
        ("spec.ports[1].targetPort", f"port {PORTS}"),
    ]


@pytest.mark.parametrize("target", [True, 1.5, [], {}, 2**70])
def test_a_port_is_a_number_or_a_name(target: object) -> None:
    with pytest.raises(MalformedResourceError) as raised:
        parse(document("MeshService", ports=[{"port": 80, "targetPort": target}]))
    assert [each.field for each in raised.value.violations] == ["spec.ports[0].targetPort"]


def test_services_of_several_zones_that_are_not_valid() -> None:
    assert violations("MeshMultiZoneService") == [
        ("spec.selector.meshService.matchLabels", "cannot be empty"),
        ("spec.ports", "cannot be empty"),
    ]
    selector = {"meshService": {"matchLabels": {"app": "xyz"}}}
    ports = [{"port": 123, "name": "", "appProtocol": "not_supported"}, {"port": 70000}]
    assert violations("MeshMultiZoneService", selector=selector, ports=ports) == [
        ("spec.ports[0].name", "must not be empty"),
        ("spec.ports[0].appProtocol", "must be one of [grpc, http, http2, kafka, tcp]"),
        ("spec.ports[1].port", f"port {PORTS}"),
    ]
    assert violations("MeshMultiZoneService", selector=selector, ports=[{"port": 123}]) == []


def test_services_outside_that_are_not_valid() -> None:
    wrong = {
        "match": {"type": "UnknownMatchType", "port": 0, "protocol": "unknown"},
        "endpoints": [
            {"address": "1.1.1.1"},
            {"address": "1.1.1.2", "port": 999999},
            {"address": "example.com"},
            {"address": "unix:///tmp/example.sock"},
        ],
        "tls": {
            "version": {"min": "TLS15", "max": "TLS16"},
            "verification": {
                "serverName": "not[]valid",
                "mode": "Unknown",
                "subjectAltNames": [{"type": "Regex", "value": ".*.example.com"}],
                "clientCert": {"secret": "123"},
            },
        },
    }
    range_ = "port must be a valid (1-65535)"
    assert violations("MeshExternalService", **wrong) == [
        ("spec.match.type", "unrecognized type 'UnknownMatchType' - only 'HostnameGenerator' is supported"),
        ("spec.match.port", range_),
        ("spec.match.protocol", '"protocol" must be one of ["tcp", "grpc", "http", "http2"]'),
        ("spec.endpoints[0].port", range_),
        ("spec.endpoints[1].port", range_),
        ("spec.endpoints[2].port", range_),
        ("spec.endpoints[3].address", "address has to be a valid IP or hostname"),
        ("spec.tls.version.min", f'"min" must be one of [{TLS}]'),
        ("spec.tls.version.max", f'"max" must be one of [{TLS}]'),
        ("spec.tls.verification.serverName", "must be a valid DNS name"),
        ("spec.tls.verification.mode", '"mode" must be one of ["SkipSAN", "SkipCA", "SkipAll", "Secured"]'),
        ("spec.tls.verification.subjectAltNames[0].type", '"type" must be one of ["Prefix", "Exact"]'),
        ("spec.tls.verification.clientKey", "must be defined when clientCert is defined"),
    ]


def test_more_of_services_outside() -> None:
    match = {"port": 443}
    tls: dict[str, Any] = {"version": {"min": "TLS13", "max": "TLS12"}, "verification": {"clientKey": {"secret": "a"}}}
    assert violations("MeshExternalService", match=match, tls=tls) == [
        ("spec.tls.version.min", "min version must be lower than max"),
        ("spec.tls.verification.clientCert", "must be defined when clientKey is defined"),
    ]
    assert violations("MeshExternalService", match=match, extension={}) == [
        ("spec.extension.type", "must not be empty")
    ]
    ignored = {"match": match, "extension": {"type": "Lambda"}, "endpoints": [{"address": "-"}]}
    assert violations("MeshExternalService", **ignored) == []
    [remark] = parse(document("MeshExternalService", **ignored)).remarks()
    assert remark.startswith("spec.extension: ")
    assert violations("MeshExternalService", "a" * 64, match=match) == [
        ("name", "must not be longer than 63 characters")
    ]


TEMPLATE = "{{ .Name }}.mesh"
ONE = "exact one selector (meshService, meshExternalService) must be defined"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"template": TEMPLATE}, [("spec.selector", ONE)]),
        ({"template": TEMPLATE, "selector": {"meshService": {}, "meshExternalService": {}}}, [("spec.selector", ONE)]),
        ({"selector": {"meshService": {}}}, [("spec.template", "must not be empty")]),
        (
            {"template": "{{ .Name[4 }}.mesh", "selector": {"meshService": {}}},
            [("spec.template", "couldn't parse template: template: :1: bad character U+005B '['")],
        ),
        (
            {"template": "{{ upper .Name }}", "selector": {"meshService": {}}},
            [("spec.template", 'couldn\'t parse template: template: :1: function "upper" not defined')],
        ),
        (
            {"template": TEMPLATE, "selector": {"meshService": {}}, "extension": {"config": {}}},
            [("spec.extension.type", "must not be empty")],
        ),
        ({"template": TEMPLATE, "selector": {"meshMultiZoneService": {}}}, []),
        ({"template": '{{ label "team" }}.{{- .Zone -}} .mesh', "selector": {"meshService": {}}}, []),
    ],
)
def test_generators(spec: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert violations("HostnameGenerator", "local", **spec) == expected


def test_a_template_makes_a_host_name_of_a_service() -> None:
    template = '{{ .Name }}.{{ .DisplayName }}.{{ .Mesh }}.{{ .Zone }}.{{ label "team" }}{{- .Namespace -}} .local'
    generator = HostnameGenerator.model_validate({"name": "g", "spec": {"template": template}})
    labels = {"kuma.io/display-name": "shown", "kuma.io/zone": "east", "team": "x", "k8s.kuma.io/namespace": "ns"}
    assert generator.hostname(name="a", mesh="m", labels=labels) == "a.shown.m.east.xns.local"
    with pytest.raises(HostnameError, match="label team not found"):
        generator.hostname(name="a", mesh="m", labels={})


def test_two_generators_are_there_from_the_start() -> None:
    made = {each.name: each for each in initial_generators()}
    assert made["local-universal-mesh-service"].spec.template == "{{ .DisplayName }}.svc.mesh.local"
    assert made["local-mesh-external-service"].spec.template == "{{ .DisplayName }}.extsvc.mesh.local"
    assert all(validate(each) == () for each in made.values())
