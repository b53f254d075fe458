"""MeshGateways and their routes that must be refused, and with what.

In: nothing. Out: `BAD_GATEWAYS` and `BAD_GATEWAY_ROUTES`, in the form of `BAD_DOCUMENTS`. Never: resources that are
merely unusual.
"""

from __future__ import annotations

from typing import Any

from tests.resources.document_forms import ABSENT, OBJECT, PORT_RANGE, BadDocument, invalid, malformed, with_fields

SELECTORS = [{"match": {"kuma.io/service": "edge"}}]
NO_ELEMENT = "must have at least one element"
NO_SERVICE = 'mandatory tag "kuma.io/service" is missing'
EMPTY = "cannot be empty"
SECRET = {"secret": "cert"}
TERMINATE = {"mode": "TERMINATE", "certificates": [SECRET]}
PROTOCOLS = "protocol conflicts with other listeners on this port"
HOSTNAMES = "multiple listeners for hostname on this port"


def gateway(conf: object = ABSENT, **over: Any) -> dict[str, Any]:
    """A good gateway with some fields replaced."""
    good = {"listeners": [{"port": 80, "protocol": "HTTP"}]}
    fields = {"type": "MeshGateway", "mesh": "default", "name": "edge", "selectors": SELECTORS}
    return with_fields({**fields, "conf": good if conf is ABSENT else conf}, **over)


def listeners(*several: dict[str, Any]) -> dict[str, Any]:
    """A gateway with these listeners, which are for HTTP on port 80 unless they say otherwise."""
    return gateway({"listeners": [with_fields({"port": 80, "protocol": "HTTP"}, **each) for each in several]})


def at(field: str, number: int = 0) -> str:
    return f"conf.listeners[{number}].{field}"


def route(conf: object = ABSENT, **over: Any) -> dict[str, Any]:
    """A good route with some fields replaced."""
    fields = {"type": "MeshGatewayRoute", "mesh": "default", "name": "r", "selectors": SELECTORS}
    return with_fields({**fields, "conf": {"http": {"rules": [RULE]}} if conf is ABSENT else conf}, **over)


def rule(**over: Any) -> dict[str, Any]:
    """A route with one rule, which is a good one with some fields replaced."""
    return route({"http": {"rules": [with_fields(RULE, **over)]}})


def match(**conditions: Any) -> dict[str, Any]:
    return rule(matches=[conditions])


def filtered(*filters: dict[str, Any], **over: Any) -> dict[str, Any]:
    return rule(filters=list(filters), **over)


BACKEND = {"weight": 1, "destination": {"kuma.io/service": "backend"}}
RULE = {"matches": [{"path": {"match": "PREFIX", "value": "/"}}], "backends": [BACKEND]}
REDIRECT = {"scheme": "https", "hostname": "example.com", "status_code": 301}
RULES, FIRST = "conf.http.rules[0]", "conf.http.rules[0].matches[0]"
FILTER = "conf.http.rules[0].filters[0]"

BAD_GATEWAYS: list[BadDocument] = [
    invalid("mesh-gateway-no-selectors", gateway(selectors=[]), ("selectors", NO_ELEMENT)),
    invalid(
        "mesh-gateway-selector-without-service",
        gateway(selectors=[{"match": {"version": "1"}}]),
        ("selectors[0].match", NO_SERVICE),
    ),
    invalid(
        "mesh-gateway-tags",
        gateway(tags={"kuma.io/service": "edge", "kuma.io/zone": "east", "a": ""}),
        ('tags["a"]', "tag value must be non-empty"),
        ('tags["kuma.io/service"]', 'tag name must not be "kuma.io/service"'),
        ('tags["kuma.io/zone"]', 'tag name must not be "kuma.io/zone"'),
    ),
    invalid("mesh-gateway-no-conf", gateway(conf=None), ("conf", EMPTY)),
    invalid("mesh-gateway-no-listeners", gateway({"listeners": []}), ("conf.listeners", EMPTY)),
    invalid(
        "mesh-gateway-everything-missing",
        gateway({"listeners": [{}]}, selectors=[]),
        ("selectors", NO_ELEMENT),
        (at("port"), PORT_RANGE),
        (at("protocol"), EMPTY),
    ),
    invalid(
        "mesh-gateway-hostnames",
        listeners({"hostname": "*.foo.*.example.com"}, {"hostname": "foo.example$.com"}, {"hostname": "f" * 260}),
        (at("hostname"), "invalid wildcard domain"),
        (at("hostname", 1), "invalid hostname"),
        (at("hostname", 2), "must be at most 253 characters"),
    ),
    invalid("mesh-gateway-https-without-tls", listeners({"protocol": "HTTPS"}), (at("tls"), EMPTY)),
    invalid("mesh-gateway-tls-without-mode", listeners({"protocol": "HTTPS", "tls": {}}), (at("tls.mode"), EMPTY)),
    invalid(
        "mesh-gateway-https-passthrough",
        listeners({"protocol": "HTTPS", "tls": {"mode": "PASSTHROUGH"}}),
        (at("tls.mode"), "mode is not supported on HTTPS listeners"),
    ),
    invalid(
        "mesh-gateway-certificates",
        listeners(
            {"protocol": "TLS", "port": 1, "tls": {"mode": "TERMINATE"}},
            {"protocol": "TLS", "port": 2, "tls": {"mode": "TERMINATE", "certificates": [SECRET, SECRET, SECRET]}},
        ),
        (at("tls.certificates"), "cannot be empty in TLS termination mode"),
        (at("tls.certificates", 1), "cannot have more than 2 certificates"),
    ),
    invalid(
        "mesh-gateway-listener-tags",
        listeners({"tags": {"kuma.io/protocol": "http"}}),
        ('conf.listeners[0].tags["kuma.io/protocol"]', 'tag name must not be "kuma.io/protocol"'),
    ),
    invalid(
        "mesh-gateway-cross-mesh",
        listeners({"protocol": "HTTPS", "crossMesh": True, "tls": TERMINATE}),
        (at("protocol"), "protocol is not supported with crossMesh"),
        (at("crossMesh"), "listeners for other meshes are not supported"),
        (at("tls"), "must be empty with crossMesh"),
    ),
    invalid(
        "mesh-gateway-shared-port",
        listeners(
            {"hostname": "a.com", "protocol": "TCP", "resources": {"connectionLimit": 2}},
            {"hostname": "a.com", "protocol": "HTTPS", "tls": TERMINATE, "resources": {"connectionLimit": 1}},
        ),
        ("conf.listeners[0]", PROTOCOLS),
        ("conf.listeners[1]", PROTOCOLS),
        ("conf.listeners[0]", HOSTNAMES),
        ("conf.listeners[1]", HOSTNAMES),
        (at("resources.connectionLimit"), "conflicting values for this port"),
        (at("resources.connectionLimit", 1), "conflicting values for this port"),
    ),
    invalid(
        "mesh-gateway-all-hostnames-twice",
        listeners({"hostname": "*"}, {}),
        ("conf.listeners[0]", HOSTNAMES),
        ("conf.listeners[1]", HOSTNAMES),
    ),
    malformed(
        "mesh-gateway-protocol",
        listeners({"protocol": "UDP"}),
        (at("protocol"), "must be one of 'NONE', 'TCP', 'TLS', 'HTTP' or 'HTTPS'"),
    ),
    malformed("mesh-gateway-conf-text", gateway("HTTP"), ("conf", OBJECT)),
]

BAD_GATEWAY_ROUTES: list[BadDocument] = [
    invalid("mesh-gateway-route-no-selectors", route(selectors=[]), ("selectors", NO_ELEMENT)),
    invalid("mesh-gateway-route-no-conf", route(conf=None), ("conf", EMPTY)),
    invalid(
        "mesh-gateway-route-two",
        route({"http": {"rules": [RULE]}, "tcp": {"rules": [{"backends": [BACKEND]}]}}),
        ("conf", "must have exactly one defined: tcp, http"),
    ),
    invalid("mesh-gateway-route-udp", route({"udp": {}}), ("conf.udp", "field is not implemented")),
    invalid("mesh-gateway-route-no-rules", route({"http": {}}), ("conf.http.rules", EMPTY)),
    invalid("mesh-gateway-route-tcp", route({"tcp": {"rules": []}}), ("conf.tcp.rules", EMPTY)),
    invalid(
        "mesh-gateway-route-tcp-backends",
        route({"tcp": {"rules": [{}, {"backends": [{"destination": {"version": "1"}}]}]}}),
        ("conf.tcp.rules[0].backends", EMPTY),
        ("conf.tcp.rules[1].backends[0]", NO_SERVICE),
    ),
    invalid(
        "mesh-gateway-route-hostname",
        route({"http": {"hostnames": ["a..b"], "rules": [RULE]}}),
        ("conf.http.hostnames[0]", "invalid hostname"),
    ),
    invalid("mesh-gateway-route-no-matches", rule(matches=[], backends=[]), (f"{RULES}.matches", EMPTY)),
    invalid("mesh-gateway-route-no-backends", rule(backends=[]), (f"{RULES}.backends", EMPTY)),
    invalid(
        "mesh-gateway-route-backend",
        rule(backends=[{"weight": 1, "destination": {"a": "b"}}]),
        (f"{RULES}.backends[0]", NO_SERVICE),
    ),
    invalid("mesh-gateway-route-match", match(), (FIRST, EMPTY)),
    invalid("mesh-gateway-route-regex", match(path={"match": "REGEX"}), (f"{FIRST}.value", EMPTY)),
    invalid(
        "mesh-gateway-route-path", match(path={"value": "some/path"}), (f"{FIRST}.value", "must be an absolute path")
    ),
    invalid(
        "mesh-gateway-route-headers",
        match(headers=[{"value": "v"}, {"name": "n"}, {"match": "PRESENT", "name": "p"}]),
        (f"{FIRST}.headers[0].name", EMPTY),
        (f"{FIRST}.headers[1].value", EMPTY),
    ),
    invalid(
        "mesh-gateway-route-query",
        match(query_parameters=[{"value": "v"}, {"name": "n"}]),
        (f"{FIRST}.query_parameters[0].name", EMPTY),
        (f"{FIRST}.query_parameters[1].value", EMPTY),
    ),
    invalid("mesh-gateway-route-no-headers", filtered({"request_header": {}}), (f"{FILTER}.request_header", EMPTY)),
    invalid(
        "mesh-gateway-route-header-filter",
        filtered({"response_header": {"set": [{"name": "a"}], "add": [{"value": "b"}], "remove": [""]}}),
        (f"{FILTER}.response_header.set[0].value", EMPTY),
        (f"{FILTER}.response_header.add[0].name", EMPTY),
        (f"{FILTER}.response_header.remove[0]", EMPTY),
    ),
    invalid(
        "mesh-gateway-route-mirror",
        filtered(
            {"mirror": {"percentage": 0.0}},
            {"mirror": {"backend": BACKEND}},
            {"mirror": {"percentage": -1, "backend": BACKEND}},
        ),
        (f"{FILTER}.mirror.backend", EMPTY),
        (f"{RULES}.filters[1].mirror", EMPTY),
        (f"{RULES}.filters[2].mirror.percentage", "has to be in [0.0 - 100.0] range"),
    ),
    invalid(
        "mesh-gateway-route-redirect",
        filtered({"redirect": {"port": 128555, "status_code": 500}}, backends=[]),
        (f"{FILTER}.redirect.scheme", EMPTY),
        (f"{FILTER}.redirect.hostname", EMPTY),
        (f"{FILTER}.redirect.port", PORT_RANGE),
        (f"{FILTER}.redirect.status_code", "must be in the range [300, 308]"),
    ),
    invalid(
        "mesh-gateway-route-redirect-and-backends",
        filtered({"redirect": REDIRECT}),
        (f"{RULES}.backends", "must be empty when using redirect filters"),
    ),
    invalid(
        "mesh-gateway-route-redirect-beside",
        filtered({"redirect": REDIRECT}, {"request_header": {"remove": ["a"]}}),
        (f"{RULES}.filters", "redirects cannot be used with other filters"),
    ),
    invalid(
        "mesh-gateway-route-rewrite",
        rule(matches=[{"path": {"value": "/a"}}], filters=[{"rewrite": {"replacePrefixMatch": "/b"}}]),
        (f"{FILTER}.rewrite.replacePrefixMatch", "cannot be used without a match on path prefix in all matches"),
    ),
    malformed(
        "mesh-gateway-route-weight",
        rule(backends=[{**BACKEND, "weight": "1"}]),
        (f"{RULES}.backends[0].weight", "must be a whole number"),
    ),
    malformed("mesh-gateway-route-http-list", route({"http": []}), ("conf.http", OBJECT)),
]
