"""Precedence is one order of all policies, and the store's order is no part of it, for all kinds together."""

from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.matching.policy_worlds import EPOCH, bindings_of, timeouts, times
from tests.pipeline import random_policy
from tests.simulation.histories import VARIANTS, variant

from kumafast.matching import CompiledPolicy, compile_policy, connection
from kumafast.matching.connection import Ranked

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
    said = 0
    for seed in range(WORLDS):
        rng = random.Random(seed)
        written = {policy.key: policy for policy in (random_policy(rng, "default") for _ in range(12))}
        stored = [(policy, EPOCH + timedelta(hours=rng.randrange(2))) for policy in written.values()]
        dataplane = variant("default", "dp-1", rng.randrange(VARIANTS))
        one, other = (bindings_of(each, dataplane) for each in (stored, rng.sample(stored, len(stored))))
        for service in SERVICES:
            assert one.outbound(service) == other.outbound(service), seed
            said += len(one.outbound(service))
        for position in range(len(dataplane.inbounds)):
            assert one.inbound(position) == other.inbound(position), seed
            said += len(one.inbound(position))
    assert said > WORLDS * 3
