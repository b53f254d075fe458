"""Routes with a targetRef: which rule comes first, what of several policies is one rule, and who has a say at all."""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles.policies_naive import merge_patch
from tests.pipeline import backend, path

from kumafast.matching.backends import BackendPort
from kumafast.matching.http_rules import in_order
from kumafast.matching.merge import merge
from kumafast.matching.routing import HttpRule, Leg, Route, route, there
from kumafast.resources.fields import freeze, thaw

A = (("kuma.io/service", "a"),)
B = (("kuma.io/service", "b"),)
C = (("kuma.io/service", "c"),)
HTTP, TCP, OLDER = "MeshHTTPRoute", "MeshTCPRoute", "TrafficRoute"
TO_B = {"destination": {"kuma.io/service": "b"}}


def led(newer: set[str] | None = None, **said: Any) -> Route | None:
    return route(A, {kind: merge([freeze(conf)]) for kind, conf in said.items()}, frozenset(newer or ()))  # type: ignore[list-item]


def rule(*matches: dict[str, Any], **default: Any) -> dict[str, Any]:
    return {"matches": list(matches), "default": default}


def targets(route: Route | None) -> list[Any]:
    assert route is not None
    return [[leg.destination for leg in each.legs] for each in (*route.rules, route)]


# Which rule is the first for a request.

_paths = st.sampled_from(
    [None, path("/"), path("/a"), path("/ab"), path("/a", "Exact"), path("/.*", "RegularExpression")]
)
_matches = st.builds(
    lambda where, method, headers, queries: {
        **(where or {}),
        **({"method": "GET"} if method else {}),
        **({"headers": [{"name": f"h{i}"} for i in range(headers)]} if headers else {}),
        **({"queryParams": [{"type": "Exact", "name": f"q{i}"} for i in range(queries)]} if queries else {}),
    },
    _paths,
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 2),
)
_rules = st.lists(st.builds(lambda matches: rule(*matches), st.lists(_matches, min_size=1, max_size=3)), max_size=4)


def compare(one: dict[str, Any], other: dict[str, Any]) -> int:
    """Negative where the first comes first, condition by condition."""
    a, b = one.get("path"), other.get("path")
    if (a is None) != (b is None):
        return -1 if b is None else 1
    if a is not None and b is not None:
        kinds = ["Exact", "PathPrefix", "RegularExpression"]
        if a["type"] != b["type"]:
            return kinds.index(a["type"]) - kinds.index(b["type"])
        if a["type"] != "Exact" and len(a["value"]) != len(b["value"]):
            return len(b["value"]) - len(a["value"])
    if ("method" in one) != ("method" in other):
        return -1 if "method" in one else 1
    for field in ("headers", "queryParams"):
        counts = [len(each.get(field, [])) for each in (one, other)]
        if counts[0] != counts[1]:
            return counts[1] - counts[0]
    return 0


@given(_rules)
def test_the_most_specific_match_comes_first_and_equals_in_their_order(rules: list[dict[str, Any]]) -> None:
    pairs = [(match, number) for number, each in enumerate(rules) for match in each["matches"]]
    key = cmp_to_key(compare)
    expected = sorted(pairs, key=lambda pair: key(pair[0]))
    conf = merge([freeze({"rules": [{**each, "number": n} for n, each in enumerate(rules)]})])  # type: ignore[list-item]
    found = [(thaw(match), each["number"]) for match, each in in_order(conf)]
    # Rules with the same matches are one: the first of them.
    first = {str(each["matches"]): number for number, each in reversed(list(enumerate(rules)))}
    assert found == [(match, number) for match, number in expected if first[str(rules[number]["matches"])] == number]


# What several policies come to.


def joined(confs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """As the contract words it: each policy's rules turned round, all in a row, equal keys merged at the place of the
    last, and the whole turned round again.
    """
    row = [each for rules in confs for each in reversed(rules)]
    found: list[dict[str, Any]] = []
    for number, each in enumerate(row):
        if any(each["matches"] == later["matches"] for later in row[number + 1 :]):
            continue
        default: Any = {}
        for same in row[: number + 1]:
            if same["matches"] == each["matches"]:
                default = merge_patch(default, same["default"])
        found.append({"matches": each["matches"], "default": default})
    return found[::-1]


_defaults = st.fixed_dictionaries(
    {}, optional={"backendRefs": st.just([backend("b")]) | st.just([backend("c")]), "filters": st.just([])}
)
_written = st.lists(
    st.builds(lambda match, default: rule(match, **default), _matches, _defaults), min_size=1, max_size=4
)


@given(st.lists(_written, min_size=1, max_size=3))
def test_rules_with_the_same_matches_are_one(confs: list[list[dict[str, Any]]]) -> None:
    merged = merge([freeze({"rules": rules}) for rules in confs])  # type: ignore[misc]
    assert thaw(merged) == {"rules": joined(confs)}


# Where that leads.


def test_requests_lead_where_a_rule_says_and_connections_where_they_did() -> None:
    found = led(MeshHTTPRoute={"rules": [rule(path("/b"), backendRefs=[backend("b")])]})
    assert targets(found) == [[B], [A]]
    assert found is not None
    assert found.connections == Route((Leg(A),))
    assert found.destinations == (B, A)


def test_a_rule_for_all_requests_leaves_nothing_for_the_rest() -> None:
    found = led(MeshHTTPRoute={"rules": [rule(path("/"), backendRefs=[backend("b", 9), backend("c")])]})
    assert found is not None
    assert found.legs == ()
    assert [rule.legs for rule in found.rules] == [(Leg(B, 9), Leg(C, 1))]
    # Connections still go to the service.
    assert found.destinations == (B, C, A)


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        ([], [[A], [A]]),
        # Nothing is found there, so it is as if nothing was said.
        ([{"kind": "MeshMultiZoneService", "name": "m", "port": 80}], [[A], [A]]),
        ([backend("b", 0), backend("c", 5), {"kind": "MeshExternalService", "name": "e"}], [[C], [A]]),
    ],
)
def test_backends_that_are_not_there_or_have_no_share(refs: list[dict[str, Any]], expected: list[Any]) -> None:
    found = led(MeshHTTPRoute={"rules": [rule(path("/x"), backendRefs=refs)]})
    assert targets(there(found, A, lambda _: False)) == expected


def test_ports_of_services_are_led_to_where_they_are_there() -> None:
    port = {"kind": "MeshService", "name": "m", "port": 80}
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": port}}
    outside = {"kind": "MeshExternalService", "name": "e", "port": 443, "weight": 3}
    found = led(MeshHTTPRoute={"rules": [rule(path("/x"), backendRefs=[port, outside], filters=[mirror])]})
    service, external = BackendPort("MeshService", "m", 80), BackendPort("MeshExternalService", "e", 0)
    assert found is not None
    assert set(found.destinations) == {service, external, A}
    assert there(found, A, lambda _: True) is found
    one = there(found, A, lambda each: each == service)
    assert one is not None
    (only,) = one.rules
    assert isinstance(only, HttpRule)
    assert (only.legs, only.mirrors) == ((Leg(service),), (service,))
    none = there(found, A, lambda _: False)
    assert none is not None
    assert [(each.legs, each.mirrors) for each in none.rules if isinstance(each, HttpRule)] == [((Leg(A),), (None,))]


def test_an_outbound_to_a_port_of_a_service_is_led_too() -> None:
    asked = BackendPort("MeshService", "m", 80)
    conf = merge([freeze({"backendRefs": [backend("b"), {"kind": "MeshService", "name": "n", "port": 81}]})])  # type: ignore[list-item]
    found = route(asked, {TCP: conf})
    assert found is not None
    assert found.legs == (Leg(B), Leg(BackendPort("MeshService", "n", 81)))
    # What is about tags has no say in it.
    assert route(asked, {OLDER: merge([freeze(TO_B)])}) is None  # type: ignore[list-item]


def test_a_rule_in_which_nobody_has_a_share_is_none() -> None:
    nobody = rule(path("/x"), backendRefs=[backend("b", 0)])
    assert led(MeshHTTPRoute={"rules": [nobody]}) is None
    next_one = rule(path("/x"), {"method": "GET"}, backendRefs=[backend("c")])
    assert targets(led(MeshHTTPRoute={"rules": [nobody, next_one]})) == [[C], [C], [A]]


def test_copies_are_reached_too() -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": backend("b")}}
    found = led(MeshHTTPRoute={"rules": [rule(path("/x"), filters=[mirror])]})
    assert found is not None
    (only,) = found.rules
    assert isinstance(only, HttpRule)
    assert only.mirrors == (B,)
    assert set(found.destinations) == {A, B}


def test_connections_are_led_and_requests_too_where_no_route_of_requests_is_about_the_service() -> None:
    tcp = {"backendRefs": [backend("b", 1), backend("c", 2)]}
    found = led(MeshTCPRoute=tcp)
    assert found is not None
    assert (found.legs, found.reads_requests) == ((Leg(B, 1), Leg(C, 2)), False)
    assert found.connections == Route(found.legs)
    both = led(MeshTCPRoute=tcp, MeshHTTPRoute={"rules": [rule(path("/x"), backendRefs=[backend("b")])]})
    assert both is not None
    assert (both.reads_requests, targets(both), both.connections) == (True, [[B], [A]], found.connections)


def test_a_route_that_says_what_holds_anyway_is_none() -> None:
    assert led(MeshHTTPRoute={}) is None
    assert led(newer={HTTP, TCP}, TrafficRoute=TO_B) is None


def test_the_older_kind_counts_where_the_newer_ones_have_no_say() -> None:
    assert led(TrafficRoute=TO_B) == Route((Leg(B),))
    requests = led(newer={HTTP}, TrafficRoute=TO_B)
    assert requests == Route((Leg(A),), connections=Route((Leg(B),)))
    connections = led(newer={TCP}, TrafficRoute=TO_B)
    assert connections == Route((Leg(B),), connections=Route((Leg(A),)))
