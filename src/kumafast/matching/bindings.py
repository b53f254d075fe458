"""The policies of one dataplane, and what they come to for each of its outbounds and inbounds.

In: policies that matched a dataplane, as a whole and inbound by inbound. Out: settings, one for each kind that says
something. Never: a message; generation knows what a setting does.

What is said of a service depends on the policies about that service alone, so proxies for which these are the same
share one computation, however different the rest of their policies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from immutables import Map

from kumafast.matching import routing
from kumafast.matching.backend_refs import Destination
from kumafast.matching.backends import BackendPort, Subject
from kumafast.matching.connection import Ranked, in_order, outbound_winner, winner
from kumafast.matching.policy import ANY_SERVICE, PASS_THROUGH, CompiledPolicy, Conf, Rank
from kumafast.matching.routing import Route
from kumafast.matching.rules import (
    Rule,
    cases,
    catch_all,
    givers_of_rules,
    inbound_rules,
    listing,
    sources,
    to_rule,
    whole_rule,
)
from kumafast.memo import remembered
from kumafast.resources.tags import SERVICE_TAG

PROXY = "@proxy"
"""What policies of a proxy as a whole are about; no service has a name with `@`."""

# Entries are small and live as long as they are asked for; the bound is the number of combinations, not of proxies.
_CACHE_SIZE = 16_384


@dataclass(frozen=True, slots=True)
class Setting:
    """What the policies of one kind come to. Its hash is computed once: every proxy looks it up."""

    kind: str
    conf: Conf
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.kind, self.conf)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Subjects:
    """Policies by number, and the numbers of those that say something about a service or `PROXY`, ascending."""

    policies: Map[int, CompiledPolicy]
    about: Map[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Bindings:
    """The policies of a dataplane by number: with the rank at which they matched it, and likewise for each inbound.

    One object for all dataplanes of a `PolicySet` that are bound alike, compared by identity: what it has been asked
    it remembers, so that a proxy costs a look-up.
    """

    subjects: Subjects
    ranks: Mapping[int, Rank]
    inbounds: tuple[tuple[tuple[int, Rank], ...], ...]
    _outbounds: dict[str | Subject, tuple[Setting, ...]] = field(init=False, repr=False, default_factory=dict)
    _inbounds: dict[int, tuple[Setting, ...]] = field(init=False, repr=False, default_factory=dict)
    _routes: dict[tuple[Destination, str | Subject], Route | None] = field(init=False, repr=False, default_factory=dict)
    _through: dict[int, Bindings] = field(init=False, repr=False, default_factory=dict)
    _kinds: frozenset[str] | None = field(init=False, repr=False, default=None)
    _is_general: bool | None = field(init=False, repr=False, default=None)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of policies that are for the dataplane, whatever they are about."""
        if self._kinds is None:
            found = frozenset(self.subjects.policies[number].key.type for number in self.ranks)
            object.__setattr__(self, "_kinds", found)
            return found
        return self._kinds

    def through(self, position: int) -> Bindings:
        """The policies for the listener of a gateway at a position alone: what it sends on is its own matter."""
        found = self._through.get(position)
        if found is None:
            hits = self.inbounds[position]
            found = self._through[position] = Bindings(self.subjects, dict(hits), (hits,))
        return found

    def outbound(self, subject: str | Subject) -> tuple[Setting, ...]:
        """What holds for requests to a service by tags, or to a port of one, in the order in which it is applied.

        O(policies about it). What is said of any service is worked out once for all that no policy names.
        """
        found = self._outbounds.get(subject)
        if found is None:
            is_named = not subject or isinstance(subject, Subject) or subject in self.subjects.about
            if is_named or subject == ANY_SERVICE or not self._says_the_same_of_others():
                found = _outbound(self.about(subject), subject)
            else:
                found = self.outbound(ANY_SERVICE)
            self._outbounds[subject] = found
        return found

    def _says_the_same_of_others(self) -> bool:
        """Whether the policies about any service have no item that is about one."""
        if self._is_general is None:
            is_general = all(policy.is_general for policy, _ in self.about(ANY_SERVICE))
            object.__setattr__(self, "_is_general", is_general)
            return is_general
        return self._is_general

    def route(self, asked: Destination, subject: str | Subject | None = None) -> Route | None:
        """Where an outbound leads; None where that is what it asks for.

        `subject` is what policies about that are about: the service of its tags, or the port of a service that is
        there; None where that is not.
        """
        if subject is None:
            if isinstance(asked, BackendPort):
                return None
            subject = dict(asked).get(SERVICE_TAG, "")
        key = (asked, subject)
        if key in self._routes:
            return self._routes[key]
        settings = self.outbound(subject)
        said = {setting.kind: setting.conf for setting in settings if setting.kind in routing.KINDS}
        newer = self._newer_routes() if routing.OLDER in said else frozenset()
        givers = givers_of_rules(self._about_requests(subject), subject) if routing.REQUESTS in said else {}
        found = self._routes[key] = routing.route(asked, said, newer, givers) if said else None
        return found

    def _about_requests(self, subject: str | Subject) -> list[CompiledPolicy]:
        return [policy for policy, _ in self.about(subject) if policy.key.type == routing.REQUESTS]

    def of_route(self, name: str) -> tuple[Setting, ...]:
        """What is said of requests that a MeshHTTPRoute rules, by the kinds that say something of this very route."""
        subject = Subject(routing.REQUESTS, name, "", ())
        if not self.subjects.about.get(subject.names[0]):
            return ()
        about = self.about(subject)
        kinds = {policy.key.type for policy, _ in about if any(item.ref for item in policy.items_for(subject))}
        return tuple(setting for setting in self.outbound(subject) if setting.kind in kinds)

    def _newer_routes(self) -> frozenset[str]:
        """The kinds of routes with a targetRef that the dataplane has, whatever these are about."""
        policies = (self.subjects.policies[number] for number in self.ranks)
        return frozenset(
            policy.key.type
            for policy in policies
            if policy.key.type in routing.KINDS and policy.key.type != routing.OLDER and policy.outbound
        )

    def about(self, subject: str | Subject) -> tuple[Ranked, ...]:
        """The policies of the dataplane that say something about requests to a service, each with its rank."""
        about, ranks, policies = self.subjects.about, self.ranks, self.subjects.policies
        if isinstance(subject, Subject):
            noted = dict.fromkeys(each for name in (ANY_SERVICE, *subject.names) for each in about.get(name, ()))
            found = ((policies[each], ranks[each]) for each in noted if each in ranks)
            return tuple(each for each in found if each[0].items_for(subject))
        numbers = (*about.get(ANY_SERVICE, ()), *(about.get(subject, ()) if subject != ANY_SERVICE else ()))
        return tuple((policies[each], ranks[each]) for each in numbers if each in ranks)

    @property
    def proxy(self) -> tuple[Setting, ...]:
        """What holds for the proxy as a whole, in the order in which it is applied."""
        # In most meshes there is nothing of the kind.
        if PROXY not in self.subjects.about:
            return ()
        found = self._outbounds.get(PROXY)
        if found is None:
            found = self._outbounds[PROXY] = _proxy(self.about_proxy())
        return found

    def about_proxy(self) -> tuple[Ranked, ...]:
        """The policies that say something about the proxy as a whole, each with its rank."""
        numbers, ranks, policies = self.subjects.about.get(PROXY, ()), self.ranks, self.subjects.policies
        return tuple((policies[each], ranks[each]) for each in numbers if each in ranks)

    def inbound(self, position: int) -> tuple[Setting, ...]:
        """What holds for requests to the inbound at a position, in the order in which it is applied."""
        found = self._inbounds.get(position)
        if found is None:
            found = self._inbounds[position] = _inbound(self.about_inbound(position))
        return found

    def outward(self, outbounds: Iterable[tuple[Destination, str | Subject]]) -> Hashable:
        """All that a proxy with outbounds to these, each with its subject, is told of what it sends, as one value."""
        sent = tuple((self.outbound(subject), self.route(destination, subject)) for destination, subject in outbounds)
        return sent, self.outbound(PASS_THROUGH), self.proxy

    def inward(self) -> Hashable:
        """All that a proxy is told by these bindings of what comes in, as one value."""
        return tuple(map(self.inbound, range(len(self.inbounds)))), self.proxy

    def about_inbound(self, position: int) -> tuple[Ranked, ...]:
        """The policies that say something about requests to the inbound at a position, each with its rank."""
        ranked = ((self.subjects.policies[number], rank) for number, rank in self.inbounds[position])
        return tuple(each for each in ranked if each[0].inbound)


@remembered(_CACHE_SIZE)
def _outbound(matched: tuple[Ranked, ...], subject: str | Subject) -> tuple[Setting, ...]:
    found = {kind: outbound_rule(ranked, subject) for kind, ranked in by_kind(matched).items()}
    return _settings(spoken(found))


def by_kind(matched: Iterable[Ranked]) -> dict[str, list[Ranked]]:
    """Policies by their kind."""
    found: dict[str, list[Ranked]] = defaultdict(list)
    for each in matched:
        found[each[0].key.type].append(each)
    return found


def outbound_rule(ranked: list[Ranked], subject: str | Subject) -> Rule | None:
    """What policies of one kind come to for requests to a service; None where that is nothing.

    Policies without a targetRef are about tags, and say nothing of ports of services.
    """
    if ranked[0][0].is_target_ref:
        return to_rule((policy for policy, _ in ranked), subject)
    if not isinstance(subject, str):
        return None
    best = outbound_winner(ranked, subject)
    return None if best is None else Rule(best.outbound[0].conf, (best,))


@remembered(_CACHE_SIZE)
def _proxy(matched: tuple[Ranked, ...]) -> tuple[Setting, ...]:
    return _settings(spoken({kind: proxy_rule(ranked) for kind, ranked in by_kind(matched).items()}))


def proxy_rule(ranked: list[Ranked]) -> Rule | None:
    """What policies of one kind come to for a proxy as a whole; None where that is nothing."""
    if ranked[0][0].is_target_ref:
        return whole_rule(policy for policy, _ in ranked)
    best = winner(ranked)
    return None if best is None else whole_rule([best])


@remembered(_CACHE_SIZE)
def _inbound(matched: tuple[Ranked, ...]) -> tuple[Setting, ...]:
    return _settings(spoken({kind: inbound_rule(ranked) for kind, ranked in by_kind(matched).items()}))


def inbound_rule(ranked: list[Ranked]) -> Rule | None:
    """What policies of one kind come to for requests that come in; None where that is nothing."""
    one = ranked[0][0]
    if one.is_target_ref:
        policies = [policy for policy, _ in ranked]
        if one.has_cases:
            return cases(policies)
        return listing(policies) if one.is_listed else catch_all(inbound_rules(policies))
    if one.is_listed:
        return sources(in_order(policy for policy, _ in ranked))
    best = winner(ranked)
    return None if best is None else Rule(best.inbound[0].conf, (best,))


def spoken(found: Mapping[str, Rule | None]) -> dict[str, Rule]:
    """What is said, by kind, where another family of the same purpose does not silence it."""
    rules = {kind: rule for kind, rule in found.items() if rule is not None}
    heard = dict(rules)
    for kind, rule in rules.items():
        successor = rules.get(rule.origin[0].successor)
        if successor is not None:
            # Two families, one purpose: what a user wrote outweighs what came with the mesh, then the newer form wins.
            del heard[rule.origin[0].successor if successor.is_initial else kind]
    return heard


def _settings(rules: dict[str, Rule]) -> tuple[Setting, ...]:
    ordered: Iterable[tuple[str, Rule]] = sorted(rules.items(), key=lambda each: (each[1].origin[0].order, each[0]))
    return tuple(Setting(kind, rule.conf) for kind, rule in ordered)
