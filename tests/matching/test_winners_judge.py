"""Of each kind with sources or selectors the policy applies that the contract says, whatever the order of the store."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from tests.matching.policy_worlds import EPOCH, bindings_of
from tests.oracles import policies_naive
from tests.random_resources import random_policy
from tests.simulation.variants import VARIANTS, variant

from kumafast.matching import Bindings
from kumafast.matching.explanation import Explanation, explain_inbound, explain_outbound, explain_whole
from kumafast.resources import Dataplane, Resource, catalog
from kumafast.resources.connection_policy import ConnectionPolicy
from kumafast.resources.dataplane_policy import DataplanePolicy

WORLDS = 250
SERVICES = ("a", "b", "c", "pass_through")
LISTED = "RateLimit"
"""All policies of this kind that match an inbound count."""

Stored = tuple[Resource, datetime]
Answer = tuple[str, str, str | None]
"""Of what part of the proxy, of which kind, whose policy applies."""

_FAMILY = {kind.name: kind.policy for kind in catalog.POLICY_TYPES if kind.policy and not kind.policy.is_target_ref}
_OF_PROXIES = {kind for kind in _FAMILY if issubclass(catalog.model_of(kind), DataplanePolicy)}
_OF_INBOUNDS = {kind for kind, traits in _FAMILY.items() if traits.is_by_inbound}
_OF_OUTBOUNDS = set(_FAMILY) - _OF_PROXIES - _OF_INBOUNDS


def world(seed: int) -> tuple[list[Stored], Dataplane]:
    """Several policies of each kind, many as specific as others and created at once."""
    rng = random.Random(seed)
    made = (random_policy(rng, "default") for _ in range(60))
    written = {policy.key: policy for policy in made if policy.type.name in _FAMILY}
    stored = [(policy, EPOCH + timedelta(hours=rng.randrange(2))) for policy in written.values()]
    return rng.sample(stored, len(stored)), variant("default", "dp-1", rng.randrange(VARIANTS))


def expected(policies: Sequence[Stored], dataplane: Dataplane) -> Iterator[Answer]:
    by_kind: dict[str, Any] = {kind: [each for each in policies if each[0].type.name == kind] for kind in _FAMILY}
    for kind in _OF_PROXIES:
        yield "proxy", kind, _name(policies_naive.dataplane_winner(by_kind[kind], dataplane))
    for kind in _OF_OUTBOUNDS:
        for service in SERVICES:
            yield service, kind, _name(policies_naive.legacy_winner(by_kind[kind], dataplane, service))
    for kind in _OF_INBOUNDS - {LISTED}:
        for position, inbound in enumerate(dataplane.inbounds):
            yield f"inbound {position}", kind, _name(policies_naive.inbound_winner(by_kind[kind], inbound.tags))


def _name(policy: Resource | None) -> str | None:
    return None if policy is None else policy.name


def answered(bindings: Bindings, dataplane: Dataplane) -> Iterator[Answer]:
    yield from _applying("proxy", explain_whole(bindings), _OF_PROXIES)
    for service in SERVICES:
        yield from _applying(service, explain_outbound(bindings, service), _OF_OUTBOUNDS)
    for position in range(len(dataplane.inbounds)):
        yield from _applying(f"inbound {position}", explain_inbound(bindings, position), _OF_INBOUNDS - {LISTED})


def _applying(part: str, explanations: Sequence[Explanation], kinds: set[str]) -> Iterator[Answer]:
    by_kind = {explanation.kind: explanation for explanation in explanations}
    for kind in kinds:
        origin = by_kind[kind].origin if kind in by_kind else ()
        assert len(origin) <= 1
        yield part, kind, origin[0].key.name if origin else None


def test_one_policy_of_a_kind_applies_and_it_is_that_of_the_contract() -> None:
    seen: Counter[tuple[str, bool]] = Counter()
    for seed in range(WORLDS):
        policies, dataplane = world(seed)
        found = set(answered(bindings_of(policies, dataplane), dataplane))
        assert found == set(expected(policies, dataplane)), seed
        shuffled = random.Random(seed).sample(policies, len(policies))
        assert set(answered(bindings_of(shuffled, dataplane), dataplane)) == found
        seen.update((kind, name is not None) for _, kind, name in found)
    # Each kind has applied, and has not, in many worlds.
    assert {kind for kind, _ in seen} == set(_FAMILY) - {LISTED}
    assert min(seen.values()) > WORLDS // 40, seen


def test_all_limits_of_an_inbound_count_in_the_order_of_their_sources() -> None:
    told = 0
    for seed in range(WORLDS):
        policies, dataplane = world(seed)
        limits = [cast(tuple[ConnectionPolicy, datetime], each) for each in policies if each[0].type.name == LISTED]
        shuffled = random.Random(seed).sample(policies, len(policies))
        for position, inbound in enumerate(dataplane.inbounds):
            wanted = [source for _, source in policies_naive.inbound_order(limits, inbound.tags)]
            for each in (policies, shuffled):
                assert _sources(bindings_of(each, dataplane), position) == wanted, seed
            told += len(wanted) > 1
    assert told > WORLDS // 5


def _sources(bindings: Bindings, position: int) -> list[dict[str, str]]:
    conf: Mapping[str, Any] = next((each.conf for each in bindings.inbound(position) if each.kind == LISTED), {})
    return [dict(item["tags"]) for item in conf.get("from", ())]
