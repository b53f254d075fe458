"""MeshProxyPatch is refused in Kuma's words and comes back as written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kumafast.resources import parse, to_document, unknown_fields, validate

OF_CLUSTERS = 'invalid operation. Available operations: "Add", "Patch", "Remove"'
OF_FILTERS = (
    'invalid operation. Available operations: "AddFirst", "AddLast", "AddBefore", "AddAfter", "Patch", "Remove"'
)
PICK = "must be defined. You need to pick a filter {} which this one will be added"
DEFINED, NOT_DEFINED = "must be defined", "must not be defined"
OPS = '"op" must be one of ["add", "remove", "replace", "move", "copy"]'


def patch(*modifications: Any) -> dict[str, Any]:
    spec = {"targetRef": {"kind": "Mesh"}, "default": {"appendModifications": list(modifications)}}
    return {"type": "MeshProxyPatch", "mesh": "default", "name": "p", "spec": spec}


def violations(*modifications: Any) -> list[tuple[str, str]]:
    prefix = "spec.default.appendModifications"
    return [(each.field.removeprefix(prefix), each.message) for each in validate(parse(patch(*modifications)))]


ALL_OF_IT = """
- cluster: {operation: Add, value: "{name: a, type: STATIC}"}
- cluster: {operation: Patch, match: {origin: outbound, name: a}, value: "connectTimeout: 1s"}
- listener: {operation: Remove, match: {tags: {kuma.io/service: a}}}
- networkFilter: {operation: AddFirst, value: "name: envoy.filters.network.echo"}
- httpFilter: {operation: Patch, match: {name: a, listenerTags: {x: y}},
    jsonPatches: [{op: add, path: /a, value: {b: [1, "2"]}}, {op: move, from: /b, path: /c}]}
- virtualHost: {operation: Add, match: {routeConfigurationName: r}, value: "{name: v, domains: ['*']}"}
"""


def test_what_is_valid_comes_back_as_written() -> None:
    document = patch(*yaml.safe_load(ALL_OF_IT))
    assert violations(*yaml.safe_load(ALL_OF_IT)) == []
    assert unknown_fields(document) == ()
    assert to_document(parse(document)) == document


def test_says_something_and_one_thing_at_a_time() -> None:
    assert violations() == [("", "must not be empty")]
    both = {"cluster": {"operation": "Remove"}, "listener": {"operation": "Remove"}}
    message = "exactly one modification can be defined at a time. Currently, {} modifications are defined"
    assert violations(both, {}) == [("[0]", message.format(2)), ("[1]", message.format(0))]


@pytest.mark.parametrize(
    ("modification", "expected"),
    [
        ("cluster: {operation: add}", [(".cluster.operation", OF_CLUSTERS)]),
        ("virtualHost: {operation: AddFirst}", [(".virtualHost.operation", OF_CLUSTERS)]),
        ("networkFilter: {operation: Add}", [(".networkFilter.operation", OF_FILTERS)]),
        (
            "cluster: {operation: Add, match: {name: a}}",
            [(".cluster.match", NOT_DEFINED), (".cluster.value", DEFINED)],
        ),
        (
            "virtualHost: {operation: Add, match: {name: a}, value: '{name: v, domains: [a]}'}",
            [(".virtualHost.match.name", NOT_DEFINED)],
        ),
        ("listener: {operation: Remove, value: 'name: a'}", [(".listener.value", NOT_DEFINED)]),
        (
            "httpFilter: {operation: AddBefore, value: 'name: a'}",
            [(".httpFilter.match.name", PICK.format("before"))],
        ),
        (
            "httpFilter: {operation: AddAfter, match: {}, value: 'name: a'}",
            [(".httpFilter.match.name", PICK.format("after"))],
        ),
        (
            "networkFilter: {operation: Patch}",
            [
                (".networkFilter.match.name", DEFINED),
                (".networkFilter", "networkFilter must have exactly one defined: value, jsonPatches"),
            ],
        ),
        (
            "cluster: {operation: Patch, value: 'name: a', jsonPatches: [{op: remove, path: /a}]}",
            [(".cluster", "cluster must have only one type defined: value, jsonPatches")],
        ),
        (
            "cluster: {operation: Patch, jsonPatches: [{op: test, path: /a}, {op: remove, path: /}, {op: add}, "
            "{op: copy, path: /a, value: 1}]}",
            [
                (".cluster.jsonPatches[0].op", OPS),
                (".cluster.jsonPatches[1].path", "root path cannot be removed"),
                (
                    ".cluster.jsonPatches[2].value",
                    '"value" must not be empty when "op" is one of ["add", "replace"]',
                ),
                (".cluster.jsonPatches[2].path", DEFINED),
                (".cluster.jsonPatches[3].from", '"from" must not be empty when "op" is one of ["move", "copy"]'),
                (".cluster.jsonPatches[3].value", '"value" is allowed only when "op" is one of ["add", "replace"]'),
            ],
        ),
    ],
)
def test_what_is_refused(modification: str, expected: list[tuple[str, str]]) -> None:
    assert violations(yaml.safe_load(modification)) == [(f"[0]{field}", message) for field, message in expected]


def test_values_are_messages_of_envoy() -> None:
    ((field, message),) = violations({"cluster": {"operation": "Patch", "value": "noSuchField: 1"}})
    assert field == "[0].cluster.value"
    assert message.startswith("native Envoy resource is not valid: ")
    ((_, message),) = violations({"cluster": {"operation": "Add", "value": "type: STATIC"}})
    assert message == "native Envoy resource is not valid: invalid Cluster.Name: value length must be at least 1 runes"
