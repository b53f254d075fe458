"""Listeners: the ports of a sidecar and what becomes of the bytes that come in there.

In: parts of a proxy. Out: `Listener` messages. Never: where a cluster's endpoints are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as grpc_stats_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf.message import Message

from kumafast.generation import defaults, fields, names, protocols, rbac, routes, tls
from kumafast.generation.effects import Guard
from kumafast.generation.proxy import Inbound, Outbound, Tags

_Chain = listener_components_pb2.FilterChain
_Hcm = http_connection_manager_pb2.HttpConnectionManager
_Config: TypeAlias = http_connection_manager_pb2.HttpConnectionManager | tcp_proxy_pb2.TcpProxy

_TAGS = "io.kuma.tags"

_INTERNAL_NETWORKS = _Hcm.InternalAddressConfig(
    cidr_ranges=[
        address_pb2.CidrRange(address_prefix=prefix, prefix_len={"value": length})
        for prefix, length in defaults.INTERNAL_NETWORKS
    ]
)


def inbound_listener(inbound: Inbound) -> listener_pb2.Listener:
    """The port on which other sidecars reach the workload."""
    listener = _listener(
        names.inbound_listener_name(inbound.address, inbound.port),
        fields.socket_address(inbound.address, inbound.port),
        _inbound_chains(inbound),
        direction=base_pb2.TrafficDirection.INBOUND,
        tags=inbound.tags,
        binds_to_port=inbound.binds_to_port,
        reuses_port=inbound.reuses_port,
    )
    if inbound.tls is not None and inbound.tls.is_permissive:
        inspector = fields.packed(tls_inspector_pb2.TlsInspector())
        listener.listener_filters.add(name="envoy.filters.listener.tls_inspector", typed_config=inspector)
    return listener


def outbound_listener(outbound: Outbound) -> listener_pb2.Listener:
    """The port on which the workload reaches a service."""
    filter_ = _outbound_http(outbound) if protocols.is_http(outbound.protocol) else _outbound_tcp(outbound)
    return _listener(
        names.outbound_listener_name(outbound.address, outbound.port),
        fields.socket_address(outbound.address, outbound.port),
        [_Chain(filters=[filter_])],
        direction=base_pb2.TrafficDirection.OUTBOUND,
        tags=outbound.tags,
        binds_to_port=outbound.binds_to_port,
        # To share the port is what Envoy does unless told otherwise, and Kuma is silent about it here.
        reuses_port=None if outbound.reuses_port else False,
    )


def passthrough_listener(
    name: str, *, address: str, port: int, direction: int, reuses_port: bool | None
) -> listener_pb2.Listener:
    """The port that the host redirects traffic to: handed to the listener it was meant for, else to its destination."""
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=names.stat_name(name), cluster=name)
    listener = _listener(
        name,
        fields.socket_address(address, port),
        [_Chain(filters=[_network_filter("envoy.filters.network.tcp_proxy", proxy)])],
        direction=direction,
        tags=(),
        binds_to_port=True,
        reuses_port=reuses_port,
    )
    listener.use_original_dst.value = True
    return listener


def _listener(
    name: str,
    address: address_pb2.Address,
    chains: Sequence[listener_components_pb2.FilterChain],
    *,
    direction: int,
    tags: Tags,
    binds_to_port: bool,
    reuses_port: bool | None,
) -> listener_pb2.Listener:
    return listener_pb2.Listener(
        name=name,
        address=address,
        filter_chains=chains,
        metadata=fields.metadata({_TAGS: tags}) if tags else None,
        traffic_direction=direction,
        # Kuma sends only the unusual one of the two.
        bind_to_port=None if binds_to_port else {"value": False},
        enable_reuse_port=None if reuses_port is None else {"value": reuses_port},
    )


def _inbound_chains(inbound: Inbound) -> list[listener_components_pb2.FilterChain]:
    """One chain; or, while plaintext is let in too, one for each way in which a client may come."""
    config = _inbound_http(inbound) if protocols.is_http(inbound.protocol) else _inbound_tcp(inbound)
    if inbound.tls is None:
        return [_Chain(filters=[_terminal_filter(config)])]
    secured = _Chain(
        filters=_guarded(config, rbac.guard(inbound.effects, inbound.tls.mesh), inbound),
        transport_socket=tls.downstream_socket(inbound.tls.mesh),
    )
    if not inbound.tls.is_permissive:
        return [secured]
    secured.filter_chain_match.transport_protocol = "tls"
    secured.filter_chain_match.application_protocols.append(tls.ALPN)
    plain = _Chain(filters=[_terminal_filter(config)])
    plain.filter_chain_match.transport_protocol = "raw_buffer"
    # TLS without our protocol's name is the application's own, and goes to it as it came.
    own = _Chain(filters=[_terminal_filter(_inbound_tcp(inbound))])
    own.filter_chain_match.transport_protocol = "tls"
    return [plain, own, secured]


def _guarded(config: _Config, guard: Guard, inbound: Inbound) -> list[listener_components_pb2.Filter]:
    """The filters of a chain that takes certificates, with that which judges them before all others."""
    if guard.judges_requests and isinstance(config, _Hcm):
        manager = _Hcm()
        manager.CopyFrom(config)
        del manager.http_filters[:]
        manager.http_filters.append(_http_filter("envoy.filters.http.rbac", rbac.http_filter(guard)))
        manager.http_filters.extend(config.http_filters)
        return [_terminal_filter(manager)]
    name = names.inbound_listener_name(inbound.address, inbound.port)
    judge = rbac.network_filter(guard, stat_prefix=f"{names.stat_name(name)}.")
    return [_network_filter("envoy.filters.network.rbac", judge), _terminal_filter(config)]


def _terminal_filter(config: _Config) -> listener_components_pb2.Filter:
    kind = "http_connection_manager" if isinstance(config, _Hcm) else "tcp_proxy"
    return _network_filter(f"envoy.filters.network.{kind}", config)


def _inbound_tcp(inbound: Inbound) -> tcp_proxy_pb2.TcpProxy:
    cluster = names.local_cluster_name(inbound.service_port)
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=names.stat_name(cluster),
        cluster=cluster,
        idle_timeout=fields.duration(defaults.INBOUND_IDLE_TIMEOUT),
    )
    for effect in inbound.effects:
        effect.on_inbound_tcp(proxy)
    return proxy


def _outbound_tcp(outbound: Outbound) -> listener_components_pb2.Filter:
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=names.stat_name(outbound.service),
        cluster=outbound.cluster_name,
        idle_timeout=fields.duration(defaults.IDLE_TIMEOUT),
        max_connect_attempts={"value": defaults.TCP_CONNECT_ATTEMPTS_MAX},
    )
    for effect in outbound.effects:
        effect.on_outbound_tcp(proxy)
    return _network_filter("envoy.filters.network.tcp_proxy", proxy)


def _inbound_http(inbound: Inbound) -> http_connection_manager_pb2.HttpConnectionManager:
    manager = _connection_manager(names.local_cluster_name(inbound.service_port), protocol=inbound.protocol)
    manager.route_config.CopyFrom(routes.inbound_routes(inbound))
    # Who the client is, the workload learns from its sidecar alone: what a client claims in the header is dropped.
    manager.forward_client_cert_details = _Hcm.SANITIZE_SET
    manager.set_current_client_cert_details.uri = True
    manager.stream_idle_timeout.CopyFrom(fields.duration(defaults.INBOUND_STREAM_IDLE_TIMEOUT))
    for effect in inbound.effects:
        effect.on_inbound_http(manager)
    return manager


def _outbound_http(outbound: Outbound) -> listener_components_pb2.Filter:
    manager = _connection_manager(outbound.service, protocol=outbound.protocol)
    manager.route_config.CopyFrom(routes.outbound_routes(outbound))
    manager.normalize_path.value = True
    for effect in outbound.effects:
        effect.on_outbound_http(manager)
    return _network_filter("envoy.filters.network.http_connection_manager", manager)


def _connection_manager(stat_prefix: str, *, protocol: str) -> http_connection_manager_pb2.HttpConnectionManager:
    no_timeout = fields.duration(defaults.NO_TIMEOUT)
    http_filters = [_http_filter("envoy.filters.http.router", router_pb2.Router())]
    if protocols.is_grpc(protocol):
        statistics = grpc_stats_pb2.FilterConfig(emit_filter_state=True)
        http_filters.insert(0, _http_filter("envoy.filters.http.grpc_stats", statistics))
    return _Hcm(
        stat_prefix=names.stat_name(stat_prefix),
        http_filters=http_filters,
        internal_address_config=_INTERNAL_NETWORKS,
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(idle_timeout=no_timeout),
        request_headers_timeout=no_timeout,
    )


def _network_filter(name: str, config: Message) -> listener_components_pb2.Filter:
    return listener_components_pb2.Filter(name=name, typed_config=fields.packed(config))


def _http_filter(name: str, config: Message) -> http_connection_manager_pb2.HttpFilter:
    return http_connection_manager_pb2.HttpFilter(name=name, typed_config=fields.packed(config))
