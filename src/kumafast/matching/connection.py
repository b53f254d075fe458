"""Policies of one winner: which of those with sources, destinations or selectors applies.

In: policies with the rank at which they matched. Out: the winner, or all in order. Never: a merge.
Source of the rules: Kuma 2.14's matching by rank, then by the time of creation, then by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from kumafast.matching.policy import CompiledPolicy, InboundItem, Rank
from kumafast.matching.selection import Weight, ascending

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


def total(ranks: Mapping[str, Rank]) -> Rank:
    """The rank of several selectors together."""
    return sum(rank[0] for rank in ranks.values()), sum(rank[1] for rank in ranks.values())


def reason(
    winner: CompiledPolicy, ranks: Mapping[str, Rank], loser: CompiledPolicy, loser_ranks: Mapping[str, Rank]
) -> str:
    """Why a policy takes precedence over another, in words. `ranks` are those of its selectors, as of its `source`."""
    mine, theirs = total(ranks), total(loser_ranks)
    if mine != theirs:
        return _more_specific(ranks, loser_ranks, place=0 if mine[0] != theirs[0] else 1)
    created, name, position = winner.weight
    other_created, other_name, other_position = loser.weight
    if created != other_created:
        return f"as specific; created later, {created:%Y-%m-%d %H:%M:%S} against {other_created:%Y-%m-%d %H:%M:%S}"
    if name != other_name:
        return f"as specific and created at once; the name {ascending(name)} comes before {ascending(other_name)}"
    return f"as specific; rule {1 - position} comes before rule {1 - other_position}"


def _more_specific(ranks: Mapping[str, Rank], others: Mapping[str, Rank], *, place: int) -> str:
    """By how many tags, or, at place 1, by how many of them that have a value."""
    differing = [part for part, rank in ranks.items() if rank[place] != others[part][place]]
    part = differing[0] if len(differing) == 1 else "in all"
    mine, theirs = total(ranks)[place], total(others)[place]
    if len(differing) == 1:
        mine, theirs = ranks[part][place], others[part][place]
    noun = ("tag" if mine == 1 else "tags") + ("" if place == 0 else " without *")
    return f"more specific {part}: {mine} {noun} against {theirs}"
