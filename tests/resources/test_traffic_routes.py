"""Routes are refused in Kuma's words, each with all that is wrong with it, and come back as written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kumafast.errors import MalformedResourceError
from kumafast.resources import Mesh, initial_resources, parse, to_document, validate

ONE_TAG = 'must consist of exactly one tag "kuma.io/service"'
NO_SERVICE = 'mandatory tag "kuma.io/service" is missing'
EITHER = 'requires either "destination" or "split"'
NO_MATCH = 'must be present and contain at least one of the elements: "method", "path" or "headers"'
NO_TEXT = 'cannot be empty. Available options: "exact", "split" or "regex"'
NOT_HOST = "host header and HTTP/2 pseudo-headers are not allowed to be modified"
EVERYTHING = {"match": {"kuma.io/service": "*"}}

WHOLE = """
loadBalancer: {ringHash: {hashFunction: MURMUR_HASH_2, minRingSize: 64, maxRingSize: 1024}}
split:
- {weight: 90, destination: {kuma.io/service: backend, version: "1"}}
- {weight: 0, destination: {kuma.io/service: backend, version: "*"}}
http:
- match: {method: {exact: GET}, path: {prefix: /v2}, headers: {x-b: {regex: "a+"}, x-a: {exact: ""}}}
  modify:
    path: {rewritePrefix: /v1}
    host: {fromPath: {pattern: "^/(.*)", substitution: "\\\\1"}}
    requestHeaders: {add: [{name: x, value: "1", append: true}], remove: [{name: y}]}
    responseHeaders: {remove: [{name: z}]}
  destination: {kuma.io/service: other}
- match: {path: {regex: "/.*"}}
  modify: {path: {regex: {pattern: a, substitution: b}}, host: {value: example.com}}
  split: [{weight: 1, destination: {kuma.io/service: other}}]
"""


def route(conf: str, **over: Any) -> dict[str, Any]:
    document = {"type": "TrafficRoute", "mesh": "default", "name": "r"}
    ends = {"sources": [EVERYTHING], "destinations": [EVERYTHING]}
    return {**document, **ends, "conf": yaml.safe_load(conf), **over}


def violations(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(violation.field, violation.message) for violation in validate(parse(document))]


def test_a_route_with_everything_is_valid_and_comes_back_as_written() -> None:
    document = route(WHOLE)
    assert violations(document) == []
    resource = parse(document)
    again = parse(to_document(resource))
    assert again == resource
    assert hash(again) == hash(resource)
    written: Any = to_document(resource)
    assert written["conf"]["split"] == document["conf"]["split"]
    assert list(written["conf"]["http"][0]["match"]["headers"]) == ["x-a", "x-b"]


def _http(rule: str) -> str:
    return f"{{destination: {{kuma.io/service: a}}, http: [{rule}]}}"


TO_A = "destination: {kuma.io/service: a}"
MATCHED = "match: {path: {exact: /}}"


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ("null", [("conf", "cannot be empty")]),
        ("{}", [("conf", EITHER)]),
        ("{split: []}", [("conf.split", "must have at least one element")]),
        (
            "{split: [], destination: {}}",
            [
                ("conf", '"split" cannot be defined at the same time as "destination"'),
                ("conf.split", "must have at least one element"),
                ("conf.destination", "must have at least one tag"),
                ("conf.destination", NO_SERVICE),
            ],
        ),
        (
            "{split: [{destination: {}}, {weight: 0, destination: {kuma.io/service: '', region: a b}}]}",
            [
                ("conf.split[0].weight", "needs to be defined"),
                ("conf.split[0].destination", "must have at least one tag"),
                ("conf.split[0].destination", NO_SERVICE),
                ('conf.split[1].destination["kuma.io/service"]', "tag value must be non-empty"),
                (
                    'conf.split[1].destination["region"]',
                    "tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores "
                    'or be "*"',
                ),
                ("conf.split", "there must be at least one split entry with weight above 0"),
            ],
        ),
        (
            "{split: [{weight: 4294967295, destination: {kuma.io/service: a}}, "
            "{weight: 1, destination: {kuma.io/service: b}}]}",
            [("conf.split", "the weights must not add up to more than 4294967295")],
        ),
        (_http("{}"), [("conf.http[0].match", NO_MATCH), ("conf.http[0]", EITHER)]),
        (_http(f"{{match: {{}}, {TO_A}}}"), [("conf.http[0].match", NO_MATCH)]),
        (
            _http(f"{{match: {{method: {{}}, path: {{prefix: ''}}, headers: {{'': {{regex: ''}}}}}}, {TO_A}}}"),
            [
                ("conf.http[0].match.method", NO_TEXT),
                ("conf.http[0].match.path.prefix", "cannot be empty"),
                ('conf.http[0].match.headers[""]', "cannot be empty"),
                ('conf.http[0].match.headers[""].regex', "cannot be empty"),
            ],
        ),
        (
            _http(f"{{match: {{headers: {{}}}}, {TO_A}}}"),
            [("conf.http[0].match.headers", "must contain at least one element")],
        ),
        (
            _http(f"{{match: {{path: {{prefix: /, exact: /}}}}, {TO_A}}}"),
            [("conf.http[0].match.path", 'only one of "prefix" and "exact" can be set')],
        ),
        (
            _http(f"{{{MATCHED}, modify: {{path: {{}}, host: {{}}}}, {TO_A}}}"),
            [
                ("conf.http[0].modify.path", 'either "rewritePrefix" or "regex" has to be set'),
                ("conf.http[0].modify.host", 'either "value" or "fromPath" has to be set'),
            ],
        ),
        (
            _http(f"{{{MATCHED}, modify: {{path: {{rewritePrefix: /b}}, host: {{value: ''}}}}, {TO_A}}}"),
            [
                (
                    "conf.http[0].modify.path.rewritePrefix",
                    "can only be set when .http.match.path.prefix is not empty",
                ),
                ("conf.http[0].modify.host.value", "cannot be empty"),
            ],
        ),
        (
            _http(f"{{{MATCHED}, modify: {{path: {{rewritePrefix: ''}}, host: {{fromPath: {{}}}}}}, {TO_A}}}"),
            [
                ("conf.http[0].modify.path.rewritePrefix", "cannot be empty"),
                ("conf.http[0].modify.host.fromPath.pattern", "cannot be empty"),
                ("conf.http[0].modify.host.fromPath.substitution", "cannot be empty"),
            ],
        ),
        (
            _http(f"{{{MATCHED}, modify: {{path: {{regex: {{}}}}}}, {TO_A}}}"),
            [
                ("conf.http[0].modify.path.regex.pattern", "cannot be empty"),
                ("conf.http[0].modify.path.regex.substitution", "cannot be empty"),
            ],
        ),
        (
            _http(
                f"{{{MATCHED}, modify: {{requestHeaders: {{add: [{{}}, {{name: Host, value: a}}]}}, "
                f"responseHeaders: {{remove: [{{}}, {{name: ':path'}}]}}}}, {TO_A}}}"
            ),
            [
                ("conf.http[0].modify.requestHeaders.add[0].name", "cannot be empty"),
                ("conf.http[0].modify.requestHeaders.add[0].value", "cannot be empty"),
                ("conf.http[0].modify.requestHeaders.add[1].name", NOT_HOST),
                ("conf.http[0].modify.responseHeaders.remove[0].name", "cannot be empty"),
                ("conf.http[0].modify.responseHeaders.remove[1].name", NOT_HOST),
            ],
        ),
        (
            f"{{{TO_A}, loadBalancer: {{leastRequest: {{choiceCount: 1}}}}}}",
            [("conf.loadBalancer.leastRequest.choiceCount", "value must be greater than or equal to 2")],
        ),
        (
            f"{{{TO_A}, loadBalancer: {{random: {{}}, ringHash: {{minRingSize: 9, maxRingSize: 8}}}}}}",
            [
                ("conf.loadBalancer", 'only one of "ringHash" and "random" can be set'),
                ("conf.loadBalancer.ringHash.hashFunction", "must have a valid hash function"),
                ("conf.loadBalancer.ringHash.minRingSize", "must not be greater than maxRingSize"),
            ],
        ),
        (
            f"{{{TO_A}, loadBalancer: {{ringHash: {{hashFunction: XX_HASH, minRingSize: 8388609}}}}}}",
            [("conf.loadBalancer.ringHash.minRingSize", "value must be less than or equal to 8388608")],
        ),
    ],
)
def test_confs_that_are_not_valid(conf: str, expected: list[tuple[str, str]]) -> None:
    assert violations(route(conf)) == expected


def test_selectors_that_are_not_valid() -> None:
    document = route("{}", sources=[{"match": {}}], destinations=[{"match": {"kuma.io/service": "a", "region": "b"}}])
    assert violations(document) == [
        ("sources[0].match", "must have at least one tag"),
        ("sources[0].match", NO_SERVICE),
        ("destinations[0].match", ONE_TAG),
        ('destinations[0].match["region"]', 'tag "region" is not allowed'),
        ("conf", EITHER),
    ]
    empty = {"type": "TrafficRoute", "mesh": "default", "name": "r"}
    at_least_one = "must have at least one element"
    assert violations(empty) == [
        ("sources", at_least_one),
        ("destinations", at_least_one),
        ("conf", "cannot be empty"),
    ]


@pytest.mark.parametrize("weight", ["1", 1.5, -1, 4294967296, True])
def test_a_weight_is_a_whole_number_of_32_bits(weight: object) -> None:
    conf = {"split": [{"weight": weight, "destination": {"kuma.io/service": "a"}}]}
    document = {**route("{}"), "conf": conf}
    with pytest.raises(MalformedResourceError) as refused:
        parse(document)
    assert [violation.field for violation in refused.value.violations] == ["conf.split[0].weight"]


def test_a_new_mesh_is_routed_and_permitted_only_where_that_is_asked_for() -> None:
    mesh = Mesh(name="m")
    plain = {resource.key for resource in initial_resources(mesh, zone="z")}
    asked = {resource.key: resource for resource in initial_resources(mesh, zone="z", routes=True)}
    added = asked.keys() - plain
    assert {(key.type, key.name) for key in added} == {
        ("TrafficRoute", "route-all-m"),
        ("TrafficPermission", "allow-all-m"),
    }
    assert all(validate(resource) == () for resource in asked.values())
    skipping = mesh.model_copy(update={"skip_creating_initial_policies": ("TrafficRoute",)})
    left = {key.type for key in (resource.key for resource in initial_resources(skipping, zone="z", routes=True))}
    assert "TrafficRoute" not in left
    assert "TrafficPermission" in left
    nothing = mesh.model_copy(update={"skip_creating_initial_policies": ("*",)})
    assert initial_resources(nothing, zone="z", routes=True) == ()
