"""Who may connect to a workload, as Envoy's filters of the name RBAC judge it: by the certificate of the client.

In: conditions on certificates. Out: guards, and the filters that hold one. Never: which policies apply, or TLS itself.

A certificate names its workload by URIs: `spiffe://<mesh>/<service>` for each of its services and `kuma://<tag>/<value>`
for each of its tags. A condition asks for some of them and against others. Envoy has two languages for that. Principals
look at each URI by itself; matchers, which can put a refusal before a consent, see all URIs in one text, divided by
commas, which no URI of ours contains. The same conditions are written in both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2
from envoy.extensions.matching.common_inputs.ssl.v3 import ssl_inputs_pb2
from google.protobuf.message import Message
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2, regex_pb2, string_pb2

from kumafast.generation import fields
from kumafast.generation.effects import Effect, Guard

_Principal: TypeAlias = rbac_pb2.Principal
_Predicate = matcher_pb2.Matcher.MatcherList.Predicate
_On: TypeAlias = matcher_pb2.Matcher.OnMatch

_URIS = ("envoy.matching.inputs.uri_san", ssl_inputs_pb2.UriSanInput())
_SERVER_NAME = ("envoy.matching.inputs.server_name", network_inputs_pb2.ServerNameInput())


@dataclass(frozen=True, slots=True)
class Uri:
    """One of the certificate's URIs is this one, or, with `is_prefix`, begins with it."""

    text: str
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class ServerName:
    """The client asked for the server by this name."""

    text: str


@dataclass(frozen=True, slots=True)
class Not:
    """Whatever does not meet the condition."""

    of: Condition


@dataclass(frozen=True, slots=True)
class All:
    """What meets all of the conditions; everything where there are none."""

    of: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Any:
    """What meets one of the conditions."""

    of: tuple[Condition, ...]


Condition: TypeAlias = Uri | ServerName | Not | All | Any

EVERYBODY = All()


def all_of(conditions: Iterable[Condition]) -> Condition:
    """All of the conditions, without those that everything meets."""
    rest = tuple(each for each in conditions if each != EVERYBODY)
    return rest[0] if len(rest) == 1 else All(rest)


@dataclass(frozen=True, slots=True)
class Consent:
    """That those who meet a condition are let in, or are not, under a name that logs show."""

    name: str
    condition: Condition
    is_given: bool


# Guards.


def guard(effects: Iterable[Effect], mesh: str) -> Guard:
    """Who of a mesh may connect, by the one effect that says it. Nobody where none does: a mesh with TLS is closed."""
    guards = [found for effect in effects if (found := effect.inbound_guard(mesh)) is not None]
    return guards[-1] if guards else Guard(judges_requests=True, rules=rbac_pb2.RBAC())


def allowing(
    name: str, clients: Collection[Condition], *, judges_requests: bool, shadow: Collection[Condition] = ()
) -> Guard:
    """Lets in those that meet one of the conditions; a trial run refuses those that meet one of `shadow`."""
    return Guard(
        judges_requests=judges_requests,
        rules=_rules(name, clients, rbac_pb2.RBAC.ALLOW),
        shadow_rules=_rules(name, shadow, rbac_pb2.RBAC.DENY) if shadow else None,
    )


def judging(consents: Iterable[Consent], trial: Iterable[Consent] | None = None) -> Guard:
    """Does what the first consent says whose condition is met, and refuses all others; a trial run has its own list."""
    return Guard(
        judges_requests=True,
        matcher=_matcher(consents),
        shadow_matcher=None if trial is None else _matcher(trial),
    )


def http_filter(found: Guard) -> http_rbac_pb2.RBAC:
    """The filter among those of requests."""
    return http_rbac_pb2.RBAC(
        rules=found.rules,
        shadow_rules=found.shadow_rules,
        matcher=found.matcher,
        shadow_matcher=found.shadow_matcher,
    )


def network_filter(found: Guard) -> network_rbac_pb2.RBAC:
    """The filter among those of connections, still without a name for its statistics."""
    return network_rbac_pb2.RBAC(
        rules=found.rules,
        shadow_rules=found.shadow_rules,
        matcher=found.matcher,
        shadow_matcher=found.shadow_matcher,
    )


# Principals.


def _rules(name: str, clients: Collection[Condition], action: int) -> rbac_pb2.RBAC:
    rules = rbac_pb2.RBAC(action=action)
    if clients:
        policy = rules.policies[name]
        policy.permissions.add(any=True)
        policy.principals.extend(map(_principal, clients))
    return rules


def _principal(condition: Condition) -> _Principal:
    match condition:
        case Uri(text, is_prefix):
            kind = "prefix" if is_prefix else "exact"
            return _Principal(authenticated={"principal_name": {kind: text}})
        case Not(inner):
            return _Principal(not_id=_principal(inner))
        case All(()):
            return _Principal(any=True)
        case All(several):
            return _Principal(and_ids={"ids": list(map(_principal, several))})
        case Any(several):
            return _Principal(or_ids={"ids": list(map(_principal, several))})
        case ServerName():
            raise ValueError("a principal cannot ask for the name of the server")


# Matchers.


def _matcher(consents: Iterable[Consent]) -> matcher_pb2.Matcher:
    matcher = matcher_pb2.Matcher(on_no_match=_action("default", is_given=False))
    for consent in consents:
        matcher.matcher_list.matchers.add(
            predicate=_predicate(consent.condition), on_match=_action(consent.name, is_given=consent.is_given)
        )
    return matcher


def _action(name: str, *, is_given: bool) -> _On:
    action = rbac_pb2.RBAC.ALLOW if is_given else rbac_pb2.RBAC.DENY
    return _On(action=_extension("envoy.filters.rbac.action", rbac_pb2.Action(name=name, action=action)))


def _predicate(condition: Condition) -> matcher_pb2.Matcher.MatcherList.Predicate:
    match condition:
        case Uri(text, is_prefix):
            rest = "" if is_prefix else "(?:,.*)?"
            anything = ".*" if is_prefix else ""
            return _single(_URIS, _regex(f"(?:.*,)?{re.escape(text)}{anything}{rest}"))
        case ServerName(text):
            return _single(_SERVER_NAME, string_pb2.StringMatcher(exact=text))
        case Not(inner):
            return _Predicate(not_matcher=_predicate(inner))
        case All(()):
            return _single(_URIS, _regex(".*"))
        case All(several):
            return _Predicate(and_matcher={"predicate": list(map(_predicate, several))})
        case Any(several):
            return _Predicate(or_matcher={"predicate": list(map(_predicate, several))})


def _regex(regex: str) -> string_pb2.StringMatcher:
    return string_pb2.StringMatcher(
        safe_regex=regex_pb2.RegexMatcher(google_re2=regex_pb2.RegexMatcher.GoogleRE2(), regex=regex)
    )


def _single(asked: tuple[str, Message], value: string_pb2.StringMatcher) -> matcher_pb2.Matcher.MatcherList.Predicate:
    return _Predicate(single_predicate={"input": _extension(*asked), "value_match": value})


def _extension(name: str, config: Message) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=fields.packed(config))
