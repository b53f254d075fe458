"""An explanation names what applies, as the bindings have it, and says in words why the others do not."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.matching import permission_worlds
from tests.matching.policy_worlds import EPOCH, SERVICES, dataplanes, mesh_timeouts, timeouts, times

from kumafast.matching import Bindings, PolicySet, Setting, candidates, compile_policies
from kumafast.matching.explanation import (
    Candidate,
    Explanation,
    Verdict,
    explain_inbound,
    explain_outbound,
    explain_whole,
)
from kumafast.matching.merge import givers, leaves, merge
from kumafast.resources import Dataplane, Resource, parse
from kumafast.resources.fields import thaw

Stored = tuple[Resource, datetime]

_names = st.sampled_from(["p1", "p2", "p3", "p4", "mesh-timeout-all-default"])
_stored = st.lists(
    st.tuples(mesh_timeouts(_names) | timeouts(_names), times), max_size=6, unique_by=lambda each: each[0].key
)


def bind(dataplane: Dataplane, policies: Iterable[Stored]) -> Bindings:
    bound = PolicySet()
    compiled = [each for policy, created in policies for each in compile_policies(policy, created=created)]
    for number, policy in enumerate(compiled):
        bound = bound.replaced(number, policy)
    found, inbounds = candidates(dataplane), len(dataplane.inbounds)
    return bound.bind(found[:inbounds], found[inbounds:])


def subjects(bindings: Bindings) -> Iterable[tuple[Sequence[Explanation], tuple[Setting, ...], int]]:
    """Each subject's explanations, settings, and how many policies are about it."""
    for service in SERVICES:
        yield explain_outbound(bindings, service), bindings.outbound(service), len(bindings.about(service))
    yield explain_whole(bindings), bindings.proxy, len(bindings.about_proxy())
    for position in range(len(bindings.inbounds)):
        about = bindings.about_inbound(position)
        yield explain_inbound(bindings, position), bindings.inbound(position), len(about)


@settings(max_examples=300)
@given(dataplanes(), _stored)
def test_it_names_what_applies(dataplane: Dataplane, policies: list[Stored]) -> None:
    for explanations, applied, about in subjects(bind(dataplane, policies)):
        assert [(each.kind, each.conf) for each in explanations if each.conf is not None] == [
            (setting.kind, setting.conf) for setting in applied
        ]
        assert sum(len(each.candidates) for each in explanations) == about
        for each in explanations:
            check(each)


def check(explanation: Explanation) -> None:
    verdicts = [candidate.verdict for candidate in explanation.candidates]
    assert (Verdict.SILENCED in verdicts) == (explanation.silenced_by is not None) == bool(explanation.silence)
    if explanation.conf is not None:
        # Each field of what holds is exactly one policy's, and that policy is one of those that it is from.
        own = [path for candidate in explanation.candidates for path in candidate.fields]
        assert sorted(own) == sorted(leaves(explanation.conf))
        for candidate in explanation.candidates:
            assert not candidate.fields or candidate.policy in explanation.origin
    for candidate in explanation.candidates:
        check_losses(candidate, explanation)


def check_losses(candidate: Candidate, explanation: Explanation) -> None:
    assert (candidate.verdict is Verdict.OUTWEIGHED) <= bool(candidate.losses)
    order = [each.policy for each in explanation.candidates]
    for loss in candidate.losses:
        assert loss.reason
        # Who wins stands before who loses.
        assert order.index(loss.to) < order.index(candidate.policy)
        assert not set(loss.fields) & set(candidate.fields)


@pytest.mark.parametrize("seed", range(60))
def test_permissions_are_explained_too(seed: int) -> None:
    rng = random.Random(seed)
    policies = [permission_worlds.permission(rng, f"p{number}") for number in range(4)]
    policies += [permission_worlds.mesh_permission(rng, f"m{number}") for number in range(4)]
    created = [EPOCH + timedelta(hours=rng.randint(0, 2)) for _ in policies]
    bindings = bind(permission_worlds.dataplane(rng), zip(policies, created, strict=True))
    for position in range(len(bindings.inbounds)):
        explanations = explain_inbound(bindings, position)
        assert {each.kind: each.conf for each in explanations if each.conf is not None} == {
            setting.kind: setting.conf for setting in bindings.inbound(position)
        }
        assert all(loss.reason for each in explanations for one in each.candidates for loss in one.losses)


_numbers = st.integers(0, 9)
_confs = st.recursive(
    st.dictionaries(st.sampled_from("ab"), _numbers | st.none(), max_size=2),
    lambda inner: st.dictionaries(
        st.sampled_from(["a", "b", "appendTo"]), _numbers | st.lists(_numbers, max_size=2) | inner, max_size=3
    ),
    max_leaves=6,
)


@given(st.lists(_confs, max_size=4))
def test_fields_are_from_whoever_gave_them(confs: list[dict[str, Any]]) -> None:
    found = givers(confs)
    assert sorted(found) == sorted(leaves(merge(confs)))
    for path, places in found.items():
        # Without the others the field is the same: but for lists that are joined the last one gave it.
        alone = merge([confs[place] for place in places])
        assert at(alone, path) == at(merge(confs), path)


def at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value[name]
    return thaw(value)


def timeout(name: str, source: dict[str, str], destination: str = "*", limit: str = "1s") -> Resource:
    fields = {"sources": [{"match": source}], "destinations": [{"match": {"kuma.io/service": destination}}]}
    conf = {"conf": {"connectTimeout": limit}}
    return parse({"type": "Timeout", "mesh": "default", "name": name, **fields, **conf})


def mesh_timeout(policy: str, *, labels: dict[str, str] | None = None, to: str = "", **top: Any) -> Resource:
    ref = {"kind": "MeshService", "name": to} if to else {"kind": "Mesh"}
    spec = {"targetRef": top or {"kind": "Mesh"}, "to": [{"targetRef": ref, "default": {"idleTimeout": "1s"}}]}
    return parse({"type": "MeshTimeout", "mesh": "default", "name": policy, "labels": labels or {}, "spec": spec})


WEB = parse(
    {
        "type": "Dataplane",
        "mesh": "default",
        "name": "web-1",
        "labels": {"team": "x", "k8s.kuma.io/namespace": "n"},
        "networking": {
            "address": "10.0.0.1",
            "inbound": [{"port": 80, "tags": {"kuma.io/service": "web", "version": "1"}}],
        },
    }
)
SPECIFIC = {"kuma.io/service": "web", "version": "1"}
IN_NAMESPACE = {"k8s.kuma.io/namespace": "n"}


@pytest.mark.parametrize(
    ("winner", "loser", "reason"),
    [
        (
            timeout("a", SPECIFIC),
            timeout("b", {"kuma.io/service": "web"}),
            "more specific source: 2 tags against 1",
        ),
        (
            timeout("a", {"kuma.io/service": "web"}),
            timeout("b", {"kuma.io/service": "*"}),
            "more specific source: 1 tag without * against 0",
        ),
        (
            timeout("a", {"kuma.io/service": "web"}, "echo"),
            timeout("b", {"kuma.io/service": "web"}, "*"),
            "more specific destination: 1 tag without * against 0",
        ),
        (
            timeout("a", SPECIFIC, "echo"),
            timeout("b", {"kuma.io/service": "*"}, "*"),
            "more specific source: 2 tags against 1",
        ),
        (timeout("z", SPECIFIC), timeout("b", SPECIFIC), "as specific; created later, 2026-01-01 01:00:00 against"),
        (
            mesh_timeout("z", kind="Dataplane"),
            mesh_timeout("b", kind="Mesh"),
            "kind Dataplane outweighs Mesh",
        ),
        (
            mesh_timeout("z", kind="Dataplane", name="web-1", namespace="n"),
            mesh_timeout("b", kind="Dataplane", labels={"kuma.io/env": "x"}),
            "a dataplane by its name outweighs dataplanes by labels",
        ),
        (
            mesh_timeout("z", labels={"kuma.io/origin": "zone"}),
            mesh_timeout("b", labels={"kuma.io/origin": "global"}),
            "origin zone outweighs global",
        ),
        (
            mesh_timeout("z", labels={"kuma.io/policy-role": "consumer", **IN_NAMESPACE}),
            mesh_timeout("b"),
            "role consumer outweighs system",
        ),
        (mesh_timeout("a"), mesh_timeout("b"), "as specific; the name a comes before b"),
    ],
)
def test_reasons(winner: Resource, loser: Resource, reason: str) -> None:
    assert isinstance(WEB, Dataplane)
    for order in ([winner, loser], [loser, winner]):
        stored = [(policy, EPOCH + timedelta(hours=policy is winner)) for policy in order]
        (explanation,) = explain_outbound(bind(WEB, stored), "echo")
        first, second = explanation.candidates
        assert (first.policy.key, first.verdict) == (winner.key, Verdict.APPLIES)
        assert (second.policy.key, second.verdict) == (loser.key, Verdict.OUTWEIGHED)
        assert [loss.to.key for loss in second.losses] == [winner.key]
        assert second.losses[0].reason.startswith(reason)


def test_what_is_about_the_whole_proxy() -> None:
    def trace(name: str, *selectors: dict[str, str]) -> Resource:
        fields = {"selectors": [{"match": selector} for selector in selectors]}
        return parse({"type": "TrafficTrace", "mesh": "default", "name": name, **fields})

    assert isinstance(WEB, Dataplane)
    stored = [(policy, EPOCH) for policy in (trace("wide", {"kuma.io/service": "*"}), trace("narrow", SPECIFIC))]
    (explanation,) = explain_whole(bind(WEB, stored))
    assert [(each.policy.key.name, each.verdict) for each in explanation.candidates] == [
        ("narrow", Verdict.APPLIES),
        ("wide", Verdict.OUTWEIGHED),
    ]
    assert explanation.candidates[1].losses[0].reason == "more specific selector: 2 tags against 1"
