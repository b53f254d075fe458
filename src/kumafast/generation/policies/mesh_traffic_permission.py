"""What MeshTrafficPermission changes: which clients an inbound takes requests from.

In: all that the permissions for an inbound say, listed. Out: an effect. Never: a merge.

`from` is a list of sources of which the first that names a client decides. `rules` name clients to refuse and to take,
and a refusal comes first. Where an inbound has both, a client is refused if a rule refuses it or the list refuses it by
name, else taken if a rule or the list takes it. That is narrower than Kuma 2.14, where rules silence the list.

In principals the list costs one for each source that takes clients, and each source that refuses some costs one for
each run of taking sources after it: n·(r + 1) at most for n sources in r runs, where Kuma's table of subsets has 2^n.
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
        allowed = list(self._decided(mesh, {_ALLOW, _SHADOW}))
        shadow = list(self._decided(mesh, {_SHADOW}))
        if not self.rules:
            return rbac.allowing(KIND, allowed, judges_requests=True, shadow=shadow)
        # That everybody else is refused is what a list ends with, not a refusal of those whom a rule takes.
        denied = list(self._decided(mesh, {_DENY}, by_name=True))
        return rbac.judging(
            denied=[*self._matched(_DENY), *_consents(denied)],
            allowed=[*self._matched(_ALLOW), *self._matched(_SHADOW), *_consents(allowed)],
            shadow=[*self._matched(_SHADOW), *_consents(shadow)],
        )

    def _matched(self, action: str) -> Iterator[Consent]:
        for rule in self.rules:
            if rule.action == action:
                yield Consent(rule.name, _matching(rule.match))

    def _decided(self, mesh: str, actions: Collection[str], *, by_name: bool = False) -> Iterator[Condition]:
        """Those for whom the first source that names them has one of the actions."""
        others: list[Condition] = []
        run: list[Condition] = []
        for source in self.sources:
            condition = client(mesh, source.tags)
            if source.action in actions:
                if condition != EVERYBODY or not by_name:
                    run.append(condition)
            else:
                yield from _excepting(run, others)
                run = []
                others.append(condition)
            if condition == EVERYBODY:
                break
        yield from _excepting(run, others)


def _excepting(run: Sequence[Condition], others: Sequence[Condition]) -> Iterator[Condition]:
    if not others:
        yield from run
    elif run:
        these = run[0] if len(run) == 1 else rbac.Any(tuple(run))
        yield all_of([EVERYBODY if EVERYBODY in run else these, *map(Not, others)])


def _consents(conditions: Sequence[Condition]) -> Iterator[Consent]:
    return (Consent(KIND, condition) for condition in conditions)


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
