"""Which nodes CSDS is asked about: every form of a matcher, and those that are refused."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.type.matcher.v3 import node_pb2
from google.protobuf import json_format

from kumafast.snapshot.node import Node
from kumafast.stream.node_matcher import MatcherError, node_predicate

NODE = Node(
    "default.web-1",
    metadata={"zone": "East", "dp": {"port": 8080.0, "on": True, "none": None}, "features": ["a", "b"]},
)


def is_meant(*matchers: dict[str, Any]) -> bool:
    parsed = [json_format.ParseDict(matcher, node_pb2.NodeMatcher()) for matcher in matchers]
    return node_predicate(parsed)(NODE)


def metadata(value: dict[str, Any], *path: str) -> dict[str, Any]:
    return {"path": [{"key": key} for key in path], "value": value}


@pytest.mark.parametrize(
    ("matcher", "expected"),
    [
        ({"exact": "default.web-1"}, True),
        ({"exact": "default.web"}, False),
        ({"prefix": "default."}, True),
        ({"prefix": "Default."}, False),
        ({"prefix": "Default.", "ignoreCase": True}, True),
        ({"suffix": "-1"}, True),
        ({"suffix": "-2"}, False),
        ({"contains": "WEB", "ignoreCase": True}, True),
        ({"contains": "db"}, False),
    ],
)
def test_ids(matcher: dict[str, Any], expected: bool) -> None:
    assert is_meant({"nodeId": matcher}) is expected


@pytest.mark.parametrize(
    ("matcher", "expected"),
    [
        (metadata({"stringMatch": {"exact": "East"}}, "zone"), True),
        (metadata({"stringMatch": {"exact": "East"}}, "dp"), False),
        (metadata({"doubleMatch": {"exact": 8080}}, "dp", "port"), True),
        (metadata({"doubleMatch": {"range": {"start": 8080, "end": 8081}}}, "dp", "port"), True),
        (metadata({"doubleMatch": {"range": {"start": 8079, "end": 8080}}}, "dp", "port"), False),
        (metadata({"doubleMatch": {"exact": 1}}, "dp", "on"), False),
        (metadata({"boolMatch": True}, "dp", "on"), True),
        (metadata({"boolMatch": False}, "dp", "on"), False),
        (metadata({"nullMatch": {}}, "dp", "none"), True),
        (metadata({"nullMatch": {}}, "dp", "absent"), False),
        (metadata({"presentMatch": True}, "dp", "none"), True),
        (metadata({"presentMatch": True}, "dp", "absent"), False),
        (metadata({"presentMatch": False}, "zone", "absent"), True),
        (metadata({"listMatch": {"oneOf": {"stringMatch": {"exact": "b"}}}}, "features"), True),
        (metadata({"listMatch": {"oneOf": {"stringMatch": {"exact": "c"}}}}, "features"), False),
        (metadata({"orMatch": {"valueMatchers": [{"boolMatch": True}, {"nullMatch": {}}]}}, "dp", "on"), True),
        (metadata({"orMatch": {"valueMatchers": [{"boolMatch": False}, {"nullMatch": {}}]}}, "dp", "on"), False),
    ],
)
def test_metadata(matcher: dict[str, Any], expected: bool) -> None:
    assert is_meant({"nodeMetadatas": [matcher]}) is expected


def test_one_of_the_matchers_with_all_its_parts() -> None:
    here, there = {"nodeId": {"exact": "default.web-1"}}, {"nodeId": {"exact": "x"}}
    on, off = (metadata({"boolMatch": value}, "dp", "on") for value in (True, False))
    assert is_meant()
    assert is_meant({})
    assert is_meant(there, here)
    assert not is_meant(there)
    assert is_meant({**here, "nodeMetadatas": [on, on]})
    assert not is_meant({**here, "nodeMetadatas": [on, off]})
    assert not is_meant({**there, "nodeMetadatas": [on]})


@pytest.mark.parametrize(
    ("matcher", "message"),
    [
        ({"nodeId": {"safeRegex": {"regex": "(a+)+$"}}}, "by safe_regex is not served; use exact"),
        ({"nodeId": {}}, "by nothing is not served"),
        ({"nodeMetadatas": [metadata({"boolMatch": True})]}, "must have a path"),
        ({"nodeMetadatas": [metadata({}, "zone")]}, "must say what it matches"),
    ],
)
def test_what_is_refused(matcher: dict[str, Any], message: str) -> None:
    with pytest.raises(MatcherError, match=message):
        is_meant(matcher)
