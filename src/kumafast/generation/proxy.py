"""The input of generation: one proxy, resolved, as frozen and hashable parts.

In: nothing; the reconciler fills these. Out: values that are their own cache keys. Two proxies that share a part share
what is generated from it. Never: a reference to the store, settings, clocks; nothing here may change the result of
generating a part without being a field of that part.

Addresses are IP addresses. Envoy rejects a name in an endpoint or a listener, so names are resolved on the way here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kumafast.generation import names
from kumafast.generation.effects import Collector as Collector
from kumafast.generation.effects import Effect, Source
from kumafast.resources.fields import FrozenMap

Tags: TypeAlias = tuple[tuple[str, str], ...]
"""Tags as pairs, sorted by key."""


@dataclass(frozen=True, slots=True)
class AdminInterface:
    """How to reach the proxy's own admin interface and its readiness reporter; None where the proxy has none."""

    socket_path: str | None
    address: str | None
    port: int | None
    readiness_port: int | None
    is_unified: bool = False
    """Whether names are those of the unified scheme."""


@dataclass(frozen=True, slots=True)
class TransparentProxy:
    """Ports to which the host's traffic is redirected; 0 where a direction is not. `has_ipv6` adds IPv6 listeners."""

    redirect_port_inbound: int
    redirect_port_outbound: int
    has_ipv6: bool
    reuses_port: bool = True
    effects: tuple[Effect, ...] = ()
    source: Source | None = None
    """Who sends what goes out, where an effect needs to know."""
    lets_through: bool = True
    """Whether what is not for the mesh goes out, as long as no effect says what does."""
    is_unified: bool = False
    """Whether names are those of the unified scheme."""


@dataclass(frozen=True, slots=True)
class DnsTable:
    """The names that the proxy itself answers for on a port of UDP, each with its addresses; sorted by name."""

    port: int
    names: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class MetricsPort:
    """A port of the proxy where metrics are asked for, which its launcher answers.

    With the name of a `mesh` only those have an answer that have one of its certificates, or come from the proxy's own
    address; with a `certificate`, files on the host, it is spoken to by TLS.
    """

    name: str
    address: str
    port: int
    path: str
    cluster_name: str
    certificate: tuple[str, str] | None = None
    mesh: str = ""
    reuses_port: bool = True


@dataclass(frozen=True, slots=True)
class LauncherMetrics:
    """The socket where the proxy's launcher answers with metrics."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class LauncherConfig:
    """What the proxy's launcher is to know: documents by their paths, on a socket that Envoy opens for it."""

    socket_path: str
    documents: tuple[tuple[str, str], ...]
    is_unified: bool = False
    """Whether names are those of the unified scheme."""


@dataclass(frozen=True, slots=True)
class CollectorSocket:
    """A socket that Envoy opens for the proxy's launcher, which leads to a collector."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class InboundTls:
    """How the sidecar takes connections: with certificates of the mesh only, or, while `is_permissive`, without too."""

    mesh: str
    is_permissive: bool = False


@dataclass(frozen=True, slots=True)
class OutboundTls:
    """How the sidecar connects: the services whose certificates it takes, and what it calls the server (`sni`)."""

    mesh: str
    services: tuple[str, ...]
    sni: str


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The authorities whose certificates a mesh takes: chains in PEM."""

    mesh: str
    chains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inbound:
    """A port of the sidecar that forwards to the local workload. `protocol` is a value of `kuma.io/protocol`."""

    address: str
    port: int
    service_address: str
    service_port: int
    service: str
    protocol: str
    tags: Tags
    binds_to_port: bool = True
    reuses_port: bool = True
    tls: InboundTls | None = None
    effects: tuple[Effect, ...] = ()

    source: Source | None = None
    """What is known of who sends, and its own proxy, where an effect needs to know."""

    name: str = ""
    """What its listener and cluster are called in the unified scheme; empty where they go by address and port."""

    @property
    def cluster_name(self) -> str:
        """The cluster of the workload."""
        return self.name or names.local_cluster_name(self.service_port)

    @property
    def listener_name(self) -> str:
        """The listener, as long as it stands where it listens."""
        return self.name or names.inbound_listener_name(self.address, self.port)

    # Every proxy has inbounds of its own, so these are asked for one by one: `dataclasses.replace` takes three times as
    # long.

    def with_effects(self, effects: tuple[Effect, ...]) -> Inbound:
        """The same inbound under other policies."""
        return self._with(
            self.address, self.port, self.service_address, self.service, self.tags, self.tls, effects, self.source
        )

    def of(self, source: Source) -> Inbound:
        """The same inbound, as that of one proxy."""
        return self._with(
            self.address, self.port, self.service_address, self.service, self.tags, self.tls, self.effects, source
        )

    def at(self, address: str, port: int) -> Inbound:
        """The same inbound where it listens."""
        return self._with(
            address, port, self.service_address, self.service, self.tags, self.tls, self.effects, self.source
        )

    def at_no_address(self) -> Inbound:
        """What its listener is made of, but for where it listens: the same for the instances of a service."""
        return self._with("", 0, "", self.service, self.tags, self.tls, self.effects, self.source)

    def as_workload(self) -> Inbound:
        """What its local cluster is made of: the same for most workloads that listen on a port."""
        return self._with("", 0, self.service_address, "", (), None, self.effects, None)

    def _with(
        self,
        address: str,
        port: int,
        service_address: str,
        service: str,
        tags: Tags,
        tls: InboundTls | None,
        effects: tuple[Effect, ...],
        source: Source | None,
    ) -> Inbound:
        return Inbound(
            address,
            port,
            service_address,
            self.service_port,
            service,
            self.protocol,
            tags,
            self.binds_to_port,
            self.reuses_port,
            tls,
            effects,
            source,
            self.name,
        )


@dataclass(frozen=True, slots=True)
class Leg:
    """A cluster that traffic leads to, and its share where it leads to several."""

    cluster_name: str
    weight: int = 1
    is_external: bool = False
    """Where it is outside of the mesh; requests then name the host that they go to."""


@dataclass(frozen=True, slots=True)
class RequestRule:
    """Where requests that match lead, and what is changed in them: `match` and `modify` as a TrafficRoute has them."""

    match: Mapping[str, Any]
    modify: Mapping[str, Any]
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class HttpRule:
    """Where requests that match lead, and what is done with them: `match` and `filters` as a MeshHTTPRoute has them.

    `matches` are all of its rule, by which the route is called. `mirrors` are clusters that get copies, one for each
    filter that asks for them; an empty name is none. `origin` is the MeshHTTPRoute that it is from; where policies are
    about that one, `effects` are all that hold for its requests, in place of those of the outbound.
    """

    match: Mapping[str, Any]
    matches: tuple[Mapping[str, Any], ...]
    filters: tuple[Mapping[str, Any], ...]
    legs: tuple[Leg, ...]
    mirrors: tuple[str, ...] = ()
    origin: str = ""
    effects: tuple[Effect, ...] | None = None


@dataclass(frozen=True, slots=True)
class OutboundRoute:
    """Where requests lead: by the first rule that matches them, all else by the legs, if there are any."""

    legs: tuple[Leg, ...]
    rules: tuple[RequestRule | HttpRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Outbound:
    """A local port of the sidecar that leads to a cluster. `tags` are those by which the user chose the destination.

    With a `route` it leads where that says, and `cluster_name` does not count. `is_external` where the cluster is
    outside of the mesh: requests then name the host that they go to.
    """

    address: str
    port: int
    service: str
    protocol: str
    tags: Tags
    cluster_name: str
    binds_to_port: bool = True
    reuses_port: bool = True
    effects: tuple[Effect, ...] = ()
    route: OutboundRoute | None = None
    is_external: bool = False
    source: Source | None = None
    """Whose port it is, where an effect needs to know."""
    name: str = ""
    """What its listener is called in the unified scheme; empty where that goes by address and port."""

    @property
    def listener_name(self) -> str:
        """The listener."""
        return self.name or names.outbound_listener_name(self.address, self.port)


@dataclass(frozen=True, slots=True)
class GatewayChain:
    """How a listener of a gateway takes connections to a host name, `*` for all: by its routes, or straight to legs.

    With `certificates`, names of secrets, TLS ends there.
    """

    hostname: str = "*"
    route_name: str = ""
    legs: tuple[Leg, ...] = ()
    certificates: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    """Those of policies for what it takes in."""
    outward: tuple[Effect, ...] = ()
    """Those of policies for what it sends on, to whomever."""


@dataclass(frozen=True, slots=True)
class GatewayListener:
    """A port of a built-in gateway. `protocol` is one of MeshGateway's, `service` that of the gateway itself."""

    gateway: str
    protocol: str
    address: str
    port: int
    service: str
    chains: tuple[GatewayChain, ...]
    source: Source | None = None
    """The proxy itself, where an effect needs to know."""

    @property
    def effects(self) -> tuple[Effect, ...]:
        """All that policies change in it."""
        return tuple(effect for chain in self.chains for effect in (*chain.effects, *chain.outward))


@dataclass(frozen=True, slots=True)
class GatewayRule:
    """What becomes of requests that match a rule of a gateway, under the policies for where it leads."""

    rule: HttpRule
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayHost:
    """The rules for a host name, `*` for all; the first that matches counts."""

    hostname: str
    rules: tuple[GatewayRule, ...] = ()
    effects: tuple[Effect, ...] = ()
    """Those of policies for what its listener takes in."""


@dataclass(frozen=True, slots=True)
class GatewayRoutes:
    """Where requests go that a chain of a gateway takes. `is_secured` where they come by TLS."""

    name: str
    hosts: tuple[GatewayHost, ...]
    is_secured: bool = False


@dataclass(frozen=True, slots=True)
class GatewayCertificate:
    """A certificate that a gateway shows, with its chain and key, PEM."""

    name: str
    chain: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """How many connections listeners of a gateway may have at a time, by their names; of others there may be any."""

    connections: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class VerifiedName:
    """A name that a server's certificate must have, or one of several; the whole of it or its beginning."""

    value: str
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class ExternalTls:
    """How a service outside is connected to by TLS; certificates and keys are PEM, and empty where there are none.

    The server's certificate is to be one of the authority, for the verified name or one of several; without an
    authority it is any.
    """

    server_name: str = ""
    authority: bytes = b""
    verified_name: str = ""
    chain: bytes = b""
    key: bytes = field(default=b"", repr=False)
    allows_renegotiation: bool = False
    verified_names: tuple[VerifiedName, ...] = ()
    versions: tuple[str, str] = ("", "")
    """The least and the greatest version of TLS, such as `TLSv1_2`; empty where Envoy chooses."""

    @property
    def shows_certificate(self) -> bool:
        """Whether the sidecar shows the server a certificate."""
        return bool(self.chain and self.key)


@dataclass(frozen=True, slots=True)
class ExternalEndpoint:
    """Where something outside of the mesh is, by an IP address or a name. `tags` are without the service tag."""

    address: str
    port: int
    tags: Tags = ()
    tls: ExternalTls | None = None
    priority: int = 0
    """Those of a greater one are used where those of the lesser are not well."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What an outbound leads to, seen from the client: a cluster whose endpoints come by EDS, or stand in it.

    `load_balancer` is how one of these is chosen, as a TrafficRoute says it. `external` are the endpoints of what is
    outside of the mesh; None where it is within.
    """

    cluster_name: str
    service: str
    protocol: str
    tls: OutboundTls | None = None
    effects: tuple[Effect, ...] = ()
    load_balancer: Mapping[str, Any] = FrozenMap()
    external: tuple[ExternalEndpoint, ...] | None = None
    identities: tuple[str, ...] = ()
    """The services that it leads to, where these are others than `service`."""
    over_http1: bool = False
    """Whether requests are sent to it although it does not say that it reads them: in the form that all understand."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inbound of one dataplane that serves a destination. `tags` are without the service tag."""

    address: str
    port: int
    tags: Tags
    labels: Tags
    zone: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class EndpointSet:
    """All endpoints of a cluster, ordered by address, then port."""

    cluster_name: str
    endpoints: tuple[Endpoint, ...]


Part: TypeAlias = (
    AdminInterface
    | TransparentProxy
    | DnsTable
    | Inbound
    | Outbound
    | Destination
    | EndpointSet
    | TrustBundle
    | Collector
    | GatewayListener
    | GatewayRoutes
    | GatewayCertificate
    | GatewayLimits
    | MetricsPort
    | LauncherMetrics
    | LauncherConfig
    | CollectorSocket
)
