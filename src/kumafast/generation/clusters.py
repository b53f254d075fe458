"""Clusters: where a sidecar sends traffic to.

In: parts of a proxy. Out: `Cluster` messages. Never: endpoints of services, which come by EDS on their own.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from ipaddress import ip_address

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, config_source_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.any_pb2 import Any as PackedMessage

from kumafast.generation import defaults, external, fields, names, protocols, tls
from kumafast.generation.proxy import Collector, Destination, Inbound
from kumafast.memo import remembered
from kumafast.resources.policies.traffic_route import LoadBalancer
from kumafast.resources.validation import is_ip

_HTTP_OPTIONS_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# Most workloads are alike from their sidecar's side: a port of the host's own, a protocol, the same policies.
_LOCAL_CLUSTERS_MAX = 4_096

# From these addresses the sidecar speaks for itself: the host's redirection lets them through, so that nothing loops.
SIDECAR_SOURCE_IPV4 = "127.0.0.6"
SIDECAR_SOURCE_IPV6 = "::6"


def local_cluster(inbound: Inbound) -> cluster_pb2.Cluster:
    """The workload behind an inbound. One message for all that need the same: it is not to be changed."""
    return _local_cluster(inbound.as_workload())


@remembered(_LOCAL_CLUSTERS_MAX)
def _local_cluster(inbound: Inbound) -> cluster_pb2.Cluster:
    cluster = static_cluster(
        inbound.cluster_name,
        fields.socket_address(inbound.service_address, inbound.service_port),
        connect_timeout=defaults.INBOUND_CONNECT_TIMEOUT,
    )
    options = None
    if protocols.is_http(inbound.protocol):
        options = _http_options(
            idle_timeout=defaults.INBOUND_IDLE_TIMEOUT, over_http2=protocols.is_http2(inbound.protocol)
        )
    for effect in inbound.effects:
        effect.on_local_cluster(cluster, options)
    if options is not None:
        fields.pack(cluster.typed_extension_protocol_options[_HTTP_OPTIONS_KEY], options)
    if not inbound.binds_to_port:
        address = ip_address(inbound.service_address)
        if not address.is_loopback:
            # The host redirects what goes to its own address to the sidecar again, unless it comes from these.
            source = SIDECAR_SOURCE_IPV4 if address.version == 4 else SIDECAR_SOURCE_IPV6
            cluster.upstream_bind_config.CopyFrom(source_address(source))
    return cluster


def destination_cluster(destination: Destination) -> cluster_pb2.Cluster:
    """A service, or the part of it that an outbound's tags choose.

    Sidecars speak HTTP/2 among themselves; what is outside of the mesh is spoken to as it says.
    """
    is_http, is_external = protocols.is_http(destination.protocol), destination.external is not None
    options = http_protocol_options_pb2.HttpProtocolOptions()
    over_http2 = (not is_external or protocols.is_http2(destination.protocol)) and not destination.over_http1
    options.CopyFrom(_any_options(is_http=is_http or destination.over_http1, over_http2=over_http2))
    cluster = cluster_pb2.Cluster()
    cluster.CopyFrom(_ANY_DESTINATION)
    cluster.name = destination.cluster_name
    if destination.external is not None:
        cluster.ClearField("eds_cluster_config")
        external.place(cluster, destination.external, destination.protocol)
    cluster.alt_stat_name = names.alternative_stat_name(destination.cluster_name)
    if destination.tls is not None:
        cluster.transport_socket.CopyFrom(tls.upstream_socket(destination.tls))
    if destination.load_balancer:
        _balance(cluster, LoadBalancer.model_validate(destination.load_balancer))
    for effect in destination.effects:
        effect.on_destination_cluster(cluster, options)
    if is_http or not is_external:
        fields.pack(cluster.typed_extension_protocol_options[_HTTP_OPTIONS_KEY], options)
    return cluster


def _balance(cluster: cluster_pb2.Cluster, balancer: LoadBalancer) -> None:
    """Choose endpoints in another way than one after the other."""
    if balancer.least_request is not None:
        cluster.lb_policy = cluster_pb2.Cluster.LEAST_REQUEST
        choices = balancer.least_request.choice_count or defaults.LEAST_REQUEST_CHOICES
        cluster.least_request_lb_config.choice_count.value = choices
    elif balancer.ring_hash is not None:
        ring = balancer.ring_hash
        cluster.lb_policy = cluster_pb2.Cluster.RING_HASH
        config = cluster.ring_hash_lb_config
        config.hash_function = cluster_pb2.Cluster.RingHashLbConfig.HashFunction.Value(ring.hash_function or "XX_HASH")
        if ring.min_ring_size:
            config.minimum_ring_size.value = ring.min_ring_size
        if ring.max_ring_size:
            config.maximum_ring_size.value = ring.max_ring_size
    elif balancer.random is not None:
        cluster.lb_policy = cluster_pb2.Cluster.RANDOM
    elif balancer.maglev is not None:
        cluster.lb_policy = cluster_pb2.Cluster.MAGLEV


def collector_cluster(collector: Collector) -> cluster_pb2.Cluster:
    """A server outside of the mesh. As in Kuma, its certificate is asked for where it has one and not looked at."""
    cluster = static_cluster(
        collector.cluster_name,
        fields.socket_address(collector.host, collector.port),
        connect_timeout=defaults.CONNECT_TIMEOUT,
    )
    if not is_ip(collector.host):
        cluster.type = cluster_pb2.Cluster.STRICT_DNS
        cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
    if collector.is_http2:
        options = _http_options(idle_timeout=None, over_http2=True)
        cluster.typed_extension_protocol_options[_HTTP_OPTIONS_KEY].Pack(options, deterministic=True)
    if collector.is_tls:
        cluster.transport_socket.CopyFrom(tls.outside_socket(collector.host))
    return cluster


def static_cluster(name: str, address: address_pb2.Address, *, connect_timeout: timedelta) -> cluster_pb2.Cluster:
    """A cluster of one endpoint that is known beforehand."""
    return cluster_pb2.Cluster(
        name=name,
        alt_stat_name=names.alternative_stat_name(name),
        type=cluster_pb2.Cluster.STATIC,
        connect_timeout=fields.duration(connect_timeout),
        load_assignment=single_endpoint(name, address),
        circuit_breakers=_only_tracked(),
    )


def original_destination_cluster(name: str, *, source: str | None = None) -> cluster_pb2.Cluster:
    """Wherever the connection was going before the host redirected it; `source` is the address to come from."""
    return cluster_pb2.Cluster(
        name=name,
        alt_stat_name=names.alternative_stat_name(name),
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=fields.duration(defaults.INTERNAL_CONNECT_TIMEOUT),
        circuit_breakers=_only_tracked(),
        upstream_bind_config=None if source is None else source_address(source),
    )


def single_endpoint(cluster_name: str, address: address_pb2.Address) -> endpoint_pb2.ClusterLoadAssignment:
    """A load assignment of one endpoint, for clusters that carry theirs."""
    endpoint = endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=address))
    locality = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster_name, endpoints=[locality])


def source_address(address: str) -> address_pb2.BindConfig:
    """Connections that come from this address and any port."""
    # A port must be present although it is zero: Envoy demands that one of the port's forms is chosen.
    return address_pb2.BindConfig(source_address=address_pb2.SocketAddress(address=address, port_value=0))


def http2_options() -> dict[str, PackedMessage]:
    """The extension options of a cluster that is spoken to in HTTP/2 and is subject to no policy."""
    return {_HTTP_OPTIONS_KEY: fields.packed(_http_options(idle_timeout=None, over_http2=True))}


def _http_options(*, idle_timeout: timedelta | None, over_http2: bool) -> http_protocol_options_pb2.HttpProtocolOptions:
    explicit = http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig()
    if over_http2:
        explicit.http2_protocol_options.SetInParent()
    else:
        explicit.http_protocol_options.SetInParent()
    options = http_protocol_options_pb2.HttpProtocolOptions(explicit_http_config=explicit)
    if idle_timeout is not None:
        no_timeout = fields.duration(defaults.NO_TIMEOUT)
        options.common_http_protocol_options.CopyFrom(
            protocol_pb2.HttpProtocolOptions(
                idle_timeout=fields.duration(idle_timeout),
                max_connection_duration=no_timeout,
                max_stream_duration=no_timeout,
            )
        )
    return options


def _only_tracked() -> circuit_breaker_pb2.CircuitBreakers:
    # Envoy's own limits, with the statistics of what is left of them.
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(track_remaining=True)
    return circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds])


# What all destinations have in common, to be copied: that is faster than to put it together. Never changed.


@cache
def _any_options(*, is_http: bool, over_http2: bool) -> http_protocol_options_pb2.HttpProtocolOptions:
    return _http_options(idle_timeout=defaults.IDLE_TIMEOUT if is_http else None, over_http2=over_http2)


_ANY_DESTINATION = cluster_pb2.Cluster(
    type=cluster_pb2.Cluster.EDS,
    eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(
        eds_config=config_source_pb2.ConfigSource(
            ads=config_source_pb2.AggregatedConfigSource(),
            resource_api_version=config_source_pb2.ApiVersion.V3,
        )
    ),
    connect_timeout=fields.duration(defaults.CONNECT_TIMEOUT),
    circuit_breakers=_only_tracked(),
)
