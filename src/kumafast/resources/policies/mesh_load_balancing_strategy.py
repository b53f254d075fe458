"""MeshLoadBalancingStrategy: which endpoint of a service a request goes to, and how near that is.

In: documents in Kuma's 2.14 form. Out: `MeshLoadBalancingStrategy`, frozen, and the rules that it breaks.
Never: what Envoy makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, Literal

from pydantic import Field

from kumafast.errors import Violation
from kumafast.resources.conf_rules import DecimalNumber, check_percentage, decimal
from kumafast.resources.durations import GoDuration
from kumafast.resources.fields import Count, Flag, Text
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import (
    MESH,
    MESH_EXTERNAL_SERVICE,
    MESH_GATEWAY,
    MESH_HTTP_ROUTE,
    MESH_MULTI_ZONE_SERVICE,
    MESH_SERVICE,
    PROXIES,
    TargetRef,
    check_target_ref,
)
from kumafast.resources.target_ref_policy import OutboundSpec, TargetRefPolicy, To

ROUND_ROBIN: Final = "RoundRobin"
LEAST_REQUEST: Final = "LeastRequest"
RING_HASH: Final = "RingHash"
RANDOM: Final = "Random"
MAGLEV: Final = "Maglev"

_TO_KINDS = (MESH, MESH_SERVICE, MESH_MULTI_ZONE_SERVICE, MESH_HTTP_ROUTE)
_GATEWAY_KINDS = (MESH, MESH_SERVICE, MESH_MULTI_ZONE_SERVICE)
_ONLY_MESH = f"value is not supported, only {MESH} is allowed if loadBalancer is set"
_OF_ALL_CLIENTS = (
    "kind MeshExternalService is only allowed with targetRef.kind: Mesh as it is configured on the Zone Egress and "
    "shared by all clients in the mesh"
)
_ONLY_HASHES = "field is not allowed when targetRef.kind is MeshHTTPRoute, only hashPolicies is supported"
_RING_SIZE_MAX = 8_000_000
_TABLE_SIZE_MAX = 5_000_011


class AffinityTag(Frozen):
    """Endpoints with the client's own value of a tag, and their share: not set, ten times that of the next tag."""

    key: Text = ""
    weight: Count | None = None


class LocalZone(Frozen):
    """Which endpoints of the client's zone are nearer than others."""

    affinity_tags: tuple[AffinityTag, ...] = ()


class FromZones(Frozen):
    """The zones whose clients a rule is for."""

    zones: tuple[Text, ...] = ()


class ToZones(Frozen):
    """The zones that clients go to."""

    type: Literal["None", "Only", "Any", "AnyExcept"]
    zones: tuple[Text, ...] = ()


class Failover(Frozen):
    """Where clients go when those before it are too few."""

    from_: FromZones | None = Field(default=None, alias="from")
    to: ToZones


class FailoverThreshold(Frozen):
    """How many of a hundred endpoints have to live, so that no others are needed."""

    percentage: DecimalNumber


class CrossZone(Frozen):
    """Where clients go beyond their zone: by the first rule that is for their zone and names the endpoint's."""

    failover: tuple[Failover, ...] = ()
    failover_threshold: FailoverThreshold | None = None


class LocalityAwareness(Frozen):
    """How near endpoints have to be."""

    disabled: Flag = False
    local_zone: LocalZone | None = None
    cross_zone: CrossZone | None = None


class Named(Frozen):
    """A header or a parameter."""

    name: Text = ""


class Cookie(Frozen):
    """A cookie, which is made with a time to live where it is not there."""

    name: Text = ""
    ttl: GoDuration | None = None
    path: Text | None = None


class Connection(Frozen):
    """The connection's own properties."""

    source_ip: Flag = Field(default=False, alias="sourceIP")


class FilterState(Frozen):
    """An object that a filter has left."""

    key: Text = ""


class HashPolicy(Frozen):
    """What of a request counts: that of its type. A terminal one ends the list where there is a hash by then."""

    type: Literal["Header", "Cookie", "Connection", "SourceIP", "QueryParameter", "FilterState"]
    terminal: Flag = False
    header: Named | None = None
    cookie: Cookie | None = None
    connection: Connection | None = None
    query_parameter: Named | None = None
    filter_state: FilterState | None = None


class RoundRobin(Frozen):
    """One endpoint after the other."""


class LeastRequest(Frozen):
    """Of some endpoints that with the fewest requests; the bias says how much these count beside weights."""

    choice_count: Count | None = None
    active_request_bias: DecimalNumber | None = None


class RingHash(Frozen):
    """Consistent hashing on a ring."""

    hash_function: Literal["XXHash", "MurmurHash2"] | None = None
    min_ring_size: Count | None = None
    max_ring_size: Count | None = None
    hash_policies: tuple[HashPolicy, ...] | None = None


class Random(Frozen):
    """Any endpoint."""


class Maglev(Frozen):
    """Consistent hashing by a table, whose size is a prime."""

    table_size: Count | None = None
    hash_policies: tuple[HashPolicy, ...] | None = None


class LoadBalancer(Frozen):
    """How an endpoint is chosen: that of its type."""

    type: Literal["RoundRobin", "LeastRequest", "RingHash", "Random", "Maglev"]
    round_robin: RoundRobin | None = None
    least_request: LeastRequest | None = None
    ring_hash: RingHash | None = None
    random: Random | None = None
    maglev: Maglev | None = None


class Conf(Frozen):
    """Which endpoints count, how one is chosen, and by what of a request."""

    locality_awareness: LocalityAwareness | None = None
    load_balancer: LoadBalancer | None = None
    hash_policies: tuple[HashPolicy, ...] | None = None


class MeshLoadBalancingStrategy(TargetRefPolicy):
    """Says how proxies choose among the endpoints of a service."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshLoadBalancingStrategy",
        scope=Scope.MESH,
        path="meshloadbalancingstrategies",
        singular="Mesh Load Balancing Strategy",
        plural="Mesh Load Balancing Strategies",
        short_name="mlbs",
        is_in_federation=True,
        policy=PolicyTraits(order=400, is_target_ref=True, has_to=True),
    )

    spec: OutboundSpec[Conf] = OutboundSpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of strategies that this one breaks, in the order of Kuma's checks."""
        top = self.spec.top
        yield from check_target_ref("spec.targetRef", top, kinds=PROXIES)
        if not self.spec.to:
            yield Violation("spec.to", "needs at least one item")
        for i, to in enumerate(self.spec.to):
            conf = to.default or Conf()
            yield from _check_to(f"spec.to[{i}].targetRef", to.target_ref, top=top.kind, conf=conf)
            yield from _check_conf(f"spec.to[{i}].default", conf, to)


def _check_to(path: str, ref: TargetRef, *, top: str, conf: Conf) -> Iterator[Violation]:
    if top == MESH_GATEWAY and conf.load_balancer is not None:
        yield from check_target_ref(path, ref, kinds=(MESH,), unsupported=_ONLY_MESH)
    elif top == MESH_GATEWAY:
        yield from check_target_ref(path, ref, kinds=_GATEWAY_KINDS)
    else:
        yield from check_target_ref(path, ref, kinds=(*_TO_KINDS, *((MESH_EXTERNAL_SERVICE,) if top == MESH else ())))
    if ref.kind == MESH_EXTERNAL_SERVICE and top != MESH:
        yield Violation(f"{path}.kind", _OF_ALL_CLIENTS)


def _check_conf(path: str, conf: Conf, to: To[Conf]) -> Iterator[Violation]:
    if to.target_ref.kind == MESH_HTTP_ROUTE:
        yield from _check_hashes(f"{path}.hashPolicies", conf.hash_policies)
        if conf.load_balancer is not None:
            yield Violation(f"{path}.loadBalancer", _ONLY_HASHES)
        if conf.locality_awareness is not None:
            yield Violation(f"{path}.localityAwareness", _ONLY_HASHES)
        return
    if conf.load_balancer is not None:
        yield from _check_balancer(f"{path}.loadBalancer", conf.load_balancer)
    if conf.locality_awareness is not None:
        yield from _check_locality(f"{path}.localityAwareness", conf.locality_awareness, to.target_ref)
    yield from _check_hashes(f"{path}.hashPolicies", conf.hash_policies)


def _check_balancer(path: str, balancer: LoadBalancer) -> Iterator[Violation]:
    if balancer.type == LEAST_REQUEST and balancer.least_request is not None:
        where, least = f"{path}.leastRequest", balancer.least_request
        yield from _check_range(f"{where}.choiceCount", least.choice_count, 2)
        yield from _check_bias(f"{where}.activeRequestBias", least.active_request_bias)
    elif balancer.type == RING_HASH and balancer.ring_hash is not None:
        where, ring = f"{path}.ringHash", balancer.ring_hash
        yield from _check_range(f"{where}.minRingSize", ring.min_ring_size, 1, _RING_SIZE_MAX)
        yield from _check_range(f"{where}.maxRingSize", ring.max_ring_size, 1, _RING_SIZE_MAX)
        if (ring.min_ring_size or 0) > (ring.max_ring_size or _RING_SIZE_MAX):
            yield Violation(f"{where}.minRingSize", "must not be greater than maxRingSize")
        yield from _check_hashes(f"{where}.hashPolicies", ring.hash_policies)
    elif balancer.type == MAGLEV and balancer.maglev is not None:
        where, size = f"{path}.maglev", balancer.maglev.table_size
        yield from _check_range(f"{where}.tableSize", size, 1, _TABLE_SIZE_MAX)
        # Envoy refuses any other, and with it the cluster.
        if size is not None and 1 <= size <= _TABLE_SIZE_MAX and not _is_prime(size):
            yield Violation(f"{where}.tableSize", "must be a prime number")
        yield from _check_hashes(f"{where}.hashPolicies", balancer.maglev.hash_policies)


def _check_range(path: str, value: int | None, least: int, most: int | None = None) -> Iterator[Violation]:
    if value is not None and value < least:
        yield Violation(path, f"in body should be greater than or equal to {least}")
    if value is not None and most is not None and value > most:
        yield Violation(path, f"in body should be less than or equal to {most}")


def _check_bias(path: str, bias: int | str | None) -> Iterator[Violation]:
    value = None if bias is None else decimal(bias)
    if bias is not None and value is None:
        yield Violation(path, "string must be a valid number")
    elif value is not None and value < 0:
        yield Violation(path, "must be greater or equal then: 0")


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _check_locality(path: str, locality: LocalityAwareness, ref: TargetRef) -> Iterator[Violation]:
    if locality.local_zone is not None:
        yield from _check_affinity(f"{path}.localZone.affinityTags", locality.local_zone.affinity_tags)
    if locality.cross_zone is not None:
        yield from _check_cross_zone(f"{path}.crossZone", locality.cross_zone, ref)


def _check_affinity(path: str, tags: tuple[AffinityTag, ...]) -> Iterator[Violation]:
    for i, tag in enumerate(tags):
        if not tag.key:
            yield Violation(f"{path}[{i}].key", "must not be empty")
        if tag.weight == 0:
            yield Violation(f"{path}[{i}].weight", "must be greater than 0")
    if len({tag.weight is None for tag in tags}) > 1:
        yield Violation(path, "all or none affinity tags should have weight")


def _check_cross_zone(path: str, cross: CrossZone, ref: TargetRef) -> Iterator[Violation]:
    if ref.kind == MESH_SERVICE and (ref.section_name or ref.labels):
        yield Violation(path, "must not be set: MeshService traffic is local")
    for i, rule in enumerate(cross.failover):
        where = f"{path}.failover[{i}]"
        if rule.from_ is not None:
            if not rule.from_.zones:
                yield Violation(f"{where}.from.zones", "must not be empty")
            for j, zone in enumerate(rule.from_.zones):
                if not zone:
                    yield Violation(f"{where}.from.zones[{j}]", "must not be empty")
        names_zones = rule.to.type in ("Only", "AnyExcept")
        if bool(rule.to.zones) != names_zones:
            must = "must not be empty" if names_zones else "must be empty"
            yield Violation(f"{where}.to.zones", f"{must} when type is {rule.to.type}")
    if cross.failover_threshold is not None:
        where, percentage = f"{path}.failoverThreshold.percentage", cross.failover_threshold.percentage
        yield from check_percentage(where, percentage)
        if decimal(percentage) == 0:
            yield Violation(where, "must be greater than 0")


def _check_hashes(path: str, policies: tuple[HashPolicy, ...] | None) -> Iterator[Violation]:
    for i, policy in enumerate(policies or ()):
        where = f"{path}[{i}]"
        field, chosen = _hashed(policy)
        if chosen is None:
            yield Violation(f"{where}.{field}", "must be defined")
        elif isinstance(chosen, Cookie) and chosen.path is not None and not chosen.path.startswith("/"):
            yield Violation(f"{where}.cookie.path", "must be an absolute path")
        if isinstance(chosen, Named | Cookie) and not chosen.name:
            yield Violation(f"{where}.{field}.name", "in body should be at least 1 chars long")
        if isinstance(chosen, FilterState) and not chosen.key:
            yield Violation(f"{where}.{field}.key", "in body should be at least 1 chars long")


def _hashed(policy: HashPolicy) -> tuple[str, Frozen | None]:
    """The field that a policy of its type has, and what stands there."""
    match policy.type:
        case "Header":
            return "header", policy.header
        case "Cookie":
            return "cookie", policy.cookie
        case "QueryParameter":
            return "queryParameter", policy.query_parameter
        case "FilterState":
            return "filterState", policy.filter_state
        case _:
            return "connection", policy.connection
