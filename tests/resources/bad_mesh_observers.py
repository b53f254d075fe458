"""MeshAccessLogs, MeshMetrics and MeshTraces that must be refused for what they say.

In: nothing. Out: `BAD_MESH_OBSERVERS`, in the form of `BAD_DOCUMENTS`. Never: policies that are merely unusual.
"""

from __future__ import annotations

from typing import Any

from tests.resources.bad_mesh_policies import DECIMAL, DEFINED, MESH, NOT_EMPTY, rules, to
from tests.resources.document_forms import TEXT, BadDocument, invalid, malformed

_BACKENDS = "spec.to[0].default.backends"
_BACKEND = f"{_BACKENDS}[0]"


def log(*backends: object) -> dict[str, Any]:
    return to("MeshAccessLog", {"backends": list(backends)})


def file(**written: Any) -> dict[str, Any]:
    return {"type": "File", "file": written}


def records(**written: Any) -> dict[str, Any]:
    return {"type": "OpenTelemetry", "openTelemetry": written}


_ATTRIBUTE_NAME = (
    "must start with a lowercase letter, use only lowercase letters, digits, '.' or '_', avoid consecutive delimiters, "
    "and end with a letter or digit"
)
_ONE_WAY = "openTelemetry must have exactly one defined: endpoint, backendRef"

_LOGS: list[BadDocument] = [
    invalid("mesh-log-nothing", to("MeshAccessLog", {}), (_BACKENDS, DEFINED)),
    invalid("mesh-log-no-default", to("MeshAccessLog", None), (_BACKENDS, DEFINED)),
    invalid(
        "mesh-log-no-sections",
        log({"type": "File"}, {"type": "Tcp"}, {"type": "OpenTelemetry"}),
        (f"{_BACKENDS}[0].file", DEFINED),
        (f"{_BACKENDS}[1].tcp", DEFINED),
        (f"{_BACKENDS}[2].openTelemetry", DEFINED),
    ),
    invalid(
        "mesh-log-addresses",
        log(file(path="logs"), {"type": "Tcp", "tcp": {"address": "not_valid_url"}}, file()),
        (f"{_BACKENDS}[0].file.path", "file backend requires a valid path"),
        (f"{_BACKENDS}[1].tcp.address", "tcp backend requires valid address"),
        (f"{_BACKENDS}[2].file.path", "file backend requires a valid path"),
    ),
    invalid(
        "mesh-log-formats",
        log(
            file(path="/a", format={"type": "Plain"}),
            file(path="/a", format={"type": "Plain", "plain": ""}),
            file(path="/a", format={"type": "Json"}),
            {"type": "Tcp", "tcp": {"address": "10.0.0.1:5000", "format": {"type": "Json", "json": []}}},
        ),
        (f"{_BACKENDS}[0].file.format.plain", DEFINED),
        (f"{_BACKENDS}[1].file.format.plain", NOT_EMPTY),
        (f"{_BACKENDS}[2].file.format.json", DEFINED),
        (f"{_BACKENDS}[3].tcp.format.json", NOT_EMPTY),
    ),
    invalid(
        "mesh-log-fields",
        log(
            file(path="/a", format={"type": "Json", "json": [{"value": "a"}, {"key": "a"}, {"key": '"', "value": "b"}]})
        ),
        (f"{_BACKEND}.file.format.json[0].key", "key cannot be empty"),
        (f"{_BACKEND}.file.format.json[1].value", "value cannot be empty"),
        (f"{_BACKEND}.file.format.json[2]", "is not a valid JSON object"),
    ),
    invalid("mesh-log-otel-nothing", log(records()), (f"{_BACKEND}.openTelemetry", _ONE_WAY)),
    invalid(
        "mesh-log-otel-both",
        log(records(endpoint="otel:1", backendRef={"kind": "MeshOpenTelemetryBackend", "name": "otel"})),
        (
            f"{_BACKEND}.openTelemetry",
            "openTelemetry must have only one type defined: endpoint, backendRef",
        ),
    ),
    invalid(
        "mesh-log-otel-references",
        log(
            records(backendRef={"kind": "Mesh", "name": "a"}), records(backendRef={"kind": "MeshOpenTelemetryBackend"})
        ),
        (f"{_BACKENDS}[0].openTelemetry.backendRef.kind", "kind must be one of: MeshOpenTelemetryBackend"),
        (f"{_BACKENDS}[1].openTelemetry.backendRef", "backendRef must have exactly one defined: name, labels"),
    ),
    invalid(
        "mesh-log-otel-endpoints",
        log(records(endpoint="http://otel:4317"), records(endpoint="otel:many")),
        (f"{_BACKENDS}[0].openTelemetry.endpoint", "must be in host:port format, not a URL"),
        (
            f"{_BACKENDS}[1].openTelemetry.endpoint",
            "must be in host:port format, with a port in the range [1, 65535]",
        ),
    ),
    invalid(
        "mesh-log-otel-attributes",
        log(records(endpoint="otel", attributes=[{"key": key, "value": "a"} for key in ("", "%A%", "otel.a", "a..b")])),
        (f"{_BACKEND}.openTelemetry.attributes[0].key", DEFINED),
        (
            f"{_BACKEND}.openTelemetry.attributes[1].key",
            "must be a static OpenTelemetry attribute name; placeholders are only supported in values",
        ),
        (
            f"{_BACKEND}.openTelemetry.attributes[2].key",
            "must not use the reserved OpenTelemetry prefix 'otel.'",
        ),
        (f"{_BACKEND}.openTelemetry.attributes[3].key", _ATTRIBUTE_NAME),
    ),
    invalid(
        "mesh-log-matches",
        rules("MeshAccessLog", {"backends": []}, {"spiffeID": {"type": "Exact", "value": "web"}}),
        ("spec.rules[0].matches[0].spiffeID", "must be a valid Spiffe ID: scheme is missing or invalid"),
    ),
    malformed(
        "mesh-log-type",
        log({"type": "Carrier"}),
        (f"{_BACKEND}.type", "must be one of 'Tcp', 'File' or 'OpenTelemetry'"),
    ),
    malformed("mesh-log-path", log(file(path=1)), (f"{_BACKEND}.file.path", TEXT)),
]


def trace(default: object) -> dict[str, Any]:
    return {"type": "MeshTrace", "mesh": "default", "name": "p", "spec": {"targetRef": MESH, "default": default}}


def spans(kind: str, section: str, **written: Any) -> dict[str, Any]:
    return trace({"backends": [{"type": kind, section: written}]})


_TRACE = "spec.default"
_SPANS = f"{_TRACE}.backends[0]"
_URL = "must be a valid url"


def agent(case: str, url: str, *messages: str) -> BadDocument:
    """A MeshTrace with an URL of Datadog's agent."""
    return invalid(case, spans("Datadog", "datadog", url=url), *((f"{_SPANS}.datadog.url", each) for each in messages))


_TRACES: list[BadDocument] = [
    invalid("mesh-trace-nothing", trace({}), (f"{_TRACE}.backends", DEFINED)),
    invalid("mesh-trace-no-default", trace(None), (f"{_TRACE}.backends", DEFINED)),
    invalid(
        "mesh-trace-two",
        trace({"backends": [{"type": "Zipkin"}, {"type": "Datadog"}]}),
        (f"{_TRACE}.backends", "must have zero or one backend defined"),
    ),
    *(
        invalid(
            f"mesh-trace-no-{section}",
            trace({"backends": [{"type": kind}]}),
            (f"{_TRACE}.backends[0].{section}", DEFINED),
        )
        for kind, section in (("Zipkin", "zipkin"), ("Datadog", "datadog"), ("OpenTelemetry", "openTelemetry"))
    ),
    invalid("mesh-trace-zipkin-empty", spans("Zipkin", "zipkin"), (f"{_SPANS}.zipkin.url", NOT_EMPTY)),
    invalid("mesh-trace-zipkin-url", spans("Zipkin", "zipkin", url="/api"), (f"{_SPANS}.zipkin.url", _URL)),
    agent("mesh-trace-agent-url", "agent", _URL),
    agent("mesh-trace-agent-scheme", "https://agent:8126", "scheme must be http"),
    agent("mesh-trace-agent-no-port", "http://agent", "port must be defined"),
    agent("mesh-trace-agent-port", "http://agent:65536", "port must be a valid (1-65535)"),
    agent(
        "mesh-trace-agent-more",
        "http://me@agent:8126/a?b=c#d",
        "user must not be defined",
        "path must not be defined",
        "query must not be defined",
        "fragment must not be defined",
    ),
    invalid("mesh-trace-otel-nothing", spans("OpenTelemetry", "openTelemetry"), (f"{_SPANS}.openTelemetry", _ONE_WAY)),
    *(
        invalid(
            f"mesh-trace-otel-{case}",
            spans("OpenTelemetry", "openTelemetry", endpoint=endpoint),
            (f"{_SPANS}.openTelemetry.endpoint", message),
        )
        for case, endpoint, message in (
            ("path", "otel/v1", "must be in host:port format, not a URL"),
            ("scheme", "ftp://otel:1", "URL scheme must be http or https"),
            ("host", "http://", "must be a valid URL"),
            ("port", "http://otel:70000", "port must be valid (1-65535)"),
        )
    ),
    invalid(
        "mesh-trace-tags",
        trace({"backends": [], "tags": [{"literal": "a"}, {"name": "a"}, {"name": "b", "literal": "c", "header": {}}]}),
        (f"{_TRACE}.tags[0].name", NOT_EMPTY),
        (f"{_TRACE}.tags[1]", "tag must have only one type defined: header, literal"),
        (f"{_TRACE}.tags[2]", "tag must have only one type defined: header, literal"),
    ),
    invalid(
        "mesh-trace-sampling",
        trace({"backends": [], "sampling": {"client": 101, "random": "much", "overall": "-0.5"}}),
        (f"{_TRACE}.sampling.client", "must be between 0 and 100"),
        (f"{_TRACE}.sampling.random", "string is not a number"),
        (f"{_TRACE}.sampling.overall", "must be between 0 and 100"),
    ),
    malformed(
        "mesh-trace-decimal",
        trace({"backends": [], "sampling": {"overall": 0.5}}),
        (f"{_TRACE}.sampling.overall", DECIMAL),
    ),
    malformed(
        "mesh-trace-version",
        spans("Zipkin", "zipkin", url="http://a", apiVersion="v3"),
        (f"{_SPANS}.zipkin.apiVersion", "must be one of 'httpJson', 'httpJsonV1' or 'httpProto'"),
    ),
]


def metric(**conf: object) -> dict[str, Any]:
    return {"type": "MeshMetric", "mesh": "default", "name": "p", "spec": {"targetRef": MESH, "default": conf}}


def selecting(**profiles: object) -> dict[str, Any]:
    return metric(sidecar={"profiles": profiles})


def published(kind: str, **sections: object) -> dict[str, Any]:
    return metric(backends=[{"type": kind, **sections}])


_PROFILES = "spec.default.sidecar.profiles"
_PUBLISHED = "spec.default.backends.backend[0]"
_ANY_PORT = "port must be a valid (1-65535)"
_SELECTORS = "'Regex', 'Prefix', 'Exact' are supported"

_METRICS: list[BadDocument] = [
    invalid(
        "mesh-metric-selectors",
        selecting(
            exclude=[{"type": "Regex", "match": "())(!("}, {"type": "Suffix", "match": "a"}],
            include=[{"type": "Contains", "match": "a"}, {"match": "a"}],
            appendProfiles=[{"name": "Basic"}, {"name": "basic"}, {}],
        ),
        (f"{_PROFILES}.exclude[0].match", "invalid regex"),
        (f"{_PROFILES}.exclude[1].type", f"unrecognized type 'Suffix' - {_SELECTORS}"),
        (f"{_PROFILES}.include[1].type", f"unrecognized type '' - {_SELECTORS}"),
        *(
            (
                f"{_PROFILES}.appendProfiles[{i}].name",
                f"unrecognized profile name '{name}' - 'All', 'None', 'Basic' are supported",
            )
            for i, name in ((1, "basic"), (2, ""))
        ),
    ),
    invalid(
        "mesh-metric-applications",
        metric(applications=[{"port": 95599}, {"port": 1}, {"path": "/metrics"}]),
        ("spec.default.applications.application[0]", _ANY_PORT),
        ("spec.default.applications.application[2]", _ANY_PORT),
    ),
    invalid("mesh-metric-type", published("Graphite"), (_PUBLISHED, "unrecognized type")),
    invalid("mesh-metric-no-prometheus", published("Prometheus"), (f"{_PUBLISHED}.prometheus", DEFINED)),
    invalid("mesh-metric-port", published("Prometheus", prometheus={"port": 95599}), (f"{_PUBLISHED}.port", _ANY_PORT)),
    invalid(
        "mesh-metric-no-otel",
        published("OpenTelemetry", prometheus={"port": 5670}),
        (f"{_PUBLISHED}.openTelemetry", DEFINED),
    ),
    *(
        invalid(
            f"mesh-metric-endpoint-{case}",
            published("OpenTelemetry", openTelemetry={"endpoint": endpoint}),
            (f"{_PUBLISHED}.openTelemetry.endpoint", message),
        )
        for case, endpoint, message in (
            ("none", "", "must be a valid url"),
            ("word", "asdasd123", "must be a valid url"),
            ("scheme", "http://endpoint:8023", "must not use schema"),
            ("port", "endpoint:70000", "must be in host:port format, with a port in the range [1, 65535]"),
        )
    ),
    invalid(
        "mesh-metric-both",
        published("OpenTelemetry", openTelemetry={"endpoint": "otel:1", "backendRef": {"kind": "X", "name": "a"}}),
        (f"{_PUBLISHED}.openTelemetry", "openTelemetry must have only one type defined: endpoint, backendRef"),
    ),
    malformed(
        "mesh-metric-mode",
        published("Prometheus", prometheus={"tls": {"mode": "mTLS"}}),
        (
            "spec.default.backends[0].prometheus.tls.mode",
            "must be one of 'Disabled', 'ProvidedTLS' or 'ActiveMTLSBackend'",
        ),
    ),
]

BAD_MESH_OBSERVERS: list[BadDocument] = [*_LOGS, *_METRICS, *_TRACES]
