"""The parts of a dataplane: addresses, inbounds, outbounds, listeners, probes.

In: JSON objects in Kuma's 2.14 form. Out: frozen values. Never: rules of content (`dataplane_rules`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kumafast.resources.fields import Flag, FrozenMap, Loose, Tags, Text, Whole
from kumafast.resources.resource import Frozen
from kumafast.resources.tags import PROTOCOL_TAG, SERVICE_TAG

LOOPBACK = "127.0.0.1"


class Admin(Frozen):
    """Envoy's admin interface."""

    port: Whole = 0


class Health(Frozen):
    """Whether a platform found the workload ready; deprecated in favour of an inbound's `state`."""

    ready: Flag = False


class TcpProbe(Frozen):
    """Readiness is a TCP connection that can be opened."""


class ServiceProbe(Frozen):
    """How Envoy probes the workload. Durations in protobuf's JSON form."""

    interval: Text | None = None
    timeout: Text | None = None
    unhealthy_threshold: Whole | None = None
    healthy_threshold: Whole | None = None
    tcp: TcpProbe | None = None


class Inbound(Frozen):
    """A port on which the sidecar takes traffic for the workload beside it."""

    port: Whole = 0
    service_port: Whole = 0
    service_address: Text = ""
    address: Text = ""
    tags: Tags = FrozenMap()
    declared_protocol: Text = Field(default="", alias="protocol")
    name: Text = ""
    state: Literal["Ready", "NotReady", "Ignored"] = "Ready"
    health: Health | None = None
    service_probe: ServiceProbe | None = None
    interface: Text = ""
    """0.1.0's `address:port:servicePort` where it could not be translated; validation refuses it."""

    @property
    def effective_service_address(self) -> str:
        """Where the workload behind this inbound listens."""
        return self.service_address or LOOPBACK

    @property
    def effective_service_port(self) -> int:
        """The workload's own port."""
        return self.service_port or self.port

    @property
    def service(self) -> str:
        """The service that this inbound is an instance of; empty where it has none."""
        return self.tags.get(SERVICE_TAG, "")

    @property
    def protocol(self) -> str:
        """The application protocol, `tcp` where none is given."""
        return self.tags.get(PROTOCOL_TAG) or self.declared_protocol or "tcp"

    @property
    def is_ready(self) -> bool:
        """Whether clients may be sent here."""
        return self.state == "Ready" and (self.health is None or self.health.ready)

    @property
    def section_name(self) -> str:
        """How policies and resource identifiers name this port."""
        return self.name or str(self.port)


class BackendRef(Frozen):
    """A reference from an outbound to a MeshService or one of its kin."""

    kind: Text = ""
    name: Text = ""
    namespace: Text = ""
    labels: Tags = FrozenMap()
    port: Whole = 0


class Outbound(Frozen):
    """A local port that leads to a service of the mesh."""

    port: Whole = 0
    address: Text = ""
    tags: Tags = FrozenMap()
    backend_ref: BackendRef | None = None
    interface: Text = ""
    """0.1.0's `[address]:port` where it could not be translated; validation refuses it."""

    @property
    def effective_address(self) -> str:
        """Where the proxy listens for the workload's requests."""
        return self.address or LOOPBACK

    @property
    def destination_tags(self) -> Tags:
        """The tags that an endpoint must have to be reached through this outbound."""
        return self.tags

    @property
    def service(self) -> str:
        """The service that this outbound leads to; empty where it refers to a resource instead."""
        return self.tags.get(SERVICE_TAG, "")


class Gateway(Frozen):
    """Marks a dataplane that brings traffic into the mesh."""

    type: Literal["DELEGATED", "BUILTIN"] = "DELEGATED"
    tags: Tags = FrozenMap()


class Listener(Frozen):
    """A port of a zone proxy."""

    type: Text = ""
    address: Text = ""
    port: Whole = 0
    name: Text = ""
    state: Literal["Ready", "NotReady", "Ignored"] = "Ready"


class ReachableBackends(Frozen):
    """The only destinations that a transparently proxied workload needs."""

    refs: tuple[BackendRef, ...] = ()


class TransparentProxying(Frozen):
    """Where the host redirects the workload's traffic."""

    redirect_port_inbound: Whole = 0
    redirect_port_outbound: Whole = 0
    direct_access_services: tuple[Text, ...] = ()
    reachable_services: tuple[Text, ...] = ()
    reachable_backends: ReachableBackends | None = None
    ip_family_mode: Literal["UnSpecified", "DualStack", "IPv4", "IPv6"] = "UnSpecified"


class Networking(Frozen):
    """Addresses and ports of a dataplane."""

    address: Text = ""
    advertised_address: Text = ""
    inbound: tuple[Inbound, ...] = ()
    outbound: tuple[Outbound, ...] = ()
    gateway: Gateway | None = None
    listeners: tuple[Listener, ...] = ()
    transparent_proxying: TransparentProxying | None = None
    admin: Admin | None = None

    def inbound_address(self, inbound: Inbound) -> str:
        """Where the proxy listens for an inbound."""
        return inbound.address or self.address


class Metrics(Frozen):
    """How this dataplane exposes metrics, where it differs from its mesh."""

    name: Text = ""
    type: Text = ""
    conf: Loose | None = None


class ProbeEndpoint(Frozen):
    """A path on the probes' port and the workload's path that it leads to."""

    inbound_port: Whole = 0
    inbound_path: Text = ""
    path: Text = ""


class Probes(Frozen):
    """A port without TLS for the platform's probes."""

    port: Whole = 0
    endpoints: tuple[ProbeEndpoint, ...] = ()
