"""VirtualOutbounds and ExternalServices that must be refused, and with what.

In: nothing. Out: `BAD_VIRTUAL_OUTBOUNDS` and `BAD_EXTERNAL_SERVICES`, in the form of `BAD_DOCUMENTS`. Never: resources
that are merely unusual.
"""

from __future__ import annotations

from typing import Any

from tests.resources.document_forms import ABSENT, LIST, OBJECT, TEXT, BadDocument, invalid, malformed, with_fields

EVERYTHING = [{"match": {"kuma.io/service": "*"}}]
NO_ELEMENT = "must have at least one element"
NO_TAG = "must have at least one tag"
SERVICE = {"name": "srv", "tagKey": "kuma.io/service"}
NO_SERVICE_PARAMETER = "must contain a parameter with kuma.io/service as a tagKey"
KEY = "must consist of alphanumeric characters to be used as a gotemplate key"
FAILED = "template pre evaluation failed with error="
COMPILING = FAILED + '\'failed compiling gotemplate error="template: :1: function \\"{}\\" not defined"\''
NO_PORT = FAILED + "'evaluation of template with parameters didn't evaluate to a parsable number result=\"{}\"'"
NO_NAME = FAILED + "'evaluation of template with parameters didn't return a valid dns name result=\"{}\"'"


def virtual(conf: object = ABSENT, **over: Any) -> dict[str, Any]:
    """A good virtual outbound with some fields replaced."""
    good = {"host": "{{.srv}}.mesh", "port": "80", "parameters": [SERVICE]}
    fields = {"type": "VirtualOutbound", "mesh": "default", "name": "v", "selectors": EVERYTHING}
    return with_fields({**fields, "conf": good if conf is ABSENT else conf}, **over)


def conf(**over: Any) -> dict[str, Any]:
    """A good virtual outbound with some fields of its conf replaced."""
    return virtual(with_fields({"host": "{{.srv}}.mesh", "port": "80", "parameters": [SERVICE]}, **over))


def parameters(*more: dict[str, str]) -> dict[str, Any]:
    """A good virtual outbound with some parameters more."""
    return conf(parameters=[SERVICE, *more])


BAD_VIRTUAL_OUTBOUNDS: list[BadDocument] = [
    invalid(
        "virtual-outbound-empty",
        virtual(selectors=ABSENT, conf=None),
        ("selectors", NO_ELEMENT),
        ("conf", "has to be defined"),
    ),
    invalid("virtual-outbound-no-selectors", virtual(selectors=[]), ("selectors", NO_ELEMENT)),
    invalid(
        "virtual-outbound-empty-conf",
        virtual({}, selectors=[{"match": {}}]),
        ("selectors[0].match", NO_TAG),
        ("conf.parameters", NO_SERVICE_PARAMETER),
        ("conf.host", "has to be defined"),
        ("conf.port", "has to be defined"),
    ),
    invalid("virtual-outbound-no-host", conf(host=ABSENT), ("conf.host", "has to be defined")),
    invalid("virtual-outbound-empty-port", conf(port=""), ("conf.port", "has to be defined")),
    invalid(
        "virtual-outbound-templates",
        conf(host="foo.{{mesh", port="{{port"),
        ("conf.host", COMPILING.format("mesh")),
        ("conf.port", COMPILING.format("port")),
    ),
    invalid("virtual-outbound-port-text", conf(port="{{.srv}}a"), ("conf.port", NO_PORT.format("1a"))),
    invalid(
        "virtual-outbound-port-range",
        conf(port="{{.srv}}00000"),
        (
            "conf.port",
            FAILED + "'evaluation of template returned a port outside of the range [1..65535] result=100000'",
        ),
    ),
    invalid("virtual-outbound-host-blank", conf(host="a b"), ("conf.host", NO_NAME.format("a b"))),
    invalid(
        "virtual-outbound-tag-key",
        parameters({"name": "port", "tagKey": "***"}),
        ("conf.parameters[1].tagKey", "must be a valid tag name"),
    ),
    invalid("virtual-outbound-parameter-slash", parameters({"name": "kuma.io/port"}), ("conf.parameters[1].name", KEY)),
    invalid(
        "virtual-outbound-parameter-star",
        parameters({"name": "*"}),
        ("conf.parameters[1].name", "must be a valid tag name if you are not setting tagKey"),
        ("conf.parameters[1].name", KEY),
    ),
    invalid(
        "virtual-outbound-parameter-no-name",
        conf(host="a.mesh", parameters=[{**SERVICE, "name": ""}]),
        ("conf.parameters[0].name", KEY),
    ),
    invalid(
        "virtual-outbound-parameter-twice",
        parameters({"name": "srv"}),
        ("conf.parameters[1].name", "name is already used"),
    ),
    invalid(
        "virtual-outbound-no-service",
        conf(host="a.mesh", parameters=[{"name": "foo", "tagKey": "kuma.io/port"}]),
        ("conf.parameters", NO_SERVICE_PARAMETER),
    ),
    malformed("virtual-outbound-port-number", conf(port=80), ("conf.port", TEXT)),
    malformed("virtual-outbound-parameters-object", conf(parameters={}), ("conf.parameters", LIST)),
    malformed("virtual-outbound-conf-list", virtual([]), ("conf", OBJECT)),
]

ADDRESS = "networking.address"
PARSE = (ADDRESS, "unable to parse address")
HOST = (ADDRESS, "address has to be a valid IP address or a domain name")
PORT = (ADDRESS, "unable to parse port in address")
RANGE = (ADDRESS, "port must be in the range [1, 65535]")
PROTOCOL = 'tags["kuma.io/protocol"]'
PROTOCOLS = "Allowed values: grpc, http, http2, kafka, tcp"
NO_DATA = "data source cannot be empty"


def external(address: object = "example.com:443", **over: Any) -> dict[str, Any]:
    """A good external service at an address, with some fields replaced."""
    fields = {"type": "ExternalService", "mesh": "default", "name": "e", "networking": {"address": address}}
    return with_fields({**fields, "tags": {"kuma.io/service": "billing"}}, **over)


def tls(**fields: Any) -> dict[str, Any]:
    """A good external service that is reached by TLS."""
    return external(networking={"address": "example.com:443", "tls": {"enabled": True, **fields}})


def tagged(**tags: str) -> dict[str, Any]:
    """A good external service with other tags."""
    return external(tags={"kuma.io/service": "billing", **tags})


BAD_EXTERNAL_SERVICES: list[BadDocument] = [
    invalid(
        "external-empty",
        external(networking=ABSENT, tags=ABSENT),
        ("networking", "should have networking"),
        ("tags", 'mandatory tag "kuma.io/service" is missing'),
    ),
    invalid("external-no-address", external(""), (ADDRESS, "address can't be empty")),
    invalid("external-host", external("..>_<..:8080"), HOST),
    invalid("external-url", external("http://example.com:8080"), PARSE, HOST, PORT, RANGE),
    invalid("external-ipv6-bare", external("fd00:1234::1:8080"), PARSE, HOST, PORT, RANGE),
    invalid("external-no-port", external("example.com"), PARSE, HOST, PORT, RANGE),
    invalid("external-no-host", external(":80"), HOST),
    invalid("external-empty-port", external("example.com:"), PORT, RANGE),
    invalid("external-port-text", external("example.com:http"), PORT, RANGE),
    invalid("external-port-too-big", external("192.168.0.1:65536"), RANGE),
    invalid("external-port-zero", external("192.168.0.1:0"), RANGE),
    invalid(
        "external-protocol-empty",
        tagged(**{"kuma.io/protocol": ""}),
        (PROTOCOL, f'tag "kuma.io/protocol" has an invalid value "". {PROTOCOLS}'),
        (PROTOCOL, "tag value must be non-empty"),
    ),
    invalid(
        "external-protocol",
        tagged(**{"kuma.io/protocol": "smtp"}),
        (PROTOCOL, f'tag "kuma.io/protocol" has an invalid value "smtp". {PROTOCOLS}'),
    ),
    invalid(
        "external-tag",
        tagged(version="a b"),
        ('tags["version"]', "tag value must consist of alphanumeric characters, dots, dashes and underscores"),
    ),
    invalid(
        "external-service-is-address",
        external(tags={"kuma.io/service": "example.com"}),
        ('tags["kuma.io/service"]', "cannot be the same as networking.address"),
    ),
    invalid(
        "external-tls",
        tls(serverName="", caCert={"inline": ""}, clientCert={}, clientKey={"secret": ""}),
        ("networking.tls.serverName", "cannot be empty"),
        ("networking.tls.caCert", NO_DATA),
        ("networking.tls.clientCert", NO_DATA),
        ("networking.tls.clientKey", NO_DATA),
    ),
    malformed("external-networking-text", external(networking="example.com:443"), ("networking", OBJECT)),
    malformed("external-address-number", external(443), (ADDRESS, TEXT)),
    malformed("external-tags-list", external(tags=["billing"]), ("tags", OBJECT)),
    malformed("external-tls-enabled-text", tls(enabled="yes"), ("networking.tls.enabled", "must be true or false")),
]
