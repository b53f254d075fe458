"""JSON patches as RFC 6902 has them, and what Kuma's library does beyond it."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from kumafast.errors import ModificationError
from kumafast.generation.json_patch import patch_message, patched


def op(kind: str, path: str, **rest: Any) -> dict[str, Any]:
    return {"op": kind, "path": path, **{key.rstrip("_"): value for key, value in rest.items()}}


@pytest.mark.parametrize(
    ("before", "operations", "after"),
    [
        # The examples of RFC 6902, appendix A, of operations that there are.
        ({"foo": "bar"}, [op("add", "/baz", value="qux")], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, [op("add", "/foo/1", value="qux")], {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [op("remove", "/baz")], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [op("remove", "/foo/1")], {"foo": ["bar", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [op("replace", "/baz", value="boo")], {"baz": "boo", "foo": "bar"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [op("move", "/qux/thud", from_="/foo/waldo")],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            [op("move", "/foo/3", from_="/foo/1")],
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        ({"foo": "bar"}, [op("add", "/child", value={"grandchild": {}})], {"foo": "bar", "child": {"grandchild": {}}}),
        ({"/": 9, "~1": 10}, [op("replace", "/~01", value=1), op("replace", "/~1", value=2)], {"/": 2, "~1": 1}),
        ({"foo": ["bar"]}, [op("add", "/foo/-", value=["abc", "def"])], {"foo": ["bar", ["abc", "def"]]}),
        ({"a": 1}, [op("replace", "", value={"b": 2})], {"b": 2}),
        ({"a": {"b": 1}}, [op("copy", "/c", from_="/a"), op("add", "/a/b", value=2)], {"a": {"b": 2}, "c": {"b": 1}}),
        # And beyond it.
        ({}, [op("remove", "/not/there")], {}),
        ({}, [op("add", "/a/b", value=1)], {"a": {"b": 1}}),
        ({}, [op("add", "/a/-", value=1), op("add", "/b/0/c", value=2)], {"a": [1], "b": [{"c": 2}]}),
        ({"a": [1, 2, 3]}, [op("remove", "/a/-1"), op("replace", "/a/-1", value=9)], {"a": [1, 9]}),
    ],
)
def test_operations_do_what_they_say(before: Any, operations: list[dict[str, Any]], after: Any) -> None:
    assert patched(before, operations) == after


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (op("replace", "/b", value=1), "there is nothing at /b"),
        (op("copy", "/c", from_="/b"), "there is nothing at /b"),
        (op("add", "/list/3", value=1), "/list/3 is beyond the end of its list"),
        (op("add", "/list/x", value=1), "x in /list/x is no index of a list"),
        (op("add", "/text/a", value=1), "/text/a leads through a value that has no parts"),
        (op("add", "a", value=1), "a is no JSON pointer: it must begin with a slash"),
    ],
)
def test_what_cannot_be_done_is_told(operation: dict[str, Any], message: str) -> None:
    with pytest.raises(ModificationError) as caught:
        patched({"list": [1], "text": "x"}, [operation])
    assert str(caught.value) == message


def test_a_value_is_not_shared_between_what_it_is_put_into() -> None:
    value = {"a": [1]}
    both = patched({}, [op("add", "/x", value=value), op("add", "/y", value=value), op("add", "/x/a/-", value=2)])
    assert (both, value) == ({"x": {"a": [1, 2]}, "y": {"a": [1]}}, {"a": [1]})


def test_a_message_is_changed_or_nothing_is() -> None:
    cluster = cluster_pb2.Cluster(name="a", connect_timeout={"seconds": 1})
    patch_message(cluster, [op("replace", "/connectTimeout", value="0.5s"), op("add", "/lbPolicy", value="RANDOM")])
    assert (cluster.connect_timeout.nanos, cluster.lb_policy) == (500_000_000, cluster_pb2.Cluster.RANDOM)
    before = cluster.SerializeToString(deterministic=True)
    with pytest.raises(ModificationError, match="what the patch makes is no Cluster"):
        patch_message(cluster, [op("add", "/noSuchField", value=1)])
    assert cluster.SerializeToString(deterministic=True) == before
