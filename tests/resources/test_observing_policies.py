"""Policies of logs and traces, and templates: refused in Kuma's words, read in the forms of 0.1.0 and 2.14."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml

from kumafast.resources import Mesh, Resource, parse, unknown_fields, validate
from kumafast.resources.policies.proxy_template import ProxyTemplate
from kumafast.resources.policies.traffic_log import TrafficLog
from kumafast.resources.policies.traffic_trace import TrafficTrace

NOT_VALID = "native Envoy resource is not valid: "


def written(kind: str, fields: str) -> dict[str, Any]:
    return {"type": kind, "mesh": "default", "name": "p", **yaml.safe_load(fields)}


def violations(kind: str, fields: str) -> list[tuple[str, str]]:
    return [(violation.field, violation.message) for violation in validate(parse(written(kind, fields)))]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            "TrafficLog",
            "{sources: [{match: {kuma.io/service: '*'}}], destinations: [{match: {kuma.io/service: pass_through}}]}",
        ),
        ("TrafficTrace", "{selectors: [{match: {version: '*'}}], conf: {backend: x}}"),
        ("ProxyTemplate", "{}"),
        ("ProxyTemplate", "{selectors: [{match: {service: backend}}], conf: {imports: [default-proxy]}}"),
        (
            "ProxyTemplate",
            "{conf: {modifications: [{cluster: {operation: remove, match: {origin: inbound}}}, "
            "{cluster: {operation: patch, value: 'connectTimeout: 5s'}}, {virtualHost: {operation: remove}}, {}]}}",
        ),
    ],
)
def test_what_is_merely_unusual_is_valid(kind: str, fields: str) -> None:
    assert violations(kind, fields) == []


@pytest.mark.parametrize(
    ("kind", "operation", "value", "wrong"),
    [
        ("cluster", "add", "connectTimeout: 5s", "invalid Cluster.Name: value length must be at least 1 runes"),
        ("cluster", "add", "{", "while parsing a flow node"),
        ("cluster", "patch", "", "it must be an object"),
        (
            "cluster",
            "patch",
            "nothing: 1",
            'Message type "envoy.config.cluster.v3.Cluster" has no field named "nothing"',
        ),
        ("cluster", "patch", "connectTimeout: soon", "Failed to parse connectTimeout field"),
        ("listener", "add", "{}", "invalid Listener.Name: value length must be at least 1 runes"),
        ("virtualHost", "add", "name: a", "invalid VirtualHost.Domains: value must contain at least 1 item(s)"),
        (
            "virtualHost",
            "add",
            "{name: a, domains: [b], routes: [{match: {prefix: /}, route: {retryPolicy: {retryBackOff: {}}}}]}",
            "invalid VirtualHost.Routes: embedded message failed validation | caused by: invalid Route.Route: embedded "
            "message failed validation | caused by: invalid RouteAction.RetryPolicy: embedded message failed "
            "validation | caused by: invalid RetryPolicy.RetryBackOff: embedded message failed validation | caused by: "
            "invalid RetryBackOff.BaseInterval: value is required",
        ),
        ("networkFilter", "addFirst", "typedConfig: {}", "invalid Filter.Name: value length must be at least 1 runes"),
        ("httpFilter", "addLast", "name: ''", "invalid HttpFilter.Name: value length must be at least 1 runes"),
        (
            "httpFilter",
            "addLast",
            "{name: a, typedConfig: {'@type': type.googleapis.com/os.path.Router}}",
            "Can not find message descriptor by type_url",
        ),
    ],
)
def test_values_are_read_as_the_messages_that_they_are(kind: str, operation: str, value: str, wrong: str) -> None:
    document = written("ProxyTemplate", "{}")
    document["conf"] = {"modifications": [{kind: {"operation": operation, "value": value}}]}
    ((field, message),) = [(each.field, each.message) for each in validate(parse(document))]
    assert field == f"conf.modifications[0].{kind}.value"
    assert message.startswith(NOT_VALID + wrong)
    assert "\n" not in message
    assert len(message) < 500


RAW = "'@type': type.googleapis.com/{}\nname: {}\n"


@pytest.mark.parametrize(
    ("resource", "wrong"),
    [
        ("not-envoy-resource", "it must be an object"),
        ("name: a", "@type is missing"),
        ("{}", "@type is missing"),
        (RAW.format("envoy.config.cluster.v3.Cluster", "''"), "invalid Cluster.Name"),
        (RAW.format("envoy.config.core.v3.Node", "a"), "Message type"),
        ("'@type': type.googleapis.com/envoy.config.core.v3.Locality", "envoy.config.core.v3.Locality is no resource"),
        (RAW.format("envoy.api.v2.Cluster", "a") + "hosts: []", "Message type"),
        ("[" * 5000, "it is nested too deep"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in ("ab", "bc", "cd", "de", "ef", "fg")
            ),
            "it has more than 50000 values",
        ),
    ],
)
def test_resources_are_read_as_what_they_say_they_are(resource: str, wrong: str) -> None:
    document = written("ProxyTemplate", "{}")
    document["conf"] = {"resources": [{"name": "a", "version": "v1", "resource": resource}]}
    ((field, message),) = [(each.field, each.message) for each in validate(parse(document))]
    assert field == "conf.resources[0].resource"
    assert message.startswith(NOT_VALID)
    assert wrong in message


OLD_TEMPLATE = """
type: ProxyTemplate
mesh: default
name: extra
selectors: [{match: {service: cart}}]
imports: [default-proxy]
resources:
- name: raw-cluster
  version: v1
  resource: |
    '@type': type.googleapis.com/envoy.api.v2.Cluster
    name: raw-cluster
    connectTimeout: 5s
    type: STATIC
"""


def test_a_template_of_0_1_0_is_one_of_today() -> None:
    document = yaml.safe_load(OLD_TEMPLATE)
    found = cast(ProxyTemplate, parse(document))
    assert validate(found) == ()
    assert unknown_fields(document) == ()
    assert [dict(selector.match) for selector in found.selectors] == [{"kuma.io/service": "cart"}]
    assert found.settings().imports == ("default-proxy",)
    assert found.settings().resources[0].name == "raw-cluster"
    # Beside `conf`, which 0.1.0's documentation had, the old fields are unknown ones.
    both = {**document, "conf": {"imports": ["default-proxy"]}}
    assert unknown_fields(both) == ("imports", "resources")


def mesh(**fields: Any) -> Mesh:
    return Mesh.model_validate({"name": "default", **fields})


LOGS = {
    "defaultBackend": "one",
    "backends": [
        {"name": "one", "type": "file", "conf": {"path": "/tmp/a"}},
        {"name": "two", "type": "tcp", "conf": {"address": "a:1"}},
    ],
}


@pytest.mark.parametrize(("backend", "expected"), [("", "one"), ("one", "one"), ("two", "two"), ("three", None)])
def test_a_log_comes_to_the_backend_that_it_names_or_the_default(backend: str, expected: str | None) -> None:
    log = cast(TrafficLog, parse(written("TrafficLog", f"{{conf: {{backend: '{backend}'}}}}")))
    found = log.settings_in(mesh(logging=LOGS)).backend
    assert (None if found is None else found.name) == expected
    assert log.settings_in(mesh()).backend is None
    assert log.settings_in(None).backend is None


@pytest.mark.parametrize(
    ("kind", "fields", "remark"),
    [
        ("TrafficLog", "{conf: {backend: three}}", "the mesh has no logging backend three, so nothing is logged"),
        ("TrafficLog", "{conf: {backend: two}}", "two is of the type tcp"),
        ("TrafficLog", "{}", ""),
        ("TrafficTrace", "{}", "the mesh has no default tracing backend, so nothing is traced"),
        ("ProxyTemplate", "{}", "without default-proxy"),
        ("ProxyTemplate", "{conf: {imports: [default-proxy]}}", ""),
    ],
)
def test_what_has_no_effect_is_said(kind: str, fields: str, remark: str) -> None:
    resource: Resource = parse(written(kind, fields))
    remarks = list(resource.remarks_in(mesh(logging=LOGS)))
    assert len(remarks) == bool(remark)
    assert all(remark in each for each in remarks)


def test_a_trace_comes_to_the_backend_that_it_names_or_the_default() -> None:
    tracing = {"defaultBackend": "a", "backends": [{"name": "a", "type": "zipkin"}, {"name": "b", "type": "datadog"}]}
    for backend, expected in (("", "a"), ("b", "b")):
        trace = cast(TrafficTrace, parse(written("TrafficTrace", f"{{conf: {{backend: '{backend}'}}}}")))
        found = trace.settings_in(mesh(tracing=tracing)).backend
        assert found is not None
        assert found.name == expected


def test_backends_of_another_shape_are_refused() -> None:
    backends = [
        {"name": "a", "type": "file", "conf": {"path": 5}},
        {"name": "b", "type": "zipkin", "conf": {"url": "http://z:1/", "traceId128bit": "yes"}},
    ]
    for field in ("logging", "tracing"):
        kinds = [each for each in backends if (each["type"] == "file") == (field == "logging")]
        (found,) = validate(parse({"type": "Mesh", "name": "default", field: {"backends": kinds}}))
        assert found.field == f"{field}.backends[0].config"
        assert found.message.startswith("could not parse config: ")
