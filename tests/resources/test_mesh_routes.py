"""MeshHTTPRoute and MeshTCPRoute are refused in Kuma's words and come back as written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kumafast.errors import MalformedResourceError
from kumafast.resources import parse, to_document, unknown_fields, validate

ABSOLUTE = "must be an absolute path"
SLASH = "does not need a trailing slash because only a `/`-separated prefix or an entire path is matched"
PREFIXES = "can only appear if all matches match a path prefix"
HEADER_NAME = r"in body should match '^[a-z0-9!#$%&'*+\-.^_\x60|~]+$'"
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
BACKEND = {"kind": "MeshService", "name": "backend"}
EVERYTHING = [{"path": {"type": "PathPrefix", "value": "/"}}]


def route(kind: str = "MeshHTTPRoute", *, top: dict[str, Any] | None = None, **to: Any) -> dict[str, Any]:
    spec = {**({} if top is None else {"targetRef": top}), "to": [{"targetRef": BACKEND, **to}]}
    return {"type": kind, "mesh": "default", "name": "r", "spec": spec}


def rule(matches: Any = EVERYTHING, **default: Any) -> dict[str, Any]:
    return {"matches": matches, "default": default}


def violations(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Those of the spec, from `spec.to[0].` on."""
    prefix = "spec.to[0]."
    return [(each.field.removeprefix(prefix), each.message) for each in validate(parse(document))]


def of_matches(text: str) -> list[tuple[str, str]]:
    found = violations(route(rules=[rule(yaml.safe_load(text))]))
    return [(field.removeprefix("rules[0].matches"), message) for field, message in found]


def of_filters(text: str, matches: Any = EVERYTHING, **route_fields: Any) -> list[tuple[str, str]]:
    found = violations(route(rules=[rule(matches, filters=yaml.safe_load(text))], **route_fields))
    return [(field.removeprefix("rules[0].default.filters"), message) for field, message in found]


ALL_OF_IT = """
- matches:
  - path: {type: Exact, value: /a}
    method: GET
    queryParams: [{type: Exact, name: q, value: "1"}]
    headers: [{name: x-a, value: "1"}, {type: Present, name: x-b}]
  default:
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: "1"}], remove: [y]}}
    - {type: RequestMirror, requestMirror: {percentage: "0.5", backendRef: {kind: MeshService, name: c}}}
    backendRefs:
    - {kind: MeshService, name: a, port: 80, weight: 1}
    - {kind: MeshServiceSubset, name: a, tags: {version: "1"}, weight: 0}
    - {kind: MeshExternalService, name: e}
    - {kind: MeshMultiZoneService, name: m, port: 80}
"""


def test_what_is_valid_comes_back_as_written() -> None:
    document = route(rules=yaml.safe_load(ALL_OF_IT))
    assert violations(document) == []
    assert unknown_fields(document) == ()
    assert to_document(parse(document)) == document
    tcp = route("MeshTCPRoute", rules=[{"default": {"backendRefs": [{**BACKEND, "weight": 3}]}}])
    assert violations(tcp) == []
    assert to_document(parse(tcp)) == tcp


@pytest.mark.parametrize("kind", ["MeshHTTPRoute", "MeshTCPRoute"])
def test_what_other_kinds_have_in_place_of_rules_is_not_known(kind: str) -> None:
    assert unknown_fields(route(kind, default={})) == ("spec.to[0].default",)


@pytest.mark.parametrize("kind", ["MeshHTTPRoute", "MeshTCPRoute"])
def test_a_route_of_a_gateway_is_about_everything(kind: str) -> None:
    gateway = {"kind": "MeshGateway", "name": "edge"}
    assert violations(route(kind, top=gateway)) == [("targetRef.kind", "value is not supported")]
    document = route(kind, top=gateway, targetRef={"kind": "Mesh"})
    assert violations(document) == []
    assert violations(route(kind, targetRef={"kind": "Mesh"})) == [("targetRef.kind", "value is not supported")]


@pytest.mark.parametrize("kind", ["MeshHTTPRoute", "MeshTCPRoute"])
def test_references_to_backends(kind: str) -> None:
    refs = [
        {"kind": "MeshServiceSubset", "tags": {"version": "1"}},
        {"kind": "Mesh"},
        {"kind": "MeshMultiZoneService", "name": "m"},
    ]
    rules = [rule(backendRefs=refs)] if kind == "MeshHTTPRoute" else [{"default": {"backendRefs": refs}}]
    where = "rules[0].default.backendRefs"
    assert violations(route(kind, rules=rules)) == [
        (f"{where}[0].name", "must be set with kind MeshServiceSubset"),
        (f"{where}[1].kind", "value is not supported"),
        (f"{where}[2].port", "must be defined with kind MeshMultiZoneService"),
    ]


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        ("[]", [("", "in body should have at least 1 items")]),
        ("[{path: {type: Exact, value: a}}]", [("[0].path.value", ABSOLUTE)]),
        ("[{path: {type: PathPrefix, value: /a/}}]", [("[0].path.value", SLASH)]),
        ("[{path: {type: PathPrefix, value: a/}}]", [("[0].path.value", SLASH), ("[0].path.value", ABSOLUTE)]),
        ("[{path: {type: RegularExpression}}]", [("[0].path.value", "must not be empty")]),
        (
            "[{queryParams: [{type: Exact, name: q}, {type: RegularExpression, name: q}]}]",
            [
                ("[0].queryParams[1].name", "multiple entries for name q"),
                ("[0].queryParams[1].value", "must not be empty"),
            ],
        ),
        (
            "[{queryParams: [{type: Exact}]}]",
            [("[0].queryParams[0].name", "in body should be at least 1 chars long")],
        ),
        (
            "[{headers: [{type: Present, name: x, value: a}, {type: Absent, name: x, value: a}, {name: X}]}]",
            [
                ("[0].headers[0].value", "must not be defined"),
                ("[0].headers[1].value", "must not be defined"),
                ("[0].headers[2].name", HEADER_NAME),
            ],
        ),
    ],
)
def test_matches_that_are_refused(matches: str, expected: list[tuple[str, str]]) -> None:
    assert of_matches(matches) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (
            "[{type: RequestHeaderModifier}, {type: ResponseHeaderModifier}, {type: RequestRedirect}, "
            "{type: RequestMirror}, {type: URLRewrite}]",
            [
                ("[0].requestHeaderModifier", "must be defined"),
                ("[1].responseHeaderModifier", "must be defined"),
                ("[2].requestRedirect", "must be defined"),
                ("[3].requestMirror", "must be defined"),
                ("[4].urlRewrite", "must be defined"),
            ],
        ),
        (
            "[{type: ResponseHeaderModifier, responseHeaderModifier: {}}]",
            [("[0].responseHeaderModifier", "must have at least one defined: set, add, remove")],
        ),
        (
            "[{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a}], add: [{name: a}], remove: [a]}}]",
            [
                ("[0].requestHeaderModifier.add[0].name", "duplicate header name"),
                ("[0].requestHeaderModifier.remove[0].name", "duplicate header name"),
            ],
        ),
        (
            "[{type: RequestHeaderModifier, requestHeaderModifier: {remove: "
            "[a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]}}]",
            [("[0].requestHeaderModifier.remove", "in body should have at most 16 items")],
        ),
        (
            "[{type: RequestRedirect, requestRedirect: {hostname: 127.0.0.1, port: 0}}, "
            "{type: URLRewrite, urlRewrite: {hostname: '*.a'}}]",
            [
                ("[0].requestRedirect.hostname", "cannot be an IP address"),
                ("[0].requestRedirect.port", "port must be in the range [1, 65535]"),
                ("[1].urlRewrite.hostname", SUBDOMAIN),
            ],
        ),
        (
            "[{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}, "
            "{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch}}}]",
            [
                ("[0].urlRewrite.path.replaceFullPath", "must be defined"),
                ("[1].requestRedirect.path.replacePrefixMatch", "must be defined"),
            ],
        ),
        (
            "[{type: URLRewrite, urlRewrite: {hostname: a.b, hostToBackendHostname: true}}]",
            [
                ("[0].urlRewrite.hostToBackendHostname", "can only be set with MeshGateway"),
                ("[0].urlRewrite.hostToBackendHostname", "cannot be set together with hostname"),
            ],
        ),
        (
            "[{type: RequestMirror, requestMirror: {percentage: many, backendRef: {kind: MeshExternalService}}}, "
            "{type: RequestMirror, requestMirror: {percentage: 101, backendRef: {kind: MeshService, name: a}}}]",
            [
                ("[0].requestMirror.backendRef.kind", "value is not supported"),
                ("[0].requestMirror.percentage", "string must be a valid number"),
                ("[1].requestMirror.percentage", "must be in inclusive range [0.0, 100.0]"),
            ],
        ),
    ],
)
def test_filters_that_are_refused(filters: str, expected: list[tuple[str, str]]) -> None:
    assert of_filters(filters) == expected


def test_a_prefix_is_replaced_where_each_match_has_one() -> None:
    prefix = "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}"
    filters = f"[{{type: URLRewrite, urlRewrite: {prefix}}}, {{type: RequestRedirect, requestRedirect: {prefix}}}]"
    assert of_filters(filters) == []
    for other in ({"path": {"type": "Exact", "value": "/a"}}, {"method": "GET"}):
        assert of_filters(filters, [*EVERYTHING, other]) == [
            ("[0].urlRewrite.path.replacePrefixMatch", PREFIXES),
            ("[1].requestRedirect.path.replacePrefixMatch", PREFIXES),
        ]


def test_what_gateways_alone_may_say_and_must() -> None:
    assert violations(route(hostnames=["a.example"], rules=[])) == [("hostnames", "must not be defined")]
    gateway: dict[str, Any] = {"top": {"kind": "MeshGateway", "name": "edge"}, "targetRef": {"kind": "Mesh"}}
    assert violations(route(**gateway, hostnames=["a.example"], rules=[rule(backendRefs=[BACKEND])])) == []
    no_backend = [("rules[0].default.backendRefs", "must not be empty")]
    assert violations(route(**gateway, rules=[rule()])) == no_backend
    redirect = {"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}}
    assert violations(route(**gateway, rules=[rule(filters=[redirect])])) == []


def test_connections_have_one_rule_that_leads_somewhere() -> None:
    rules = [{"default": {}}, {"default": {"backendRefs": [BACKEND]}}]
    assert violations(route("MeshTCPRoute", rules=rules)) == [
        ("rules", "in body should have at most 1 items"),
        ("rules[0].default.backendRefs", "must be defined"),
    ]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (route(rules=[rule([{"path": {"value": "/"}}])]), "spec.to[0].rules[0].matches[0].path.type"),
        (route(rules=[rule([{"method": "FETCH"}])]), "spec.to[0].rules[0].matches[0].method"),
        (route(rules=[rule(filters=[{"type": "x"}])]), "spec.to[0].rules[0].default.filters[0].type"),
        (
            route(rules=[rule(filters=[{"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}}])]),
            "spec.to[0].rules[0].default.filters[0].requestRedirect.statusCode",
        ),
        (
            route(rules=[rule(backendRefs=[{**BACKEND, "weight": -1}])]),
            "spec.to[0].rules[0].default.backendRefs[0].weight",
        ),
    ],
)
def test_what_is_no_route_at_all(document: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedResourceError) as caught:
        parse(document)
    assert [violation.field for violation in caught.value.violations] == [field]
