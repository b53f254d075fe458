"""Built-in gateways: ports that take what comes from outside of the mesh, and the routes of its requests.

In: parts of a proxy. Out: `Listener`, `RouteConfiguration` and `Runtime` messages. Never: which routes are attached, or
a certificate.
Source of the values: Kuma 2.14.

Routes are resources of their own, so that an edit of one leaves the listener, and all connections to it, as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import TypeAlias

from envoy.config.core.v3 import base_pb2, config_source_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.compression.gzip.compressor.v3 import gzip_pb2
from envoy.extensions.filters.http.compressor.v3 import compressor_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.service.runtime.v3 import rtds_pb2

from kumafast.generation import defaults, fields, http_routes, names, requests, routes, tls
from kumafast.generation.effects import INBOUND, OUTBOUND, Call, Config
from kumafast.generation.http_filters import http_filter
from kumafast.generation.proxy import (
    GatewayChain,
    GatewayHost,
    GatewayLimits,
    GatewayListener,
    GatewayRoutes,
    GatewayRule,
)
from kumafast.resources.hostnames import ANY
from kumafast.resources.mesh_gateway import HTTP, HTTPS, TCP

_Hcm: TypeAlias = http_connection_manager_pb2.HttpConnectionManager
_Action: TypeAlias = route_components_pb2.RouteAction

_HTTP_FILTER = "envoy.filters.network.http_connection_manager"
_TCP_FILTER = "envoy.filters.network.tcp_proxy"
_COMPRESSION = "gzip-compress"
# What is held for a client that does not read.
_BUFFER_BYTES = 32_768
_STREAM_WINDOW_BYTES, _CONNECTION_WINDOW_BYTES = 65_536, 1_048_576
_STREAMS_MAX = 100
_SERVER_NAME = "Kuma Gateway"
_NO_ROUTES = "This is a Kuma MeshGateway. No routes match this MeshGateway!\n"
_ANYBODY = "unknown"
_NOT_FOUND, _NO_BACKEND = 404, 500
_ONLY_BY_TLS = "max-age=31536000; includeSubDomains"

LIMITS_LAYER = "gateway.listeners"
"""The layer of Envoy's runtime that says how many connections listeners may have; the bootstrap asks for it."""


def gateway_listener(part: GatewayListener) -> listener_pb2.Listener:
    """A port of the gateway."""
    listener = listener_pb2.Listener(
        name=names.gateway_listener_name(part.gateway, part.protocol, part.port),
        address=fields.socket_address(part.address, part.port),
        traffic_direction=base_pb2.TrafficDirection.INBOUND,
        per_connection_buffer_limit_bytes={"value": _BUFFER_BYTES},
        enable_reuse_port={"value": True},
    )
    inspector = listener.listener_filters.add(name="envoy.filters.listener.tls_inspector")
    fields.pack(inspector.typed_config, tls_inspector_pb2.TlsInspector())
    for chain in part.chains:
        _add_chain(listener, part, chain)
    return listener


def _add_chain(listener: listener_pb2.Listener, part: GatewayListener, chain: GatewayChain) -> None:
    found = listener.filter_chains.add()
    if part.protocol not in (HTTP, TCP):
        found.filter_chain_match.transport_protocol = "tls"
        if chain.hostname != ANY:
            found.filter_chain_match.server_names.append(chain.hostname)
    if part.protocol in (HTTP, HTTPS):
        _add_filter(found, _HTTP_FILTER, _requests(part, chain))
    else:
        for effect in chain.effects:
            found.filters.extend(effect.inbound_filters())
        _add_filter(found, _TCP_FILTER, _connections(part, chain))
    if chain.certificates:
        found.transport_socket.CopyFrom(tls.gateway_socket(chain.certificates, reads_requests=part.protocol == HTTPS))


def _add_filter(chain: listener_components_pb2.FilterChain, name: str, config: Config) -> None:
    filter_ = chain.filters.add(name=name)
    fields.pack(filter_.typed_config, config)


def _requests(part: GatewayListener, chain: GatewayChain) -> _Hcm:
    manager = _Hcm()
    manager.CopyFrom(_any_manager())
    manager.stat_prefix = names.stat_name(part.service)
    for effect in chain.effects:
        effect.on_gateway_http(manager)
    _keep_first_of_each_name(manager)
    _watch(manager, part, chain)
    manager.rds.route_config_name = chain.route_name
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = config_source_pb2.ApiVersion.V3
    return manager


def _keep_first_of_each_name(manager: _Hcm) -> None:
    """Of filters that several listeners of a port ask for alike one will do: what they do is said by routes."""
    names_of_all = [each.name for each in manager.http_filters]
    for position in reversed(range(len(names_of_all))):
        if names_of_all[position] in names_of_all[:position]:
            del manager.http_filters[position]


def _connections(part: GatewayListener, chain: GatewayChain) -> tcp_proxy_pb2.TcpProxy:
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=names.stat_name(part.service), idle_timeout=fields.duration(defaults.GATEWAY_IDLE_TIMEOUT)
    )
    routes.send_connections(proxy, chain.legs)
    for effect in chain.outward:
        effect.on_outbound_tcp(proxy)
    for effect in chain.effects:
        effect.on_gateway_tcp(proxy)
    _watch(proxy, part, chain)
    return proxy


def _watch(config: Config, part: GatewayListener, chain: GatewayChain) -> None:
    # Whoever comes is not known.
    anybody = None if part.source is None else replace(part.source, service=_ANYBODY)
    for effect in chain.effects:
        effect.watch(config, Call(INBOUND, part.service, anybody))
    for effect in chain.outward:
        effect.watch(config, Call(OUTBOUND, ANY, part.source))


def gateway_routes(part: GatewayRoutes) -> route_pb2.RouteConfiguration:
    """Where requests of a chain go. One without any host answers that it has none."""
    found = route_pb2.RouteConfiguration(
        name=part.name,
        # What a client says of itself that only sidecars say is dropped.
        request_headers_to_remove=[names.KUMA_TAGS_HEADER],
        # A cluster may come after its route; requests that come between get an answer, and the route stays.
        validate_clusters={"value": False},
        ignore_port_in_host_matching=True,
    )
    for host in part.hosts or (GatewayHost(ANY),):
        virtual = found.virtual_hosts.add(name=host.hostname, domains=[host.hostname])
        if part.is_secured:
            virtual.require_tls = route_components_pb2.VirtualHost.ALL
            virtual.response_headers_to_add.append(
                fields.header("Strict-Transport-Security", _ONLY_BY_TLS, is_appended=False)
            )
        virtual.routes.extend(_host_routes(host))
    return found


def _host_routes(host: GatewayHost) -> list[route_components_pb2.Route]:
    if not host.rules:
        nothing = route_components_pb2.Route(match=route_components_pb2.RouteMatch(prefix="/"))
        nothing.direct_response.status = _NOT_FOUND
        nothing.direct_response.body.inline_string = _NO_ROUTES
        return [nothing]
    manager = _Hcm(http_filters=[http_filter("envoy.filters.http.router", router_pb2.Router())])
    virtual = manager.route_config.virtual_hosts.add()
    virtual.routes.extend(route for rule in host.rules for route in _rule_routes(rule))
    for effect in host.effects:
        effect.on_gateway_http(manager)
    return list(virtual.routes)


def _rule_routes(part: GatewayRule) -> Iterator[route_components_pb2.Route]:
    """The routes of a rule, as those of an outbound that is under the same policies."""
    route = route_components_pb2.Route()
    if part.rule.legs:
        route.route.CopyFrom(_any_action())
        requests.split(route.route, part.rule.legs)
    else:
        # A redirect takes the place of it.
        route.direct_response.status = _NO_BACKEND
    manager = _Hcm()
    virtual = manager.route_config.virtual_hosts.add()
    virtual.routes.extend(http_routes.routes(route, part.rule))
    for effect in part.effects:
        effect.on_outbound_http(manager)
    for each in virtual.routes:
        each.request_headers_to_add.extend(manager.route_config.request_headers_to_add)
        yield each


def gateway_limits(part: GatewayLimits) -> rtds_pb2.Runtime:
    """The layer of Envoy's runtime with the limits."""
    runtime = rtds_pb2.Runtime(name=LIMITS_LAYER)
    runtime.layer.SetInParent()
    for listener, limit in part.connections:
        runtime.layer[f"envoy.resource_limits.listener.{listener}.connection_limit"] = limit
    return runtime


# What all have in common, to be copied. Never changed.


@cache
def _any_action() -> _Action:
    return _Action(
        timeout=fields.duration(defaults.REQUEST_TIMEOUT),
        idle_timeout=fields.duration(defaults.GATEWAY_STREAM_IDLE_TIMEOUT),
        cluster_not_found_response_code=_Action.INTERNAL_SERVER_ERROR,
    )


@cache
def _any_manager() -> _Hcm:
    compressor = compressor_pb2.Compressor()
    compressor.response_direction_config.disable_on_etag_header = True
    compressor.compressor_library.name = "gzip"
    fields.pack(compressor.compressor_library.typed_config, gzip_pb2.Gzip())
    manager = _Hcm(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=fields.duration(defaults.GATEWAY_IDLE_TIMEOUT),
            headers_with_underscores_action=protocol_pb2.HttpProtocolOptions.REJECT_REQUEST,
        ),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(
            allow_connect=True,
            initial_stream_window_size={"value": _STREAM_WINDOW_BYTES},
            initial_connection_window_size={"value": _CONNECTION_WINDOW_BYTES},
            max_concurrent_streams={"value": _STREAMS_MAX},
        ),
        http_filters=[
            http_filter(_COMPRESSION, compressor),
            http_filter("envoy.filters.http.router", router_pb2.Router()),
        ],
        normalize_path={"value": True},
        merge_slashes=True,
        path_with_escaped_slashes_action=_Hcm.UNESCAPE_AND_REDIRECT,
        request_headers_timeout=fields.duration(defaults.GATEWAY_HEADERS_TIMEOUT),
        stream_idle_timeout=fields.duration(defaults.GATEWAY_STREAM_IDLE_TIMEOUT),
        server_name=_SERVER_NAME,
        use_remote_address={"value": True},
    )
    # Whoever is on the host itself is no client from outside.
    manager.internal_address_config.cidr_ranges.add(address_prefix="127.0.0.1", prefix_len={"value": 32})
    return manager
