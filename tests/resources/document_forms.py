"""How the tables of bad documents write their cases.

In: what is wrong with an otherwise good document. Out: the document, and the case with its violations.
Never: cases of its own.
"""

from __future__ import annotations

import copy
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
IP_ADDRESS = "address has to be valid IP address"
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


def with_fields(fields: Mapping[str, Any], **over: Any) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **over}.items() if value is not ABSENT}


def dataplane(networking: object = ABSENT, **over: Any) -> dict[str, Any]:
    good = {"address": "10.0.0.1", "inbound": [{"port": 8080, "tags": SERVICE}]}
    document = {"type": "Dataplane", "mesh": "default", "name": "web-1"}
    return copy.deepcopy(with_fields(document, networking=good if networking is ABSENT else networking, **over))


def with_networking(**over: Any) -> dict[str, Any]:
    return dataplane(with_fields({"address": "10.0.0.1", "inbound": [{"port": 8080, "tags": SERVICE}]}, **over))


def with_inbound(**over: Any) -> dict[str, Any]:
    return with_networking(inbound=[with_fields({"port": 8080, "tags": SERVICE}, **over)])


def with_outbound(**over: Any) -> dict[str, Any]:
    return with_networking(outbound=[with_fields({"port": 9090, "tags": {"kuma.io/service": "backend"}}, **over)])


def with_gateway(kind: str = "DELEGATED", tags: object = SERVICE, **over: Any) -> dict[str, Any]:
    return with_networking(inbound=over.pop("inbound", ABSENT), gateway={"type": kind, "tags": tags}, **over)


def with_listeners(*listeners: Mapping[str, Any], inbound: object = ABSENT) -> dict[str, Any]:
    good = {"type": "ZoneIngress", "address": "10.0.0.1", "port": 10001, "name": "ingress"}
    return with_networking(inbound=inbound, listeners=[with_fields(good, **listener) for listener in listeners])


def mesh(**over: Any) -> dict[str, Any]:
    return with_fields({"type": "Mesh", "name": "default"}, **over)


def invalid(case: str, document: object, *violations: tuple[str, str]) -> BadDocument:
    return case, document, "invalid", [Violation(field, message) for field, message in violations]


def malformed(case: str, document: object, *violations: tuple[str, str]) -> BadDocument:
    return case, document, "malformed", [Violation(field, message) for field, message in violations]


IN = "networking.inbound[0]"
OUT = "networking.outbound[0]"
LISTEN = "networking.listeners[0]"
