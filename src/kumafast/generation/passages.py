"""What is let through to where it was going, though it is not in the mesh: ways out by domain, address and port.

In: matches as a policy has them. Out: a `Passage`, and the filter chains and clusters that it is. Never: two filter
chains that match the same: Envoy would refuse the listener.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network
from typing import TypeAlias

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from kumafast.generation import clusters, defaults, fields, names, protocols
from kumafast.generation.effects import Config, Passage, Way
from kumafast.generation.http_filters import http_filter
from kumafast.resources.policies.mesh_passthrough import DOMAIN, REQUESTS, Match

Watch: TypeAlias = Callable[[Config], None]

_NOT_THERE = (
    "This response comes from Kuma Sidecar. No routes matched this domain - check configuration of your "
    "MeshPassthrough policy.\n"
)
_ANY_DOMAIN = "*"
_PROTOCOL_ORDER = ("tls", "tcp")


def passage(matches: Iterable[Match]) -> Passage:
    """What matches come to. Of what excludes each other the later counts, which is of the weightier policy."""
    ways: dict[tuple[object, ...], Way] = {}
    spoken: dict[int, str] = {}
    for match in reversed(tuple(matches)):
        port = match.port or 0
        if match.protocol in REQUESTS and spoken.setdefault(port, match.protocol) != match.protocol:
            continue
        network = "" if match.type == DOMAIN else str(ip_network(match.value, strict=False))
        way = Way(match.protocol, match.value, port, network)
        ways.setdefault((way.protocol, way.port, network or way.value), way)
    return Passage(tuple(sorted(ways.values(), key=_order)))


def _order(way: Way) -> tuple[object, ...]:
    protocol = _PROTOCOL_ORDER.index(way.protocol) if way.protocol in _PROTOCOL_ORDER else len(_PROTOCOL_ORDER)
    # Longer prefixes and longer names come first, as they are more specific; domains last.
    length = ip_network(way.network).prefixlen if way.network else way.value.count(".")
    return protocol, -way.port, not way.network, way.value.startswith(_ANY_DOMAIN), -length, way.value


def ways_out(passing: Passage, *, is_ipv6: bool) -> tuple[Way, ...]:
    """Those of a family of addresses; domains belong to both."""
    version = 6 if is_ipv6 else 4
    return tuple(way for way in passing.ways if not way.network or ip_network(way.network).version == version)


def cluster(way: Way, *, has_ipv6: bool) -> cluster_pb2.Cluster:
    """Where a way leads: to the domain as the sidecar looks it up, else to wherever the connection was going."""
    name = _name(way.protocol, way.value, way.port)
    made = clusters.original_destination_cluster(name)
    made.connect_timeout.CopyFrom(fields.duration(defaults.CONNECT_TIMEOUT))
    if way.port and not way.network and not way.value.startswith(_ANY_DOMAIN):
        # The client chooses both the name and the address: with a name that is let out it could reach any address.
        made.type = cluster_pb2.Cluster.STRICT_DNS
        made.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
        made.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED if has_ipv6 else cluster_pb2.Cluster.V4_ONLY
        made.load_assignment.CopyFrom(clusters.single_endpoint(name, fields.socket_address(way.value, way.port)))
    if protocols.is_http2(way.protocol):
        for key, options in clusters.http2_options().items():
            made.typed_extension_protocol_options[key].CopyFrom(options)
    return made


def chains(ways: Iterable[Way], watch: Watch) -> Iterator[listener_components_pb2.FilterChain]:
    """How a listener tells ways apart. `watch` has what goes out recorded."""
    together: dict[tuple[str, int], list[Way]] = {}
    for way in ways:
        if way.protocol in REQUESTS and not way.network:
            together.setdefault((way.protocol, way.port), []).append(way)
        elif way.protocol in REQUESTS:
            host = _host(way.value, _name(way.protocol, way.value, way.port), (_ANY_DOMAIN,))
            yield _requests(_name(way.protocol, way.value, way.port), way, [host], watch)
        else:
            yield _connections(way, watch)
    # One server name cannot be asked for before a request is read, so domains on a port share a chain.
    for (protocol, port), alike in together.items():
        hosts = [_host(way.value, _name(protocol, way.value, port), _names_of(way)) for way in alike]
        if all(way.value != _ANY_DOMAIN for way in alike):
            hosts.append(_nowhere())
        yield _requests(_name(protocol, "", port), alike[0], hosts, watch)


def _connections(way: Way, watch: Watch) -> listener_components_pb2.FilterChain:
    name = _name(way.protocol, way.value, way.port)
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=names.stat_name(name), cluster=name)
    watch(proxy)
    chain = _chain(name, way)
    is_tls = way.protocol == "tls"
    chain.filter_chain_match.transport_protocol = "tls" if is_tls else "raw_buffer"
    if is_tls and not way.network and way.value != _ANY_DOMAIN:
        chain.filter_chain_match.server_names.append(way.value)
    terminal = chain.filters.add(name="envoy.filters.network.tcp_proxy")
    terminal.typed_config.Pack(proxy, deterministic=True)
    return chain


def _requests(
    name: str, way: Way, hosts: Iterable[route_components_pb2.VirtualHost], watch: Watch
) -> listener_components_pb2.FilterChain:
    manager = http_connection_manager_pb2.HttpConnectionManager(
        stat_prefix=names.stat_name(name),
        http_filters=[http_filter("envoy.filters.http.router", router_pb2.Router())],
        route_config=route_pb2.RouteConfiguration(
            name=name, virtual_hosts=list(hosts), validate_clusters={"value": False}
        ),
    )
    watch(manager)
    chain = _chain(name, way)
    chain.filter_chain_match.transport_protocol = "raw_buffer"
    chain.filter_chain_match.application_protocols.extend(("http/1.1", "h2c"))
    terminal = chain.filters.add(name="envoy.filters.network.http_connection_manager")
    terminal.typed_config.Pack(manager, deterministic=True)
    return chain


def _chain(name: str, way: Way) -> listener_components_pb2.FilterChain:
    chain = listener_components_pb2.FilterChain(name=name)
    if way.port:
        chain.filter_chain_match.destination_port.value = way.port
    if way.network:
        network = ip_network(way.network)
        chain.filter_chain_match.prefix_ranges.add(
            address_prefix=str(network.network_address), prefix_len={"value": network.prefixlen}
        )
    return chain


def _names_of(way: Way) -> tuple[str, ...]:
    """The hosts that requests may name: with the port, as is right, or without."""
    if way.value == _ANY_DOMAIN:
        return (_ANY_DOMAIN,)
    return (way.value, f"{way.value}:{way.port or _ANY_DOMAIN}")


def _host(value: str, leads_to: str, domains: Iterable[str]) -> route_components_pb2.VirtualHost:
    everything = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(cluster=leads_to, timeout=fields.duration(defaults.NO_TIMEOUT)),
    )
    return route_components_pb2.VirtualHost(name=value, domains=list(domains), routes=[everything])


def _nowhere() -> route_components_pb2.VirtualHost:
    refused = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/"),
        direct_response=route_components_pb2.DirectResponseAction(
            status=503, body=base_pb2.DataSource(inline_string=_NOT_THERE)
        ),
    )
    return route_components_pb2.VirtualHost(name="no_match", domains=[_ANY_DOMAIN], routes=[refused])


def _name(protocol: str, value: str, port: int) -> str:
    return "_".join(["meshpassthrough", protocol, *([value] if value else []), str(port or "*")])
