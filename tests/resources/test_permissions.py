"""Permissions of both families are refused in Kuma's words, and rules of 0.1.0 become what is nearest."""

from __future__ import annotations

from typing import Any, cast

import pytest
import yaml

from kumafast.errors import MalformedResourceError
from kumafast.resources import parse, to_document, unknown_fields, validate
from kumafast.resources.policies.traffic_permission import TrafficPermission

ONE = "must have at least one element"
ONE_TAG = "must have at least one tag"


def permission(fields: str) -> dict[str, Any]:
    return {"type": "TrafficPermission", "mesh": "default", "name": "tp", **yaml.safe_load(fields)}


def mesh_permission(spec: str) -> dict[str, Any]:
    return {"type": "MeshTrafficPermission", "mesh": "default", "name": "mtp", "spec": yaml.safe_load(spec)}


def violations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(violation.field, violation.message) for violation in validate(parse(document))]


def rule(source: str, destination: str) -> str:
    return f"{{sources: [{{match: {{service: {source}}}}}], destinations: [{{match: {{service: {destination}}}}}]}}"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("{sources: [{match: {kuma.io/zone: east}}], destinations: [{match: {kuma.io/service: '*'}}]}", []),
        ("{sources: [{match: {a: b, c: '*'}}, {match: {d: e}}], destinations: [{match: {version: v1}}]}", []),
        ("{}", [("sources", ONE), ("destinations", ONE)]),
        (
            "{sources: [{}], destinations: [{match: {}}]}",
            [("sources[0].match", ONE_TAG), ("destinations[0].match", ONE_TAG)],
        ),
        (
            "{sources: [{match: {a: ''}}], destinations: [{match: {'a b': c}}]}",
            [
                ('sources[0].match["a"]', "tag value must be non-empty"),
                (
                    'destinations[0].match["a b"]',
                    "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores",
                ),
            ],
        ),
        (f"{{rules: [{rule('a', 'b')}]}}", []),
        (f"{{rules: [{rule('a', 'b')}, {rule('c', 'd')}]}}", []),
        ("{rules: []}", [("sources", ONE), ("destinations", ONE)]),
        ("{rules: [{}]}", [("sources", ONE), ("destinations", ONE)]),
        (
            f"{{rules: [{rule('a', 'b')}, {{destinations: [{{match: {{service: b}}}}]}}]}}",
            [("rules[1].sources", ONE)],
        ),
        (
            f"{{rules: [{rule('a', 'b')}], sources: [{{match: {{a: b}}}}], destinations: [{{match: {{a: b}}}}]}}",
            [("rules", "must not be defined beside 'sources' and 'destinations'")],
        ),
    ],
)
def test_traffic_permissions(fields: str, expected: list[tuple[str, str]]) -> None:
    assert violations(permission(fields)) == expected


def test_there_is_a_bound_on_rules() -> None:
    rules = ", ".join(rule(f"a{i}", f"b{i}") for i in range(257))
    assert violations(permission(f"{{rules: [{rules}]}}")) == [("rules", "must have at most 256 elements")]


def test_one_rule_of_0_1_0_is_a_permission_of_today() -> None:
    document = permission(f"{{rules: [{rule('web', 'cart')}]}}")
    resource = cast(TrafficPermission, parse(document))
    assert to_document(resource) == {
        **permission("{sources: [{match: {kuma.io/service: web}}], destinations: [{match: {kuma.io/service: cart}}]}")
    }
    assert resource.parts == (resource,)
    assert list(resource.remarks()) == []
    assert unknown_fields(document) == ()


def test_rules_about_the_same_destination_are_one_permission() -> None:
    resource = cast(TrafficPermission, parse(permission(f"{{rules: [{rule('a', 'x')}, {rule('b', 'x')}]}}")))
    assert [dict(source.match) for source in resource.sources] == [{"kuma.io/service": "a"}, {"kuma.io/service": "b"}]
    assert [dict(each.match) for each in resource.destinations] == [{"kuma.io/service": "x"}]
    assert list(resource.remarks()) == []


def test_rules_about_the_same_source_are_one_permission() -> None:
    resource = cast(TrafficPermission, parse(permission(f"{{rules: [{rule('a', 'x')}, {rule('a', 'y')}]}}")))
    assert [dict(source.match) for source in resource.sources] == [{"kuma.io/service": "a"}]
    assert [dict(each.match) for each in resource.destinations] == [{"kuma.io/service": "x"}, {"kuma.io/service": "y"}]


def test_other_rules_stay_apart_and_are_remarked_on() -> None:
    resource = cast(TrafficPermission, parse(permission(f"{{rules: [{rule('a', 'x')}, {rule('b', 'y')}]}}")))
    assert resource.sources == ()
    pairs = [
        (part.sources[0].match["kuma.io/service"], part.destinations[0].match["kuma.io/service"])
        for part in resource.parts
    ]
    assert pairs == [("a", "x"), ("b", "y")]
    assert "only the one with the most specific destination counts" in next(iter(resource.remarks()))
    # What is read back is what is stored: translated once, and not again.
    assert parse(to_document(resource)) == resource


@pytest.mark.parametrize("rules", ["{}", "[1]", "[{sources: 1}]", "[{sources: [1]}]", "[{sources: [{match: [a]}]}]"])
def test_rules_of_the_wrong_shape_are_refused_and_not_a_failure(rules: str) -> None:
    try:
        found = violations(permission(f"{{rules: {rules}}}"))
    except MalformedResourceError as error:
        found = [(violation.field, violation.message) for violation in error.violations]
    assert found


def test_values_that_may_be_any_are_no_condition() -> None:
    fields = "{sources: [{match: {kuma.io/service: '*'}}, {match: {kuma.io/service: a, v: '*'}}], destinations: []}"
    settings = cast(TrafficPermission, parse(permission(fields))).settings()
    assert settings is not None
    assert [dict(source) for source in settings.sources] == [{}, {"kuma.io/service": "a"}]


FROM = "from: [{targetRef: {kind: Mesh}, default: {action: Allow}}]"


@pytest.mark.parametrize(
    "spec",
    [
        FROM,
        f"{{targetRef: {{kind: Dataplane, name: a, sectionName: b}}, {FROM}}}",
        "{targetRef: {kind: MeshServiceSubset, name: backend, tags: {version: v2}}, from: ["
        "{targetRef: {kind: MeshSubset, tags: {kuma.io/zone: us-east}}, default: {action: Deny}}, "
        "{targetRef: {kind: MeshService, name: backend}, default: {action: AllowWithShadowDeny}}, "
        "{targetRef: {kind: MeshServiceSubset, name: a, tags: {version: v1}}, default: {action: Deny}}]}",
        "rules: [{default: {deny: [{spiffeID: {type: Exact, value: 'spiffe://a/b'}}], "
        "allow: [{spiffeID: {type: Prefix, value: 'spiffe://a/'}, sni: {type: Exact, value: b}}, {}]}}]",
    ],
)
def test_mesh_traffic_permissions_that_are_valid(spec: str) -> None:
    assert violations(mesh_permission(spec)) == []
