"""Routes: which cluster a request goes to and how long it may take.

In: inbounds and outbounds. Out: `RouteConfiguration` messages that stand inside listeners.
Never: a route resource of its own; a sidecar subscribes to none.
"""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from kumafast.generation import defaults, fields, http_routes, names, requests
from kumafast.generation.proxy import Inbound, Leg, Outbound
from kumafast.resources.policies.mesh_http_route import PREFIX, Match, PathMatch

_EVERYTHING_NAME = http_routes.matches_name([Match(path=PathMatch(type=PREFIX, value="/"))])


def any_inbound() -> route_pb2.RouteConfiguration:
    """Everything to the workload, for as long as it takes: the client's sidecar is the one that sets a limit.

    Which workload is for `lead_to_workload` to say, and of which service for `name_inbound`.
    """
    route = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(
            timeout=fields.duration(defaults.NO_TIMEOUT),
            idle_timeout=fields.duration(defaults.INBOUND_STREAM_IDLE_TIMEOUT),
        ),
    )
    return route_pb2.RouteConfiguration(
        virtual_hosts=[route_components_pb2.VirtualHost(domains=["*"], routes=[route])],
        validate_clusters={"value": False},
        # Sidecars tell each other their tags in this header; it is none of the workload's business.
        request_headers_to_remove=[names.KUMA_TAGS_HEADER],
    )


def lead_to_workload(routes: route_pb2.RouteConfiguration, cluster: str) -> None:
    """Make the routes of any inbound lead to one workload."""
    routes.virtual_hosts[0].routes[0].route.cluster = cluster


def name_inbound(routes: route_pb2.RouteConfiguration, inbound: Inbound) -> None:
    """Call the routes of a workload by its service."""
    routes.name = inbound.name or names.inbound_route_name(inbound.service)
    routes.virtual_hosts[0].name = inbound.service


def any_outbound() -> route_pb2.RouteConfiguration:
    """Everything to one cluster, whatever host the request names; to which one is for `lead_outbound` to say."""
    route = route_components_pb2.Route(
        name=_EVERYTHING_NAME,
        match=route_components_pb2.RouteMatch(prefix="/"),
        route=route_components_pb2.RouteAction(
            timeout=fields.duration(defaults.REQUEST_TIMEOUT),
            idle_timeout=fields.duration(defaults.STREAM_IDLE_TIMEOUT),
        ),
    )
    return route_pb2.RouteConfiguration(
        virtual_hosts=[route_components_pb2.VirtualHost(domains=["*"], routes=[route])],
        # The cluster may arrive after the listener; the request that comes between gets 503 and the listener stays.
        validate_clusters={"value": False},
    )


def lead_outbound(routes: route_pb2.RouteConfiguration, outbound: Outbound) -> None:
    """Make the routes of any outbound those of this one."""
    name = outbound.name or names.outbound_route_name(outbound.service)
    host = routes.virtual_hosts[0]
    routes.name, host.name = name, outbound.service
    host.routes[0].route.cluster = outbound.cluster_name
    if outbound.route is not None:
        requests.lead(host, outbound.route)
    elif outbound.is_external:
        host.routes[0].route.auto_host_rewrite.value = True


def lead_connections(proxy: tcp_proxy_pb2.TcpProxy, outbound: Outbound) -> None:
    """Make connections through an outbound go where it leads."""
    send_connections(proxy, (Leg(outbound.cluster_name),) if outbound.route is None else outbound.route.legs)


def send_connections(proxy: tcp_proxy_pb2.TcpProxy, legs: tuple[Leg, ...]) -> None:
    """Send connections to clusters, by their shares."""
    if len(legs) == 1:
        proxy.cluster = legs[0].cluster_name
        return
    for leg in legs:
        proxy.weighted_clusters.clusters.add(name=leg.cluster_name, weight=leg.weight)
