"""What Envoy's resources are called: Kuma 2.14's names, so that existing dashboards and runbooks hold.

In: addresses, ports, services, tags. Out: names. Never: anything that two control planes could answer differently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from kumafast.resources.tags import SERVICE_TAG

ENVOY_ADMIN = "kuma:envoy:admin"
UNIFIED_ENVOY_ADMIN = "system_envoy_admin"
READINESS = "kuma:readiness"
UNIFIED_READINESS = "system_probe_readiness"
DNS_LISTENER = "kuma:dns"
ADS_CLUSTER = "ads_cluster"
METRICS = "_kuma:metrics:hijacker"
LAUNCHER_CONFIG = "_kuma:dynamicconfig"
UNIFIED_LAUNCHER_CONFIG = "system_dynamicconfig"
CONTROL_PLANE_VALIDATION = "cp_validation_ctx"
KUMA_TAGS_HEADER = "x-kuma-tags"

# As Kuma's launcher cuts it, so that there is room for the ending.
_SOCKET_PATH_MAX = 98
_NOT_IN_A_PART = re.compile(r"[^a-zA-Z0-9-]")
_NOT_IN_A_STAT = re.compile(r"[^a-zA-Z0-9_-]")


def local_cluster_name(service_port: int) -> str:
    """The cluster of the workload behind an inbound. Without the address: Kuma's dashboards expect the port alone."""
    return f"localhost:{service_port}"


def inbound_listener_name(address: str, port: int) -> str:
    """`inbound:<ip>:<port>`, an IPv6 address in brackets."""
    return f"inbound:{_host_and_port(address, port)}"


def outbound_listener_name(address: str, port: int) -> str:
    """`outbound:<ip>:<port>`, an IPv6 address in brackets."""
    return f"outbound:{_host_and_port(address, port)}"


def inbound_route_name(service: str) -> str:
    """The route configuration that stands inside an inbound's listener."""
    return f"inbound:{service}"


def outbound_route_name(service: str) -> str:
    """The route configuration that stands inside an outbound's listener."""
    return f"outbound:{service}"


def gateway_listener_name(gateway: str, protocol: str, port: int) -> str:
    """`<MeshGateway>:<protocol>:<port>`."""
    return f"{gateway}:{protocol}:{port}"


def gateway_route_name(listener: str, hostname: str) -> str:
    """The route configuration of a listener's chain for a host name."""
    return f"{listener}:{hostname}"


def gateway_certificate_name(key: str, source: str, name: str) -> str:
    """The secret with a certificate that a gateway shows: kind of key, and where it is kept."""
    return f"cert.{key}:{source}:{name}"


def passthrough_name(direction: str, family: str, *, is_unified: bool = False) -> str:
    """The listener and the cluster for redirected traffic: `direction` inbound or outbound, `family` ipv4 or ipv6."""
    if is_unified:
        return f"self_transparentproxy_passthrough_{direction}_{family}"
    return f"{direction}:passthrough:{family}"


def cluster_name(tags: Mapping[str, str]) -> str:
    """The cluster that an outbound with these tags leads to: the service alone, or with a digest of all tags.

    Raises ValueError where the service tag is missing: Kuma has no name for that.

    >>> cluster_name({"kuma.io/service": "backend"})
    'backend'
    >>> cluster_name({"region": "us", "kuma.io/service": "backend"})
    'backend-c72efb5be46fae6b'
    """
    service = tags.get(SERVICE_TAG)
    if service is None:
        raise ValueError(f"tags without {SERVICE_TAG} do not name a cluster: {dict(tags)}")
    if len(tags) == 1:
        return service
    # Keys and values are joined without separators: that is Kuma's form, and its names are part of the contract.
    text = "".join(f"{key}{value}" for key, value in sorted(tags.items()))
    return f"{service}-{sha256(text.encode()).hexdigest()[:16]}"


_SHORT_NAMES = {"MeshService": "msvc", "MeshExternalService": "extsvc", "MeshMultiZoneService": "mzsvc"}


def service_cluster_name(kind: str, *, mesh: str, name: str, zone: str, port: int) -> str:
    """The cluster of a port of a service: of its mesh, name, namespace (none on Universal), zone, kind and number.

    >>> service_cluster_name("MeshService", mesh="default", name="backend", zone="east", port=80)
    'default_backend__east_msvc_80'
    """
    return f"{mesh}_{name}__{zone}_{_SHORT_NAMES[kind]}_{port}"


def service_identifier(kind: str, *, mesh: str, zone: str, name: str, section: str) -> str:
    """What listeners and clusters of a port of a service are called where names are unified.

    >>> service_identifier("MeshService", mesh="default", zone="east", name="backend", section="http")
    'kri_msvc_default_east__backend_http'
    """
    return f"kri_{_SHORT_NAMES[kind]}_{mesh}_{zone}__{name}_{section}"


def inbound_identifier(section: str) -> str:
    """What the listener and the cluster of an inbound are called where names are unified, by its name or port."""
    return f"self_inbound_dp_{section}"


def tracing_cluster_name(backend: str) -> str:
    """The cluster of a backend that takes traces."""
    return f"tracing:{backend}"


def trace_cluster_name(kind: str) -> str:
    """The cluster of the collector of a MeshTrace; a proxy has one at most."""
    return f"meshtrace:{kind.lower()}"


def log_cluster_name(host: str, port: int) -> str:
    """The cluster of a collector that takes records of logs. By its address, where Kuma counts those of a proxy."""
    return f"meshaccesslog:opentelemetry:{_host_and_port(host, port)}"


def metrics_listener_name(client: str, *, is_unified: bool = False) -> str:
    """The port where a client of metrics asks for them."""
    name = client or "default-backend"
    return f"system_meshmetric_prometheus_{_clean(name)}" if is_unified else f"_kuma:metrics:prometheus:{name}"


def metrics_collector_name(backend: str, *, is_unified: bool = False) -> str:
    """The cluster of a collector that metrics are sent to, and the socket that leads there.

    >>> metrics_collector_name("otel.example-4317", is_unified=True)
    'system_meshmetric_otel_otel-example-4317'
    """
    return f"system_meshmetric_otel_{_clean(backend)}" if is_unified else f"_kuma:metrics:opentelemetry:{backend}"


def _clean(text: str) -> str:
    return _NOT_IN_A_PART.sub("-", text)


def identity_name(mesh: str) -> str:
    """The secret with a workload's own certificate and key."""
    return f"identity_cert:secret:{mesh}"


def mesh_ca_name(mesh: str) -> str:
    """The secret with the authorities that a mesh trusts."""
    return f"mesh_ca:secret:{mesh}"


def external_secret_name(cluster: str, number: int) -> str:
    """The secret with a certificate that is shown to what is outside; one for each way in which a cluster connects."""
    return f"external_cert:secret:{cluster}:{number}"


def stat_name(name: str) -> str:
    """A name as Envoy's statistics may hold it: all but letters, digits, dashes and underscores become underscores."""
    return _NOT_IN_A_STAT.sub("_", name)


def alternative_stat_name(name: str) -> str:
    """`stat_name` where it differs from the name, else nothing: Envoy falls back on the name itself."""
    sanitised = stat_name(name)
    return "" if sanitised == name else sanitised


def _host_and_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def socket_path(directory: str, name: str) -> str:
    """Where a launcher has a socket: cut, for the system's paths of sockets are short.

    >>> socket_path("/run/dp/", "kuma-mh-web-1-default")
    '/run/dp/kuma-mh-web-1-default.sock'
    """
    return f"{directory.rstrip('/')}/{name}"[:_SOCKET_PATH_MAX] + ".sock"
