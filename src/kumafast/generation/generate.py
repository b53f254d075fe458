"""The one way into generation: a part of a proxy becomes Envoy's messages.

In: a `Part`, frozen and hashable, which is its own cache key. Out: messages, each with a name.
Never: anything but the part; equal parts give equal messages, always and everywhere.
"""

from __future__ import annotations

from typing import assert_never

from google.protobuf.message import Message

from kumafast.generation import (
    admin,
    clusters,
    dns,
    endpoints,
    external,
    gateways,
    listeners,
    metrics,
    tls,
    transparent,
)
from kumafast.generation.proxy import (
    AdminInterface,
    Collector,
    CollectorSocket,
    Destination,
    DnsTable,
    EndpointSet,
    GatewayCertificate,
    GatewayLimits,
    GatewayListener,
    GatewayRoutes,
    Inbound,
    LauncherConfig,
    LauncherMetrics,
    MetricsPort,
    Outbound,
    Part,
    TransparentProxy,
    TrustBundle,
)

_NAMES: dict[type[Part], str] = {
    AdminInterface: "admin",
    TransparentProxy: "transparent",
    DnsTable: "dns",
    Inbound: "inbound",
    Outbound: "outbound",
    Destination: "destination",
    EndpointSet: "endpoints",
    TrustBundle: "trust",
    Collector: "collector",
    GatewayListener: "gateway",
    GatewayRoutes: "gateway-routes",
    GatewayCertificate: "gateway-certificate",
    GatewayLimits: "gateway-limits",
    MetricsPort: "metrics_port",
    LauncherMetrics: "launcher_metrics",
    LauncherConfig: "launcher_config",
    CollectorSocket: "collector_socket",
}


def generate(part: Part) -> tuple[Message, ...]:
    """The Envoy resources that a part stands for, clusters before listeners. O(size of the part).

    >>> from kumafast.generation.proxy import EndpointSet
    >>> [message.cluster_name for message in generate(EndpointSet(cluster_name="backend", endpoints=()))]
    ['backend']
    """
    match part:
        case AdminInterface():
            return admin.admin_clusters(part)
        case TransparentProxy():
            return transparent.passthrough(part)
        case DnsTable():
            return (dns.dns_listener(part),)
        case Inbound():
            return (clusters.local_cluster(part), listeners.inbound_listener(part))
        case Outbound():
            return (listeners.outbound_listener(part),)
        case Destination():
            return (clusters.destination_cluster(part), *external.secrets(part))
        case EndpointSet():
            return (endpoints.load_assignment(part),)
        case TrustBundle():
            return (tls.trust_bundle(part),)
        case GatewayListener():
            return (gateways.gateway_listener(part),)
        case GatewayRoutes():
            return (gateways.gateway_routes(part),)
        case GatewayCertificate():
            return (tls.certificate_secret(part.name, chain=part.chain, key=part.key),)
        case GatewayLimits():
            return (gateways.gateway_limits(part),)
        case Collector():
            return (clusters.collector_cluster(part),)
        case MetricsPort():
            return (metrics.metrics_listener(part),)
        case LauncherMetrics():
            return (metrics.metrics_cluster(part),)
        case LauncherConfig():
            return (metrics.config_listener(part),)
        case CollectorSocket():
            return (metrics.collector_listener(part),)
        case _:
            assert_never(part)


def generator_name(part: Part) -> str:
    """The name under which metrics count the generation of such a part."""
    return _NAMES[type(part)]
