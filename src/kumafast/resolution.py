"""What a proxy is made of, in two steps: what depends on its dataplane and node alone, and what its policies come to.

In: a dataplane, its node, destinations, bindings. Out: a `Plan` of the frozen parts of a proxy, which gives their
layers under the policies of any moment. Never: when that is asked for, or the endpoints of destinations.

Proxies with the same outbounds share one `OutboundGroup`, and those of them that are bound alike share its layer: a
policy for all of them is looked at once, and each of them has one reference to replace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from functools import partial
from typing import TypeAlias
from weakref import WeakValueDictionary

from kumafast import node_parts
from kumafast.addresses import Addresses
from kumafast.bound_parts import let_through
from kumafast.certificates import Certificates
from kumafast.gateway_ports import GatewayPorts, NoPorts, gateway_ports
from kumafast.generation import senders
from kumafast.generation.effects import Source
from kumafast.generation.host import Host
from kumafast.generation.modifications import ADMIN, DNS, INBOUND, METRICS, SECRETS, TRACING, TRANSPARENT
from kumafast.generation.names import inbound_identifier
from kumafast.generation.policy_effects import (
    VIEWING,
    host_parts,
    makes_template,
    proxy_parts,
    template,
    view,
)
from kumafast.generation.proxy import (
    Destination,
    Inbound,
    InboundTls,
    Part,
    TransparentProxy,
    TrustBundle,
)
from kumafast.identity.proxies import tag_sets
from kumafast.layers import InboundClasses, InboundSlot, Layers
from kumafast.matching import UNKNOWN, BackendPort, Bindings, routing
from kumafast.matching.bindings import by_kind, proxy_rule
from kumafast.outbound_groups import Cluster, OutboundGroup
from kumafast.outbound_ports import (
    Port,
    balanced,
    destinations,
    identified,
    identifier,
    spoken,
    way_of,
)
from kumafast.reached import Destinations, Reached, cluster_name
from kumafast.registry import DataplaneId, Registry
from kumafast.registry.gateways import is_builtin
from kumafast.registry.reach import Destination as DestinationKey
from kumafast.registry.virtual_hosts import NOTHING as UNSEEN
from kumafast.registry.virtual_hosts import Sight
from kumafast.resources import Dataplane, ResourceKey
from kumafast.resources.defaults import ZONE_LABEL
from kumafast.resources.tags import SERVICE_TAG, ZONE_TAG
from kumafast.snapshot import Layer
from kumafast.snapshot.node import Node
from kumafast.templates import NOTHING
from kumafast.viewed import Viewed
from kumafast.virtual_groups import VirtualGroups, WantedPort, named_ports, own_ports

_GroupKey: TypeAlias = tuple[bool, bool, bool, tuple[Port, ...], tuple[Cluster, ...]]


# Never written to.
_AS_ALL: dict[Reached, str] = {}


class Plan:
    """One proxy, resolved but for its policies."""

    __slots__ = (
        "_called",
        "_dataplane",
        "_dns",
        "_fixed",
        "_inbounds",
        "_node",
        "_outbounds",
        "_resolution",
        "_source",
        "_transparent",
        "dataplane_id",
        "reached",
        "views",
    )

    def __init__(
        self,
        resolution: Resolution,
        dataplane_id: DataplaneId,
        dataplane: Dataplane,
        node: Node,
        *,
        source: Source,
        fixed: tuple[Layer, ...],
        transparent: TransparentProxy | None,
        dns: Layer | None,
        inbounds: tuple[InboundSlot, ...],
        outbounds: tuple[OutboundGroup | GatewayPorts | NoPorts, ...],
    ) -> None:
        self._resolution = resolution
        self.dataplane_id = dataplane_id
        self._dataplane = dataplane
        self._node = node
        self._source = source
        self._fixed = fixed
        self._transparent = transparent
        self._dns = dns
        self._inbounds = inbounds
        self._outbounds = outbounds
        self.reached = tuple(reached for group in outbounds for reached in group.reached)
        """The destinations whose endpoints it needs."""
        # Most proxies call all of them as everybody does, and share the one mapping that says so.
        groups = (group for group in outbounds if isinstance(group, OutboundGroup))
        self._called = {each: name for group in groups for each, name in group.called.items()} or _AS_ALL
        self.views: Mapping[Reached, Viewed] = {}
        """Those of them whose endpoints it sees in a way of its own, as of the last call of `layers`."""

    def layers(self) -> tuple[Layer, ...]:
        """All but the endpoints under the policies of now, in the order in which they stand in a snapshot.

        Raises `ModificationError` where what a user wants to be changed in them cannot be done.
        """
        bindings = self._resolution.registry.bindings(self.dataplane_id)
        layers = self._resolution.layers
        self.views = self._views(bindings)
        made = [*self._fixed]
        if self._transparent is not None:
            made.append(layers.of(let_through(self._transparent, bindings, self._source)))
        if self._dns is not None:
            made.append(self._dns)
        for slot in self._inbounds:
            made.append(slot.layer(bindings, layers))
        for group in self._outbounds:
            made.append(group.layer(bindings, self._source, self._sender))
        for_proxy = bindings.proxy
        on_host = host_parts(for_proxy, self._host) if for_proxy else ()
        made.append(layers.joined(on_host) if on_host else NOTHING)
        collectors = layers.collectors(made)
        parts = (*proxy_parts(for_proxy), *collectors) if for_proxy else collectors
        made.append(layers.joined(parts) if parts else NOTHING)
        return self._templated(made, bindings) if for_proxy else tuple(made)

    def _views(self, bindings: Bindings) -> Mapping[Reached, Viewed]:
        called = self._called
        is_viewing = not bindings.kinds.isdisjoint(VIEWING)
        if not is_viewing and not called:
            return {}
        # Of several values of a tag the first counts, in whatever order the inbounds stand.
        pairs = sorted({pair for tags in tag_sets(self._dataplane) for pair in tags.items()}, reverse=True)
        tags = tuple(sorted(dict(pairs).items()))
        zone = dict(tags).get(ZONE_TAG) or self._dataplane.labels.get(ZONE_LABEL, "")
        views = (
            (each, view(bindings.outbound(each.subject), zone, tags) if is_viewing else None) for each in self.reached
        )
        wanted = ((each, seen, called.get(each, "")) for each, seen in views)
        found = ((each, each.viewed(seen, name)) for each, seen, name in wanted if name or seen is not None)
        return {each: viewed for each, viewed in found if viewed is not None}

    def templates(self) -> tuple[ResourceKey, ...]:
        """The policies of which the template for the proxy is made under the policies of now."""
        bindings = self._resolution.registry.bindings(self.dataplane_id)
        heard = {setting.kind for setting in bindings.proxy if makes_template(setting.kind)}
        about = by_kind(bindings.about_proxy())
        rules = (proxy_rule(about[kind]) for kind in sorted(heard))
        return tuple(policy.key for rule in rules if rule is not None for policy in rule.origin)

    def _templated(self, made: list[Layer], bindings: Bindings) -> tuple[Layer, ...]:
        """These layers as a template for the proxy wants them, if there is one."""
        wanted = template(bindings.proxy)
        if wanted is None:
            return tuple(made)
        templated = self._resolution.layers.templated
        now = [templated.modified(layer, origin, wanted) for layer, origin in zip(made, self._origins(), strict=True)]
        return (*now[:-1], templated.completed(now[-1], wanted))

    def _origins(self) -> Iterable[str]:
        """What each layer is, in their order."""
        yield ADMIN
        yield from (SECRETS for _ in self._fixed[1:])
        yield from (TRANSPARENT,) if self._transparent is not None else ()
        yield from (DNS,) if self._dns is not None else ()
        yield from (INBOUND for _ in self._inbounds)
        yield from (group.origin for group in self._outbounds)
        yield METRICS
        yield TRACING

    def _host(self) -> Host | None:
        return self._resolution.host(self.dataplane_id, self._dataplane, self._node)

    def _sender(self) -> str:
        return senders.sender(tag_sets(self._dataplane))


class Resolution:
    """Makes plans. What they share is kept while one of them has it."""

    def __init__(
        self,
        *,
        registry: Registry,
        destinations: Destinations,
        addresses: Addresses,
        certificates: Certificates,
        layers: Layers,
    ) -> None:
        self.registry = registry
        self.layers = layers
        self._destinations = destinations
        self._addresses = addresses
        self._certificates = certificates
        self._inbound_classes = InboundClasses()
        self._groups: WeakValueDictionary[_GroupKey, OutboundGroup] = WeakValueDictionary()
        self._virtual: VirtualGroups[OutboundGroup] = VirtualGroups()

    def plan(self, dataplane_id: DataplaneId, dataplane: Dataplane, node: Node) -> Plan:
        """The plan of a dataplane whose Envoy is the node. O(its inbounds and outbounds)."""
        reuses_port = node_parts.reuses_port(node)
        state = self.registry.state(dataplane_id.mesh)
        lets_through = state is None or state.lets_through
        # For as long as its Envoy runs.
        is_unified = node_parts.wants_unified_names(node)
        transparent = None
        if not is_builtin(dataplane):
            transparent = node_parts.transparent_proxy(
                dataplane, node, lets_through=lets_through, is_unified=is_unified
            )
        fixed: list[Part] = [node_parts.admin_interface(node, is_unified=is_unified)]
        identity = self.registry.identities.get(dataplane_id.mesh)
        tls = None
        certificate: Layer | None = None
        if identity is not None:
            tls = InboundTls(dataplane_id.mesh, is_permissive=identity.is_permissive)
            fixed.append(TrustBundle(dataplane_id.mesh, identity.trusted))
            certificate = self._certificates.layer(identity, dataplane_id.node_id, dataplane)
        else:
            self._certificates.forget(dataplane_id.node_id)
        source = self._source(dataplane, node)
        return Plan(
            self,
            dataplane_id,
            dataplane,
            node,
            source=source,
            transparent=transparent,
            dns=self._dns(dataplane_id, node, transparent),
            fixed=(*map(self.layers.of, fixed), *(() if certificate is None else (certificate,))),
            inbounds=tuple(
                self._inbounds(
                    dataplane,
                    source,
                    tls=tls,
                    binds=transparent is None,
                    reuses_port=reuses_port,
                    is_unified=is_unified,
                )
            ),
            outbounds=tuple(
                self._gateway_of(dataplane_id, dataplane)
                if is_builtin(dataplane)
                else self._groups_of(
                    dataplane_id, dataplane, transparent, reuses_port=reuses_port, is_unified=is_unified
                )
            ),
        )

    def _gateway_of(
        self, dataplane_id: DataplaneId, dataplane: Dataplane
    ) -> Iterable[OutboundGroup | GatewayPorts | NoPorts]:
        """The clusters that a built-in gateway leads to, like those of any outbound, and its ports."""
        address = self._addresses.get(dataplane.address)
        ports = gateway_ports(self.registry, self._destinations, self.layers, dataplane_id, address)
        if ports.clusters:
            reached = {each.reached: each.destination for each in ports.clusters.values()}
            yield self._group_with((), reached, binds=True, reuses_port=True)
        yield ports

    def host(self, dataplane_id: DataplaneId, dataplane: Dataplane, node: Node) -> Host | None:
        """Where a proxy runs; None where nobody knows enough of that."""
        address = self._addresses.get(dataplane.address)
        is_secured = self.registry.identities.get(dataplane_id.mesh) is not None
        return None if address is None else node_parts.host(dataplane, node, address, is_secured=is_secured)

    def _source(self, dataplane: Dataplane, node: Node) -> Source:
        address = dataplane.advertised_address
        return Source(
            mesh=dataplane.mesh,
            service=dataplane.identifying_service,
            address=self._addresses.get(address) or address,
            log_pipe=node_parts.log_pipe(dataplane, node),
        )

    def _dns(self, dataplane_id: DataplaneId, node: Node, transparent: TransparentProxy | None) -> Layer | None:
        port = node_parts.dns_port(node)
        if transparent is None or port is None:
            return None
        return self._virtual.table(
            self._sight(dataplane_id),
            self.layers.of,
            port=port,
            has_ipv6=transparent.has_ipv6,
        )

    def _sight(self, dataplane_id: DataplaneId) -> Sight:
        seen_from = self.registry.viewpoint(dataplane_id)
        return UNSEEN if seen_from is None else self.registry.sight(dataplane_id.mesh, seen_from)

    def _groups_of(
        self,
        dataplane_id: DataplaneId,
        dataplane: Dataplane,
        transparent: TransparentProxy | None,
        *,
        reuses_port: bool,
        is_unified: bool,
    ) -> Iterable[OutboundGroup]:
        """The outbounds for the names that a proxy sees, which it shares, and those of its own."""
        mesh, bindings, binds = dataplane_id.mesh, self.registry.bindings(dataplane_id), transparent is None
        sight, permitted = self._sight(dataplane_id), self.registry.permitted(dataplane_id)
        group = partial(
            self._group, mesh, bindings, permitted, binds=binds, reuses_port=reuses_port, is_unified=is_unified
        )
        virtual = None
        if sight.hosts:
            virtual = self._virtual.group(
                sight,
                state=(bindings.subjects, self._destinations.generation),
                key=(bindings, permitted, reuses_port, is_unified),
                make=lambda: group(named_ports(sight)),
            )
        if virtual is not None:
            yield virtual
        own = group(
            own_ports(dataplane, sight, self.registry.leads_to), beside=() if virtual is None else virtual.reached
        )
        if own is not None:
            yield own

    def _group(
        self,
        mesh: str,
        bindings: Bindings,
        permitted: Set[str],
        outbounds: Iterable[WantedPort],
        *,
        binds: bool,
        reuses_port: bool,
        is_unified: bool,
        beside: tuple[Reached, ...] = (),
    ) -> OutboundGroup | None:
        """The group of some outbounds; it leaves out the clusters of what is reached beside it.

        `permitted` are the external services that its proxies may reach.
        """
        ports: dict[tuple[str, int], Port] = {}
        reached: dict[Reached, Destination] = {}
        for address, port, asked in outbounds:
            subject = self.registry.subject(mesh, asked)
            if subject is None:
                # It refers to a service that is not there.
                continue
            route = routing.there(bindings.route(asked, subject), asked, partial(self._is_there, mesh))
            wanted = destinations(asked, route)
            targets = [self._destinations.get(mesh, each) for each in wanted]
            led = tuple(target.permitted(permitted) for target in targets)
            if is_unified:
                led = identified(led, wanted, partial(self.registry.backend, mesh))
            called = self._called(mesh, asked, is_unified=is_unified)
            way = way_of(route, spoken(asked, route, led, called[1]))
            for target, destination in zip(targets, led, strict=True):
                held = reached.get(target)
                # Those whose port is taken count too: their clusters are there. The first route that says how to
                # choose among the endpoints of a cluster decides for all that lead there.
                if held is None or (way is not None and not held.load_balancer):
                    reached[target] = balanced(destination, way)
            # Of two outbounds on one port Envoy could serve one only; as in Kuma it is the first.
            ports.setdefault((address, port), (address, port, asked, subject, route, called, led))
        if not reached:
            return None
        for each in beside:
            reached.pop(each, None)
        # A name is one listener's: of those that lead to the same the first has it, and none where names lead there.
        named = is_unified and not beside
        return self._group_with(tuple(ports.values()), reached, binds=binds, reuses_port=reuses_port, is_named=named)

    def _group_with(
        self,
        ports: tuple[Port, ...],
        reached: Mapping[Reached, Destination],
        *,
        binds: bool,
        reuses_port: bool,
        is_named: bool = False,
    ) -> OutboundGroup:
        key = (binds, reuses_port, is_named, ports, tuple(reached.items()))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = OutboundGroup(
                self.layers, ports, reached.items(), binds=binds, reuses_port=reuses_port, is_named=is_named
            )
        return group

    def _is_there(self, mesh: str, port: BackendPort) -> bool:
        return self.registry.backend(mesh, port) is not None

    def _called(self, mesh: str, asked: DestinationKey, *, is_unified: bool) -> tuple[str, str]:
        """How what an outbound asks for is called, and of a port of a service the protocol.

        A port goes by its cluster, which has no other name in statistics and routes.
        """
        if not isinstance(asked, BackendPort):
            return dict(asked).get(SERVICE_TAG, ""), ""
        backend = self.registry.backend(mesh, asked)
        if backend is None:
            return "", ""
        return identifier(backend) if is_unified else cluster_name({}, backend), backend.protocol

    def _inbounds(
        self,
        dataplane: Dataplane,
        source: Source,
        *,
        tls: InboundTls | None,
        binds: bool,
        reuses_port: bool,
        is_unified: bool,
    ) -> Iterable[InboundSlot]:
        seen: set[tuple[str, int]] = set()
        # Whoever sends is not known beforehand.
        anybody = replace(source, service=UNKNOWN)
        for position, inbound in enumerate(dataplane.inbounds):
            address = self._addresses.get(dataplane.inbound_address(inbound))
            if address is None or (address, inbound.port) in seen or inbound.state == "Ignored":
                continue
            seen.add((address, inbound.port))
            part = Inbound(
                address="",
                port=0,
                service_address=dataplane.inbound_service_address(inbound),
                service_port=dataplane.inbound_service_port(inbound),
                service=inbound.service,
                protocol=inbound.protocol,
                tags=tuple(sorted(inbound.tags.items())),
                binds_to_port=binds,
                reuses_port=reuses_port,
                tls=tls,
                name=inbound_identifier(inbound.section_name) if is_unified else "",
            )
            yield InboundSlot(self._inbound_classes.of(part), address, inbound.port, position, anybody)
