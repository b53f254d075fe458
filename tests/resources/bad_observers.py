"""TrafficLogs, TrafficTraces and ProxyTemplates that must be refused, and with what.

In: nothing. Out: `BAD_OBSERVERS` and `BAD_TEMPLATES`, in the form of `BAD_DOCUMENTS`. Never: policies that are merely
unusual.
"""

from __future__ import annotations

from typing import Any

from tests.resources.document_forms import ABSENT, LIST, OBJECT, TEXT, BadDocument, invalid, malformed, with_fields

EVERYTHING = [{"match": {"kuma.io/service": "*"}}]
NO_ELEMENT = "must have at least one element"
NO_TAG = "must have at least one tag"
NO_SERVICE = 'mandatory tag "kuma.io/service" is missing'
ONE_TAG = 'must consist of exactly one tag "kuma.io/service"'
TAG_NAME = "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores"
SELECTOR_VALUE = 'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"'
EMPTY = "cannot be empty"
UNDEFINED = "cannot be defined"
PROFILES = "profile not found. Available profiles: default-proxy,egress-proxy,gateway-proxy,ingress-proxy"
OPERATIONS = 'invalid operation. Available operations: "add", "patch", "remove"'
FILTER_OPERATIONS = (
    'invalid operation. Available operations: "addFirst", "addLast", "addBefore", "addAfter", "patch", "remove"'
)
NOT_VALID = "native Envoy resource is not valid: "


def log(**over: Any) -> dict[str, Any]:
    """A good log with some fields replaced."""
    fields = {"type": "TrafficLog", "mesh": "default", "name": "l", "sources": EVERYTHING, "destinations": EVERYTHING}
    return with_fields(fields, **over)


def trace(**over: Any) -> dict[str, Any]:
    """A good trace with some fields replaced."""
    return with_fields({"type": "TrafficTrace", "mesh": "default", "name": "t", "selectors": EVERYTHING}, **over)


def template(**over: Any) -> dict[str, Any]:
    """A good template with some fields replaced."""
    fields = {"type": "ProxyTemplate", "mesh": "default", "name": "p", "selectors": EVERYTHING}
    return with_fields({**fields, "conf": {"imports": ["default-proxy"]}}, **over)


def conf(**over: Any) -> dict[str, Any]:
    """A good template with some fields of its conf replaced."""
    return template(conf=with_fields({"imports": ["default-proxy"]}, **over))


def modify(*steps: dict[str, Any]) -> dict[str, Any]:
    """A good template with other steps."""
    return conf(modifications=list(steps))


def step(kind: str, operation: str, value: object = ABSENT, **match: Any) -> dict[str, Any]:
    """One step; `match` is left out where it is empty."""
    fields: dict[str, Any] = {"operation": operation, **({"match": match} if match else {})}
    return {kind: with_fields(fields, value=value)}


def raw(resource: str) -> dict[str, Any]:
    """A good template with one resource of its own."""
    return conf(resources=[{"name": "a", "version": "v1", "resource": resource}])


def _at(number: int, kind: str, *names: str) -> str:
    return ".".join((f"conf.modifications[{number}].{kind}", *names))


BAD_OBSERVERS: list[BadDocument] = [
    invalid(
        "log-empty", log(sources=ABSENT, destinations=ABSENT), ("sources", NO_ELEMENT), ("destinations", NO_ELEMENT)
    ),
    invalid("log-no-sources", log(sources=[]), ("sources", NO_ELEMENT)),
    invalid("log-no-destinations", log(destinations=None), ("destinations", NO_ELEMENT)),
    invalid("log-source-without-service", log(sources=[{"match": {"a": "b"}}]), ("sources[0].match", NO_SERVICE)),
    invalid(
        "log-empty-source",
        log(sources=[*EVERYTHING, {}]),
        ("sources[1].match", NO_TAG),
        ("sources[1].match", NO_SERVICE),
    ),
    invalid(
        "log-source-tags",
        log(sources=[{"match": {"kuma.io/service": "", "a b": "c d"}}]),
        ('sources[0].match["a b"]', TAG_NAME),
        ('sources[0].match["a b"]', SELECTOR_VALUE),
        ('sources[0].match["kuma.io/service"]', "tag value must be non-empty"),
    ),
    invalid(
        "log-destination-with-another-tag",
        log(destinations=[{"match": {"kuma.io/service": "x", "version": "1"}}]),
        ("destinations[0].match", ONE_TAG),
        ('destinations[0].match["version"]', 'tag "version" is not allowed'),
    ),
    malformed("log-conf-list", log(conf=[]), ("conf", OBJECT)),
    malformed("log-backend-number", log(conf={"backend": 1}), ("conf.backend", TEXT)),
    malformed("log-sources-text", log(sources="web"), ("sources", LIST)),
    malformed("log-match-list", log(sources=[{"match": ["web"]}]), ("sources[0].match", OBJECT)),
    invalid("trace-no-selectors", trace(selectors=ABSENT), ("selectors", NO_ELEMENT)),
    invalid("trace-empty-selectors", trace(selectors=[]), ("selectors", NO_ELEMENT)),
    invalid("trace-empty-selector", trace(selectors=[{}]), ("selectors[0].match", NO_TAG)),
    invalid("trace-second-selector", trace(selectors=[*EVERYTHING, {"match": {}}]), ("selectors[1].match", NO_TAG)),
    invalid(
        "trace-selector-tags",
        trace(selectors=[{"match": {"version": "", "a b": "1"}}]),
        ('selectors[0].match["a b"]', TAG_NAME),
        ('selectors[0].match["version"]', "tag value must be non-empty"),
    ),
    invalid(
        "trace-selector-value",
        trace(selectors=[{"match": {"version": "v*"}}]),
        ('selectors[0].match["version"]', SELECTOR_VALUE),
    ),
    malformed("trace-selectors-object", trace(selectors={}), ("selectors", LIST)),
    malformed("trace-conf-text", trace(conf="jaeger"), ("conf", OBJECT)),
    malformed("trace-backend-list", trace(conf={"backend": []}), ("conf.backend", TEXT)),
]

_SELECTORS: list[BadDocument] = [
    invalid(
        "template-empty-selector",
        template(selectors=[{}]),
        ("selectors[0].match", NO_TAG),
        ("selectors[0].match", NO_SERVICE),
    ),
    invalid(
        "template-selector-no-name",
        template(selectors=[{"match": {"": "asdf"}}]),
        ("selectors[0].match", "tag name must be non-empty"),
        ("selectors[0].match", NO_SERVICE),
    ),
    invalid(
        "template-selector-without-service",
        template(selectors=[*EVERYTHING, {"match": {"version": "v1"}}]),
        ("selectors[1].match", NO_SERVICE),
    ),
    malformed("template-selectors-text", template(selectors="*"), ("selectors", LIST)),
]

_PARTS: list[BadDocument] = [
    invalid(
        "template-imports",
        conf(imports=["", "unknown", "default-proxy"]),
        ("conf.imports[0]", EMPTY),
        ("conf.imports[1]", PROFILES),
    ),
    invalid(
        "template-empty-resource",
        conf(resources=[{}]),
        *((f"conf.resources[0].{name}", EMPTY) for name in ("name", "version", "resource")),
    ),
    invalid(
        "template-operations",
        modify(
            step("cluster", "addFirst"),
            step("listener", "nothing"),
            step("virtualHost", "addLast"),
            step("networkFilter", "add"),
            {"httpFilter": {}},
        ),
        *(
            (_at(number, kind, "operation"), OPERATIONS)
            for number, kind in enumerate(("cluster", "listener", "virtualHost"))
        ),
        (_at(3, "networkFilter", "operation"), FILTER_OPERATIONS),
        (_at(4, "httpFilter", "operation"), FILTER_OPERATIONS),
    ),
    invalid(
        "template-what-is-added-matches-nothing",
        modify(
            step("cluster", "add", "name: xyz", name="a"),
            step("listener", "add", "name: xyz", origin="inbound"),
            step("virtualHost", "add", "{name: a, domains: [a]}", name="a"),
        ),
        (_at(0, "cluster", "match"), UNDEFINED),
        (_at(1, "listener", "match"), UNDEFINED),
        (_at(2, "virtualHost", "match", "name"), UNDEFINED),
    ),
    invalid(
        "template-filter-without-a-place",
        modify(step("networkFilter", "addBefore", "name: a"), step("httpFilter", "addAfter", "name: a")),
        (
            _at(0, "networkFilter", "match", "name"),
            "cannot be empty. You need to pick a filter before which this one will be added",
        ),
        (
            _at(1, "httpFilter", "match", "name"),
            "cannot be empty. You need to pick a filter after which this one will be added",
        ),
    ),
    invalid(
        "template-patch-of-any-filter",
        modify(step("networkFilter", "patch", "{}"), step("httpFilter", "patch", "{}")),
        (_at(0, "networkFilter", "match", "name"), EMPTY),
        (_at(1, "httpFilter", "match", "name"), EMPTY),
    ),
    malformed("template-conf-list", template(conf=[]), ("conf", OBJECT)),
    malformed("template-imports-text", conf(imports="default-proxy"), ("conf.imports", LIST)),
    malformed("template-resources-object", conf(resources={}), ("conf.resources", LIST)),
    malformed("template-step-text", modify({"cluster": "add"}), ("conf.modifications[0].cluster", OBJECT)),
    malformed(
        "template-value-object", modify(step("cluster", "add", {"name": "a"})), (_at(0, "cluster", "value"), TEXT)
    ),
]

_VALUES: list[BadDocument] = [
    invalid(f"template-value-{case}", modify(step(kind, operation, value)), (_at(0, kind, "value"), NOT_VALID + wrong))
    for case, kind, operation, value, wrong in (
        (
            "cluster-no-name",
            "cluster",
            "add",
            "connectTimeout: 5s",
            "invalid Cluster.Name: value length must be at least 1 runes",
        ),
        ("cluster-empty", "cluster", "patch", "", "it must be an object"),
        ("listener-no-name", "listener", "add", "{}", "invalid Listener.Name: value length must be at least 1 runes"),
        (
            "host-no-domains",
            "virtualHost",
            "add",
            "name: a",
            "invalid VirtualHost.Domains: value must contain at least 1 item(s)",
        ),
        (
            "filter-no-name",
            "networkFilter",
            "addFirst",
            "typedConfig: {}",
            "invalid Filter.Name: value length must be at least 1 runes",
        ),
        (
            "http-filter-no-name",
            "httpFilter",
            "addLast",
            "name: ''",
            "invalid HttpFilter.Name: value length must be at least 1 runes",
        ),
    )
]

_RAW: list[BadDocument] = [
    invalid(f"template-resource-{case}", raw(resource), ("conf.resources[0].resource", NOT_VALID + wrong))
    for case, resource, wrong in (
        ("text", "not-envoy-resource", "it must be an object"),
        ("too-deep", "[" * 5000, "it is nested too deep"),
    )
]

BAD_TEMPLATES: list[BadDocument] = [*_SELECTORS, *_PARTS, *_VALUES, *_RAW]
