"""Merging is RFC 7396, associative over what policies can say; weights order policies as the contract compares them."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from tests.matching.policy_worlds import EPOCH, mesh_timeouts
from tests.oracles import policies_naive

from kumafast.matching import CompiledPolicy, compile_policy, connection, selection
from kumafast.matching.merge import merge
from kumafast.matching.rules import inbound_rules
from kumafast.resources import Resource, parse
from kumafast.resources.fields import thaw
from kumafast.resources.target_ref_policy import TargetRefPolicy

WEB = {"kuma.io/service": "web"}

_numbers = st.integers(-9, 9)
_keys = st.sampled_from(["a", "b", "http"])
_values = st.one_of(_numbers, st.text("abc", max_size=3), st.lists(_numbers, max_size=2))
_confs: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(_keys, _values, max_size=3),
    lambda inner: st.dictionaries(_keys, _values | inner, max_size=3),
    max_leaves=8,
)
_with_nulls: st.SearchStrategy[dict[str, Any]] = st.dictionaries(_keys, st.none() | _values | _confs, max_size=3)


@given(st.lists(_with_nulls, max_size=4))
def test_it_is_rfc_7396(confs: list[dict[str, Any]]) -> None:
    assert thaw(merge(confs)) == policies_naive.merged(confs)


# A field of a typed conf is an object in all confs or in none: RFC 7396 is associative over these alone.
_typed = st.fixed_dictionaries(
    {},
    optional={
        "idle": _values,
        "appendMatch": st.lists(_numbers, max_size=2),
        "http": st.fixed_dictionaries({}, optional={"request": _values, "on": st.dictionaries(_keys, _numbers)}),
    },
)


@given(_typed, _typed, _typed)
def test_it_is_associative(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    assert merge([merge([one, two]), three]) == merge([one, merge([two, three])]) == merge([one, two, three])


def test_lists_that_are_appended() -> None:
    first = {"appendMatch": [1], "nested": {"appendModifications": [{"a": 1}]}, "list": [1]}
    second = {"appendMatch": [2], "nested": {"appendModifications": [{"b": 2}]}, "list": [2]}
    assert thaw(merge([first, second])) == {
        "appendMatch": [1, 2],
        "nested": {"appendModifications": [{"a": 1}, {"b": 2}]},
        "list": [2],
    }


def test_of_policies_one_wins_by_rank_then_time_then_name() -> None:
    def policy(name: str, *, hours: int) -> CompiledPolicy:
        written = parse({"type": "Timeout", "mesh": "default", "name": name})
        return compile_policy(written, created=EPOCH + timedelta(hours=hours))

    ranked = [(policy("b", hours=1), (1, 1)), (policy("a", hours=1), (1, 1)), (policy("ab", hours=1), (1, 1))]
    ranked += [
        (policy("narrow", hours=0), (2, 1)),
        (policy("late", hours=2), (1, 1)),
        (policy("star", hours=9), (1, 0)),
    ]
    for seed in range(20):
        left = random.Random(seed).sample(ranked, len(ranked))
        names = []
        while (first := connection.winner(left)) is not None:
            names.append(first.key.name)
            left = [each for each in left if each[0] is not first]
        assert names == ["narrow", "late", "a", "ab", "b", "star"]


def test_what_applies_beside_each_other_goes_from_the_narrow_source_to_the_broad() -> None:
    def limit(name: str, *sources: dict[str, str], hours: int = 0) -> CompiledPolicy:
        ends = {"sources": [{"match": source} for source in sources], "destinations": [{"match": WEB}]}
        conf = {"http": {"requests": 1, "interval": "1s"}}
        written = parse({"type": "RateLimit", "mesh": "default", "name": name, **ends, "conf": conf})
        return compile_policy(written, created=EPOCH + timedelta(hours=hours))

    policies = [
        limit("b", WEB),
        limit("a", {**WEB, "kuma.io/service": "*"}, {**WEB, "version": "1"}, WEB),
        limit("late", {**WEB, "version": "2"}, {"zone": "x"}, {"zone": "y"}, {"zone": "x"}, hours=1),
        limit("ab", {**WEB, "version": "*"}),
    ]
    for seed in range(20):
        shuffled = random.Random(seed).sample(policies, len(policies))
        items = [(policy.key.name, dict(item.source or {})) for policy, item in connection.in_order(shuffled)]
        assert items == [
            ("late", {**WEB, "version": "2"}),
            ("a", {**WEB, "version": "1"}),
            ("ab", {**WEB, "version": "*"}),
            # Within one policy as it is written, each source once.
            ("late", {"zone": "x"}),
            ("late", {"zone": "y"}),
            ("a", WEB),
            ("b", WEB),
            ("a", {"kuma.io/service": "*"}),
        ]


_names = st.text("abz-", min_size=1, max_size=3)


@given(mesh_timeouts(_names), mesh_timeouts(_names))
def test_weights_order_as_the_contract_compares(one: Resource, other: Resource) -> None:
    first, second = cast(TargetRefPolicy, one), cast(TargetRefPolicy, other)
    weights = selection.weight(first), selection.weight(second)
    assert (weights[0] > weights[1]) - (weights[0] < weights[1]) == _sign(policies_naive.compare(first, second))


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


@given(st.lists(mesh_timeouts(_names), max_size=5, unique_by=lambda each: each.name))
def test_weights_are_a_total_order(policies: list[Resource]) -> None:
    weights = [selection.weight(cast(TargetRefPolicy, policy)) for policy in policies]
    assert len(set(weights)) == len(weights)


def test_rules_of_what_comes_in_go_from_the_narrow_to_the_broad() -> None:
    def rule(*matches: dict[str, Any], limit: str) -> dict[str, Any]:
        return {"matches": list(matches), "default": {"idleTimeout": limit}}

    def policy(name: str, *rules: dict[str, Any]) -> Resource:
        return parse({"type": "MeshTimeout", "mesh": "default", "name": name, "spec": {"rules": rules}})

    exact = {"spiffeID": {"type": "Exact", "value": "spiffe://a/b"}}
    prefix = {"spiffeID": {"type": "Prefix", "value": "spiffe://a/"}}
    sni = {"sni": {"type": "Exact", "value": "a"}}
    policies = [
        policy("a", rule(limit="1s"), rule(prefix, sni, limit="2s")),
        policy("b", rule(exact, limit="3s"), rule(prefix | sni, limit="4s"), rule(limit="5s")),
    ]
    rules = inbound_rules(compile_policy(each, created=EPOCH) for each in policies)
    # Of equal breadth, those of less weight come first; `a` outweighs `b`.
    assert [rule.conf["idleTimeout"] for rule in rules] == ["3s", "4s", "2s", "2s", "5s", "1s"]
