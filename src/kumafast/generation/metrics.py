"""Metrics of a proxy and its workload: who asks comes to Envoy, and the proxy's launcher answers.

In: parts of a proxy. Out: listeners and clusters. Never: a metric; the launcher reads Envoy's own on its admin socket,
puts those of workloads beside them, and knows which by what a socket of Envoy tells it.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import ip_address

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.grpc_http1_bridge.v3 import config_pb2 as grpc_http1_bridge_pb2
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as grpc_stats_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from kumafast.generation import clusters, defaults, fields, names, tls
from kumafast.generation.http_filters import add_before_router, http_filter
from kumafast.generation.proxy import CollectorSocket, LauncherConfig, LauncherMetrics, MetricsPort

_Hcm = http_connection_manager_pb2.HttpConnectionManager

_HTTP_FILTER = "envoy.filters.network.http_connection_manager"
_ASKED_OF_LAUNCHER = "/meshmetric"
# Whoever opens these sockets reads what the proxy is told, so they are their owner's alone.
_SOCKET_MODE = 0o600


def metrics_listener(port: MetricsPort) -> listener_pb2.Listener:
    """The port where metrics are asked for."""
    listener = listener_pb2.Listener(name=port.name, traffic_direction=base_pb2.TrafficDirection.INBOUND)
    listener.address.CopyFrom(fields.socket_address(port.address, port.port))
    if not port.reuses_port:
        listener.enable_reuse_port.value = False
    manager = _manager(port.name)
    route = manager.route_config.virtual_hosts[0].routes.add()
    route.match.prefix = port.path
    route.route.cluster = port.cluster_name
    route.route.prefix_rewrite = _ASKED_OF_LAUNCHER
    if port.certificate is not None:
        chain = _add_chain(listener, manager)
        chain.transport_socket.CopyFrom(_provided(*port.certificate))
    elif port.mesh:
        # Whoever is on this very host may ask without: its own sidecar would take the connection otherwise.
        own = _add_chain(listener, manager).filter_chain_match.source_prefix_ranges.add(address_prefix=port.address)
        own.prefix_len.value = ip_address(port.address).max_prefixlen
        _add_chain(listener, manager).transport_socket.CopyFrom(tls.downstream_socket(port.mesh))
    else:
        _add_chain(listener, manager)
    return listener


def metrics_cluster(launcher: LauncherMetrics) -> cluster_pb2.Cluster:
    """Where the launcher answers."""
    address = fields.pipe_address(launcher.path)
    return clusters.static_cluster(launcher.name, address, connect_timeout=defaults.CONNECT_TIMEOUT)


def config_listener(config: LauncherConfig) -> listener_pb2.Listener:
    """The socket where the launcher reads what it is to do. Who has the newest of a document is told just that."""
    name = names.UNIFIED_LAUNCHER_CONFIG if config.is_unified else names.LAUNCHER_CONFIG
    listener = _pipe_listener(name, config.socket_path)
    manager = _manager(name)
    manager.route_config.ClearField("validate_clusters")
    longest = max((len(body.encode()) for _, body in config.documents), default=0)
    manager.route_config.max_direct_response_body_size_bytes.value = longest
    routes = manager.route_config.virtual_hosts[0].routes
    for path, body in config.documents:
        version = sha256(body.encode()).hexdigest()
        called = f"{name}{path.replace('/', '_')}" if config.is_unified else f"{name}:{path}"
        unchanged = f"{called}_not_modified" if config.is_unified else ""
        held = routes.add(name=unchanged, match=route_components_pb2.RouteMatch(path=path))
        held.match.headers.add(name="If-None-Match").string_match.exact = version
        held.direct_response.status = 304
        route = routes.add(name=called, match=route_components_pb2.RouteMatch(path=path))
        route.direct_response.status = 200
        route.direct_response.body.inline_string = body
        route.response_headers_to_add.add(header=base_pb2.HeaderValue(key="Etag", value=version))
    _add_chain(listener, manager)
    return listener


def collector_listener(socket: CollectorSocket) -> listener_pb2.Listener:
    """The socket through which the launcher sends metrics to a collector; the cluster of the same name is that."""
    listener = _pipe_listener(socket.name, socket.path)
    manager = _manager(socket.name)
    # The launcher's client speaks HTTP/1.1; it is told how a call ended in a header instead of a trailer.
    add_before_router(manager, "envoy.filters.http.grpc_http1_bridge", grpc_http1_bridge_pb2.Config())
    add_before_router(manager, "envoy.filters.http.grpc_stats", grpc_stats_pb2.FilterConfig(emit_filter_state=True))
    route = manager.route_config.virtual_hosts[0].routes.add()
    route.match.prefix = "/"
    route.route.cluster = socket.name
    _add_chain(listener, manager)
    return listener


def _pipe_listener(name: str, path: str) -> listener_pb2.Listener:
    return listener_pb2.Listener(name=name, address=fields.pipe_address(path, mode=_SOCKET_MODE))


def _manager(name: str) -> http_connection_manager_pb2.HttpConnectionManager:
    """Requests to any host, by the routes that are yet to come."""
    manager = _Hcm(
        stat_prefix=names.stat_name(name),
        http_filters=[http_filter("envoy.filters.http.router", router_pb2.Router())],
        internal_address_config=_Hcm.InternalAddressConfig(
            cidr_ranges=[
                {"address_prefix": "127.0.0.1", "prefix_len": {"value": 32}},
                {"address_prefix": "::1", "prefix_len": {"value": 128}},
            ]
        ),
    )
    manager.route_config.validate_clusters.value = False
    manager.route_config.virtual_hosts.add(name=name, domains=["*"])
    return manager


def _add_chain(
    listener: listener_pb2.Listener, manager: http_connection_manager_pb2.HttpConnectionManager
) -> listener_components_pb2.FilterChain:
    chain = listener.filter_chains.add()
    fields.pack(chain.filters.add(name=_HTTP_FILTER).typed_config, manager)
    return chain


def _provided(certificate: str, key: str) -> base_pb2.TransportSocket:
    """TLS by files that the host has."""
    context = tls_pb2.DownstreamTlsContext()
    context.common_tls_context.tls_certificates.append(
        common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(filename=certificate), private_key=base_pb2.DataSource(filename=key)
        )
    )
    return tls.socket(context)
