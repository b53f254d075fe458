"""The policies of one dataplane, and what they come to for each of its outbounds and inbounds.

In: policies that matched a dataplane, as a whole and inbound by inbound. Out: settings, one for each kind that says
something. Never: a message; generation knows what a setting does.

What is said of a service depends on the policies about that service alone, so proxies for which these are the same
share one computation, however different the rest of their policies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from immutables import Map

from kumafast.matching.connection import Ranked, outbound_winner, winner
from kumafast.matching.policy import ANY_SERVICE, CompiledPolicy, Conf, Rank
from kumafast.matching.rules import Rule, catch_all, inbound_rules, listing, proxy_rule, to_rule

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
    _outbounds: dict[str, tuple[Setting, ...]] = field(init=False, repr=False, default_factory=dict)
    _inbounds: dict[int, tuple[Setting, ...]] = field(init=False, repr=False, default_factory=dict)

    def outbound(self, service: str) -> tuple[Setting, ...]:
        """What holds for requests to a service, in the order in which it is applied. O(policies about the service)."""
        found = self._outbounds.get(service)
        if found is None:
            about, ranks, policies = self.subjects.about, self.ranks, self.subjects.policies
            numbers = (*about.get(ANY_SERVICE, ()), *(about.get(service, ()) if service != ANY_SERVICE else ()))
            found = _outbound(tuple((policies[each], ranks[each]) for each in numbers if each in ranks), service)
            self._outbounds[service] = found
        return found

    @property
    def proxy(self) -> tuple[Setting, ...]:
        """What holds for the proxy as a whole, in the order in which it is applied."""
        about = self.subjects.about.get(PROXY, ())
        # In most meshes and for most proxies there is nothing of the kind.
        if not about:
            return ()
        found = self._outbounds.get(PROXY)
        if found is None:
            ranks, policies = self.ranks, self.subjects.policies
            found = _proxy(tuple((policies[each], ranks[each]) for each in about if each in ranks))
            self._outbounds[PROXY] = found
        return found

    def inbound(self, position: int) -> tuple[Setting, ...]:
        """What holds for requests to the inbound at a position, in the order in which it is applied."""
        found = self._inbounds.get(position)
        if found is None:
            ranked = ((self.subjects.policies[number], rank) for number, rank in self.inbounds[position])
            found = self._inbounds[position] = _inbound(tuple(each for each in ranked if each[0].inbound))
        return found


@lru_cache(maxsize=_CACHE_SIZE)
def _outbound(matched: tuple[tuple[CompiledPolicy, Rank], ...], service: str) -> tuple[Setting, ...]:
    by_kind: dict[str, list[Ranked]] = defaultdict(list)
    for each in matched:
        by_kind[each[0].key.type].append(each)
    rules = {kind: rule for kind, ranked in by_kind.items() if (rule := _rule(ranked, service)) is not None}
    return _settings(_spoken(rules))


def _rule(ranked: list[Ranked], service: str) -> Rule | None:
    if ranked[0][0].is_target_ref:
        return to_rule((policy for policy, _ in ranked), service)
    best = outbound_winner(ranked, service)
    return None if best is None else Rule(best.outbound[0].conf, (best,))


@lru_cache(maxsize=_CACHE_SIZE)
def _proxy(matched: tuple[Ranked, ...]) -> tuple[Setting, ...]:
    by_kind: dict[str, list[Ranked]] = defaultdict(list)
    for each in matched:
        by_kind[each[0].key.type].append(each)
    return _settings(_spoken({kind: _proxy_rule(ranked) for kind, ranked in by_kind.items()}))


def _proxy_rule(ranked: list[Ranked]) -> Rule:
    if ranked[0][0].is_target_ref:
        return proxy_rule(policy for policy, _ in ranked)
    best = winner(ranked)
    assert best is not None
    return proxy_rule([best])


@lru_cache(maxsize=_CACHE_SIZE)
def _inbound(matched: tuple[Ranked, ...]) -> tuple[Setting, ...]:
    by_kind: dict[str, list[Ranked]] = defaultdict(list)
    for each in matched:
        by_kind[each[0].key.type].append(each)
    found = {kind: _inbound_rule(ranked) for kind, ranked in by_kind.items()}
    return _settings(_spoken({kind: rule for kind, rule in found.items() if rule is not None}))


def _inbound_rule(ranked: list[Ranked]) -> Rule | None:
    one = ranked[0][0]
    if one.is_target_ref:
        policies = [policy for policy, _ in ranked]
        return listing(policies) if one.is_listed else catch_all(inbound_rules(policies))
    best = winner(ranked)
    return None if best is None else Rule(best.inbound[0].conf, (best,))


def _spoken(rules: dict[str, Rule]) -> dict[str, Rule]:
    """Those that another family of the same purpose does not silence."""
    spoken = dict(rules)
    for kind, rule in rules.items():
        successor = rules.get(rule.origin[0].successor)
        if successor is not None:
            # Two families, one purpose: what a user wrote outweighs what came with the mesh, then the newer form wins.
            del spoken[rule.origin[0].successor if successor.is_initial else kind]
    return spoken


def _settings(rules: dict[str, Rule]) -> tuple[Setting, ...]:
    ordered: Iterable[tuple[str, Rule]] = sorted(rules.items(), key=lambda each: (each[1].origin[0].order, each[0]))
    return tuple(Setting(kind, rule.conf) for kind, rule in ordered)
