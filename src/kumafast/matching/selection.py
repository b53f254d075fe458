"""Whom a policy with a targetRef is for, as selectors over tags and facts, and how much it weighs.

In: such a policy. Out: selectors of which one must hold; its place in the order of its kind.
Never: a dataplane; the selectors are matched by an index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from kumafast._core import TagSelector
from kumafast.matching import facts
from kumafast.resources.defaults import ORIGIN_LABEL, ZONE_LABEL
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.target_ref import (
    DATAPLANE,
    MESH,
    MESH_EXTERNAL_SERVICE,
    MESH_GATEWAY,
    MESH_HTTP_ROUTE,
    MESH_MULTI_ZONE_SERVICE,
    MESH_SERVICE,
    MESH_SERVICE_SUBSET,
    MESH_SUBSET,
    TargetRef,
)
from kumafast.resources.target_ref_policy import (
    CONSUMER,
    EFFECT_LABEL,
    NAMESPACE_LABEL,
    PRODUCER,
    SYSTEM,
    WORKLOAD_OWNER,
    TargetRefPolicy,
)

Weight: TypeAlias = tuple[Any, ...]
"""Compares as the priority of policies of one kind: what weighs more is merged later and wins."""

_KINDS = (
    MESH,
    DATAPLANE,
    MESH_SUBSET,
    MESH_GATEWAY,
    MESH_SERVICE,
    MESH_EXTERNAL_SERVICE,
    MESH_MULTI_ZONE_SERVICE,
    MESH_SERVICE_SUBSET,
    MESH_HTTP_ROUTE,
)
_KIND_WEIGHTS = {kind: weight for weight, kind in enumerate(_KINDS)}
_ROLE_WEIGHTS = {SYSTEM: 0, PRODUCER: 1, CONSUMER: 2, WORKLOAD_OWNER: 3}
_ORIGIN_WEIGHTS = {"global": 0, "zone": 2}
_UNLABELLED_WEIGHT = 1


def selectors(policy: TargetRefPolicy) -> tuple[TagSelector, ...]:
    """Alternatives over a dataplane's candidates; none where the policy is for nobody: a shadow, a route unknown here.

    Matched against one inbound they say whether the policy is for that inbound; against all, whether for the proxy.
    """
    if policy.labels.get(EFFECT_LABEL) == "shadow":
        return ()
    wanted = _wanted(policy.spec.top, policy)
    if wanted is None:
        return ()
    if policy.role in (CONSUMER, WORKLOAD_OWNER):
        namespace = policy.labels.get(NAMESPACE_LABEL)
        if not namespace:
            return ()
        wanted[facts.NAMESPACE] = namespace
    zone = policy.labels.get(ZONE_LABEL)
    if policy.role != PRODUCER and policy.labels.get(ORIGIN_LABEL) == "zone" and zone:
        return (
            TagSelector({**wanted, facts.HOME_ZONE: zone}),
            TagSelector({**wanted, facts.ANY_ZONE: facts.ANY}),
        )
    return (TagSelector(wanted),)


def _wanted(ref: TargetRef, policy: TargetRefPolicy) -> dict[str, str] | None:
    wanted = {facts.PROXY: facts.ANY}
    if len(set(ref.proxy_types)) == 1:
        wanted[facts.PROXY] = ref.proxy_types[0]
    match ref.kind:
        case "Mesh":
            return wanted
        case "MeshSubset":
            return {**wanted, **ref.tags}
        case "MeshService":
            return {**wanted, SERVICE_TAG: ref.name}
        case "MeshServiceSubset":
            return {**wanted, **ref.tags, SERVICE_TAG: ref.name}
        case "Dataplane":
            section = {facts.SECTION: ref.section_name} if ref.section_name else {}
            return {**wanted, **section, **_identity(ref, policy.labels)}
        case _:
            # Gateways' listeners and routes are not there yet, so what refers to one finds nobody.
            return None


def _identity(ref: TargetRef, labels: Mapping[str, str]) -> dict[str, str]:
    if not ref.name:
        return {facts.label(name): value for name, value in ref.labels.items()}
    identity = {facts.NAME: ref.name, facts.NAMESPACE: ref.namespace or labels.get(NAMESPACE_LABEL, "")}
    if ZONE_LABEL in labels:
        identity[facts.ZONE] = labels[ZONE_LABEL]
    return identity


def weight(policy: TargetRefPolicy) -> Weight:
    """Kind, how exactly a dataplane is chosen, origin, tags of a gateway, role, then the name: `aaa` outweighs `zzz`.

    Kuma's comparison of Dataplane references is no order where some name their dataplane, some choose by labels and
    some do neither; here a name outweighs all else, so that there is one answer in whatever order policies come.
    """
    ref = policy.spec.top
    is_dataplane = ref.kind == DATAPLANE
    return (
        _KIND_WEIGHTS.get(ref.kind, len(_KINDS)),
        bool(is_dataplane and ref.name),
        bool(is_dataplane and ref.section_name),
        _ORIGIN_WEIGHTS.get(policy.labels.get(ORIGIN_LABEL, ""), _UNLABELLED_WEIGHT),
        len(ref.tags) if ref.kind == MESH_GATEWAY else 0,
        _ROLE_WEIGHTS.get(policy.role, 0),
        descending(policy.display_name),
        descending(policy.name),
    )


def descending(text: str) -> tuple[int, ...]:
    """A key by which a text compares as greater than those that come after it."""
    # The end of the text counts as the greatest character, so that a name outweighs those that it begins.
    return (*(-ord(character) for character in text), 1)
