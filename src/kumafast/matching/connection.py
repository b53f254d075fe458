"""Policies of one winner: which of those with sources, destinations or selectors applies.

In: policies with the rank at which they matched. Out: the winner, or all in order. Never: a merge.
Source of the rules: Kuma 2.14's matching by rank, then by the time of creation, then by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from kumafast.matching.policy import CompiledPolicy, Rank

Ranked = tuple[CompiledPolicy, Rank]


def outbound_winner(matched: Iterable[Ranked], service: str) -> CompiledPolicy | None:
    """The policy for connections to a service: the greatest rank of source and destination together."""
    ranked = [
        (policy, (source[0] + item.rank[0], source[1] + item.rank[1]))
        for policy, source in matched
        for item in policy.items_for(service)
    ]
    return winner(ranked)


def winner(ranked: Iterable[Ranked]) -> CompiledPolicy | None:
    """The policy of the greatest rank; of several the last created, then the first by name."""
    best = max(ranked, key=lambda each: (each[1], each[0].weight), default=None)
    return None if best is None else best[0]


def heaviest_first(policies: Sequence[CompiledPolicy]) -> tuple[CompiledPolicy, ...]:
    """Policies that all apply, in the order in which they take precedence."""
    return tuple(sorted(policies, key=attrgetter("weight"), reverse=True))
