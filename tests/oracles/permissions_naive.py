"""Who may connect, as the contract words it, in plain loops: the twin of matching and generating permissions.

In: stored permissions, a dataplane, a client. Out: whether the client may connect, and whether it is on trial.
Never: a URI of a certificate put together cleverly, a message, an index.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.oracles import policies_naive
from tests.oracles.matching_naive import Rank, matches, rank

from kumafast.resources import Dataplane, Resource, to_document
from kumafast.resources.target_ref_policy import TargetRefPolicy

SERVICE = "kuma.io/service"
Tags = Mapping[str, str]
Stored = tuple[Resource, datetime]


@dataclass(frozen=True)
class Client:
    """Who asks: the tags of each of its inbounds, and the name by which it calls the server."""

    inbounds: tuple[Tags, ...]
    server_name: str

    def has(self, tags: Tags) -> bool:
        """Its certificate has every tag that one of its inbounds has, and does not say which has which."""
        return all(any(inbound.get(key) == value for inbound in self.inbounds) for key, value in tags.items())

    def spiffe_ids(self, mesh: str) -> list[str]:
        return [f"spiffe://{mesh}/{inbound[SERVICE]}" for inbound in self.inbounds]


@dataclass(frozen=True)
class Answer:
    may_connect: bool
    is_on_trial: bool = False


def answer(policies: Sequence[Stored], dataplane: Dataplane, position: int, client: Client) -> Answer:
    """Whether a client may connect to the inbound at a position of a dataplane in a mesh with TLS."""
    mesh_permissions = [
        policy
        for policy, _ in policies
        if isinstance(policy, TargetRefPolicy) and policies_naive.selects(policy, dataplane)[1][position]
    ]
    if mesh_permissions:
        return _mesh_traffic_permissions(mesh_permissions, dataplane.mesh, client)
    legacy = [each for each in policies if not isinstance(each[0], TargetRefPolicy)]
    sources = winning_sources(legacy, dataplane.inbounds[position].tags)
    return Answer(any(client.has({k: v for k, v in source.items() if v != "*"}) for source in sources))


def winning_sources(policies: Sequence[Stored], tags: Tags) -> Sequence[Tags]:
    """The sources of the one permission whose destination is the most specific; of equals the later, then by name."""
    best: tuple[Rank, datetime] | None = None
    sources: Sequence[Tags] = ()
    for policy, created in sorted(policies, key=lambda each: each[0].name):
        document: Any = to_document(policy)
        for rule in document.get("rules") or [document]:
            for destination in rule["destinations"]:
                match = destination.get("match", {})
                if matches(match, tags) and (best is None or (rank(match), created) > best):
                    best = rank(match), created
                    sources = [source.get("match", {}) for source in rule["sources"]]
    return sources


def _mesh_traffic_permissions(policies: Sequence[TargetRefPolicy], mesh: str, client: Client) -> Answer:
    specs: list[Any] = [to_document(policy)["spec"] for policy in policies_naive.in_order(policies)]
    rules = [rule["default"] for spec in specs for rule in spec.get("rules", [])]
    found = {
        action: any(matches_client(match, mesh, client) for rule in rules for match in rule.get(action, []))
        for action in ("deny", "allow", "allowWithShadowDeny")
    }
    action, is_by_name = decision([item for spec in specs for item in spec.get("from", [])], client)
    # Where there are rules, that a list ends with everybody else being refused is no refusal of those whom a rule lets.
    if found["deny"] or (action == "Deny" and (is_by_name or not rules)):
        return Answer(False)
    listed = action in ("Allow", "AllowWithShadowDeny")
    on_trial = found["allowWithShadowDeny"] or action == "AllowWithShadowDeny"
    return Answer(found["allow"] or found["allowWithShadowDeny"] or listed, on_trial)


def matches_client(match: Any, mesh: str, client: Client) -> bool:
    identity, server = match.get("spiffeID"), match.get("sni")
    if identity is not None:
        uris = [*client.spiffe_ids(mesh), *(f"kuma://{k}/{v}" for tags in client.inbounds for k, v in tags.items())]
        if identity["type"] == "Exact" and identity["value"] not in uris:
            return False
        if identity["type"] == "Prefix" and not any(uri.startswith(identity["value"]) for uri in uris):
            return False
    return server is None or server["value"] == client.server_name


def subset(target_ref: Mapping[str, Any]) -> dict[str, str]:
    tags = dict(target_ref.get("tags", {}))
    if target_ref["kind"] in ("MeshService", "MeshServiceSubset"):
        tags[SERVICE] = target_ref["name"]
    return tags


def decision(items: Sequence[Any], client: Client) -> tuple[str, bool]:
    """What all items about a client come to, merged in order: what the last of them says, and whether that names it."""
    action, is_by_name = "", False
    for item in items:
        if client.has(subset(item["targetRef"])):
            action, is_by_name = item["default"]["action"], bool(subset(item["targetRef"]))
    return action, is_by_name


# Kuma's table of rules by subsets, for clients of one inbound. Exponential, as there.

Term = tuple[str, str, bool]


def table(items: Sequence[Any]) -> list[tuple[tuple[Term, ...], str]]:
    """Rules by subsets (key, value, negated) with what they come to, in the order in which they are looked up."""
    subsets = [subset(item["targetRef"]) for item in items]
    rules: list[tuple[tuple[Term, ...], str]] = []
    for group in sorted(_cliques(subsets), key=lambda clique: ":".join(map(str, clique)), reverse=True):
        rules += _rules_of([(subsets[i], items[i]["default"]["action"]) for i in group])
    return sorted(rules, key=lambda rule: -sum(not negated for _, _, negated in rule[0]))


def _cliques(subsets: Sequence[Tags]) -> list[tuple[int, ...]]:
    def meet(one: Tags, other: Tags) -> bool:
        return all(other.get(key, value) == value for key, value in one.items())

    numbers = range(len(subsets))
    complete = [
        group
        for size in range(1, len(subsets) + 1)
        for group in itertools.combinations(numbers, size)
        if all(meet(subsets[i], subsets[j]) for i, j in itertools.combinations(group, 2))
    ]
    return [group for group in complete if not any(set(group) < set(other) for other in complete)]


def _rules_of(items: Sequence[tuple[Tags, str]]) -> Iterable[tuple[tuple[Term, ...], str]]:
    values: dict[str, list[str]] = {}
    for key, value in sorted({pair for tags, _ in items for pair in tags.items()}):
        values.setdefault(key, []).append(value)
    dimensions = [
        [*(((key, value, False),) for value in reversed(several)), tuple((key, value, True) for value in several)]
        for key, several in values.items()
    ]
    for digits in itertools.product(*(dimension for dimension in reversed(dimensions))):
        terms = tuple(term for dimension in reversed(digits) for term in dimension)
        relevant = [action for tags, action in items if _contains(tags, terms)]
        if relevant:
            yield terms, relevant[-1]


def _contains(tags: Tags, terms: Sequence[Term]) -> bool:
    for key, value in tags.items():
        of_key = [(other, negated) for name, other, negated in terms if name == key]
        if not of_key or not all(other != value if negated else other == value for other, negated in of_key):
            return False
    return True


def is_of(terms: Sequence[Term], tags: Tags) -> bool:
    """Whether a subset contains a client of one inbound."""
    return all((tags.get(key) == value) is not negated for key, value, negated in terms)
