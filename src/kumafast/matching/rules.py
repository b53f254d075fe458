"""Policies that are merged: what they say together of requests to a service, and of requests that come in.

In: policies of one kind that are for the same proxy or inbound. Out: rules, each a conf with the policies that it is
from. Never: whom a policy is for.

A rule for a service is all items for it and for everything, merged in the order of their policies. That is what Kuma's
table of rules by subsets answers for a service: a rule of a subset holds every item whose subset is contained in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from kumafast.matching.backends import Subject
from kumafast.matching.merge import merge
from kumafast.matching.policy import CompiledPolicy, Conf, InboundItem, OutboundItem
from kumafast.matching.selection import Weight, weight_with_destination
from kumafast.resources.target_ref_policy import Match

_weight = attrgetter("weight")


@dataclass(frozen=True, slots=True)
class Rule:
    """A conf, the policies that it is from in the order of their weight, and the requests that it is for."""

    conf: Conf
    origin: tuple[CompiledPolicy, ...]
    match: Match | None = None

    @property
    def is_initial(self) -> bool:
        """Whether nobody wrote any of it: it was created with the mesh."""
        return all(policy.is_initial for policy in self.origin)


def to_rule(policies: Iterable[CompiledPolicy], subject: str | Subject) -> Rule | None:
    """What holds for requests to a service, or to a port of one; None where nothing is said.

    Of a port what is said of the service outweighs what is said of everything before names of policies count.
    """
    relevant = _relevant(policies, subject)
    if not relevant:
        return None
    return Rule(merge(item.conf for _, item in relevant), _distinct(policy for policy, _ in relevant))


def givers_of_rules(policies: Iterable[CompiledPolicy], subject: str | Subject) -> dict[Any, str]:
    """Of routes about a service, by the matches of each rule the name of the one that has the last word in it."""
    relevant = _relevant(policies, subject)
    return {rule.get("matches"): policy.key.name for policy, item in relevant for rule in item.conf.get("rules", ())}


def _relevant(policies: Iterable[CompiledPolicy], subject: str | Subject) -> list[tuple[CompiledPolicy, OutboundItem]]:
    """What is said of requests to a service, or to a port of one, the weightiest last."""
    found = [(policy, item) for policy in sorted(policies, key=_weight) for item in policy.items_for(subject)]
    if isinstance(subject, Subject):
        found.sort(key=_weight_of_item)
    return found


def _weight_of_item(each: tuple[CompiledPolicy, OutboundItem]) -> Weight:
    policy, item = each
    kind, has_section = ("", False) if item.ref is None else (item.ref.kind, bool(item.ref.section))
    return weight_with_destination(policy.weight, kind, has_section=has_section)


def whole_rule(policies: Iterable[CompiledPolicy]) -> Rule:
    """What policies of one kind say together of a proxy as a whole."""
    ordered = sorted(policies, key=_weight)
    return Rule(merge(policy.proxy for policy in ordered if policy.proxy is not None), tuple(ordered))


def inbound_rules(policies: Iterable[CompiledPolicy]) -> tuple[Rule, ...]:
    """One rule for each match, not merged: those with a client's identity first, exact before prefix, then names."""
    rules = [
        Rule(item.conf, (policy,), item.match)
        for policy in sorted(policies, key=_weight)
        for item in policy.inbound
        if item.source is None
    ]
    return tuple(sorted(rules, key=_breadth))


def catch_all(rules: Iterable[Rule]) -> Rule | None:
    """What holds for everything that comes in: the rules without a match, merged."""
    relevant = [rule for rule in rules if rule.match is None]
    if not relevant:
        return None
    return Rule(merge(rule.conf for rule in relevant), _distinct(policy for rule in relevant for policy in rule.origin))


def cases(policies: Iterable[CompiledPolicy]) -> Rule | None:
    """What holds for everything that comes in, and under `cases` what holds for some of those who send it.

    The first case that a client meets decides: narrow ones come before broad ones, and of those that are as narrow the
    ones of more weight. Sources by tags count in the order of weight alone, and only where there are no rules, as in
    Kuma. None where nothing is said.
    """
    ordered = sorted(policies, key=_weight)
    general = catch_all(inbound_rules(ordered))
    heaviest_first = [(policy, item) for policy in reversed(ordered) for item in reversed(policy.inbound)]
    matched = [(policy, item) for policy, item in heaviest_first if item.match is not None]
    sources = [(policy, item) for policy, item in heaviest_first if item.source is not None]
    told: list[dict[str, Any]] = []
    origin = () if general is None else general.origin
    if matched or general is not None:
        for policy, item in sorted(matched, key=lambda each: _narrowness(each[1])):
            assert item.match is not None
            match = item.match.model_dump(mode="json", by_alias=True, exclude_none=True)
            told.append({"match": match, "default": item.conf})
            origin = (policy, *origin)
    else:
        told = [{"tags": item.source, "default": item.conf} for _, item in sources]
        origin = tuple(policy for policy, _ in reversed(sources))
    if not origin:
        return None
    conf = merge([{} if general is None else general.conf, {"cases": told} if told else {}])
    return Rule(conf, tuple(sorted(_distinct(origin), key=_weight)))


def _narrowness(item: InboundItem) -> tuple[bool, bool, bool, int]:
    identity = None if item.match is None else item.match.spiffe_id
    return (*_breadth(Rule(item.conf, (), item.match)), 0 if identity is None else -len(identity.value))


def listing(policies: Iterable[CompiledPolicy]) -> Rule | None:
    """All that is said of what comes in: sources, those of more weight first, so that the first that is met decides;
    and rules, those of less weight first. None where nothing is said.
    """
    ordered = sorted(policies, key=_weight)
    items = [(policy, item) for policy in ordered for item in policy.inbound]
    if not items:
        return None
    sources = [{"tags": item.source, "default": item.conf} for _, item in items if item.source is not None]
    rules = [{"name": item.name, "default": item.conf} for _, item in items if item.source is None]
    conf = merge([{"from": sources[::-1]} if sources else {}, {"rules": rules} if rules else {}])
    return Rule(conf, _distinct(policy for policy, _ in items))


def sources(items: Iterable[tuple[CompiledPolicy, InboundItem]]) -> Rule | None:
    """What each of several policies says of each of its sources, in the order in which they count; None for nothing."""
    ordered = list(items)
    if not ordered:
        return None
    conf = merge([{"from": [{"tags": item.source or {}, "default": item.conf} for _, item in ordered]}])
    return Rule(conf, _distinct(policy for policy, _ in ordered))


def _breadth(rule: Rule) -> tuple[bool, bool, bool]:
    match = rule.match
    identity = None if match is None else match.spiffe_id
    return (
        identity is None,
        identity is not None and identity.type != "Exact",
        match is None or match.sni is None,
    )


def _distinct(policies: Iterable[CompiledPolicy]) -> tuple[CompiledPolicy, ...]:
    return tuple(dict.fromkeys(policies))
