"""Policies of one winner: which of those with sources, destinations or selectors applies.

In: policies with the rank at which they matched. Out: the winner, or all in order. Never: a merge.
Source of the rules: Kuma 2.14's matching by rank, then by the time of creation, then by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from kumafast.matching.policy import CompiledPolicy, InboundItem, Rank
from kumafast.matching.selection import Weight

Ranked: TypeAlias = tuple[CompiledPolicy, Rank]


def outbound_winner(matched: Iterable[Ranked], service: str) -> CompiledPolicy | None:
    """The policy for connections to a service: the greatest rank of source and destination together."""
    ranked = [
        (policy, (source[0] + item.rank[0], source[1] + item.rank[1]))
        for policy, source in matched
        for item in policy.items_for(service)
    ]
    return winner(ranked)


def winner(ranked: Iterable[Ranked]) -> CompiledPolicy | None:
    """The policy of the greatest rank; of several the last created, then the first by name.

    For kinds with `selectors` the rank is that of the selector that matched the dataplane, and (0, 0) where there is
    none; for kinds about what comes in, that of the destination that matched the inbound.
    """
    best = max(ranked, key=_precedence, default=None)
    return None if best is None else best[0]


def in_order(policies: Iterable[CompiledPolicy]) -> tuple[tuple[CompiledPolicy, InboundItem], ...]:
    """For kinds of which all apply: what each says of each of its sources, the most specific of these first.

    Of several as specific the last created comes first, then the first by name, then in the order of the policy.
    """
    items = [(policy, item) for policy in policies for item in policy.inbound]
    return tuple(sorted(items, key=lambda each: (each[1].rank, each[0].weight), reverse=True))


def _precedence(each: Ranked) -> tuple[Rank, Weight]:
    policy, rank = each
    return rank, policy.weight
