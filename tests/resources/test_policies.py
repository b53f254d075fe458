"""Policies are refused in Kuma's words, come back as written, and a new mesh has those of Kuma 2.14."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests import builders

from kumafast.errors import MalformedResourceError
from kumafast.resources import initial_resources, parse, to_document, unknown_fields, validate, with_defaults

ONE_TAG = 'must consist of exactly one tag "kuma.io/service"'


def mesh_timeout(spec: str) -> dict[str, Any]:
    return {"type": "MeshTimeout", "mesh": "default", "name": "mt", "spec": yaml.safe_load(spec)}


def violations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(violation.field, violation.message) for violation in validate(parse(document))]


TO_BACKEND = "to: [{targetRef: {kind: MeshService, name: backend}, default: {idleTimeout: 1s}}]"
RULES = "rules: [{default: {connectionTimeout: 10s}}]"
FROM = "from: [{targetRef: {kind: Mesh}, default: {idleTimeout: 1s}}]"


@pytest.mark.parametrize(
    "spec",
    [
        TO_BACKEND,
        RULES,
        FROM,
        f"{{targetRef: {{kind: Mesh, proxyTypes: [Sidecar, Gateway]}}, {TO_BACKEND}}}",
        f"{{targetRef: {{kind: Dataplane}}, {TO_BACKEND}}}",
        f"{{targetRef: {{kind: Dataplane, name: web-1, sectionName: http}}, {RULES}}}",
        f"{{targetRef: {{kind: Dataplane, labels: {{team: a}}}}, {TO_BACKEND}}}",
        f"{{targetRef: {{kind: MeshSubset, tags: {{version: v1}}}}, {TO_BACKEND}}}",
        f"{{targetRef: {{kind: MeshServiceSubset, name: web, tags: {{version: v1}}}}, {TO_BACKEND}}}",
        "{targetRef: {kind: MeshGateway, name: g}, to: [{targetRef: {kind: Mesh}, default: {idleTimeout: 0s}}]}",
        "{targetRef: {kind: MeshHTTPRoute, name: r}, to: [{targetRef: {kind: Mesh}, default: "
        "{http: {requestTimeout: 1s, streamIdleTimeout: 2s}}}]}",
        "to: [{targetRef: {kind: MeshExternalService, labels: {kuma.io/display-name: b}}, default: {idleTimeout: 1s}}]",
        "rules: [{matches: [{spiffeID: {type: Exact, value: 'spiffe://a/b'}}], default: {idleTimeout: 1s}}]",
    ],
)
def test_mesh_timeouts_that_are_valid(spec: str) -> None:
    assert violations(mesh_timeout(spec)) == []


def timeout(fields: str) -> dict[str, Any]:
    return {"type": "Timeout", "mesh": "default", "name": "t", **yaml.safe_load(fields)}


ENDS = "sources: [{match: {kuma.io/service: '*'}}], destinations: [{match: {kuma.io/service: backend}}]"


def test_a_timeout_that_is_valid() -> None:
    whole = "conf: {connectTimeout: 10s, tcp: {idleTimeout: 1h}, http: {requestTimeout: 0.3s, idleTimeout: 300ms}}"
    document = timeout(f"{{{ENDS}, {whole}}}")
    assert violations(document) == []
    assert to_document(parse(document))["conf"] == {
        "connectTimeout": "10s",
        "tcp": {"idleTimeout": "3600s"},
        "http": {"requestTimeout": "0.300s", "idleTimeout": "0.300s"},
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            "{}",
            [
                ("sources", "must have at least one element"),
                ("destinations", "must have at least one element"),
                ("conf", "has to be defined"),
            ],
        ),
        (
            "{sources: [{}, {match: {version: ''}}], destinations: [{}, {match: {kuma.io/service: a, version: v1}}], "
            "conf: {}}",
            [
                ("sources[0].match", "must have at least one tag"),
                ("sources[0].match", 'mandatory tag "kuma.io/service" is missing'),
                ('sources[1].match["version"]', "tag value must be non-empty"),
                ("sources[1].match", 'mandatory tag "kuma.io/service" is missing'),
                ("destinations[0].match", ONE_TAG),
                ("destinations[0].match", 'mandatory tag "kuma.io/service" is missing'),
                ("destinations[1].match", ONE_TAG),
                ('destinations[1].match["version"]', 'tag "version" is not allowed'),
            ],
        ),
        (
            f"{{{ENDS}, conf: {{connectTimeout: 0s, tcp: {{}}, http: {{}}, grpc: {{}}}}}}",
            [
                ("conf.connectTimeout", "must have a positive value"),
                ("conf.tcp", "at least one timeout in section has to be defined"),
                ("conf.http", "at least one timeout in section has to be defined"),
                ("conf.grpc", "at least one timeout in section has to be defined"),
            ],
        ),
        (
            f"{{{ENDS}, conf: {{tcp: {{idleTimeout: -1s}}, http: {{requestTimeout: 0s, maxStreamDuration: 0s}}}}}}",
            [
                ("conf.tcp.idleTimeout", "must have a positive value"),
                ("conf.http.requestTimeout", "must have a positive value"),
                ("conf.http.maxStreamDuration", "must have a positive value"),
            ],
        ),
    ],
)
def test_timeouts_that_are_not(fields: str, expected: list[tuple[str, str]]) -> None:
    assert violations(timeout(fields)) == expected


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1h ", "１s", "1e3s", "--1s", "inf", "9" * 65 + "s", "300y"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(MalformedResourceError) as caught:
        parse(mesh_timeout(f"to: [{{targetRef: {{kind: Mesh}}, default: {{idleTimeout: '{text}'}}}}]"))
    assert [violation.field for violation in caught.value.violations] == ["spec.to[0].default.idleTimeout"]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("101s", "1m41s"),
        ("1h", "1h0m0s"),
        ("0", "0s"),
        ("+1.5h", "1h30m0s"),
        ("-1m", "-1m0s"),
        ("1500ms", "1.5s"),
        ("1.5us", "1.5µs"),
        ("2ns", "2ns"),
        (".5s", "500ms"),
        ("1h0m0.25s", "1h0m0.25s"),
    ],
)
def test_durations_are_shown_as_go_prints_them(written: str, shown: str) -> None:
    document = mesh_timeout(f"to: [{{targetRef: {{kind: Mesh}}, default: {{idleTimeout: {written!r}}}}}]")
    once = to_document(parse(document))
    assert once["spec"]["to"][0]["default"]["idleTimeout"] == shown  # type: ignore[index]
    assert to_document(parse(once)) == once


def test_unknown_fields_are_named_wherever_they_are() -> None:
    spec = "{foo: 1, to: [{bar: 2, targetRef: {kind: Mesh, baz: 3}, default: {http: {requesttimeout: 1s}}}]}"
    assert unknown_fields(mesh_timeout(spec)) == (
        "spec.foo",
        "spec.to[0].bar",
        "spec.to[0].targetRef.baz",
        "spec.to[0].default.http.requesttimeout",
    )


_EVERYTHING = {"kind": "Mesh"}
_AGAIN = {"numRetries": 5, "perTryTimeout": "16s", "backOff": {"baseInterval": "25ms", "maxInterval": "250ms"}}
_LIMITS = {"maxConnections": 1024, "maxPendingRequests": 1024, "maxRetries": 3, "maxRequests": 1024}
# As `_rules` of a 2.14.3 shows them.
_OTHER_INITIAL_POLICIES = {
    name: {"targetRef": _EVERYTHING, "to": [{"targetRef": _EVERYTHING, "default": conf}]}
    for name, conf in (
        ("mesh-circuit-breaker-all-default", {"connectionLimits": _LIMITS}),
        ("mesh-retry-all-default", {"tcp": {"maxConnectAttempt": 5}, "http": _AGAIN, "grpc": _AGAIN}),
    )
}


def test_initial_policies_are_those_of_kuma() -> None:
    made = {resource.name: resource for resource in initial_resources(builders.mesh("default"), zone="default")}
    # As GET /meshes/default/meshtimeouts of a 2.14.3 shows them.
    assert to_document(made["mesh-timeout-all-default"]) == {
        "type": "MeshTimeout",
        "mesh": "default",
        "name": "mesh-timeout-all-default",
        "labels": {
            "kuma.io/env": "universal",
            "kuma.io/mesh": "default",
            "kuma.io/origin": "zone",
            "kuma.io/zone": "default",
        },
        "spec": {
            "targetRef": {"kind": "Mesh", "proxyTypes": ["Sidecar"]},
            "to": [
                {
                    "targetRef": {"kind": "Mesh"},
                    "default": {
                        "connectionTimeout": "5s",
                        "idleTimeout": "1h0m0s",
                        "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m0s"},
                    },
                }
            ],
            "from": [
                {
                    "targetRef": {"kind": "Mesh"},
                    "default": {
                        "connectionTimeout": "10s",
                        "idleTimeout": "2h0m0s",
                        "http": {"requestTimeout": "0s", "streamIdleTimeout": "1h0m0s", "maxStreamDuration": "0s"},
                    },
                }
            ],
        },
    }
    assert to_document(made["mesh-gateways-timeout-all-default"])["spec"] == {
        "targetRef": {"kind": "Mesh", "proxyTypes": ["Gateway"]},
        "to": [
            {
                "targetRef": {"kind": "Mesh"},
                "default": {"idleTimeout": "1h0m0s", "http": {"streamIdleTimeout": "5s"}},
            }
        ],
        "from": [
            {
                "targetRef": {"kind": "Mesh"},
                "default": {
                    "idleTimeout": "5m0s",
                    "http": {"streamIdleTimeout": "5s", "requestHeadersTimeout": "500ms"},
                },
            }
        ],
    }
    assert {name: to_document(made[name])["spec"] for name in made if "timeout" not in name} == _OTHER_INITIAL_POLICIES
    for resource in made.values():
        assert validate(resource) == ()
        assert with_defaults(resource, zone="default") == resource


@pytest.mark.parametrize(
    ("skipped", "kinds"),
    [
        ([], ["MeshCircuitBreaker", "MeshRetry", "MeshTimeout", "MeshTimeout"]),
        (["*"], []),
        (["MeshTimeout"], ["MeshCircuitBreaker", "MeshRetry"]),
        (["MeshRetry", "MeshCircuitBreaker"], ["MeshTimeout", "MeshTimeout"]),
    ],
)
def test_initial_policies_can_be_declined(skipped: list[str], kinds: list[str]) -> None:
    mesh = builders.mesh("m", skipCreatingInitialPolicies=skipped)
    assert [each.type.name for each in initial_resources(mesh, zone="z")] == kinds


def test_nothing_comes_with_anything_else() -> None:
    assert initial_resources(builders.dataplane(), zone="default") == ()
