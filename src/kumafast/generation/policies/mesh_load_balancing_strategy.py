"""What MeshLoadBalancingStrategy changes: how an endpoint is chosen, by what of a request, and how near it is.

In: a merged conf; of a client its zone and tags. Out: effects, a view. Never: an endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from kumafast.generation import fields, protocols, requests
from kumafast.generation.effects import Effect
from kumafast.generation.localities import OVERPROVISIONING, Affinity, Failover, View
from kumafast.resources.conf_rules import decimal
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.mesh_load_balancing_strategy import (
    LEAST_REQUEST,
    MAGLEV,
    RANDOM,
    RING_HASH,
    Conf,
    HashPolicy,
    LeastRequest,
    LoadBalancer,
    LocalityAwareness,
    Maglev,
    MeshLoadBalancingStrategy,
    RingHash,
)

KIND = MeshLoadBalancingStrategy.type.name

_Cluster = cluster_pb2.Cluster
_POLICIES = {
    LEAST_REQUEST: _Cluster.LEAST_REQUEST,
    MAGLEV: _Cluster.MAGLEV,
    RANDOM: _Cluster.RANDOM,
    RING_HASH: _Cluster.RING_HASH,
}
_HASH_FUNCTIONS = {
    "XXHash": _Cluster.RingHashLbConfig.XX_HASH,
    "MurmurHash2": _Cluster.RingHashLbConfig.MURMUR_HASH_2,
}


@dataclass(frozen=True, slots=True)
class Hashed(Effect):
    """By what of a request its endpoint is chosen."""

    policies: tuple[HashPolicy, ...]

    def on_outbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Say it for each route that leads anywhere."""
        for host in manager.route_config.virtual_hosts:
            for action in requests.actions(host):
                for policy in self.policies:
                    _hash(action.hash_policy.add(terminal=policy.terminal), policy)


@dataclass(frozen=True, slots=True)
class Balanced(Effect):
    """How an endpoint is chosen, and whether localities have shares."""

    balancer: LoadBalancer | None
    weighs_localities: bool

    def on_destination_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions
    ) -> None:
        """Say it in place of what an older route has said."""
        if self.weighs_localities:
            cluster.common_lb_config.locality_weighted_lb_config.SetInParent()
        if self.balancer is None:
            return
        older = cluster.WhichOneof("lb_config")
        if older is not None:
            cluster.ClearField(older)
        cluster.lb_policy = _POLICIES.get(self.balancer.type, _Cluster.ROUND_ROBIN)
        if self.balancer.type == LEAST_REQUEST and self.balancer.least_request is not None:
            _least(cluster, self.balancer.least_request)
        elif self.balancer.type == RING_HASH and self.balancer.ring_hash is not None:
            _ring(cluster, self.balancer.ring_hash)
        elif self.balancer.type == MAGLEV and self.balancer.maglev is not None:
            _table(cluster, self.balancer.maglev)


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound."""
    if not protocols.is_http(protocol):
        return None
    written = Conf.model_validate(conf)
    policies = written.hash_policies or _own_policies(written.load_balancer)
    return Hashed(policies) if policies else None


def _own_policies(balancer: LoadBalancer | None) -> tuple[HashPolicy, ...] | None:
    if balancer is None:
        return None
    section = {RING_HASH: balancer.ring_hash, MAGLEV: balancer.maglev}.get(balancer.type)
    return None if section is None else section.hash_policies


def destination(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the cluster of an outbound."""
    written = Conf.model_validate(conf)
    local = None if written.locality_awareness is None else written.locality_awareness.local_zone
    weighs = local is not None and bool(local.affinity_tags)
    return Balanced(written.load_balancer, weighs) if weighs or written.load_balancer is not None else None


def view(conf: Mapping[str, Any], zone: str, tags: Mapping[str, str]) -> View | None:
    """How a client with this zone and tags sees the endpoints; None where it goes to all of them alike."""
    awareness = Conf.model_validate(conf).locality_awareness or LocalityAwareness()
    if awareness.disabled:
        return None
    if awareness.local_zone is None and awareness.cross_zone is None:
        return View(zone)
    return View(
        zone,
        affinities=tuple(_affinities(awareness, tags)),
        failover=tuple(_failover(awareness, zone)),
        overprovisioning=_overprovisioning(awareness),
    )


def _affinities(awareness: LocalityAwareness, tags: Mapping[str, str]) -> list[Affinity]:
    wanted = () if awareness.local_zone is None else awareness.local_zone.affinity_tags
    return [
        # Without weights the first gets nine tenths, the next nine tenths of the rest, and so on.
        Affinity(tag.key, tags[tag.key], tag.weight or 9 * 10 ** (len(wanted) - number - 1))
        for number, tag in enumerate(wanted)
        if tag.key in tags
    ]


def _failover(awareness: LocalityAwareness, zone: str) -> list[Failover]:
    rules = () if awareness.cross_zone is None else awareness.cross_zone.failover
    return [
        Failover(priority, frozenset(rule.to.zones), is_except=rule.to.type != "Only")
        for priority, rule in enumerate(rules, 1)
        if rule.to.type != "None" and (rule.from_ is None or zone in rule.from_.zones)
    ]


def _overprovisioning(awareness: LocalityAwareness) -> int:
    threshold = None if awareness.cross_zone is None else awareness.cross_zone.failover_threshold
    percentage = None if threshold is None else decimal(threshold.percentage)
    return OVERPROVISIONING if not percentage else int(100 / percentage * 100)


def _hash(of: route_components_pb2.RouteAction.HashPolicy, policy: HashPolicy) -> None:
    if policy.type == "Header" and policy.header is not None:
        of.header.header_name = policy.header.name
    elif policy.type == "Cookie" and policy.cookie is not None:
        of.cookie.name, of.cookie.path = policy.cookie.name, policy.cookie.path or ""
        if policy.cookie.ttl is not None:
            of.cookie.ttl.CopyFrom(fields.duration(as_timedelta(policy.cookie.ttl)))
    elif policy.type == "QueryParameter" and policy.query_parameter is not None:
        of.query_parameter.name = policy.query_parameter.name
    elif policy.type == "FilterState" and policy.filter_state is not None:
        of.filter_state.key = policy.filter_state.key
    elif policy.connection is not None:
        of.connection_properties.source_ip = policy.connection.source_ip


def _least(cluster: cluster_pb2.Cluster, least: LeastRequest) -> None:
    if least.choice_count is not None:
        cluster.least_request_lb_config.choice_count.value = least.choice_count
    bias = None if least.active_request_bias is None else decimal(least.active_request_bias)
    if bias is not None:
        cluster.least_request_lb_config.active_request_bias.default_value = float(bias)


def _ring(cluster: cluster_pb2.Cluster, ring: RingHash) -> None:
    config = cluster.ring_hash_lb_config
    config.SetInParent()
    if ring.hash_function is not None:
        config.hash_function = _HASH_FUNCTIONS[ring.hash_function]
    if ring.min_ring_size is not None:
        config.minimum_ring_size.value = ring.min_ring_size
    if ring.max_ring_size is not None:
        config.maximum_ring_size.value = ring.max_ring_size


def _table(cluster: cluster_pb2.Cluster, maglev: Maglev) -> None:
    if maglev.table_size is not None:
        cluster.maglev_lb_config.table_size.value = maglev.table_size
