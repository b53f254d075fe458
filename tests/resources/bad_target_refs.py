"""MeshTimeouts and MeshTrafficPermissions that must be refused, and with what.

In: nothing. Out: `BAD_TARGET_REFS`, in the form of `BAD_DOCUMENTS`. Never: policies that are merely unusual.
"""

from __future__ import annotations

from typing import Any

import yaml
from tests.resources.document_forms import LIST, OBJECT, BadDocument, invalid, malformed

AT_LEAST_ONE = "at least one of 'from', 'to' or 'rules' has to be defined"
NOT_BESIDE_RULES = "fields 'to' and 'from' must be empty when 'rules' is defined"
OF_A_ROUTE = "can't be specified when top-level TargetRef is referencing MeshHTTPRoute"
NO_KIND = "value is not supported"
NO_ACTION = "at least one of 'from' or 'rules' has to be defined"
NO_LIST = "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined"
BAD_SCHEME = "must be a valid Spiffe ID: scheme is missing or invalid"
TAG_VALUE = "tag value must consist of alphanumeric characters, dots, dashes and underscores"

TO = "to: [{targetRef: {kind: MeshService, name: backend}, default: {idleTimeout: 1s}}]"
RULES = "rules: [{default: {connectionTimeout: 10s}}]"
FROM = "from: [{targetRef: {kind: Mesh}, default: {idleTimeout: 1s}}]"
ALLOW = "from: [{targetRef: {kind: Mesh}, default: {action: Allow}}]"


def timeout(spec: str) -> dict[str, Any]:
    """A MeshTimeout; the spec as a user writes it."""
    return {"type": "MeshTimeout", "mesh": "default", "name": "mt", "spec": yaml.safe_load(spec)}


def permission(spec: str) -> dict[str, Any]:
    """A MeshTrafficPermission; the spec as a user writes it."""
    return {"type": "MeshTrafficPermission", "mesh": "default", "name": "mtp", "spec": yaml.safe_load(spec)}


def _top(ref: str, *violations: tuple[str, str]) -> BadDocument:
    """A MeshTimeout for whom nobody can be."""
    placed = ((f"spec.targetRef.{field}", message) for field, message in violations)
    return invalid(f"mesh-timeout-for-{ref}", timeout(f"{{targetRef: {{{ref}}}, {TO}}}"), *placed)


_TIMEOUTS: list[BadDocument] = [
    invalid("mesh-timeout-empty", timeout("{}"), ("spec", AT_LEAST_ONE)),
    invalid("mesh-timeout-nothing-said", timeout("targetRef: {kind: Mesh}"), ("spec", AT_LEAST_ONE)),
    invalid("mesh-timeout-rules-and-to", timeout(f"{{{RULES}, {TO}}}"), ("spec", NOT_BESIDE_RULES)),
    invalid("mesh-timeout-rules-and-from", timeout(f"{{{RULES}, {FROM}}}"), ("spec", NOT_BESIDE_RULES)),
    _top("kind: Blah", ("kind", NO_KIND)),
    _top("", ("kind", "must be defined")),
    _top(
        "kind: Mesh, name: a, tags: {b: c}, sectionName: d",
        ("name", "using name with kind Mesh is not yet supported"),
        ("tags", "must not be set with kind Mesh"),
        ("sectionName", "must not be set with kind Mesh"),
    ),
    _top(
        "kind: MeshSubset, name: a, tags: {version: '*'}",
        ("name", "must not be set with kind MeshSubset"),
        ('tags["version"]', TAG_VALUE),
    ),
    _top(
        "kind: Dataplane, name: a, labels: {b: c}, sectionName: d",
        ("labels", "either labels or name and namespace must be specified"),
        ("sectionName", "can only be used with inbound policies"),
    ),
    _top(
        "kind: MeshService, proxyTypes: [Sidecar]",
        ("proxyTypes", "must not be set with kind MeshService"),
        ("name", "must be set with kind MeshService"),
    ),
    invalid(
        "mesh-timeout-from-a-route",
        timeout("from: [{targetRef: {kind: MeshGatewayRoute}, default: {http: {requestTimeout: 1s}}}]"),
        ("spec.from[0].targetRef.kind", NO_KIND),
    ),
    invalid(
        "mesh-timeout-to-a-subset",
        timeout("to: [{targetRef: {kind: MeshServiceSubset}, default: {http: {requestTimeout: 1s}}}]"),
        ("spec.to[0].targetRef.kind", NO_KIND),
    ),
    invalid(
        "mesh-timeout-no-timeout",
        timeout("to: [{targetRef: {kind: MeshService, name: b}}]"),
        ("spec.to[0].default", "at least one timeout should be configured"),
    ),
    invalid(
        "mesh-timeout-empty-section",
        timeout("to: [{targetRef: {kind: MeshService, name: b}, default: {http: {}}}]"),
        ("spec.to[0].default.http", "at least one timeout in this section should be configured"),
    ),
    invalid(
        "mesh-timeout-negative",
        timeout(
            "to: [{targetRef: {kind: Mesh}, default: {connectionTimeout: -1s, idleTimeout: -1s, "
            "http: {requestTimeout: -10s}}}]"
        ),
        ("spec.to[0].default.connectionTimeout", "must be greater than zero when defined"),
        ("spec.to[0].default.idleTimeout", "must not be negative when defined"),
        ("spec.to[0].default.http.requestTimeout", "must not be negative when defined"),
    ),
    invalid(
        "mesh-timeout-of-a-route",
        timeout(
            "{targetRef: {kind: MeshHTTPRoute, name: r}, to: [{targetRef: {kind: MeshService, name: b}, default: "
            "{connectionTimeout: 10s, idleTimeout: 1h, http: {requestTimeout: 1s, maxStreamDuration: 1h, "
            "maxConnectionDuration: 1h}}}], from: [{targetRef: {kind: Mesh}, default: {connectionTimeout: 11s}}]}"
        ),
        ("spec.from", "must not be defined"),
        ("spec.to[0].targetRef.kind", NO_KIND),
        ("spec.to[0].default.connectionTimeout", OF_A_ROUTE),
        ("spec.to[0].default.idleTimeout", OF_A_ROUTE),
        ("spec.to[0].default.http.maxStreamDuration", OF_A_ROUTE),
        ("spec.to[0].default.http.maxConnectionDuration", OF_A_ROUTE),
    ),
    invalid(
        "mesh-timeout-name-and-labels",
        timeout("to: [{targetRef: {kind: MeshExternalService, name: b, labels: {a: b}}, default: {idleTimeout: 1h}}]"),
        ("spec.to[0].targetRef.labels", "either labels or name must be specified"),
    ),
    invalid(
        "mesh-timeout-match",
        timeout("rules: [{matches: [{spiffeID: {type: Exact, value: a}, sni: {}}], default: {idleTimeout: 1s}}]"),
        ("spec.rules[0].matches[0].spiffeID", BAD_SCHEME),
        ("spec.rules[0].matches[0].sni.type", "must be set"),
        ("spec.rules[0].matches[0].sni.value", "must be set"),
    ),
    malformed("mesh-timeout-to-object", timeout("to: {}"), ("spec.to", LIST)),
    malformed("mesh-timeout-spec-list", timeout("[]"), ("spec", OBJECT)),
]

_PERMISSIONS: list[BadDocument] = [
    invalid("mesh-permission-empty", permission("{}"), ("spec", NO_ACTION)),
    invalid(
        "mesh-permission-section",
        permission("{targetRef: {kind: Dataplane, sectionName: test}, to: []}"),
        ("spec.targetRef.sectionName", "can only be used with inbound policies"),
        ("spec", NO_ACTION),
    ),
    invalid(
        "mesh-permission-from-and-rules",
        permission(f"{{{ALLOW}, rules: [{{default: {{allow: [{{}}]}}}}]}}"),
        ("spec", "field 'from' must be empty when 'rules' is defined"),
    ),
    *(
        invalid(
            f"mesh-permission-for-{kind}",
            permission(f"{{targetRef: {{kind: {kind}, name: a}}, {ALLOW}}}"),
            ("spec.targetRef.kind", NO_KIND),
        )
        for kind in ("MeshGateway", "MeshHTTPRoute")
    ),
    *(
        invalid(
            f"mesh-permission-from-{kind}",
            permission(f"from: [{{targetRef: {{kind: {kind}, name: r}}, default: {{action: Allow}}}}]"),
            ("spec.from[0].targetRef.kind", NO_KIND),
        )
        for kind in ("MeshHTTPRoute", "MeshExternalService")
    ),
    invalid(
        "mesh-permission-to",
        permission(f"{{{ALLOW}, to: [{{targetRef: {{kind: Mesh}}, default: {{action: Allow}}}}]}}"),
        ("spec.to", "must not be defined"),
    ),
    invalid(
        "mesh-permission-no-action",
        permission("from: [{targetRef: {kind: Mesh}}]"),
        ("spec.from[0].default.action", "must be defined"),
    ),
    invalid("mesh-permission-empty-list", permission("rules: [{default: {deny: []}}]"), ("spec.rules[0]", NO_LIST)),
    invalid(
        "mesh-permission-lists",
        permission(
            "rules: [{default: {deny: [{spiffeID: {type: Exact, value: some}}], allow: [{sni: {type: Exact}}], "
            "allowWithShadowDeny: [{spiffeID: {type: Exact, value: test}}]}}]"
        ),
        ("spec.rules[0].allow[0].sni.value", "must be set"),
        ("spec.rules[0].allowWithShadowDeny[0].spiffeID", BAD_SCHEME),
        ("spec.rules[0].deny[0].spiffeID", BAD_SCHEME),
    ),
    invalid(
        "mesh-permission-match",
        permission("rules: [{default: {allow: [{spiffeID: {value: 'spiffe://a/b,spiffe://c'}}]}, matches: [{}]}]"),
        ("spec.rules[0].matches", "must not be defined"),
        ("spec.rules[0].allow[0].spiffeID.type", "must be set"),
        (
            "spec.rules[0].allow[0].spiffeID",
            "must be a valid Spiffe ID: characters are limited to letters, numbers, dots, dashes, colons and "
            "underscores, in segments divided by slashes",
        ),
    ),
    malformed("mesh-permission-from-text", permission("from: everybody"), ("spec.from", LIST)),
    malformed(
        "mesh-permission-allow-object",
        permission("rules: [{default: {allow: {}}}]"),
        ("spec.rules[0].default.allow", LIST),
    ),
]

BAD_TARGET_REFS: list[BadDocument] = [*_TIMEOUTS, *_PERMISSIONS]
