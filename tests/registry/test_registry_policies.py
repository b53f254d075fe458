"""The index of policies answers what the contract's loops answer, and names exactly those for whom a change counts."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests import builders
from tests.matching.policy_worlds import EPOCH, SERVICES, asked, dataplanes, mesh_timeouts, timeouts, times
from tests.oracles import policies_naive

from kumafast.matching import Bindings, CompiledPolicy, Setting, compile_policy
from kumafast.registry.policies import LOOK_MAX, Policies
from kumafast.resources import Dataplane, Resource, ResourceKey, parse
from kumafast.resources.connection_policy import ConnectionPolicy
from kumafast.resources.fields import thaw
from kumafast.resources.target_ref_policy import TargetRefPolicy

Stored = tuple[Resource, datetime]

_patient = settings(deadline=None, max_examples=300)
_names = st.sampled_from(["p1", "p2", "p3", "p4", "mesh-timeout-all-default"])
_policies = st.lists(
    st.tuples(mesh_timeouts(_names) | timeouts(_names), times), max_size=5, unique_by=lambda each: each[0].key
)


def index(dataplanes: Sequence[Dataplane], policies: Sequence[Stored]) -> Policies:
    indexed = Policies()
    for dataplane in dataplanes:
        indexed.set_dataplane(dataplane.name, dataplane, asked(dataplane))
    for policy, created in policies:
        touched_by(indexed, policy.key, compile_policy(policy, created=created))
    return indexed


def touched_by(indexed: Policies, key: ResourceKey, policy: CompiledPolicy | None) -> frozenset[str]:
    """Everybody for whom a change of a policy makes a difference."""
    pieces = list(indexed.set_policy(key, policy))
    names = [name for piece in pieces for name in piece]
    assert len(set(names)) == len(names)
    assert max(map(len, pieces), default=0) <= LOOK_MAX
    return frozenset(names)


def said(settings: tuple[Setting, ...]) -> dict[str, Any]:
    return {setting.kind: thaw(setting.conf) for setting in settings}


def outcome(bindings: Bindings) -> dict[str, Any]:
    found: dict[str, Any] = {service: said(bindings.outbound(service)) for service in SERVICES}
    for position in range(len(bindings.inbounds)):
        found[f"inbound {position}"] = said(bindings.inbound(position))
    return found


def naive_outcome(dataplane: Dataplane, policies: Sequence[Stored]) -> dict[str, Any]:
    legacy = [(policy, created) for policy, created in policies if isinstance(policy, ConnectionPolicy)]
    others = [policy for policy, _ in policies if isinstance(policy, TargetRefPolicy)]
    chosen = [(policy, *policies_naive.selects(policy, dataplane)) for policy in others]
    found: dict[str, Any] = {}
    for service in SERVICES:
        found[service] = {}
        rule = policies_naive.to_conf([policy for policy, is_for, _ in chosen if is_for], service)
        winner = policies_naive.legacy_winner(legacy, dataplane, service)
        # A user's policy of the newer family wins, then one of the older, then what came with the mesh.
        if rule is not None and (winner is None or not all(map(is_initial, rule[1]))):
            found[service] = {"MeshTimeout": rule[0]}
        elif winner is not None:
            settings = winner.settings()
            assert settings is not None
            found[service] = {"Timeout": settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)}
    for position in range(len(dataplane.inbounds)):
        conf = policies_naive.inbound_conf([policy for policy, _, inbounds in chosen if inbounds[position]])
        found[f"inbound {position}"] = {} if conf is None else {"MeshTimeout": conf}
    return found


def is_initial(policy: TargetRefPolicy) -> bool:
    return any(
        isinstance(initial, TargetRefPolicy) and (initial.name, initial.spec) == (policy.name, policy.spec)
        for initial in type(policy).initial("default")
    )


@_patient
@given(dataplanes(), _policies)
def test_bindings_are_those_of_the_contract(dataplane: Dataplane, policies: list[Stored]) -> None:
    bindings = index([dataplane], policies).bindings(dataplane.name)
    assert outcome(bindings) == naive_outcome(dataplane, policies)


@_patient
@given(dataplanes(), _policies, st.randoms(use_true_random=False))
def test_the_order_of_the_store_changes_nothing(
    dataplane: Dataplane, policies: list[Stored], rng: random.Random
) -> None:
    shuffled = rng.sample(policies, len(policies))
    one, other = (index([dataplane], each).bindings(dataplane.name) for each in (policies, shuffled))
    assert outcome(one) == outcome(other)


def legacy(name: str, *, sources: Sequence[Mapping[str, str]], limit: str, service: str = "a") -> Resource:
    document = {
        "sources": [{"match": match} for match in sources],
        "destinations": [{"match": {"kuma.io/service": service}}],
        "conf": {"connectTimeout": limit},
    }
    return parse({"type": "Timeout", "mesh": "default", "name": name, **document})


def mesh_timeout(
    limit: str, *, name: str = "p", labels: Mapping[str, str] | None = None, service: str = "a", **top: Any
) -> Resource:
    to = [{"targetRef": {"kind": "MeshService", "name": service}, "default": {"idleTimeout": limit}}]
    document = {"name": name, "labels": dict(labels or {}), "spec": {**top, "to": to}}
    return parse({"type": "MeshTimeout", "mesh": "default", **document})


def two_inbounds() -> Dataplane:
    inbound = [builders.inbound(80, tags=tags) for tags in (WEB, {**WEB, "version": "1"})]
    return builders.dataplane(
        "dp", inbound=inbound, outbound=[builders.outbound(9000 + n, s) for n, s in enumerate("abc")]
    )


WEB = {"kuma.io/service": "web"}


def test_the_last_created_of_two_as_specific_wins_then_the_first_by_name() -> None:
    early, late = legacy("p1", sources=[WEB], limit="1s"), legacy("p2", sources=[WEB], limit="2s")
    for times_, expected in (((0, 1), "2s"), ((1, 0), "1s"), ((0, 0), "1s")):
        created = [EPOCH + timedelta(hours=hours) for hours in times_]
        bindings = index([two_inbounds()], list(zip((early, late), created, strict=True))).bindings("dp")
        assert said(bindings.outbound("a")) == {"Timeout": {"connectTimeout": expected}}


def test_the_best_of_a_proxy_s_inbounds_counts() -> None:
    narrow = legacy("p2", sources=[WEB, {**WEB, "version": "1"}], limit="2s")
    broad = legacy("p1", sources=[{**WEB, "kuma.io/service": "*"}], limit="1s")
    bindings = index([two_inbounds()], [(narrow, EPOCH), (broad, EPOCH)]).bindings("dp")
    assert said(bindings.outbound("a")) == {"Timeout": {"connectTimeout": "2s"}}
    assert {bindings.subjects.policies[number].key.name: rank for number, rank in bindings.ranks.items()} == {
        "p1": (1, 0),
        "p2": (2, 2),
    }


def test_a_policy_of_another_zone_reaches_who_has_none_or_where_it_is_a_producer_s() -> None:
    east, west = ({"kuma.io/origin": "zone", "kuma.io/zone": zone} for zone in ("east", "west"))
    producer = {**east, "kuma.io/policy-role": "producer"}
    cases = [(east, east, True), (east, west, False), (producer, west, True), (east, {}, True), ({}, west, True)]
    for theirs, ours, is_for in cases:
        dataplane = two_inbounds().model_copy(update={"labels": ours})
        bindings = index([dataplane], [(mesh_timeout("1s", labels=theirs), EPOCH)]).bindings("dp")
        assert bool(bindings.outbound("a")) == is_for, (theirs, ours)


def test_a_policy_that_turns_to_another_service_touches_who_reached_the_first() -> None:
    kept = (mesh_timeout("1s", name="kept", service="b"), EPOCH)
    moving = mesh_timeout("1s", service="a")
    indexed = index([two_inbounds()], [kept, (moving, EPOCH)])
    moved = compile_policy(mesh_timeout("1s", service="b"), created=EPOCH)
    assert touched_by(indexed, moving.key, moved) == {"dp"}
    assert touched_by(indexed, moving.key, None) == frozenset()


_worlds = st.lists(dataplanes(st.sampled_from(["dp-1", "dp-2", "dp-3", "dp-4"])), unique_by=lambda each: each.name)


@_patient
@given(_worlds, _policies, st.data())
def test_a_policy_that_says_something_else_to_the_same_is_as_if_new(
    world: list[Dataplane], policies: list[Stored], data: st.DataObject
) -> None:
    indexed = index(world, policies)
    for policy, _ in data.draw(st.lists(st.sampled_from(policies), max_size=3)) if policies else ():
        document = data.draw(mesh_timeouts(st.just(policy.name)))
        if isinstance(policy, TargetRefPolicy) and isinstance(document, TargetRefPolicy):
            # Whom it is for stays; what it says, and of which services, is another.
            spec = policy.spec.model_copy(update={"to": document.spec.to, "rules": document.spec.rules})
            policies = [
                (policy.model_copy(update={"spec": spec}) if each.key == policy.key else each, when)
                for each, when in policies
            ]
        for each, when in policies:
            if each.key == policy.key:
                touched_by(indexed, each.key, compile_policy(each, created=when))
    anew = index(world, policies)
    for dataplane in world:
        # Asked for by its name, and once more as it is for one who comes now.
        assert outcome(indexed.bindings(dataplane.name)) == outcome(anew.bindings(dataplane.name))
        indexed.set_dataplane(dataplane.name, dataplane, asked(dataplane))
        assert outcome(indexed.bindings(dataplane.name)) == outcome(anew.bindings(dataplane.name))


def outcomes(indexed: Policies, dataplanes: Sequence[Dataplane]) -> Mapping[str, str]:
    """What each dataplane's own outbounds and inbounds come to."""
    found = {}
    for dataplane in dataplanes:
        whole = outcome(indexed.bindings(dataplane.name))
        reached = {outbound.service for outbound in dataplane.outbounds}
        own = {key: value for key, value in whole.items() if key in reached or key.startswith("inbound")}
        found[dataplane.name] = json.dumps(own, sort_keys=True)
    return found


@_patient
@given(_worlds, _policies, st.one_of(st.none(), st.tuples(mesh_timeouts(_names) | timeouts(_names), times)), st.data())
def test_a_change_touches_exactly_those_for_whom_it_counts(
    world: list[Dataplane], policies: list[Stored], written: Stored | None, data: st.DataObject
) -> None:
    indexed = index(world, policies)
    before = outcomes(indexed, world)
    if written is None:
        if not policies:
            return
        key = data.draw(st.sampled_from([policy.key for policy, _ in policies]))
        touched = touched_by(indexed, key, None)
    else:
        policy, created = written
        touched = touched_by(indexed, policy.key, compile_policy(policy, created=created))
    after = outcomes(indexed, world)
    assert touched == {name for name in before if before[name] != after[name]}


@_patient
@given(_worlds, _policies, _worlds)
def test_dataplanes_that_change_are_as_if_new(
    world: list[Dataplane], policies: list[Stored], changed: list[Dataplane]
) -> None:
    indexed = index(world, policies)
    now = {dataplane.name: dataplane for dataplane in world}
    for dataplane in changed:
        indexed.set_dataplane(dataplane.name, dataplane, asked(dataplane))
        now[dataplane.name] = dataplane
    for name in list(now)[::2]:
        indexed.remove_dataplane(name)
        del now[name]
    fresh = index(list(now.values()), policies)
    for name in now:
        assert outcome(indexed.bindings(name)) == outcome(fresh.bindings(name))
