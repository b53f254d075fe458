"""Many policies against one dataplane.

In: compiled policies under numbers that the owner chooses; the candidates of a dataplane. Out: its `Bindings`.
Never: many dataplanes at once; the registry's index finds those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from immutables import Map

from kumafast._core import SelectorSet, TagSet
from kumafast.matching.bindings import PROXY, Bindings, Subjects
from kumafast.matching.policy import ANY_SERVICE, CompiledPolicy, Rank

_NO_TAGS = TagSet()

# Entries are small; the bound is on how many ways there are to be bound, not on dataplanes.
_BOUND_MAX = 16_384


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Policies of one mesh at one moment. Immutable: a change makes a new one that shares with this."""

    _selectors: SelectorSet = field(default_factory=SelectorSet)
    _subjects: Subjects = field(default_factory=lambda: Subjects(Map(), Map()))
    # By what a dataplane's candidates match, in place of the dataplane.
    _bound: dict[tuple[int, tuple[bytes, ...]] | bytes, Bindings] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    # Where only what a policy says is another, the bindings of the set before by the same keys, and what they are here.
    _earlier: Mapping[tuple[int, tuple[bytes, ...]] | bytes, Bindings] = field(
        default_factory=dict, repr=False, compare=False
    )
    _inherited: dict[Bindings, Bindings] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self._subjects.policies)

    def get(self, number: int) -> CompiledPolicy:
        """The policy under a number that has one."""
        return self._subjects.policies[number]

    def replaced(self, number: int, policy: CompiledPolicy | None) -> PolicySet:
        """A set with this policy, or none, under a number. O(√policies) amortised, and what the policies are about."""
        selectors, policies, about = self._selectors, self._subjects.policies, self._subjects.about
        before = policies.get(number)
        is_edit = before is not None and policy is not None and before.selectors == policy.selectors
        if before is not None:
            selectors = selectors if is_edit else selectors.removed([number])
            policies = policies.delete(number)
            for subject in _subjects(before):
                rest = tuple(each for each in about[subject] if each != number)
                about = about.set(subject, rest) if rest else about.delete(subject)
        if policy is not None:
            if not is_edit:
                selectors = selectors.added((number, selector) for selector in policy.selectors)
            policies = policies.set(number, policy)
            for subject in _subjects(policy):
                about = about.set(subject, tuple(sorted((*about.get(subject, ()), number))))
        return PolicySet(selectors, Subjects(policies, about), self._bound if is_edit else {})

    def inherits_from(self, other: PolicySet) -> bool:
        """Whether whoever is bound by the other set is bound by the same policies at the same ranks in this one."""
        return self._selectors is other._selectors

    def inherit(self, bindings: Bindings) -> Bindings:
        """What bindings of a set that this one inherits from are here, without a look at who is bound so."""
        found = self._inherited.get(bindings)
        if found is None:
            found = self._inherited[bindings] = Bindings(self._subjects, bindings.ranks, bindings.inbounds)
        return found

    def bind(self, inbounds: Sequence[TagSet], gateway: Sequence[TagSet]) -> Bindings:
        """The policies of a dataplane with these candidates: one object for all that match the same policies.

        O(their tags + policies found), without an object for each of these but for the first time.
        """
        fingerprint = self._selectors.fingerprint
        if len(inbounds) == 1 and not gateway:
            key: tuple[int, tuple[bytes, ...]] | bytes = fingerprint(inbounds[0])
        else:
            key = (len(inbounds), tuple(map(fingerprint, (*inbounds, *gateway))))
        found = self._bound.get(key)
        if found is None:
            if len(self._bound) >= _BOUND_MAX:
                self._bound.clear()
            earlier = self._earlier.get(key)
            found = self._bind(inbounds, gateway) if earlier is None else self.inherit(earlier)
            self._bound[key] = found
        return found

    def _bind(self, inbounds: Sequence[TagSet], gateway: Sequence[TagSet]) -> Bindings:
        ranks: dict[int, Rank] = {}
        by_inbound: list[tuple[tuple[int, Rank], ...]] = []
        for tags in inbounds:
            hits = self._selectors.match(tags)
            _keep_best(ranks, hits)
            by_inbound.append(tuple(hits))
        # A dataplane without either is matched by a selector that asks for nothing.
        for tags in gateway or (() if inbounds else (_NO_TAGS,)):
            _keep_best(ranks, self._selectors.match(tags))
        return Bindings(self._subjects, ranks, tuple(by_inbound))


def _subjects(policy: CompiledPolicy) -> Iterable[str]:
    services = (ANY_SERVICE,) if policy.services is None else policy.services
    return services if policy.proxy is None else (*services, PROXY)


def _keep_best(ranks: dict[int, Rank], hits: Sequence[tuple[int, Rank]]) -> None:
    if not ranks:
        ranks.update(hits)
        return
    for number, rank in hits:
        if number not in ranks or rank > ranks[number]:
            ranks[number] = rank
