"""Precedence is one order of all policies, and the store's order is no part of it, for all kinds together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from operator import methodcaller

from hypothesis import given
from hypothesis import strategies as st
from tests.matching.policy_worlds import EPOCH, bindings_of, timeouts, times
from tests.random_resources import random_policy
from tests.simulation.variants import VARIANTS, variant

from kumafast.matching import Bindings, CompiledPolicy, Setting, compile_policy, connection
from kumafast.matching.connection import Ranked
from kumafast.matching.merge import merge
from kumafast.resources import catalog
from kumafast.resources.target_ref_policy import TargetRefPolicy

WORLDS = 300
SERVICES = ("a", "b", "c", "*")

_names = st.sampled_from(["a", "ab", "b", "b-a", "c"])
_ranks = st.tuples(st.integers(0, 2), st.integers(0, 2))
_ranked: st.SearchStrategy[Ranked] = st.builds(
    lambda policy, created, rank: (compile_policy(policy, created=created), rank), timeouts(_names), times, _ranks
)


def _first(ranked: list[Ranked]) -> CompiledPolicy:
    found = connection.winner(ranked)
    assert found is not None
    return found


@given(st.lists(_ranked, max_size=5, unique_by=lambda each: each[0].key.name), st.randoms(use_true_random=False))
def test_it_is_a_total_order(ranked: list[Ranked], rng: random.Random) -> None:
    left, order = list(ranked), list[Ranked]()
    while left:
        best = _first(rng.sample(left, len(left)))
        order += [each for each in left if each[0] is best]
        left = [each for each in left if each[0] is not best]
    for i, one in enumerate(order):
        for other in order[i + 1 :]:
            assert _first([one, other]) is _first([other, one]) is one[0]


def test_the_order_of_the_store_changes_nothing() -> None:
    said: Counter[str] = Counter()
    for seed in range(WORLDS):
        rng = random.Random(seed)
        written = {policy.key: policy for policy in (random_policy(rng, "default") for _ in range(12))}
        stored = [(policy, EPOCH + timedelta(hours=rng.randrange(2))) for policy in written.values()]
        dataplane = variant("default", "dp-1", rng.randrange(VARIANTS))
        one, other = (bindings_of(each, dataplane) for each in (stored, rng.sample(stored, len(stored))))
        asked: list[Callable[[Bindings], tuple[Setting, ...]]] = [
            lambda bindings: bindings.proxy,
            *(methodcaller("outbound", service) for service in SERVICES),
            *(methodcaller("inbound", position) for position in range(len(dataplane.inbounds))),
        ]
        for answer in asked:
            assert answer(one) == answer(other), seed
            said.update(setting.kind for setting in answer(one))
        for service in SERVICES:
            tags = (("kuma.io/service", service),)
            assert one.route(tags) == other.route(tags), seed
    # Every kind that there is has said something, of those whose policies the random ones are among.
    family = {kind.name for kind in catalog.POLICY_TYPES if kind.policy is not None and not kind.policy.is_target_ref}
    assert {kind for kind, count in said.items() if count > 5} >= family


def test_what_policies_say_is_merged_in_any_grouping() -> None:
    """Confs as they are written, of each kind with a targetRef: the sorted list may be cut anywhere."""
    cut: Counter[str] = Counter()
    for seed in range(0, WORLDS, 3):
        rng = random.Random(seed)
        policies = [random_policy(rng, "default") for _ in range(40)]
        by_kind: dict[str, list[TargetRefPolicy]] = {}
        for policy in policies:
            if isinstance(policy, TargetRefPolicy):
                by_kind.setdefault(policy.type.name, []).append(policy)
        for kind, several in by_kind.items():
            ordered = sorted((compile_policy(each, created=EPOCH) for each in several), key=lambda each: each.weight)
            confs = [item.conf for each in ordered for item in each.outbound]
            confs += [item.conf for each in ordered for item in each.inbound]
            for place in range(1, len(confs)):
                assert merge([merge(confs[:place]), merge(confs[place:])]) == merge(confs), (seed, kind)
                cut[kind] += confs[place - 1] != confs[place]
    assert cut
    assert min(cut.values()) > 0
