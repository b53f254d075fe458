"""Listeners: the ports of a sidecar and what becomes of the bytes that come in there.

In: parts of a proxy. Out: `Listener` messages. Never: where a cluster's endpoints are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as grpc_stats_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.http_inspector.v3 import http_inspector_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from kumafast.generation import cases, defaults, fields, http_routes, names, passages, protocols, rbac, routes, tls
from kumafast.generation.effects import INBOUND, OUTBOUND, UNSPECIFIED, Call, Config, Effect, Securing, Source, Way
from kumafast.generation.http_filters import http_filter
from kumafast.generation.proxy import HttpRule, Inbound, InboundTls, Outbound, Tags
from kumafast.memo import remembered

_Hcm = http_connection_manager_pb2.HttpConnectionManager

_TAGS = "io.kuma.tags"
_HTTP_FILTER = "envoy.filters.network.http_connection_manager"
_TCP_FILTER = "envoy.filters.network.tcp_proxy"
_JUDGE = "envoy.filters.network.rbac"
# What Kuma's records call the destination of what is let through as it came.
_OUTSIDE = "external"

# One for each protocol, and a protocol is whatever a user wrote in a tag.
_PROTOCOLS_MAX = 64
# Ways to be bound of inbounds on the same port.
_WORKLOADS_MAX = 4_096
# As many services and policies for them; each is a listener without its address, a kilobyte or two.
_RESTS_MAX = 16_384

_INTERNAL_NETWORKS = _Hcm.InternalAddressConfig(
    cidr_ranges=[
        address_pb2.CidrRange(address_prefix=prefix, prefix_len={"value": length})
        for prefix, length in defaults.INTERNAL_NETWORKS
    ]
)


def inbound_listener(inbound: Inbound) -> listener_pb2.Listener:
    """The port on which other sidecars reach the workload."""
    listener = listener_pb2.Listener()
    listener.MergeFromString(rest_of_inbound(inbound.at_no_address()))
    name = inbound.listener_name
    _place(listener, name, inbound.address, inbound.port)
    if inbound.tls is not None:
        _name_judges(listener, name)
    return listener


@remembered(_RESTS_MAX)
def rest_of_inbound(inbound: Inbound) -> bytes:
    """All but name and address, encoded: that is the same for the instances of a service, and nearly all of the work.

    Under TLS it is not quite all: `inbound_listener` adds what bears the listener's name.
    """
    config = _inbound_http(inbound) if protocols.is_http(inbound.protocol) else _inbound_tcp(inbound)
    listener = _listener(
        direction=base_pb2.TrafficDirection.INBOUND,
        tags=inbound.tags,
        binds_to_port=inbound.binds_to_port,
        reuses_port=inbound.reuses_port,
    )
    if inbound.tls is None:
        _add_chain(listener, config)
    elif _is_permissive(inbound, inbound.tls):
        _add_permissive_chains(listener, inbound, config)
    else:
        _add_secured_chain(listener, inbound, config)
    _add_inbound_filters(listener, inbound.effects)
    encoded: bytes = listener.SerializeToString(deterministic=True)
    return encoded


def outbound_listener(outbound: Outbound) -> listener_pb2.Listener:
    """The port on which the workload reaches a service."""
    listener = _listener(
        direction=base_pb2.TrafficDirection.OUTBOUND,
        tags=outbound.tags,
        binds_to_port=outbound.binds_to_port,
        # To share the port is what Envoy does unless told otherwise, and Kuma is silent about it here.
        reuses_port=None if outbound.reuses_port else False,
    )
    is_http = protocols.is_http(outbound.protocol)
    _add_chain(listener, _outbound_http(outbound) if is_http else _outbound_tcp(outbound))
    _place(listener, outbound.listener_name, outbound.address, outbound.port)
    return listener


def passthrough_listener(
    name: str,
    *,
    address: str,
    port: int,
    direction: int,
    reuses_port: bool | None,
    effects: tuple[Effect, ...] = (),
    source: Source | None = None,
    ways: tuple[Way, ...] = (),
) -> listener_pb2.Listener:
    """The port that the host redirects traffic to: handed to the listener it was meant for, else to its destination.

    With `ways` these are the only ones out, and without its cluster there is none.
    """

    def watch(config: Config) -> None:
        for effect in effects:
            effect.watch(config, Call(UNSPECIFIED, _OUTSIDE, source))

    listener = _listener(
        direction=direction,
        tags=(),
        binds_to_port=True,
        reuses_port=reuses_port,
    )
    if ways:
        listener.filter_chains.extend(passages.chains(ways, watch))
        _inspect_tls(listener)
        inspector = listener.listener_filters.add(name="envoy.filters.listener.http_inspector")
        inspector.typed_config.Pack(http_inspector_pb2.HttpInspector(), deterministic=True)
    else:
        proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=names.stat_name(name), cluster=name)
        watch(proxy)
        _add_chain(listener, proxy)
    _place(listener, name, address, port)
    listener.use_original_dst.value = True
    return listener


def _place(listener: listener_pb2.Listener, name: str, address: str, port: int) -> None:
    listener.name = name
    listener.address.socket_address.address = address
    listener.address.socket_address.port_value = port


def _listener(
    *,
    direction: int,
    tags: Tags,
    binds_to_port: bool,
    reuses_port: bool | None,
) -> listener_pb2.Listener:
    # Filled in place: a message that is handed to another's constructor is copied at every level.
    listener = listener_pb2.Listener(traffic_direction=direction)
    if tags:
        listener.metadata.CopyFrom(_metadata(tags))
    # Kuma sends only the unusual one of the two.
    if not binds_to_port:
        listener.bind_to_port.value = False
    if reuses_port is not None:
        listener.enable_reuse_port.value = reuses_port
    return listener


@remembered(_RESTS_MAX)
def _metadata(tags: Tags) -> base_pb2.Metadata:
    """The tags as metadata. One message for all that have the same, and under all policies: it is not to be changed."""
    return fields.metadata({_TAGS: tags})


def _add_chain(listener: listener_pb2.Listener, config: Config) -> listener_components_pb2.FilterChain:
    """Serve connections so; the chain, to which what is special about it can be added."""
    chain = listener.filter_chains.add()
    filter_ = chain.filters.add()
    filter_.name = _HTTP_FILTER if isinstance(config, _Hcm) else _TCP_FILTER
    fields.pack(filter_.typed_config, config)
    return chain


def _add_permissive_chains(listener: listener_pb2.Listener, inbound: Inbound, config: Config) -> None:
    """While plaintext is let in too: one chain for each way in which a client may come."""
    assert inbound.tls is not None
    _inspect_tls(listener)
    _add_chain(listener, config).filter_chain_match.transport_protocol = "raw_buffer"
    # TLS without our protocol's name is the application's own, and goes to it as it came.
    _add_chain(listener, _inbound_tcp(inbound)).filter_chain_match.transport_protocol = "tls"
    secured = _add_secured_chain(listener, inbound, config)
    secured.filter_chain_match.transport_protocol = "tls"
    secured.filter_chain_match.application_protocols.append(tls.ALPN)


def _is_permissive(inbound: Inbound, tls: InboundTls) -> bool:
    said = (each.is_permissive for each in _securing(inbound) if each.is_permissive is not None)
    return next(said, tls.is_permissive)


def _securing(inbound: Inbound) -> Iterator[Securing]:
    """What policies say of how connections to the workload are secured."""
    for effect in inbound.effects:
        securing = effect.inbound_securing()
        if securing is not None:
            yield securing


def _inspect_tls(listener: listener_pb2.Listener) -> None:
    if not listener.listener_filters:
        inspector = listener.listener_filters.add(name="envoy.filters.listener.tls_inspector")
        inspector.typed_config.Pack(tls_inspector_pb2.TlsInspector(), deterministic=True)


def _add_inbound_filters(listener: listener_pb2.Listener, effects: tuple[Effect, ...]) -> None:
    """What looks at connections after they are judged, and before they are served."""
    added = [each for effect in effects for each in effect.inbound_filters()]
    if any(effect.reads_server_name for effect in effects):
        _inspect_tls(listener)
        added.append(cases.remembering_server_name())
    for chain in listener.filter_chains if added else ():
        terminal = chain.filters.pop()
        chain.filters.extend([*added, terminal])


def _add_secured_chain(
    listener: listener_pb2.Listener, inbound: Inbound, config: Config
) -> listener_components_pb2.FilterChain:
    """Serve clients with a certificate of the mesh as far as they may connect: that is judged before all else."""
    assert inbound.tls is not None
    guard = rbac.guard(inbound.effects, inbound.tls.mesh)
    if guard.judges_requests and isinstance(config, _Hcm):
        guarded = _Hcm()
        guarded.CopyFrom(config)
        del guarded.http_filters[:]
        guarded.http_filters.append(http_filter("envoy.filters.http.rbac", rbac.http_filter(guard)))
        guarded.http_filters.extend(config.http_filters)
        chain = _add_chain(listener, guarded)
    else:
        chain = _add_chain(listener, config)
        terminal = chain.filters.pop()
        judge = chain.filters.add(name=_JUDGE)
        judge.typed_config.Pack(rbac.network_filter(guard), deterministic=True)
        chain.filters.append(terminal)
    spoken = b"".join(each.parameters for each in _securing(inbound))
    chain.transport_socket.CopyFrom(tls.downstream_socket(inbound.tls.mesh, spoken))
    return chain


def _name_judges(listener: listener_pb2.Listener, name: str) -> None:
    """Their statistics bear the listener's name, which is the one thing about them that differs between instances."""
    for chain in listener.filter_chains:
        if chain.filters[0].name == _JUDGE:
            judge = network_rbac_pb2.RBAC()
            chain.filters[0].typed_config.Unpack(judge)
            judge.stat_prefix = f"{names.stat_name(name)}."
            chain.filters[0].typed_config.Pack(judge, deterministic=True)


def _inbound_tcp(inbound: Inbound) -> tcp_proxy_pb2.TcpProxy:
    cluster = inbound.cluster_name
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=names.stat_name(cluster),
        cluster=cluster,
        idle_timeout=fields.duration(defaults.INBOUND_IDLE_TIMEOUT),
    )
    for effect in inbound.effects:
        effect.on_inbound_tcp(proxy)
        effect.watch(proxy, Call(INBOUND, inbound.service, inbound.source))
    return proxy


def _outbound_tcp(outbound: Outbound) -> tcp_proxy_pb2.TcpProxy:
    proxy = tcp_proxy_pb2.TcpProxy(
        stat_prefix=names.stat_name(outbound.service),
        idle_timeout=fields.duration(defaults.IDLE_TIMEOUT),
    )
    routes.lead_connections(proxy, outbound)
    for effect in outbound.effects:
        effect.on_outbound_tcp(proxy)
        effect.watch(proxy, Call(OUTBOUND, outbound.service, outbound.source))
    return proxy


def _inbound_http(inbound: Inbound) -> http_connection_manager_pb2.HttpConnectionManager:
    manager = _Hcm()
    manager.CopyFrom(_to_workload(inbound.cluster_name, inbound.protocol, inbound.effects))
    routes.name_inbound(manager.route_config, inbound)
    for effect in inbound.effects:
        effect.watch(manager, Call(INBOUND, inbound.service, inbound.source))
    return manager


def _outbound_http(outbound: Outbound) -> http_connection_manager_pb2.HttpConnectionManager:
    manager = _Hcm()
    manager.CopyFrom(_any_outbound(outbound.protocol))
    manager.stat_prefix = names.stat_name(outbound.service)
    routes.lead_outbound(manager.route_config, outbound)
    apart = list(_apart(manager, outbound))
    for effect in outbound.effects:
        effect.on_outbound_http(manager)
        effect.watch(manager, Call(OUTBOUND, outbound.service, outbound.source))
    for each in apart:
        _put_back(manager, each)
    return manager


def _apart(
    manager: http_connection_manager_pb2.HttpConnectionManager, outbound: Outbound
) -> Iterator[http_connection_manager_pb2.HttpConnectionManager]:
    """For each rule with effects of its own the manager as that would be if it had no other requests."""
    for rule in () if outbound.route is None else outbound.route.rules:
        if isinstance(rule, HttpRule) and rule.effects is not None:
            alone = _Hcm()
            alone.CopyFrom(manager)
            host = alone.route_config.virtual_hosts[0]
            kept = [route for route in host.routes if route.name == http_routes.rule_name(rule)]
            del host.routes[:]
            host.routes.extend(kept)
            for effect in rule.effects:
                effect.on_outbound_http(alone)
            yield alone


def _put_back(
    manager: http_connection_manager_pb2.HttpConnectionManager,
    alone: http_connection_manager_pb2.HttpConnectionManager,
) -> None:
    """Have requests of one rule handled as they are where there are no others."""
    changed = iter(alone.route_config.virtual_hosts[0].routes)
    name = alone.route_config.virtual_hosts[0].routes[0].name
    for route in manager.route_config.virtual_hosts[0].routes:
        if route.name == name:
            route.CopyFrom(next(changed))


# What all inbounds or outbounds of a protocol have in common, to be copied: that is several times as fast as to put it
# together. Never changed.


@lru_cache(maxsize=_PROTOCOLS_MAX)
def _any_inbound(protocol: str) -> http_connection_manager_pb2.HttpConnectionManager:
    manager = _connection_manager(protocol)
    manager.route_config.CopyFrom(routes.any_inbound())
    # Who the client is, the workload learns from its sidecar alone: what a client claims in the header is dropped.
    manager.forward_client_cert_details = _Hcm.SANITIZE_SET
    manager.set_current_client_cert_details.uri = True
    manager.stream_idle_timeout.CopyFrom(fields.duration(defaults.INBOUND_STREAM_IDLE_TIMEOUT))
    return manager


@lru_cache(maxsize=_PROTOCOLS_MAX)
def _any_outbound(protocol: str) -> http_connection_manager_pb2.HttpConnectionManager:
    manager = _connection_manager(protocol)
    manager.route_config.CopyFrom(routes.any_outbound())
    manager.normalize_path.value = True
    return manager


@remembered(_WORKLOADS_MAX)
def _to_workload(
    cluster: str, protocol: str, effects: tuple[Effect, ...]
) -> http_connection_manager_pb2.HttpConnectionManager:
    """Requests to a workload under some policies, whatever its service is called: services on one port share it."""
    manager = _Hcm()
    manager.CopyFrom(_any_inbound(protocol))
    manager.stat_prefix = names.stat_name(cluster)
    routes.lead_to_workload(manager.route_config, cluster)
    for effect in effects:
        effect.on_inbound_http(manager)
    return manager


def _connection_manager(protocol: str) -> http_connection_manager_pb2.HttpConnectionManager:
    no_timeout = fields.duration(defaults.NO_TIMEOUT)
    http_filters = [http_filter("envoy.filters.http.router", router_pb2.Router())]
    if protocols.is_grpc(protocol):
        statistics = grpc_stats_pb2.FilterConfig(emit_filter_state=True)
        http_filters.insert(0, http_filter("envoy.filters.http.grpc_stats", statistics))
    return _Hcm(
        http_filters=http_filters,
        internal_address_config=_INTERNAL_NETWORKS,
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(idle_timeout=no_timeout),
        request_headers_timeout=no_timeout,
    )
