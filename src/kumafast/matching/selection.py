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
from kumafast.resources.fields import FrozenMap
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

_NOTHING: FrozenMap[str, str] = FrozenMap()
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
_ROLE_NAMES = tuple(_ROLE_WEIGHTS)
_ORIGIN_NAMES = ("global", "that is not labelled", "zone")


OF_GATEWAYS = FrozenMap({facts.MESH_GATEWAY: facts.ANY})
"""What listeners of built-in gateways have."""
OF_SIDECARS = FrozenMap({facts.PROXY: facts.SIDECAR})
"""What inbounds of sidecars have."""


def selectors(policy: TargetRefPolicy, *, by_role: Mapping[str, str] = _NOTHING) -> tuple[TagSelector, ...]:
    """Alternatives over a dataplane's candidates; none where the policy is for nobody, such as a shadow.

    Matched against one inbound they say whether the policy is for that inbound; against all, whether for the proxy.
    `by_role` are facts that have to hold beside.
    """
    if policy.labels.get(EFFECT_LABEL) == "shadow":
        return ()
    wanted = _wanted(policy.spec.top, policy)
    if wanted is None:
        return ()
    for fact, value in by_role.items():
        held = wanted.get(fact, facts.ANY)
        if facts.ANY not in (held, value) and held != value:
            return ()
        wanted[fact] = value if held == facts.ANY else held
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
        case "MeshGateway":
            return {**wanted, **ref.tags, facts.MESH_GATEWAY: ref.name}
        case "MeshHTTPRoute":
            # Anybody: a policy for a route is about its requests alone, wherever there are some.
            return wanted
        case _:
            return None


def _identity(ref: TargetRef, labels: Mapping[str, str]) -> dict[str, str]:
    if not ref.name:
        # Listeners of gateways are no dataplanes in this sense, and have neither.
        return {facts.label(name): value for name, value in ref.labels.items()} or {facts.NAME: facts.ANY}
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


def weight_with_destination(weight: Weight, kind: str, *, has_section: bool) -> Weight:
    """The weight of what a policy says of a destination: the kind of that, and a port of its, count before its name."""
    return (*weight[:-2], _KIND_WEIGHTS.get(kind, -1), has_section, *weight[-2:])


def precedence(heavier: Weight, lighter: Weight) -> str:
    """Why a policy of one weight outweighs another of the same family, in words; empty where it does not.

    >>> def of(policy: str, **top: object) -> Weight:
    ...     return weight(TargetRefPolicy.model_validate({"name": policy, "spec": {"targetRef": top}}))
    >>> precedence(of("b", kind="Dataplane", name="web-1"), of("a", kind="Mesh"))
    'kind Dataplane outweighs Mesh'
    >>> precedence(of("a", kind="Mesh"), of("b", kind="Mesh"))
    'as specific; the name a comes before b'
    """
    differing = (place for place, both in enumerate(zip(heavier, lighter, strict=True)) if both[0] != both[1])
    place = next(differing, None)
    if place is None:
        return ""
    mine, theirs = heavier[place], lighter[place]
    match place:
        case 0:
            return f"kind {_kind(mine)} outweighs {_kind(theirs)}"
        case 1:
            return "a dataplane by its name outweighs dataplanes by labels"
        case 2:
            return "one inbound (sectionName) outweighs all inbounds"
        case 3:
            return f"origin {_ORIGIN_NAMES[mine]} outweighs {_ORIGIN_NAMES[theirs]}"
        case 4:
            return f"more tags of the gateway: {mine} against {theirs}"
        case 5:
            return f"role {_ROLE_NAMES[mine]} outweighs {_ROLE_NAMES[theirs]}"
        case _:
            return f"as specific; the name {ascending(mine)} comes before {ascending(theirs)}"


def _kind(place: int) -> str:
    return _KINDS[place] if place < len(_KINDS) else "of a target that is not known"


def descending(text: str) -> tuple[int, ...]:
    """A key by which a text compares as greater than those that come after it."""
    # The end of the text counts as the greatest character, so that a name outweighs those that it begins.
    return (*(-ord(character) for character in text), 1)


def ascending(key: tuple[int, ...]) -> str:
    """The text that `descending` made a key of."""
    return "".join(chr(-code) for code in key[:-1])
