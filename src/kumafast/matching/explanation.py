"""Why policies come to what they come to: for each subject and kind what applies, and what each candidate lost to.

In: the `Bindings` of a dataplane. Out: explanations, with reasons in words. Never: another answer than the bindings
give: what applies is asked of the same functions, only who gave which field and why is worked out here.

Nothing of this is kept or made before somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from kumafast.matching import connection, selection
from kumafast.matching.bindings import Bindings, by_kind, inbound_rule, outbound_rule, proxy_rule, spoken
from kumafast.matching.connection import Ranked
from kumafast.matching.merge import Path, givers, leaves
from kumafast.matching.policy import CompiledPolicy, Conf, InboundItem, Rank
from kumafast.matching.rules import Rule

_MAX_LOSSES = 8
"""How many of those that outweigh one policy are named."""


class Verdict(Enum):
    """What becomes of a policy that is a candidate."""

    APPLIES = "applies"
    """All that it says of the subject holds."""
    PARTLY = "applies in part"
    """Some of what it says holds; the rest is said otherwise by policies of more weight."""
    OUTWEIGHED = "outweighed"
    """Nothing of what it says holds: others of its kind outweigh it."""
    SILENCED = "silenced"
    """It would apply, but another kind with the same purpose is heard in place of its own."""
    CONDITIONAL = "for some requests only"
    """All that it says is about requests that match, and nothing about all of them."""


_RankOf: TypeAlias = Callable[[CompiledPolicy, Rank], Mapping[str, Rank]]
_ConfsOf: TypeAlias = Callable[[CompiledPolicy], list[Conf]]
_RuleOf: TypeAlias = Callable[[list[Ranked]], Rule | None]

_HOLDING = (Verdict.APPLIES, Verdict.PARTLY)


@dataclass(frozen=True, slots=True)
class Loss:
    """What of a policy does not hold, whose policy's word stands in its place, and why."""

    fields: tuple[Path, ...]
    to: CompiledPolicy
    reason: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One policy that says something of the subject. `fields` are those of the conf that holds that are its own."""

    policy: CompiledPolicy
    verdict: Verdict
    fields: tuple[Path, ...] = ()
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the policies of one kind come to for one subject. `candidates` are in order, those of most weight first."""

    kind: str
    conf: Conf | None
    """What holds; None where that is nothing."""
    origin: tuple[CompiledPolicy, ...]
    """The policies that the conf is from, those of less weight first."""
    candidates: tuple[Candidate, ...]
    silenced_by: CompiledPolicy | None = None
    """A policy of the kind that is heard in place of this one."""
    silence: str = ""
    """Why that kind is heard, in words."""


def explain_outbound(bindings: Bindings, service: str) -> tuple[Explanation, ...]:
    """Why requests to a service get what `bindings.outbound(service)` gives them, kind by kind."""

    def ranks(policy: CompiledPolicy, source: Rank) -> Mapping[str, Rank]:
        return {"source": source, "destination": max(item.rank for item in policy.items_for(service))}

    def confs(policy: CompiledPolicy) -> list[Conf]:
        return [item.conf for item in policy.items_for(service)]

    matched = [each for each in bindings.about(service) if each[0].items_for(service)]
    return _explained(matched, lambda ranked: outbound_rule(ranked, service), ranks, confs)


def explain_inbound(bindings: Bindings, position: int) -> tuple[Explanation, ...]:
    """Why requests to the inbound at a position get what `bindings.inbound(position)` gives them, kind by kind."""
    return _explained(
        bindings.about_inbound(position),
        inbound_rule,
        lambda _, rank: {"destination": rank},
        lambda policy: [item.conf for item in policy.inbound if item.match is None and _is_of_all(policy, item)],
    )


def _is_of_all(policy: CompiledPolicy, item: InboundItem) -> bool:
    """Whether what is said is not about some sources only, for kinds that tell these apart from what is said of all."""
    return not policy.has_cases or not item.source


def explain_whole(bindings: Bindings) -> tuple[Explanation, ...]:
    """Why a proxy as a whole gets what `bindings.proxy` gives it, kind by kind."""
    return _explained(
        bindings.about_proxy(),
        proxy_rule,
        lambda _, rank: {"selector": rank},
        lambda policy: [] if policy.proxy is None else [policy.proxy],
    )


def _explained(
    matched: Sequence[Ranked], rule_of: _RuleOf, rank_of: _RankOf, confs_of: _ConfsOf
) -> tuple[Explanation, ...]:
    kinds = by_kind(matched)
    found = {kind: rule_of(ranked) for kind, ranked in kinds.items()}
    heard = spoken(found)
    explanations = []
    for kind, ranked in sorted(kinds.items(), key=lambda each: (each[1][0][0].order, each[0])):
        rule = found[kind]
        candidates = _candidates(ranked, rule, rank_of, confs_of)
        if rule is None or kind in heard:
            conf = None if rule is None else rule.conf
            explanations.append(Explanation(kind, conf, () if rule is None else rule.origin, candidates))
        else:
            by, why = _silencer(kind, rule, heard)
            explanations.append(Explanation(kind, None, (), tuple(map(_silent, candidates)), by, why))
    return tuple(explanations)


def silences_outbound(bindings: Bindings, service: str) -> Iterator[tuple[str, str]]:
    """The kinds that are not heard of requests to a service, each with the reason in words."""
    return _silences(bindings.about(service), lambda ranked: outbound_rule(ranked, service))


def silences_inbound(bindings: Bindings, position: int) -> Iterator[tuple[str, str]]:
    """The kinds that are not heard of requests to the inbound at a position, each with the reason in words."""
    return _silences(bindings.about_inbound(position), inbound_rule)


def _silences(matched: Iterable[Ranked], rule_of: _RuleOf) -> Iterator[tuple[str, str]]:
    found = {kind: rule_of(ranked) for kind, ranked in by_kind(matched).items()}
    heard = spoken(found)
    for kind, rule in found.items():
        if rule is not None and kind not in heard:
            yield kind, _silencer(kind, rule, heard)[1]


def _silencer(kind: str, rule: Rule, heard: Mapping[str, Rule]) -> tuple[CompiledPolicy, str]:
    """A policy of the kind that is heard in place of another, and why it is."""
    successor = heard.get(rule.origin[0].successor)
    if successor is not None:
        by = next(policy for policy in reversed(successor.origin) if not policy.is_initial)
        return by, f"{by.key.type} is the newer form, and {by.key.name} was written by a user"
    by = next(each for each in heard.values() if each.origin[0].successor == kind).origin[-1]
    return by, f"all of this came with the mesh, and {by.key.type} {by.key.name} was written by a user"


def _silent(candidate: Candidate) -> Candidate:
    verdict = Verdict.SILENCED if candidate.verdict in _HOLDING else candidate.verdict
    return Candidate(candidate.policy, verdict, (), candidate.losses)


def _candidates(
    ranked: Iterable[Ranked], rule: Rule | None, rank_of: _RankOf, confs_of: _ConfsOf
) -> tuple[Candidate, ...]:
    applied = () if rule is None else rule.origin
    ordered = sorted(ranked, key=lambda each: _precedence(each, rank_of), reverse=True)
    ranks = {policy: rank_of(policy, rank) for policy, rank in ordered}
    given = _fields(applied, confs_of)
    is_merged = bool(applied) and applied[0].is_target_ref and not applied[0].is_listed
    candidates = []
    for policy, _ in ordered:
        said = dict.fromkeys(path for conf in confs_of(policy) for path in leaves(conf))
        if not confs_of(policy):
            candidates.append(Candidate(policy, Verdict.CONDITIONAL))
        elif policy not in applied:
            stronger = applied[-1] if applied[-1].is_target_ref else applied[0]
            losses = (Loss(tuple(said), stronger, _reason(stronger, policy, ranks)),)
            candidates.append(Candidate(policy, Verdict.OUTWEIGHED, (), losses))
        elif not is_merged:
            candidates.append(Candidate(policy, Verdict.APPLIES, tuple(said)))
        else:
            candidates.append(_merged(policy, tuple(said), given, ranks))
    return tuple(candidates)


def _merged(
    policy: CompiledPolicy,
    said: tuple[Path, ...],
    given: Mapping[Path, tuple[CompiledPolicy, ...]],
    ranks: Mapping[CompiledPolicy, Mapping[str, Rank]],
) -> Candidate:
    """What of a policy holds once it is merged with the others, and who said the rest otherwise."""
    own = tuple(path for path in said if policy in given.get(path, ()))
    lost: dict[CompiledPolicy, list[Path]] = {}
    for path in said:
        to = None if path in own else _replacement(path, given)
        # Of two parts of one policy the later replaces the earlier, and nothing is lost to anybody.
        if to is not None and to != policy:
            lost.setdefault(to, []).append(path)
    losses = tuple(Loss(tuple(paths), to, _reason(to, policy, ranks)) for to, paths in lost.items())[:_MAX_LOSSES]
    verdict = Verdict.OUTWEIGHED if not own and said else Verdict.PARTLY if losses else Verdict.APPLIES
    return Candidate(policy, verdict, own, losses)


def _replacement(path: Path, given: Mapping[Path, tuple[CompiledPolicy, ...]]) -> CompiledPolicy | None:
    """Whose word stands at a path, in it, or in place of what holds it; None where a null has removed it."""
    for other, policies in given.items():
        if other[: len(path)] == path or path[: len(other)] == other:
            return policies[-1]
    return None


def _fields(applied: Sequence[CompiledPolicy], confs_of: _ConfsOf) -> dict[Path, tuple[CompiledPolicy, ...]]:
    """The policies that each field of the merged conf is from."""
    said = [(policy, conf) for policy in applied for conf in confs_of(policy)]
    found = givers(conf for _, conf in said)
    return {path: tuple(dict.fromkeys(said[each][0] for each in places)) for path, places in found.items()}


def _precedence(each: Ranked, rank_of: _RankOf) -> tuple[Rank, selection.Weight]:
    policy, rank = each
    return (0, 0) if policy.is_target_ref else connection.total(rank_of(policy, rank)), policy.weight


def _reason(
    stronger: CompiledPolicy, weaker: CompiledPolicy, ranks: Mapping[CompiledPolicy, Mapping[str, Rank]]
) -> str:
    if stronger.is_target_ref:
        return selection.precedence(stronger.weight, weaker.weight)
    return connection.reason(stronger, ranks[stronger], weaker, ranks[weaker])
