"""What MeshTrafficPermission changes: which clients an inbound takes requests from.

In: all that the permissions for an inbound say, listed. Out: an effect. Never: a merge.

`from` is a list of sources of which the first that names a client decides. `rules` name clients to refuse and to take,
and a refusal comes first. Where an inbound has both, a client is refused if a rule refuses it or the list refuses it by
name, else taken if a rule or the list takes it. That is narrower than Kuma 2.14, where rules silence the list.

The list is written as principals where these are few: one for each source that takes clients, and one for each source
that refuses some in each run of taking sources after it. Otherwise, and beside rules, it is a list of matchers: one for
each source. Kuma's table of subsets has 2^n for n sources.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kumafast.generation import rbac
from kumafast.generation.effects import Effect, Guard
from kumafast.generation.identities import client
from kumafast.generation.proxy import Tags
from kumafast.generation.rbac import EVERYBODY, Condition, Consent, Not, ServerName, Uri, all_of
from kumafast.resources.policies.mesh_traffic_permission import Conf, MeshTrafficPermission
from kumafast.resources.target_ref_policy import Match

KIND = MeshTrafficPermission.type.name

_ALLOW = "Allow"
_DENY = "Deny"
_SHADOW = "AllowWithShadowDeny"

PRINCIPALS_MAX = 256
"""Beyond it a list of sources is written as matchers, so that what an inbound has grows with the list and no faster."""


@dataclass(frozen=True, slots=True)
class Source:
    """Clients with all of the tags, and what happens to them."""

    tags: Tags
    action: str


@dataclass(frozen=True, slots=True)
class Rule:
    """Clients and server names, and what happens to them; `name` is that of the policy."""

    name: str
    action: str
    match: Match


@dataclass(frozen=True, slots=True)
class Permitted(Effect):
    """Only clients that the sources or the rules take may send requests. The first source that names one decides."""

    sources: tuple[Source, ...] = ()
    rules: tuple[Rule, ...] = ()

    def inbound_guard(self, mesh: str) -> Guard:
        """Requests are judged where they are read, else connections."""
        if self.rules or _principals(self.sources) > PRINCIPALS_MAX:
            return self._as_matchers(mesh)
        allowed = list(self._decided(mesh, {_ALLOW, _SHADOW}))
        return rbac.allowing(KIND, allowed, judges_requests=True, shadow=list(self._decided(mesh, {_SHADOW})))

    def _as_matchers(self, mesh: str) -> Guard:
        denied, allowed, shadow = (list(self._matched(action)) for action in (_DENY, _ALLOW, _SHADOW))
        listed = list(self._listed(mesh))
        trial = None
        if shadow or any(action == _SHADOW for action, _ in listed):
            trial = [
                *denied,
                *(Consent(each.name, each.condition, is_given=False) for each in shadow),
                *(Consent(KIND, condition, is_given=action == _ALLOW) for action, condition in listed),
                *allowed,
            ]
        sources = [Consent(KIND, condition, is_given=action != _DENY) for action, condition in listed]
        return rbac.judging([*denied, *sources, *allowed, *shadow], trial)

    def _matched(self, action: str) -> Iterator[Consent]:
        for rule in self.rules:
            if rule.action == action:
                yield Consent(rule.name, _matching(rule.match), is_given=action != _DENY)

    def _listed(self, mesh: str) -> Iterator[tuple[str, Condition]]:
        """What each source does, as far as a client comes to it."""
        for source in self.sources:
            condition = client(mesh, source.tags)
            # That everybody else is refused is what a list ends with, not a refusal of those whom a rule takes.
            if condition != EVERYBODY or source.action != _DENY:
                yield source.action, condition
            if condition == EVERYBODY:
                return

    def _decided(self, mesh: str, actions: Collection[str]) -> Iterator[Condition]:
        """Those for whom the first source that names them has one of the actions."""
        others: list[Condition] = []
        run: list[Condition] = []
        for source in self.sources:
            condition = client(mesh, source.tags)
            if source.action in actions:
                run.append(condition)
            else:
                yield from _excepting(run, others)
                run = []
                others.append(condition)
            if condition == EVERYBODY:
                break
        yield from _excepting(run, others)


def _principals(sources: Sequence[Source]) -> int:
    """How many principals the taking and the trial of a list need at most."""
    total = others = 0
    before = ""
    for source in sources:
        if source.action != before:
            # Each run excepts all that came before and is something else; on trial, what is let in as well.
            total += others
        total, others, before = total + 1, others + 1, source.action
    return total


def _excepting(run: Sequence[Condition], others: Sequence[Condition]) -> Iterator[Condition]:
    if not others:
        yield from run
    elif run:
        these = run[0] if len(run) == 1 else rbac.Any(tuple(run))
        yield all_of([EVERYBODY if EVERYBODY in run else these, *map(Not, others)])


def _matching(match: Match) -> Condition:
    conditions: list[Condition] = []
    if match.spiffe_id is not None:
        conditions.append(Uri(match.spiffe_id.value, is_prefix=match.spiffe_id.type == "Prefix"))
    if match.sni is not None:
        conditions.append(ServerName(match.sni.value))
    return all_of(conditions)


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect:
    """Whom an inbound takes requests from."""
    sources = [
        Source(tuple(item.get("tags", {}).items()), default.action)
        for item in conf.get("from", ())
        if (default := Conf.model_validate(item["default"])).action
    ]
    rules = [
        Rule(item.get("name", ""), action, match)
        for item in conf.get("rules", ())
        for action, matches in _by_action(Conf.model_validate(item["default"]))
        for match in matches
    ]
    return Permitted(tuple(dict.fromkeys(sources)), tuple(dict.fromkeys(rules)))


def _by_action(conf: Conf) -> tuple[tuple[str, tuple[Match, ...]], ...]:
    return ((_DENY, conf.deny), (_ALLOW, conf.allow), (_SHADOW, conf.allow_with_shadow_deny))
