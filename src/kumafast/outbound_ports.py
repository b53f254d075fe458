"""The ports of a sidecar that lead to services, under their routes and as what these lead to is now.

In: what an outbound asks for, its route, destinations. Out: an `Outbound`, a part of a proxy. Never: policies other
than routes, or where a destination's endpoints are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from kumafast.generation import names, protocols, proxy
from kumafast.generation.proxy import Destination, Outbound, OutboundRoute
from kumafast.matching import UNKNOWN, BackendPort, Route, Subject, common_protocol
from kumafast.matching.backends import Backend
from kumafast.matching.routing import HttpRule, RequestRule
from kumafast.registry.reach import Destination as DestinationKey

Port: TypeAlias = tuple[str, int, DestinationKey, str | Subject, Route | None, tuple[str, str], tuple[Destination, ...]]
"""Where the workload sends requests, what it asks for there and what policies about that are about, the route of it,
how it is called with the protocol of a port of a service, and what it leads to as that is now."""


def listener(port: Port, *, binds: bool, reuses_port: bool, name: str = "") -> Outbound:
    """A port as a part of its proxy, under another name than its address if there is one."""
    address, number, asked, _, route, (called, own), led = port
    protocol = spoken(asked, route, led, own)
    way = way_of(route, protocol)
    clusters = dict(zip(destinations(asked, route), led, strict=True))
    is_split = way is not None and (len(way.legs) != 1 or bool(way.rules))
    default = None if is_split else clusters[asked if way is None else way.legs[0].destination]
    tags = () if isinstance(asked, BackendPort) else asked
    return Outbound(
        address=address,
        port=number,
        service=called,
        protocol=protocol if way is None or way.reads_requests else protocols.TCP,
        tags=tags,
        cluster_name="" if default is None else default.cluster_name,
        binds_to_port=binds,
        reuses_port=reuses_port,
        route=_led(way, clusters) if way is not None and is_split else None,
        is_external=default is not None and default.external is not None,
        name=name,
    )


def firsts(ports: Iterable[Port]) -> dict[tuple[str, int], str]:
    """The names of the ports of services that are asked for, each for the first address and port that leads there."""
    found: dict[str, tuple[str, int]] = {}
    for address, number, asked, _, _, (called, _), _ in ports:
        if isinstance(asked, BackendPort):
            found.setdefault(called, (address, number))
    return {place: name for name, place in found.items()}


def identified(
    led: Iterable[Destination],
    asked: Iterable[DestinationKey],
    find: Callable[[BackendPort], Backend | None],
) -> tuple[Destination, ...]:
    """What is led to, with ports of services by their identifiers."""
    backends = (find(key) if isinstance(key, BackendPort) else None for key in asked)
    return tuple(
        each if backend is None else _identified(each, backend) for each, backend in zip(led, backends, strict=True)
    )


def _identified(destination: Destination, backend: Backend) -> Destination:
    name = identifier(backend)
    return replace(destination, cluster_name=name, service=name)


def identifier(backend: Backend) -> str:
    """A port of a service as the unified scheme calls it."""
    return names.service_identifier(
        backend.key.kind,
        mesh=backend.mesh,
        zone=backend.zone,
        name=backend.display_name,
        section=backend.section,
    )


def spoken(asked: DestinationKey, route: Route | None, led: tuple[Destination, ...], said: str = "") -> str:
    """How an outbound is spoken to; `said` is what a port of a service says of that."""
    if said and route is not None:
        return said
    if route is not None and route.connections is not None:
        # A route that has a targetRef is about a service, whose protocol counts, not that of what it leads to.
        own = dict(zip(destinations(asked, route), led, strict=True)).get(asked)
        if own is not None and own.protocol != UNKNOWN:
            return own.protocol
    # A destination that has no endpoints yet has no say in how all of them are spoken to.
    return common_protocol(sorted(each.protocol for each in led if each.protocol != UNKNOWN))


def way_of(route: Route | None, protocol: str) -> Route | None:
    """The route as it is for a service of a protocol."""
    return route if route is None or protocols.is_http(protocol) else route.connections or route


def destinations(asked: DestinationKey, route: Route | None) -> tuple[DestinationKey, ...]:
    """All that an outbound leads to."""
    return (asked,) if route is None else route.destinations


def services(destination: Destination) -> tuple[str, ...]:
    """The services of the mesh that a destination is."""
    if destination.external is not None:
        return ()
    return destination.identities or (destination.service,)


def _led(route: Route, clusters: Mapping[DestinationKey, Destination]) -> OutboundRoute:
    """A route by the names of clusters."""

    def legs(of: Route | RequestRule | HttpRule) -> tuple[proxy.Leg, ...]:
        led = ((clusters[leg.destination], leg.weight) for leg in of.legs)
        return tuple(proxy.Leg(each.cluster_name, weight, each.external is not None) for each, weight in led)

    def led(rule: RequestRule | HttpRule) -> proxy.RequestRule | proxy.HttpRule:
        if isinstance(rule, RequestRule):
            return proxy.RequestRule(rule.match, rule.modify, legs(rule))
        mirrors = tuple("" if each is None else clusters[each].cluster_name for each in rule.mirrors)
        return proxy.HttpRule(rule.match, rule.matches, rule.filters, legs(rule), mirrors, rule.origin)

    return OutboundRoute(legs(route), tuple(map(led, route.rules)))


def balanced(destination: Destination, route: Route | None) -> Destination:
    """A destination whose endpoints are chosen as a route says."""
    if route is None or not route.load_balancer:
        return destination
    return replace(destination, load_balancer=route.load_balancer)
