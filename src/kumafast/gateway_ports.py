"""The ports of a built-in gateway under its policies, made of the same clusters and rules as those of sidecars.

In: what is attached to its listeners, the destinations as they are now, certificates. Out: a layer of listeners, routes
and secrets. Never: which routes are attached, or where endpoints are.

Each listener has its own policies. What two of them say differently of a cluster cannot both hold, for a cluster is one
for the proxy: there all that is said of one of its listeners counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from kumafast.generation import names, protocols
from kumafast.generation.effects import Effect, Source
from kumafast.generation.modifications import GATEWAY
from kumafast.generation.policy_effects import effects
from kumafast.generation.proxy import (
    Destination,
    GatewayCertificate,
    GatewayChain,
    GatewayHost,
    GatewayLimits,
    GatewayListener,
    GatewayRoutes,
    GatewayRule,
    HttpRule,
    Leg,
    Part,
)
from kumafast.identity.authority import AuthorityError
from kumafast.identity.backends import FindSecret
from kumafast.identity.gateway_certificates import read_certificate
from kumafast.layers import Layers, with_proxy
from kumafast.matching import Bindings, Subject, routing
from kumafast.matching.policy import ANY_SERVICE
from kumafast.reached import Destinations, Reached
from kumafast.registry import DataplaneId, Registry
from kumafast.registry.gateways import Gateway
from kumafast.registry.reach import Destination as DestinationKey
from kumafast.resources.fields import FrozenMap
from kumafast.resources.hostnames import breadth, contains
from kumafast.resources.mesh_gateway import HTTP, HTTPS, PASSTHROUGH, TCP, TERMINATE, Listener
from kumafast.snapshot import Layer

_LOG = logging.getLogger(__name__)

_HTTP_PROTOCOL = "http"
_ALL = "*"


@dataclass(frozen=True, slots=True)
class Led:
    """A destination of a gateway as it reaches it, and what policies about it are about."""

    reached: Reached
    destination: Destination
    subject: str | Subject


Clusters: TypeAlias = Mapping[DestinationKey, Led]


def as_reached(gateway: Gateway, key: DestinationKey, destination: Destination) -> Destination:
    """A destination as a gateway reaches it: requests go to what does not say that it reads any, too."""
    is_asked = any(
        key in {each for host in listener.hosts for rule in host.rules for each in rule.destinations}
        for listener in gateway.listeners
    )
    if not is_asked or protocols.is_http(destination.protocol):
        return destination
    return replace(destination, over_http1=True)


def gateway_ports(
    registry: Registry, destinations: Destinations, layers: Layers, dataplane_id: DataplaneId, address: str | None
) -> GatewayPorts | NoPorts:
    """The ports of a dataplane that is a built-in gateway, at its address as far as that is known."""
    mesh, dataplane, state = dataplane_id.mesh, registry.dataplane(dataplane_id), registry.state(dataplane_id.mesh)
    gateway = None if state is None else state.gateways.get(dataplane_id.name)
    if gateway is None or address is None or dataplane is None:
        return NoPorts(layers)
    permitted = registry.permitted(dataplane_id)
    clusters: dict[DestinationKey, Led] = {}
    for key in gateway.destinations:
        subject = registry.subject(mesh, key)
        # It may refer to a service that is not there.
        if subject is not None:
            target = destinations.get(mesh, key)
            clusters[key] = Led(target, as_reached(gateway, key, target.permitted(permitted)), subject)
    return GatewayPorts(
        layers,
        gateway,
        clusters,
        address=address,
        service=dataplane.identifying_service,
        find=lambda name: registry.identities.secret(mesh, name),
    )


class GatewayPorts:
    """The ports of one gateway, resolved but for its policies."""

    __slots__ = ("_address", "_certificates", "_gateway", "_layers", "_service", "clusters")

    origin = GATEWAY
    reached = ()
    """The endpoints that it needs are those of its clusters, which are a group of their own."""

    def __init__(
        self, layers: Layers, gateway: Gateway, clusters: Clusters, *, address: str, service: str, find: FindSecret
    ) -> None:
        self._layers = layers
        self._gateway = gateway
        self.clusters = clusters
        self._address = address
        self._service = service
        # By the position of the listener; one that lacks a certificate cannot serve, and is not there.
        self._certificates = dict(_certificates(gateway, find))

    def layer(self, bindings: Bindings, source: Source, sender: Callable[[], str]) -> Layer:
        """The listeners, their routes and certificates under these policies."""
        return self._layers.joined(self.parts(bindings, source, sender))

    def parts(self, bindings: Bindings, source: Source, sender: Callable[[], str]) -> list[Part]:
        """What the layer is made of."""
        made = _Made(self._gateway, self.clusters, self._certificates, bindings, sender())
        ports: dict[int, list[int]] = {}
        for position, attached in enumerate(self._gateway.listeners):
            ports.setdefault(attached.listener.port, []).append(position)
        parts: list[Part] = []
        limits: list[tuple[str, int]] = []
        for port, positions in ports.items():
            listeners = [self._gateway.listeners[position].listener for position in positions]
            protocol = listeners[0].protocol
            chains, routes = made.port(names.gateway_listener_name(self._gateway.name, protocol, port), positions)
            if not chains:
                continue
            part = GatewayListener(self._gateway.name, protocol, self._address, port, self._service, chains)
            needs_source = any(effect.needs_source for effect in part.effects)
            parts += [replace(part, source=source) if needs_source else part, *routes]
            limit = max(listener.connection_limit for listener in listeners)
            if limit:
                limits.append((names.gateway_listener_name(self._gateway.name, protocol, port), limit))
        shown = (each for certificates in self._certificates.values() for each in certificates)
        return [*dict.fromkeys(shown), *parts, GatewayLimits(tuple(limits))]


class NoPorts:
    """A gateway that no MeshGateway selects: it listens on nothing, and waits for that to change."""

    __slots__ = ("_layers",)

    origin = GATEWAY
    reached = ()
    clusters: Clusters = FrozenMap()

    def __init__(self, layers: Layers) -> None:
        self._layers = layers

    def layer(self, bindings: Bindings, source: Source, sender: Callable[[], str]) -> Layer:
        """What its Envoy asks for in any case."""
        return self._layers.joined([GatewayLimits()])


class _Made:
    """Ports under some policies, while they are put together."""

    def __init__(
        self,
        gateway: Gateway,
        clusters: Clusters,
        certificates: Mapping[int, tuple[GatewayCertificate, ...]],
        bindings: Bindings,
        sender: str,
    ) -> None:
        self._gateway = gateway
        self._clusters = clusters
        self._certificates = certificates
        self._bindings = bindings
        self._sender = sender

    def port(self, name: str, positions: list[int]) -> tuple[tuple[GatewayChain, ...], list[GatewayRoutes]]:
        """The chains of a port, and the routes that they name."""
        protocol = self._gateway.listeners[positions[0]].listener.protocol
        if protocol == HTTP:
            route_name = names.gateway_route_name(name, _ALL)
            taken = [self._taken(position, _HTTP_PROTOCOL) for position in positions]
            chain = GatewayChain(
                route_name=route_name,
                # Of connections, which are not told apart, the first says what holds.
                effects=tuple(dict.fromkeys(effect for each in reversed(taken) for effect in each)),
                outward=self._outward(positions[0], _HTTP_PROTOCOL),
            )
            return (chain,), [GatewayRoutes(route_name, tuple(self._hosts(positions)))]
        if protocol == HTTPS:
            served = [position for position in positions if position in self._certificates]
            chains = tuple(self._secured(name, position) for position in served)
            routes = [
                GatewayRoutes(chain.route_name, tuple(self._hosts([position])), is_secured=True)
                for position, chain in zip(served, chains, strict=True)
            ]
            return chains, routes
        found = tuple(chain for position in positions for chain in self._connections(position))
        # Without TLS nothing tells one host from another.
        return found[:1] if protocol == TCP else found, []

    def _secured(self, name: str, position: int) -> GatewayChain:
        hostname = self._gateway.listeners[position].listener.effective_hostname
        return GatewayChain(
            hostname,
            route_name=names.gateway_route_name(name, hostname),
            certificates=tuple(each.name for each in self._certificates[position]),
            effects=self._taken(position, _HTTP_PROTOCOL),
            outward=self._outward(position, _HTTP_PROTOCOL),
        )

    def _connections(self, position: int) -> Iterator[GatewayChain]:
        attached = self._gateway.listeners[position]
        tls = attached.listener.tls
        is_ended = attached.listener.protocol != TCP and (tls is None or tls.mode != PASSTHROUGH)
        legs = self._legs(attached.legs)
        if not legs or (is_ended and position not in self._certificates):
            return
        certificates = self._certificates[position] if is_ended else ()
        yield GatewayChain(
            attached.listener.effective_hostname,
            legs=legs,
            certificates=tuple(each.name for each in certificates),
            effects=self._taken(position, protocols.TCP),
            outward=self._outward(position, protocols.TCP),
        )

    # Policies.

    def _taken(self, position: int, protocol: str) -> tuple[Effect, ...]:
        """What changes in what a listener takes in."""
        return effects(with_proxy(self._bindings.inbound(position), self._bindings), "gateway", protocol)

    def _outward(self, position: int, protocol: str) -> tuple[Effect, ...]:
        """What changes in all that a listener sends on, to whomever."""
        return effects(self._bindings.through(position).outbound(ANY_SERVICE), "route", protocol)

    def _sent(self, position: int, rule: routing.HttpRule) -> tuple[Effect, ...]:
        """What changes in what a listener sends on by a rule."""
        led = [self._clusters[leg.destination] for leg in rule.legs if leg.destination in self._clusters]
        if not led:
            return ()
        subjects = list(dict.fromkeys(each.subject for each in led))
        bindings = self._bindings.through(position)
        protocol = led[0].destination.protocol if protocols.is_http(led[0].destination.protocol) else _HTTP_PROTOCOL
        found = list(effects(bindings.outbound(subjects[0] if len(subjects) == 1 else ANY_SERVICE), "route", protocol))
        for subject in subjects if len(subjects) > 1 else ():
            told = effects(bindings.outbound(subject), "route", protocol)
            found += [effect for effect in told if effect.asks_sender]
        if any(each.destination.external is not None for each in led):
            # What is outside learns nothing of who sends.
            found = [effect for effect in found if not effect.asks_sender]
        return tuple(dict.fromkeys(effect.said_by(self._sender) for effect in found))

    # Hosts and rules.

    def _hosts(self, positions: list[int]) -> Iterator[GatewayHost]:
        """The hosts of one or several listeners, the most specific first: each is the matter of the narrowest."""
        by_breadth = sorted(positions, key=self._breadth)
        found: dict[str, GatewayHost] = {}
        for number, position in enumerate(by_breadth):
            attached = self._gateway.listeners[position]
            narrower = [self._gateway.listeners[each].listener.effective_hostname for each in by_breadth[:number]]
            taken = self._taken(position, _HTTP_PROTOCOL)
            for host in attached.hosts:
                if not any(contains(hostname, host.hostname) for hostname in narrower):
                    rules = tuple(GatewayRule(self._rule(rule), self._sent(position, rule)) for rule in host.rules)
                    found[host.hostname] = GatewayHost(host.hostname, rules, taken)
            if len(positions) > 1 or not attached.hosts:
                # What no route of this listener is for is not for those of a broader one either.
                served = attached.listener.effective_hostname
                found.setdefault(served, GatewayHost(served))
        yield from sorted(found.values(), key=_breadth)

    def _breadth(self, position: int) -> tuple[bool, bool, int, str]:
        return breadth(self._gateway.listeners[position].listener.effective_hostname)

    def _rule(self, rule: routing.HttpRule) -> HttpRule:
        copies = (None if each is None else self._clusters.get(each) for each in rule.mirrors)
        mirrors = tuple("" if each is None else each.destination.cluster_name for each in copies)
        return HttpRule(rule.match, rule.matches, rule.filters, self._legs(rule.legs), mirrors)

    def _legs(self, legs: Iterable[routing.Leg]) -> tuple[Leg, ...]:
        """Where traffic leads, but for services that are not there."""
        led = [(self._clusters[leg.destination], leg.weight) for leg in legs if leg.destination in self._clusters]
        found = [(each.destination, weight) for each, weight in led]
        return tuple(Leg(each.cluster_name, weight, each.external is not None) for each, weight in found)


def _breadth(host: GatewayHost) -> tuple[bool, bool, int, str]:
    return breadth(host.hostname)


def _certificates(gateway: Gateway, find: FindSecret) -> Iterator[tuple[int, tuple[GatewayCertificate, ...]]]:
    for position, attached in enumerate(gateway.listeners):
        listener = attached.listener
        if listener.protocol in (HTTP, TCP) or listener.tls is None or listener.tls.mode != TERMINATE:
            continue
        try:
            yield position, tuple(_shown(listener, find))
        except AuthorityError as error:
            _LOG.warning(
                "the listener of MeshGateway %s for %s on port %d is left out: %s",
                gateway.name,
                listener.effective_hostname,
                listener.port,
                error,
            )


def _shown(listener: Listener, find: FindSecret) -> Iterator[GatewayCertificate]:
    for source in () if listener.tls is None else listener.tls.certificates:
        found = read_certificate(source, find)
        if source.secret:
            name = names.gateway_certificate_name(found.kind, "secret", source.secret)
        elif source.file:
            name = names.gateway_certificate_name(found.kind, "file", source.file)
        else:
            name = names.gateway_certificate_name(found.kind, "inline", listener.effective_hostname)
        yield GatewayCertificate(name, found.chain, found.key)
