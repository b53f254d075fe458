"""What a policy changes in the messages of a part.

In: messages as they are without the policy. Out: the same messages, changed in place. Never: anything but its own
fields: an effect is a frozen value within a part, and so belongs to the cache key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from xds.type.matcher.v3 import matcher_pb2


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may connect to the workload, in the two forms that Envoy has for it, and what a trial run would say."""

    judges_requests: bool
    """Where requests are read: each is judged and answered with 403, instead of the connection being cut."""
    rules: rbac_pb2.RBAC | None = None
    shadow_rules: rbac_pb2.RBAC | None = None
    matcher: matcher_pb2.Matcher | None = None
    shadow_matcher: matcher_pb2.Matcher | None = None


@dataclass(frozen=True, slots=True)
class Securing:
    """How connections to the workload are secured, where the mesh secures them."""

    is_permissive: bool | None = None
    """Whether plaintext is taken too; as the mesh has it where nothing is said."""
    parameters: bytes = b""
    """Versions and ciphers as `TlsParameters`, encoded; nothing where Envoy's own are right."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way out of the mesh: a protocol to a domain, or to an address of a network; any port where that is 0."""

    protocol: str
    value: str
    """As it was written; names are made of it."""
    port: int = 0
    network: str = ""
    """Nothing for a domain."""


@dataclass(frozen=True, slots=True)
class Passage:
    """All ways out that there are, the most specific first; `is_open` where everything goes out as it came."""

    ways: tuple[Way, ...] = ()
    is_open: bool = False


INBOUND = "INBOUND"
OUTBOUND = "OUTBOUND"
UNSPECIFIED = "UNSPECIFIED"


@dataclass(frozen=True, slots=True)
class Source:
    """The proxy that a connection comes from: its mesh, service and address."""

    mesh: str
    service: str
    address: str
    log_pipe: str = ""
    """Where its launcher takes lines of logs that are for somewhere else; nothing where it takes none."""


@dataclass(frozen=True, slots=True)
class Collector:
    """A server outside of the mesh that proxies report to. An address or host name, which Envoy then looks up."""

    cluster_name: str
    host: str
    port: int
    is_tls: bool = False
    is_http2: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of the connections or requests through a listener."""

    direction: str
    destination: str
    source: Source | None = None
    """None where no effect says that it needs it."""


Config: TypeAlias = http_connection_manager_pb2.HttpConnectionManager | tcp_proxy_pb2.TcpProxy
"""What becomes of what a listener takes in: requests, or mere bytes."""


class Effect:
    """One policy's share in a part. Kinds of effects are frozen dataclasses that override what they change.

    The hooks are called while the messages are built, before extensions are packed, in the order of the effects.
    """

    __slots__ = ()

    asks_sender: ClassVar[bool] = False
    """Whether it depends on who the client is, so that clients that are otherwise alike do not share it."""

    def said_by(self, sender: str) -> Effect:
        """The effect in the outbounds of one client, which says so of itself (`senders`)."""
        return self

    @property
    def needs_source(self) -> bool:
        """Whether the proxy itself counts. What such an effect is in belongs to one proxy, and is shared by none."""
        return False

    @property
    def collectors(self) -> tuple[Collector, ...]:
        """Where what it records goes, as far as a proxy needs clusters for that."""
        return ()

    @property
    def needs_pipe(self) -> bool:
        """Whether it is the pipe of the proxy's launcher that counts of it, which has a name of its own."""
        return False

    def watch(self, config: Config, call: Call) -> None:
        """Have connections or requests recorded, whichever way they go: logged, or traced."""

    def on_inbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Change how requests to the workload are handled; the routes stand inside."""

    def on_inbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Change how connections to the workload are handled."""

    @property
    def reads_server_name(self) -> bool:
        """Whether an inbound tells requests apart by the server name that the client asked for."""
        return False

    def inbound_filters(self) -> Iterable[listener_components_pb2.Filter]:
        """Filters that look at connections to the workload once they may be made."""
        return ()

    def inbound_guard(self, mesh: str) -> Guard | None:
        """Who of the mesh may connect to the workload; None where that is not its matter."""
        return None

    def inbound_securing(self) -> Securing | None:
        """How connections to the workload are secured; None where that is not its matter."""
        return None

    def passage(self) -> Passage | None:
        """Which redirected traffic goes out that is not for the mesh; None where that is not its matter."""
        return None

    def on_gateway_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Change how a gateway handles what it takes in: the connections, where there are no routes, or the routes."""

    def on_gateway_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Change how a gateway handles connections that it does not read."""

    def on_local_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions | None
    ) -> None:
        """Change how the workload is reached; there are options where it speaks HTTP."""

    def on_outbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Change how the workload's requests are handled; the routes stand inside."""

    def on_outbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Change how the workload's connections are handled."""

    def on_destination_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions
    ) -> None:
        """Change how a service is reached."""
