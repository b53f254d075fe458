"""Documents that must be refused, and with what; shared by the tests of every front end.

In: nothing. Out: `BAD_DOCUMENTS`. Never: documents that are merely unusual.

`malformed` documents do not have the structure of a resource: `parse` raises, with the violations given here. `invalid`
ones parse, and `validate` returns exactly the violations given here, in this order.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping
from typing import Any, Literal

from kumafast.errors import Violation

BadDocument = tuple[str, object, Literal["malformed", "invalid"], list[Violation] | None]

SERVICE = {"kuma.io/service": "web"}
PORT_RANGE = "port must be in the range [1, 65535]"
TAG_NAME = "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores"
TAG_VALUE = "tag value must consist of alphanumeric characters, dots, dashes and underscores"
NAME = (
    "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    "'-' or '.', and must start and end with an alphanumeric character"
)
MESH_NAME = "invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols."
KINDS = "invalid value. Available values are: MeshExternalService,MeshMultiZoneService,MeshService"
SAME_SERVICE = "serviceAddress and servicePort has to differ from address and port"
ADDRESS = "address has to be valid IP address or domain name"
OBJECT = "must be an object"
LIST = "must be a list"
TEXT = "must be a string"
NUMBER = "must be a whole number"
INBOUND_INTERFACE = (
    "must be DATAPLANE_IP:DATAPLANE_PORT:WORKLOAD_PORT with an IPv4 address and ports in the range [1, 65535], "
    "for example 192.168.0.100:9090:8080"
)
OUTBOUND_INTERFACE = (
    "must be [IP]:PORT with an IPv4 address and a port in the range [1, 65535], for example 127.0.0.1:9090 or :9090"
)

ABSENT = object()


def _with(fields: Mapping[str, Any], **over: Any) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **over}.items() if value is not ABSENT}


def _dataplane(networking: object = ABSENT, **over: Any) -> dict[str, Any]:
    good = {"address": "10.0.0.1", "inbound": [{"port": 8080, "tags": SERVICE}]}
    document = {"type": "Dataplane", "mesh": "default", "name": "web-1"}
    return copy.deepcopy(_with(document, networking=good if networking is ABSENT else networking, **over))


def _networking(**over: Any) -> dict[str, Any]:
    return _dataplane(_with({"address": "10.0.0.1", "inbound": [{"port": 8080, "tags": SERVICE}]}, **over))


def _inbound(**over: Any) -> dict[str, Any]:
    return _networking(inbound=[_with({"port": 8080, "tags": SERVICE}, **over)])


def _outbound(**over: Any) -> dict[str, Any]:
    return _networking(outbound=[_with({"port": 9090, "tags": {"kuma.io/service": "backend"}}, **over)])


def _gateway(kind: str = "DELEGATED", tags: object = SERVICE, **over: Any) -> dict[str, Any]:
    return _networking(inbound=over.pop("inbound", ABSENT), gateway={"type": kind, "tags": tags}, **over)


def _listeners(*listeners: Mapping[str, Any], inbound: object = ABSENT) -> dict[str, Any]:
    good = {"type": "ZoneIngress", "address": "10.0.0.1", "port": 10001, "name": "ingress"}
    return _networking(inbound=inbound, listeners=[_with(good, **listener) for listener in listeners])


def _mesh(**over: Any) -> dict[str, Any]:
    return _with({"type": "Mesh", "name": "default"}, **over)


def _invalid(case: str, document: object, *violations: tuple[str, str]) -> BadDocument:
    return case, document, "invalid", [Violation(field, message) for field, message in violations]


def _malformed(case: str, document: object, *violations: tuple[str, str]) -> BadDocument:
    return case, document, "malformed", [Violation(field, message) for field, message in violations]


_IN = "networking.inbound[0]"
_OUT = "networking.outbound[0]"
_LISTEN = "networking.listeners[0]"

_STRUCTURE: list[BadDocument] = [
    _malformed("null", None),
    _malformed("list", []),
    _malformed("text", "Dataplane"),
    _malformed("number", 7),
    _malformed("no-type", {"name": "web-1", "mesh": "default"}, ("type", "cannot be empty")),
    _malformed("empty-type", {"type": "", "name": "web-1"}, ("type", "cannot be empty")),
    _malformed("type-number", {"type": 7, "name": "web-1"}, ("type", TEXT)),
    _malformed("type-list", {"type": ["Mesh"], "name": "web-1"}, ("type", TEXT)),
    _malformed("unknown-type", {"type": "Dataplan", "name": "x"}, ("type", 'unknown resource type "Dataplan"')),
    _malformed("type-wrong-case", {"type": "mesh", "name": "x"}, ("type", 'unknown resource type "mesh"')),
    _malformed("name-number", _dataplane(name=1), ("name", TEXT)),
    _malformed("name-list", _dataplane(name=["a"]), ("name", TEXT)),
    _malformed("name-half-surrogate", _dataplane(name="\ud800"), ("name", "must be text in UTF-8")),
    _malformed("name-endless", _dataplane(name="a" * 70_000), ("name", "must be at most 65536 characters")),
    _malformed("mesh-number", _dataplane(mesh=1), ("mesh", TEXT)),
    _malformed("labels-list", _dataplane(labels=["a"]), ("labels", OBJECT)),
    _malformed("label-number", _dataplane(labels={"team": 7}), ('labels["team"]', TEXT)),
    _malformed("label-null", _dataplane(labels={"team": {}}), ('labels["team"]', TEXT)),
    _malformed("networking-text", _dataplane("10.0.0.1"), ("networking", OBJECT)),
    _malformed("networking-list", _dataplane([]), ("networking", OBJECT)),
    _malformed("address-number", _networking(address=10), ("networking.address", TEXT)),
    _malformed("inbound-object", _networking(inbound={"port": 80}), ("networking.inbound", LIST)),
    _malformed("inbound-text", _networking(inbound="8080"), ("networking.inbound", LIST)),
    _malformed("inbound-of-numbers", _networking(inbound=[8080]), (_IN, OBJECT)),
    _malformed("inbound-of-null", _networking(inbound=[None]), (_IN, OBJECT)),
    _malformed("port-text", _inbound(port="8080"), (f"{_IN}.port", NUMBER)),
    _malformed("port-truth", _inbound(port=True), (f"{_IN}.port", NUMBER)),
    _malformed("port-fraction", _inbound(port=80.5), (f"{_IN}.port", NUMBER)),
    _malformed("port-list", _inbound(port=[80]), (f"{_IN}.port", NUMBER)),
    _malformed("port-endless", _inbound(port=10**30), (f"{_IN}.port", "must be a whole number of at most 64 bits")),
    _malformed("service-port-text", _inbound(servicePort="80"), (f"{_IN}.servicePort", NUMBER)),
    _malformed("tags-list", _inbound(tags=["web"]), (f"{_IN}.tags", OBJECT)),
    _malformed("tags-text", _inbound(tags="web"), (f"{_IN}.tags", OBJECT)),
    _malformed("tag-number", _inbound(tags={**SERVICE, "version": 1}), (f'{_IN}.tags["version"]', TEXT)),
    _malformed("tag-name-number", _inbound(tags={**SERVICE, 1: "a"}), (f'{_IN}.tags["1"]', TEXT)),
    _malformed("tag-truth", _inbound(tags={**SERVICE, "canary": True}), (f'{_IN}.tags["canary"]', TEXT)),
    _malformed(
        "state", _inbound(state="Sleeping"), (f"{_IN}.state", "must be one of 'Ready', 'NotReady' or 'Ignored'")
    ),
    _malformed("ready-text", _inbound(health={"ready": "yes"}), (f"{_IN}.health.ready", "must be true or false")),
    _malformed("ready-number", _inbound(health={"ready": 1}), (f"{_IN}.health.ready", "must be true or false")),
    _malformed("interface-number", _inbound(interface=8080), (f"{_IN}.interface", TEXT)),
    _malformed("outbound-text", _networking(outbound="x"), ("networking.outbound", LIST)),
    _malformed("outbound-port-text", _outbound(port="x"), (f"{_OUT}.port", NUMBER)),
    _malformed("outbound-service-number", _outbound(tags=ABSENT, service=5), (f'{_OUT}.tags["kuma.io/service"]', TEXT)),
    _malformed("backend-ref-text", _outbound(backendRef="x"), (f"{_OUT}.backendRef", OBJECT)),
    _malformed(
        "gateway-type", _gateway("INGRESS"), ("networking.gateway.type", "must be one of 'DELEGATED' or 'BUILTIN'")
    ),
    _malformed("admin-number", _networking(admin=9901), ("networking.admin", OBJECT)),
    _malformed(
        "redirect-port-text",
        _networking(transparentProxying={"redirectPortInbound": "15006"}),
        ("networking.transparentProxying.redirectPortInbound", NUMBER),
    ),
    _malformed(
        "several-at-once",
        _dataplane({"address": 1, "inbound": [{"port": "80", "tags": {"a": 1}}], "outbound": [{"port": []}]}, name=2),
        ("name", TEXT),
        ("networking.address", TEXT),
        (f"{_IN}.port", NUMBER),
        (f'{_IN}.tags["a"]', TEXT),
        (f"{_OUT}.port", NUMBER),
    ),
    _malformed("probes-list", _dataplane(probes=[]), ("probes", OBJECT)),
    _malformed(
        "conf-with-date",
        _dataplane(metrics={"type": "prometheus", "conf": {"since": datetime.date(2026, 1, 31)}}),
        ("metrics.conf", "must hold only JSON values, not date '2026-01-31'"),
    ),
    _malformed("mtls-text", _mesh(mtls="on"), ("mtls", OBJECT)),
    _malformed("mtls-enabled-text", _mesh(mtls={"enabled": "yes"}), ("mtls.enabled", "must be true or false")),
    _malformed("mtls-ca-list", _mesh(mtls={"enabled": True, "ca": ["builtin"]}), ("mtls.ca", OBJECT)),
    _malformed("access-logs-list", _mesh(logging={"accessLogs": []}), ("logging.accessLogs", OBJECT)),
    _malformed("backends-object", _mesh(mtls={"backends": {"name": "ca-1"}}), ("mtls.backends", LIST)),
    _malformed(
        "mtls-mode",
        _mesh(mtls={"backends": [{"name": "ca-1", "type": "builtin", "mode": "LAX"}]}),
        ("mtls.backends[0].mode", "must be one of 'STRICT' or 'PERMISSIVE'"),
    ),
    _malformed(
        "sampling-text",
        _mesh(tracing={"backends": [{"name": "t", "type": "zipkin", "sampling": "all"}]}),
        ("tracing.backends[0].sampling", "must be a number"),
    ),
]

_NAMES: list[BadDocument] = [
    _invalid("no-name", _dataplane(name=ABSENT), ("name", "cannot be empty")),
    _invalid("null-name", _dataplane(name=None), ("name", "cannot be empty")),
    _invalid("empty-name", _dataplane(name=""), ("name", "cannot be empty")),
    _invalid("long-name", _dataplane(name="a" * 254), ("name", "value length must less or equal 253")),
    _invalid("name-upper-case", _dataplane(name="Web"), ("name", NAME)),
    _invalid("name-underscore", _dataplane(name="web_1"), ("name", NAME)),
    _invalid("name-dash-first", _dataplane(name="-web"), ("name", NAME)),
    _invalid("name-dot-last", _dataplane(name="web."), ("name", NAME)),
    _invalid("name-newline", _dataplane(name="web\n"), ("name", NAME)),
    _invalid("name-slash", _dataplane(name="../web"), ("name", NAME)),
    _invalid("no-mesh", _dataplane(mesh=ABSENT), ("mesh", "cannot be empty")),
    _invalid("long-mesh", _dataplane(mesh="a" * 254), ("mesh", "value length must less or equal 253")),
    _invalid("mesh-upper-case", _dataplane(mesh="Default"), ("mesh", MESH_NAME)),
    _invalid("mesh-slash", _dataplane(mesh="a/b"), ("mesh", MESH_NAME)),
    _invalid("mesh-name-underscore", _mesh(name="my_mesh"), ("name", NAME)),
    _invalid("mesh-no-name", _mesh(name=ABSENT), ("name", "cannot be empty")),
]

_INBOUNDS: list[BadDocument] = [
    _invalid("no-networking", _dataplane(networking=None), ("networking", "must be defined")),
    _invalid("no-address", _networking(address=ABSENT), ("networking.address", "address can't be empty")),
    _invalid("empty-address", _networking(address=""), ("networking.address", "address can't be empty")),
    _invalid("any-address", _networking(address="0.0.0.0"), ("networking.address", "must not be 0.0.0.0 or ::")),
    _invalid("any-address-v6", _networking(address="::"), ("networking.address", "must not be 0.0.0.0 or ::")),
    _invalid("address-nonsense", _networking(address="..>_<.."), ("networking.address", ADDRESS)),
    _invalid("address-out-of-range", _networking(address="10.0.0.300"), ("networking.address", ADDRESS)),
    _invalid("address-with-port", _networking(address="10.0.0.1:80"), ("networking.address", ADDRESS)),
    _invalid("advertised-address", _networking(advertisedAddress="a b"), ("networking.advertisedAddress", ADDRESS)),
    _invalid("no-port", _inbound(port=ABSENT), (f"{_IN}.port", PORT_RANGE)),
    _invalid("null-port", _inbound(port=None), (f"{_IN}.port", PORT_RANGE)),
    _invalid("port-zero", _inbound(port=0), (f"{_IN}.port", PORT_RANGE)),
    _invalid("port-negative", _inbound(port=-1), (f"{_IN}.port", PORT_RANGE)),
    _invalid("port-too-big", _inbound(port=65536), (f"{_IN}.port", PORT_RANGE)),
    _invalid("service-port-too-big", _inbound(servicePort=65536), (f"{_IN}.servicePort", PORT_RANGE)),
    _invalid("service-port-negative", _inbound(servicePort=-5), (f"{_IN}.servicePort", PORT_RANGE)),
    _invalid(
        "service-address-name",
        _inbound(serviceAddress="localhost"),
        (f"{_IN}.serviceAddress", "serviceAddress has to be valid IP address"),
    ),
    _invalid("service-is-dataplane", _inbound(serviceAddress="10.0.0.1"), (f"{_IN}.serviceAddress", SAME_SERVICE)),
    _invalid(
        "service-is-inbound",
        _inbound(address="10.0.0.2", serviceAddress="10.0.0.2", servicePort=8080),
        (f"{_IN}.serviceAddress", SAME_SERVICE),
    ),
    _invalid("inbound-address-name", _inbound(address="web"), (f"{_IN}.address", "address has to be valid IP address")),
    _invalid("no-service-tag", _inbound(tags={"v": "1"}), (f'{_IN}.tags["kuma.io/service"]', "tag has to exist")),
    _invalid("tag-empty", _inbound(tags={**SERVICE, "v": ""}), (f'{_IN}.tags["v"]', "tag value must be non-empty")),
    _invalid("tag-value", _inbound(tags={**SERVICE, "v": "a b"}), (f'{_IN}.tags["v"]', TAG_VALUE)),
    _invalid("tag-value-slash", _inbound(tags={**SERVICE, "v": "a/b"}), (f'{_IN}.tags["v"]', TAG_VALUE)),
    _invalid("tag-value-star", _inbound(tags={**SERVICE, "v": "*"}), (f'{_IN}.tags["v"]', TAG_VALUE)),
    _invalid("tag-value-newline", _inbound(tags={**SERVICE, "v": "a\n"}), (f'{_IN}.tags["v"]', TAG_VALUE)),
    _invalid("tag-value-nul", _inbound(tags={**SERVICE, "v": "\0"}), (f'{_IN}.tags["v"]', TAG_VALUE)),
    _invalid("tag-name", _inbound(tags={**SERVICE, "v=1": "a"}), (f'{_IN}.tags["v=1"]', TAG_NAME)),
    _invalid("tag-name-quote", _inbound(tags={**SERVICE, 'v"': "a"}), (f'{_IN}.tags["v\\""]', TAG_NAME)),
    _invalid("tag-name-empty", _inbound(tags={**SERVICE, "": "a"}), (f"{_IN}.tags", "tag name must be non-empty")),
    _invalid(
        "tags-in-order",
        _inbound(tags={"z ": "", "a ": "b c", "kuma.io/protocol": "smtp"}),
        (
            f'{_IN}.tags["kuma.io/protocol"]',
            'tag "kuma.io/protocol" has an invalid value "smtp". Allowed values: grpc, http, http2, kafka, tcp',
        ),
        (f'{_IN}.tags["a "]', TAG_NAME),
        (f'{_IN}.tags["a "]', TAG_VALUE),
        (f'{_IN}.tags["z "]', TAG_NAME),
        (f'{_IN}.tags["z "]', "tag value must be non-empty"),
        (f'{_IN}.tags["kuma.io/service"]', "tag has to exist"),
    ),
    _invalid(
        "protocol-upper-case",
        _inbound(tags={**SERVICE, "kuma.io/protocol": "HTTP"}),
        (
            f'{_IN}.tags["kuma.io/protocol"]',
            'tag "kuma.io/protocol" has an invalid value "HTTP". Allowed values: grpc, http, http2, kafka, tcp',
        ),
    ),
    _invalid(
        "protocol-field",
        _inbound(protocol="smtp"),
        (f"{_IN}.protocol", "invalid value. Allowed values: grpc, http, http2, kafka, tcp"),
    ),
    _invalid(
        "service-probe",
        _inbound(
            serviceProbe={"interval": "0s", "timeout": "soon", "unhealthyThreshold": 0, "healthyThreshold": 2**32}
        ),
        (f"{_IN}.serviceProbe.interval", "must have a positive value"),
        (f"{_IN}.serviceProbe.timeout", "must have a valid value"),
        (f"{_IN}.serviceProbe.unhealthyThreshold", "must have a positive value"),
        (f"{_IN}.serviceProbe.healthyThreshold", "must be at most 4294967295"),
    ),
    _invalid("interface-nonsense", _inbound(port=ABSENT, interface="web"), (f"{_IN}.interface", INBOUND_INTERFACE)),
    _invalid(
        "interface-port-too-big",
        _inbound(port=ABSENT, interface="10.0.0.1:9090:65536"),
        (f"{_IN}.interface", INBOUND_INTERFACE),
    ),
    _invalid(
        "interface-port-zero",
        _inbound(port=ABSENT, interface="10.0.0.1:0:80"),
        (f"{_IN}.interface", INBOUND_INTERFACE),
    ),
    _invalid(
        "interface-bad-ip",
        _inbound(port=ABSENT, interface="10.0.0.256:90:80"),
        (f"{_IN}.interface", INBOUND_INTERFACE),
    ),
    _invalid(
        "interface-newline",
        _inbound(port=ABSENT, interface="10.0.0.1:90:80\n"),
        (f"{_IN}.interface", INBOUND_INTERFACE),
    ),
    _invalid(
        "interface-beside-port",
        _inbound(interface="10.0.0.1:90:80"),
        (f"{_IN}.interface", "cannot be defined together with port, servicePort or address"),
    ),
]

_OUTBOUNDS: list[BadDocument] = [
    _invalid("outbound-no-port", _outbound(port=ABSENT), (f"{_OUT}.port", PORT_RANGE)),
    _invalid("outbound-port-too-big", _outbound(port=70_000), (f"{_OUT}.port", PORT_RANGE)),
    _invalid("outbound-address", _outbound(address="web"), (f"{_OUT}.address", "address has to be valid IP address")),
    _invalid(
        "outbound-no-tags", _outbound(tags=ABSENT), (f"{_OUT}.tags", 'mandatory tag "kuma.io/service" is missing')
    ),
    _invalid(
        "outbound-no-service",
        _outbound(tags={"v": "1"}),
        (f"{_OUT}.tags", 'mandatory tag "kuma.io/service" is missing'),
    ),
    _invalid(
        "outbound-tag",
        _outbound(tags={"kuma.io/service": "a b"}),
        (f'{_OUT}.tags["kuma.io/service"]', TAG_VALUE),
    ),
    _invalid(
        "outbound-interface",
        _outbound(port=ABSENT, interface="::1:80"),
        (f"{_OUT}.interface", OUTBOUND_INTERFACE),
    ),
    _invalid(
        "backend-kind",
        _outbound(tags=ABSENT, backendRef={"kind": "Service", "name": "a", "port": 80}),
        (f"{_OUT}.backendRef.kind", KINDS),
    ),
    _invalid(
        "backend-no-name",
        _outbound(tags=ABSENT, backendRef={"kind": "MeshService", "port": 80}),
        (f"{_OUT}.backendRef", "either 'name' or 'labels' should be specified"),
    ),
    _invalid(
        "backend-no-port",
        _outbound(tags=ABSENT, backendRef={"kind": "MeshService", "name": "a"}),
        (f"{_OUT}.backendRef.port", PORT_RANGE),
    ),
    _invalid(
        "backend-and-tags",
        _outbound(backendRef={"kind": "MeshExternalService", "name": "a"}),
        (f"{_OUT}.backendRef", "both backendRef and tags/service cannot be defined"),
    ),
    _invalid(
        "backend-and-service",
        _outbound(tags=ABSENT, service="redis", backendRef={"kind": "MeshExternalService", "name": "a"}),
        (f"{_OUT}.backendRef", "both backendRef and tags/service cannot be defined"),
    ),
]

_REST_OF_DATAPLANE: list[BadDocument] = [
    _invalid("admin-port", _networking(admin={"port": 65536}), ("networking.admin.port", PORT_RANGE)),
    _invalid(
        "admin-is-inbound",
        _networking(address="127.0.0.1", admin={"port": 8080}),
        ("networking.admin.port", "must differ from inbound"),
    ),
    _invalid(
        "admin-is-workload",
        _networking(inbound=[{"port": 8080, "servicePort": 9000, "tags": SERVICE}], admin={"port": 9000}),
        ("networking.admin.port", "must differ from inbound"),
    ),
    _invalid(
        "admin-is-outbound",
        _networking(outbound=[{"port": 9090, "tags": {"kuma.io/service": "b"}}], admin={"port": 9090}),
        ("networking.admin.port", "must differ from outbound"),
    ),
    _invalid(
        "delegated-inbound",
        _gateway(inbound=[{"port": 80, "tags": SERVICE}]),
        ("networking.inbound", "inbound cannot be defined for delegated gateways"),
    ),
    _invalid(
        "delegated-listeners",
        _gateway(listeners=[{"type": "ZoneEgress", "port": 80}]),
        ("networking.listeners", "listeners cannot be defined for delegated gateways"),
    ),
    _invalid(
        "builtin-everything",
        _with(
            _gateway(
                "BUILTIN",
                inbound=[{"port": 80, "tags": SERVICE}],
                outbound=[{"port": 81, "tags": SERVICE}],
                listeners=[{"type": "ZoneEgress", "port": 82}],
            ),
            probes={"port": 9000},
        ),
        ("networking.inbound", "inbound cannot be defined for builtin gateways"),
        ("networking.outbound", "outbound cannot be defined for builtin gateways"),
        ("networking.listeners", "listeners cannot be defined for builtin gateways"),
        ("networking.probes", "probes cannot be defined for builtin gateways"),
    ),
    _invalid(
        "gateway-no-service",
        _gateway(tags={}),
        ("networking.gateway.tags", 'mandatory tag "kuma.io/service" is missing'),
    ),
    _invalid(
        "gateway-protocol",
        _gateway(tags={**SERVICE, "kuma.io/protocol": "http"}),
        (
            'networking.gateway.tags["kuma.io/protocol"]',
            'other values than tcp are not allowed, provided value "http"',
        ),
    ),
    _invalid(
        "listener-type", _listeners({"type": "Ingress"}), (f"{_LISTEN}.type", "type must be ZoneIngress or ZoneEgress")
    ),
    _invalid("listener-port", _listeners({"port": 0}), (f"{_LISTEN}.port", PORT_RANGE)),
    _invalid(
        "listener-name-of-inbound",
        _listeners({"name": "8080"}, inbound=[{"port": 8080, "tags": SERVICE}]),
        (f"{_LISTEN}.name", 'name "8080" must be unique across inbounds and listeners'),
    ),
    _invalid(
        "listener-twice",
        _listeners({}, {"name": "other"}),
        ("networking.listeners[1]", "address:port 10.0.0.1:10001 is already used by another listener"),
    ),
    _invalid(
        "listener-two-types",
        _listeners({}, {"name": "other", "type": "ZoneEgress"}),
        ("networking.listeners[1]", "address:port 10.0.0.1:10001 is used by listeners of different types"),
    ),
    _invalid(
        "listener-is-inbound",
        _listeners({"port": 8080}, inbound=[{"port": 8080, "tags": SERVICE}]),
        (_LISTEN, "address:port 10.0.0.1:8080 collides with an inbound listener"),
    ),
    _invalid(
        "redirect-port",
        _networking(transparentProxying={"redirectPort": 65536}),
        ("networking.transparentProxying.redirectPortOutbound", PORT_RANGE),
    ),
    _invalid(
        "reachable-backends",
        _networking(
            transparentProxying={
                "reachableBackends": {
                    "refs": [
                        {"kind": "Service", "name": "a"},
                        {"kind": "MeshService"},
                        {"kind": "MeshService", "namespace": "n"},
                        {"kind": "MeshService", "name": "A", "labels": {"a": "b"}},
                    ]
                }
            }
        ),
        ("networking.transparentProxying.reachableBackends.refs[0].kind", KINDS),
        ("networking.transparentProxying.reachableBackends.refs[1].name", "name or labels are required"),
        (
            "networking.transparentProxying.reachableBackends.refs[2].name",
            "name is required, when namespace is defined",
        ),
        ("networking.transparentProxying.reachableBackends.refs[3].name", NAME),
        (
            "networking.transparentProxying.reachableBackends.refs[3].labels",
            "labels cannot be defined when name is specified",
        ),
    ),
    _invalid(
        "probes",
        _dataplane(probes={"port": 0, "endpoints": [{"inboundPort": 70_000, "inboundPath": "x", "path": ""}]}),
        ("probes.port", PORT_RANGE),
        ("probes.endpoints[0].inboundPort", PORT_RANGE),
        ("probes.endpoints[0].inboundPath", "should be a valid URL Path"),
        ("probes.endpoints[0].path", "should be a valid URL Path"),
    ),
    _invalid(
        "metrics-type",
        _dataplane(metrics={"type": "statsd"}),
        ("metrics.type", 'unknown backend type. Available backends: "prometheus"'),
    ),
    _invalid(
        "everything-in-order",
        _dataplane(
            {
                "address": "0.0.0.0",
                "inbound": [{"port": 0, "tags": {"v": ""}}, {"port": 1, "servicePort": 99_999, "tags": SERVICE}],
                "outbound": [{"port": 70_000, "address": "x"}],
            },
            name="Web_1",
            mesh="",
            probes={"port": -1},
            metrics={"type": "none"},
        ),
        ("name", NAME),
        ("mesh", "cannot be empty"),
        ("networking.address", "must not be 0.0.0.0 or ::"),
        (f"{_IN}.port", PORT_RANGE),
        (f'{_IN}.tags["v"]', "tag value must be non-empty"),
        (f'{_IN}.tags["kuma.io/service"]', "tag has to exist"),
        ("networking.inbound[1].servicePort", PORT_RANGE),
        (f"{_OUT}.port", PORT_RANGE),
        (f"{_OUT}.address", "address has to be valid IP address"),
        (f"{_OUT}.tags", 'mandatory tag "kuma.io/service" is missing'),
        ("probes.port", PORT_RANGE),
        ("metrics.type", 'unknown backend type. Available backends: "prometheus"'),
    ),
]

_BUILTIN = {"name": "ca-1", "type": "builtin"}

_MESHES: list[BadDocument] = [
    _invalid(
        "mtls-unknown-backend",
        _mesh(mtls={"enabledBackend": "ca-2", "backends": [_BUILTIN]}),
        ("mtls.enabledBackend", "has to be set to one of the backends in the mesh"),
    ),
    _invalid(
        "mtls-same-name",
        _mesh(mtls={"backends": [_BUILTIN, _BUILTIN]}),
        ("mtls.backends[1].name", '"ca-1" name is already used for another backend'),
    ),
    _invalid(
        "mtls-type",
        _mesh(mtls={"backends": [{"name": "ca-1", "type": "oracle"}]}),
        ("mtls.backends[0].type", "could not find installed plugin for this type"),
    ),
    _invalid(
        "mtls-no-name",
        _mesh(mtls={"backends": [{"type": "builtin"}]}),
        ("mtls.backends[0].name", "cannot be empty"),
    ),
    _invalid(
        "mtls-expiration",
        _mesh(mtls={"backends": [{**_BUILTIN, "dpCert": {"rotation": {"expiration": "one day"}}}]}),
        ("mtls.backends[0].dpCert.rotation.expiration", "has to be a valid format"),
    ),
    _invalid(
        "logging",
        _mesh(
            logging={
                "defaultBackend": "other",
                "backends": [
                    {"type": "file"},
                    {"name": "a", "type": "tcp", "conf": {"address": "host"}},
                    {"name": "a", "type": "tcp"},
                    {"name": "b", "type": "syslog"},
                ],
            }
        ),
        ("logging.backends[0].name", "cannot be empty"),
        ("logging.backends[0].config.path", "cannot be empty"),
        ("logging.backends[1].config.address", "has to be in format of HOST:PORT"),
        ("logging.backends[2].config.address", "cannot be empty"),
        ("logging.backends[2].name", '"a" name is already used for another backend'),
        ("logging.backends[3].type", 'unknown backend type. Available backends: "tcp", "file"'),
        ("logging.defaultBackend", "has to be set to one of the logging backend in mesh"),
    ),
    _invalid(
        "tracing",
        _mesh(
            tracing={
                "defaultBackend": "other",
                "backends": [
                    {
                        "name": "a",
                        "type": "zipkin",
                        "sampling": 101,
                        "conf": {"url": "http://z/api", "apiVersion": "2"},
                    },
                    {"name": "b", "type": "zipkin", "conf": {"url": "nowhere"}},
                    {"name": "c", "type": "datadog", "conf": {"address": "host:99999"}},
                    {"name": "d", "type": "datadog", "conf": {"address": "host"}},
                    {"name": "e", "type": "jaeger"},
                ],
            }
        ),
        ("tracing.backends[0].sampling", "has to be in [0.0 - 100.0] range"),
        ("tracing.backends[0].config.apiVersion", "has invalid value. Allowed values: httpJsonV1, httpJson, httpProto"),
        ("tracing.backends[0].config.url", "port has to be explicitly specified"),
        ("tracing.backends[1].config.url", "invalid URL"),
        ("tracing.backends[2].config.address", "port must be number in range 1-65535"),
        ("tracing.backends[3].config.address", "must be of format address:port or unix:/path/to/socket"),
        ("tracing.backends[4].type", 'unknown backend type. Available backends: "zipkin", "datadog"'),
        ("tracing.defaultBackend", "has to be set to one of the tracing backend in mesh"),
    ),
    _invalid(
        "metrics",
        _mesh(metrics={"enabledBackend": "m", "backends": [{"name": "a", "type": "statsd"}]}),
        ("metrics.backends[0].type", 'unknown backend type. Available backends: "prometheus"'),
        ("metrics.enabledBackend", "has to be set to one of the backends in the mesh"),
    ),
    _invalid(
        "constraints",
        _mesh(
            constraints={"dataplaneProxy": {"requirements": [{"tags": {}}], "restrictions": [{"tags": {"a": "b c"}}]}}
        ),
        ("constraints.dataplaneProxy.requirements[0].tags", "must have at least one tag"),
        (
            'constraints.dataplaneProxy.restrictions[0].tags["a"]',
            'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"',
        ),
    ),
]

BAD_DOCUMENTS: list[BadDocument] = [
    *_STRUCTURE,
    *_NAMES,
    *_INBOUNDS,
    *_OUTBOUNDS,
    *_REST_OF_DATAPLANE,
    *_MESHES,
]
