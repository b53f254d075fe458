"""What dataplanes reach is what their routes say, as the contract words it; a change names those for whom it counts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.matching.policy_worlds import asked, dataplanes, timeouts, times
from tests.oracles import policies_naive

from kumafast.matching import compile_policy
from kumafast.registry.policies import Policies
from kumafast.resources import Dataplane, Resource, ResourceKey, parse
from kumafast.resources.policies.timeout import Timeout
from kumafast.resources.policies.traffic_route import TrafficRoute

Stored = tuple[Resource, datetime]

_patient = settings(deadline=None, max_examples=150)
_names = st.sampled_from(["p1", "p2", "p3"])
_services = st.sampled_from(["a", "b", "c", "*"])
_tags = st.builds(
    lambda service, rest: {"kuma.io/service": service, **rest},
    _services,
    st.dictionaries(st.just("version"), st.sampled_from(["1", "*"])),
)
_splits = st.lists(
    st.builds(lambda weight, tags: {"weight": weight, "destination": tags}, st.integers(0, 2), _tags), min_size=1
)
_legs = st.one_of(
    st.builds(lambda tags: {"destination": tags}, _tags), st.builds(lambda split: {"split": split}, _splits)
)
_rules = st.lists(st.builds(lambda legs: {"match": {"path": {"exact": "/"}}, **legs}, _legs), max_size=1)


def _selectors(matches: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(matches.map(lambda match: {"match": match}), min_size=1, max_size=2)


_routes: st.SearchStrategy[Resource] = st.builds(
    lambda name, sources, destinations, legs, rules: parse(
        {
            "type": "TrafficRoute",
            "mesh": "default",
            "name": name,
            "sources": sources,
            "destinations": destinations,
            "conf": {**legs, "http": rules},
        }
    ),
    _names,
    _selectors(_tags),
    _selectors(_services.map(lambda service: {"kuma.io/service": service})),
    _legs,
    _rules,
)
_stored = st.tuples(_routes | timeouts(_names), times)
_policies = st.lists(_stored, max_size=5, unique_by=lambda each: each[0].key)
_worlds = st.lists(dataplanes(st.sampled_from(["dp-1", "dp-2", "dp-3"])), unique_by=lambda each: each.name)


def winner(kind: type[Any], policies: Sequence[Stored], dataplane: Dataplane, service: str) -> Any:
    of_kind = [(policy, created) for policy, created in policies if isinstance(policy, kind)]
    return policies_naive.legacy_winner(of_kind, dataplane, service)


def legs(outbound: dict[str, str], item: Any) -> tuple[tuple[Any, int], ...]:
    """Where a part of a conf leads, each with its weight: in the order in which they are first named."""
    if item.destination is not None:
        split = [(1, item.destination)]
    else:
        split = [(each.weight or 0, each.destination or {}) for each in item.split or ()]
    weights: dict[Any, int] = {}
    for weight, destination in split:
        named = {key: value for key, value in destination.items() if value != "*"}
        tags = tuple(sorted({**outbound, **named}.items()))
        weights[tags] = weights.get(tags, 0) + weight
    found = tuple((tags, weight) for tags, weight in weights.items() if weight)
    # One alone has all, whatever its weight.
    return found if len(found) != 1 else ((found[0][0], 1),)


def led(policies: Sequence[Stored], dataplane: Dataplane) -> dict[str, Any]:
    """Where each outbound leads: by rules, then in general."""
    found: dict[str, Any] = {}
    for outbound in dataplane.outbounds:
        tags = dict(outbound.tags)
        route = winner(TrafficRoute, policies, dataplane, tags["kuma.io/service"])
        own = ((tuple(sorted(tags.items())), 1),)
        if route is None:
            found[tags["kuma.io/service"]] = ((), own)
            continue
        rules = tuple((str(rule.match), of_rule) for rule in route.conf.http if (of_rule := legs(tags, rule)))
        found[tags["kuma.io/service"]] = (rules, legs(tags, route.conf) or own)
    return found


def reached(policies: Sequence[Stored], dataplane: Dataplane) -> frozenset[Any]:
    return frozenset(
        tags
        for rules, general in led(policies, dataplane).values()
        for part in (*(of_rule for _, of_rule in rules), general)
        for tags, _ in part
    )


def limits(policies: Sequence[Stored], dataplane: Dataplane) -> dict[str, Any]:
    """The timeouts of all services that a dataplane has an outbound to, or is led to."""
    services = {outbound.service for outbound in dataplane.outbounds}
    services |= {dict(tags)["kuma.io/service"] for tags in reached(policies, dataplane)}
    winners = {service: winner(Timeout, policies, dataplane, service) for service in services}
    return {service: None if policy is None else policy.conf for service, policy in winners.items()}


def index(world: Sequence[Dataplane], policies: Sequence[Stored]) -> Policies:
    indexed = Policies()
    for dataplane in world:
        indexed.set_dataplane(dataplane.name, dataplane, asked(dataplane))
    for policy, created in policies:
        write(indexed, policy.key, (policy, created))
    return indexed


def write(indexed: Policies, key: ResourceKey, stored: Stored | None) -> set[str]:
    policy = None if stored is None else compile_policy(stored[0], created=stored[1])
    return {name for piece in indexed.set_policy(key, policy) for name in piece}


@_patient
@given(_worlds, _policies, st.randoms(use_true_random=False))
def test_dataplanes_reach_what_their_routes_say_in_whatever_order_these_come(
    world: list[Dataplane], policies: list[Stored], rng: random.Random
) -> None:
    early, late = index(world, rng.sample(policies, len(policies))), index([], policies)
    for dataplane in world:
        late.set_dataplane(dataplane.name, dataplane, asked(dataplane))
        for indexed in (early, late):
            assert indexed.destinations(dataplane.name) == reached(policies, dataplane)


@_patient
@given(_worlds, _policies, _stored, st.booleans())
def test_a_change_touches_exactly_those_who_are_led_elsewhere_or_have_other_limits(
    world: list[Dataplane], policies: list[Stored], written: Stored, is_deleted: bool
) -> None:
    key = written[0].key
    others = [stored for stored in policies if stored[0].key != key]
    before, after = ([*others, written], others) if is_deleted else (policies, [*others, written])
    indexed = index(world, before)
    touched = write(indexed, key, None if is_deleted else written)
    counts = led if isinstance(written[0], TrafficRoute) else limits
    assert touched == {each.name for each in world if counts(before, each) != counts(after, each)}
    assert all(indexed.destinations(each.name) == reached(after, each) for each in world)
