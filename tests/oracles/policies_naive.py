"""Which policies hold for a dataplane, as the contract words it, in plain loops: the twin of matching and its index.

In: resources. Out: the conf that holds for a service or an inbound. Never: an index, a cache, anything clever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cmp_to_key
from typing import Any

from tests.oracles.matching_naive import matches, matches_one, rank

from kumafast.resources import Dataplane, to_document
from kumafast.resources.connection_policy import ConnectionPolicy
from kumafast.resources.dataplane_policy import DataplanePolicy
from kumafast.resources.target_ref_policy import TargetRefPolicy

SERVICE = "kuma.io/service"
Document = Mapping[str, Any]


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def merged(confs: Sequence[Document]) -> Any:
    result: Any = {}
    for conf in confs:
        result = merge_patch(result, json.loads(json.dumps(conf)))
    return result


# Policies with sources and destinations.


def legacy_winner(
    policies: Sequence[tuple[ConnectionPolicy, datetime]], dataplane: Dataplane, service: str
) -> ConnectionPolicy | None:
    candidates = [dict(inbound.tags) for inbound in dataplane.inbounds]
    if dataplane.gateway is not None:
        candidates.append(dict(dataplane.gateway.tags))
    best, best_rank, best_created = None, (0, 0), None
    for policy, created in sorted(policies, key=lambda each: each[0].name):
        sources = [rank(source.match) for source in policy.sources if matches_one(source.match, candidates)]
        if not sources:
            continue
        for destination in policy.destinations:
            if not matches(destination.match, {SERVICE: service}):
                continue
            both = tuple(map(sum, zip(rank(destination.match), max(sources), strict=True)))
            is_later = best_created is not None and created > best_created
            if best is None or both > best_rank or (both == best_rank and is_later):
                best, best_rank, best_created = policy, (both[0], both[1]), created
    return best


def inbound_winner(
    policies: Sequence[tuple[ConnectionPolicy, datetime]], tags: Mapping[str, str]
) -> ConnectionPolicy | None:
    """For kinds about what comes in: the destination counts, whoever the sources are."""
    best, best_rank, best_created = None, (0, 0), None
    for policy, created in sorted(policies, key=lambda each: each[0].name):
        ranks = [rank(each.match) for each in policy.destinations if matches(each.match, tags)]
        if not ranks:
            continue
        is_later = best_created is not None and max(ranks) == best_rank and created > best_created
        if best is None or max(ranks) > best_rank or is_later:
            best, best_rank, best_created = policy, max(ranks), created
    return best


def inbound_order(
    policies: Sequence[tuple[ConnectionPolicy, datetime]], tags: Mapping[str, str]
) -> list[tuple[str, dict[str, str]]]:
    """For kinds of which all that match an inbound count: each source, once for each policy, the narrowest first."""
    found: list[tuple[tuple[int, int], datetime, str, dict[str, str]]] = []
    for policy, created in sorted(policies, key=lambda each: each[0].name):
        if any(matches(each.match, tags) for each in policy.destinations):
            for source in dict.fromkeys(each.match for each in policy.sources):
                found.append((rank(source), created, policy.name, dict(source)))
    found.sort(key=lambda each: each[:2], reverse=True)
    return [(name, source) for _, _, name, source in found]


# Policies with a targetRef.


def selects(policy: TargetRefPolicy, dataplane: Dataplane) -> tuple[bool, list[bool]]:
    """Whether a policy is for a dataplane, and for which of its inbounds."""
    theirs, ours = policy.labels, dataplane.labels
    nothing = False, [False for _ in dataplane.inbounds]
    role = theirs.get("kuma.io/policy-role", "system")
    if role != "producer" and ours.get("kuma.io/origin") == theirs.get("kuma.io/origin") == "zone":
        zone = theirs.get("kuma.io/zone")
        if zone and ours.get("kuma.io/zone", zone) != zone:
            return nothing
    if role in ("consumer", "workload-owner"):
        namespace = theirs.get("k8s.kuma.io/namespace")
        if not namespace or ours.get("k8s.kuma.io/namespace") != namespace:
            return nothing
    if theirs.get("kuma.io/effect") == "shadow":
        return nothing
    ref = policy.spec.top
    gateway = dataplane.gateway
    is_delegated = gateway is not None and gateway.type == "DELEGATED"
    if gateway is not None and not is_delegated:
        return nothing
    if ref.proxy_types and ("Gateway" if gateway is not None else "Sidecar") not in ref.proxy_types:
        return nothing
    wanted: dict[str, str] = {}
    match ref.kind:
        case "Mesh":
            pass
        case "MeshSubset":
            wanted = dict(ref.tags)
        case "MeshService":
            wanted = {SERVICE: ref.name}
        case "MeshServiceSubset":
            wanted = {**ref.tags, SERVICE: ref.name}
        case "Dataplane":
            zone = theirs.get("kuma.io/zone")
            home = ref.namespace or theirs.get("k8s.kuma.io/namespace", "")
            if ref.name and (ref.name, home) != (dataplane.name, ours.get("k8s.kuma.io/namespace", "")):
                return nothing
            if ref.name and zone and zone != ours.get("kuma.io/zone"):
                return nothing
            if any(ours.get(key) != value for key, value in ref.labels.items()):
                return nothing
        case _:
            return nothing
    inbounds = [
        matches(wanted, inbound.tags) and ref.section_name in ("", inbound.name or str(inbound.port))
        for inbound in dataplane.inbounds
    ]
    by_gateway = gateway is not None and matches(wanted, gateway.tags) and not ref.section_name
    return any(inbounds) or by_gateway, inbounds


KINDS = [
    "Mesh",
    "Dataplane",
    "MeshSubset",
    "MeshGateway",
    "MeshService",
    "MeshExternalService",
    "MeshMultiZoneService",
    "MeshServiceSubset",
    "MeshHTTPRoute",
]
ORIGINS = {"global": 1, "zone": 3}
ROLES = ["system", "producer", "consumer", "workload-owner"]


def compare(one: TargetRefPolicy, other: TargetRefPolicy) -> int:
    """Negative where the first has the lower priority."""
    a, b = one.spec.top, other.spec.top
    if a.kind != b.kind:
        return KINDS.index(a.kind) - KINDS.index(b.kind)
    if a.kind == "Dataplane":
        if bool(a.name) != bool(b.name):
            return 1 if a.name else -1
        if bool(a.section_name) != bool(b.section_name):
            return 1 if a.section_name else -1
    origins = [ORIGINS.get(policy.labels.get("kuma.io/origin", ""), 2) for policy in (one, other)]
    if origins[0] != origins[1]:
        return origins[0] - origins[1]
    roles = [ROLES.index(policy.labels.get("kuma.io/policy-role", "system")) for policy in (one, other)]
    if roles[0] != roles[1]:
        return roles[0] - roles[1]
    names = [policy.labels.get("kuma.io/display-name", policy.name) for policy in (one, other)]
    return (names[0] < names[1]) - (names[0] > names[1])


def in_order(policies: Sequence[TargetRefPolicy]) -> list[TargetRefPolicy]:
    return sorted(policies, key=cmp_to_key(compare))


def to_conf(policies: Sequence[TargetRefPolicy], service: str) -> tuple[Any, list[TargetRefPolicy]] | None:
    """Kuma's rules by subsets: one for each subset that an item has, the longest that a service is in counts."""
    items: list[tuple[dict[str, str], Document, TargetRefPolicy]] = []
    for policy in in_order(policies):
        spec: Any = to_document(policy).get("spec", {})
        if any(item.get("targetRef", {}).get("kind") == "MeshHTTPRoute" for item in spec.get("to", [])):
            continue
        for item in spec.get("to", []):
            ref = item.get("targetRef", {})
            if ref.get("kind") == "Mesh":
                items.append(({}, item.get("default", {}), policy))
            elif ref.get("kind") == "MeshService" and ref.get("name"):
                items.append(({SERVICE: ref["name"]}, item.get("default", {}), policy))
    subsets: list[dict[str, str]] = []
    for subset, _, _ in items:
        if subset not in subsets:
            subsets.append(subset)
    for subset in sorted(subsets, key=len, reverse=True):
        if subset.items() <= {SERVICE: service}.items():
            relevant = [item for item in items if item[0].items() <= subset.items()]
            return merged([conf for _, conf, _ in relevant]), [policy for _, _, policy in relevant]
    return None


def inbound_conf(policies: Sequence[TargetRefPolicy]) -> Any:
    """What holds for everything that comes in: `rules` without matches, or `from` where there are no rules."""
    confs = []
    for policy in in_order(policies):
        spec: Any = to_document(policy).get("spec", {})
        for rule in spec.get("rules", spec.get("from", [])):
            if not rule.get("matches"):
                confs.append(rule.get("default", {}))
    return merged(confs) if confs else None


# Policies with selectors.


def dataplane_winner(
    policies: Sequence[tuple[DataplanePolicy, datetime]], dataplane: Dataplane
) -> DataplanePolicy | None:
    """As Kuma walks: policies by name, their selectors in order; an empty one selects all and is worth nothing."""
    candidates = [dict(inbound.tags) for inbound in dataplane.inbounds]
    if dataplane.gateway is not None:
        candidates.append(dict(dataplane.gateway.tags))
    best: DataplanePolicy | None = None
    best_rank, best_created = (0, 0), None
    for policy, created in sorted(policies, key=lambda each: each[0].name):
        for match in [selector.match for selector in policy.selectors] or [{}]:
            if match and not matches_one(match, candidates):
                continue
            worth = rank(match)
            is_later = best_created is not None and worth == best_rank and created > best_created
            if best is None or worth > best_rank or is_later:
                best, best_rank, best_created = policy, worth, created
    return best
