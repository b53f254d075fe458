"""The rules of dataplanes, in the order in which Kuma checks them.

In: the parts of a dataplane, of the right structure. Out: all its violations. Never: a look at other resources.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from kumafast.errors import Violation
from kumafast.resources.networking import (
    LOOPBACK,
    BackendRef,
    Gateway,
    Inbound,
    Metrics,
    Networking,
    Outbound,
    Probes,
    ServiceProbe,
    TransparentProxying,
)
from kumafast.resources.tags import PROTOCOL_TAG, PROTOCOLS, SERVICE_TAG
from kumafast.resources.validation import (
    check_ip,
    check_name,
    check_port,
    check_proto_duration,
    check_protocol,
    check_tags,
    is_domain,
    is_ip,
    key_of,
)

_EXTERNAL_KIND = "MeshExternalService"
_BACKEND_KINDS = (_EXTERNAL_KIND, "MeshMultiZoneService", "MeshService")
_KIND_MESSAGE = f"invalid value. Available values are: {','.join(_BACKEND_KINDS)}"
_ANY_ADDRESS = ("0.0.0.0", "::")
_LISTENER_TYPES = ("ZoneIngress", "ZoneEgress")
_UINT32_MAX = 2**32 - 1
_METRICS_TYPE = "prometheus"
_SAME_SERVICE_MESSAGE = "serviceAddress and servicePort has to differ from address and port"

_INBOUND_INTERFACE_MESSAGE = (
    "must be DATAPLANE_IP:DATAPLANE_PORT:WORKLOAD_PORT with an IPv4 address and ports in the range [1, 65535], "
    "for example 192.168.0.100:9090:8080"
)
_OUTBOUND_INTERFACE_MESSAGE = (
    "must be [IP]:PORT with an IPv4 address and a port in the range [1, 65535], for example 127.0.0.1:9090 or :9090"
)
_INTERFACE_BESIDE_MESSAGE = "cannot be defined together with port, servicePort or address"


def check(
    networking: Networking | None, *, metrics: Metrics | None = None, probes: Probes | None = None
) -> Iterator[Violation]:
    """Every violation of a dataplane; a networking section that is missing is the only one reported then."""
    if networking is None:
        yield Violation("networking", "must be defined")
        return
    yield from _check_admin(networking)
    gateway = networking.gateway
    if gateway is not None:
        yield from _check_gateway_alone(networking, gateway, has_probes=probes is not None)
        yield from _check_gateway("networking.gateway", gateway)
    yield from _check_networking(networking)
    if gateway is None or gateway.type == "DELEGATED":
        yield from _check_probes(probes)
    if gateway is None:
        yield from _check_metrics(metrics)


def _check_admin(networking: Networking) -> Iterator[Violation]:
    if networking.admin is None:
        return
    port = networking.admin.port
    if port == 0:
        return
    yield from check_port("networking.admin.port", port)
    inbound_sockets = {
        socket
        for inbound in networking.inbound
        for socket in (
            (networking.inbound_address(inbound), inbound.port),
            (inbound.effective_service_address, inbound.effective_service_port),
        )
    }
    outbound_sockets = {(outbound.effective_address, outbound.port) for outbound in networking.outbound}
    for sockets, what in ((inbound_sockets, "inbound"), (outbound_sockets, "outbound")):
        if any((address, port) in sockets for address in (LOOPBACK, *_ANY_ADDRESS)):
            yield Violation("networking.admin.port", f"must differ from {what}")


def _check_gateway_alone(networking: Networking, gateway: Gateway, *, has_probes: bool) -> Iterator[Violation]:
    kind = gateway.type.lower()
    is_builtin = gateway.type == "BUILTIN"
    for field, is_wrong in (
        ("inbound", bool(networking.inbound)),
        ("outbound", is_builtin and bool(networking.outbound)),
        ("listeners", bool(networking.listeners)),
        ("probes", is_builtin and has_probes),
    ):
        if is_wrong:
            yield Violation(f"networking.{field}", f"{field} cannot be defined for {kind} gateways")


def _check_gateway(path: str, gateway: Gateway) -> Iterator[Violation]:
    where = f"{path}.tags"
    protocol = gateway.tags.get(PROTOCOL_TAG)
    if protocol is not None and protocol != "tcp":
        yield Violation(
            key_of(where, PROTOCOL_TAG), f'other values than tcp are not allowed, provided value "{protocol}"'
        )
    yield from check_tags(where, gateway.tags, requires_service=True)


def _check_networking(networking: Networking) -> Iterator[Violation]:
    yield from _check_address("networking.address", networking.address)
    if networking.advertised_address:
        yield from _check_address("networking.advertisedAddress", networking.advertised_address)
    for i, inbound in enumerate(networking.inbound):
        yield from _check_inbound(f"networking.inbound[{i}]", inbound, networking.address)
    for i, outbound in enumerate(networking.outbound):
        yield from _check_outbound(f"networking.outbound[{i}]", outbound)
    yield from _check_listeners(networking)
    if networking.transparent_proxying is not None:
        yield from _check_transparent("networking.transparentProxying", networking.transparent_proxying)


def _check_address(path: str, address: str) -> Iterator[Violation]:
    if not address:
        yield Violation(path, "address can't be empty")
        return
    if address in _ANY_ADDRESS:
        yield Violation(path, "must not be 0.0.0.0 or ::")
    if not is_ip(address) and not is_domain(address):
        yield Violation(path, "address has to be valid IP address or domain name")


def _check_inbound(path: str, inbound: Inbound, dataplane_address: str) -> Iterator[Violation]:
    if inbound.interface:
        is_beside = bool(inbound.port or inbound.service_port or inbound.address)
        yield Violation(f"{path}.interface", _INTERFACE_BESIDE_MESSAGE if is_beside else _INBOUND_INTERFACE_MESSAGE)
    else:
        yield from check_port(f"{path}.port", inbound.port)
    if inbound.service_port:
        yield from check_port(f"{path}.servicePort", inbound.service_port)
    yield from check_ip(f"{path}.serviceAddress", inbound.service_address, field="serviceAddress")
    has_same_port = inbound.service_port in (0, inbound.port)
    if inbound.service_address and inbound.service_address == dataplane_address and has_same_port:
        yield Violation(f"{path}.serviceAddress", _SAME_SERVICE_MESSAGE)
    yield from check_ip(f"{path}.address", inbound.address)
    if inbound.address and inbound.service_address == inbound.address and has_same_port:
        yield Violation(f"{path}.serviceAddress", _SAME_SERVICE_MESSAGE)
    yield from check_protocol(f"{path}.tags", inbound.tags)
    yield from check_tags(f"{path}.tags", inbound.tags)
    if inbound.declared_protocol and inbound.declared_protocol not in PROTOCOLS:
        yield Violation(f"{path}.protocol", f"invalid value. Allowed values: {', '.join(PROTOCOLS)}")
    if inbound.service_probe is not None:
        yield from _check_service_probe(f"{path}.serviceProbe", inbound.service_probe)
    # An inbound without any tags belongs to a MeshService, which selects it by labels.
    if inbound.tags and SERVICE_TAG not in inbound.tags:
        yield Violation(key_of(f"{path}.tags", SERVICE_TAG), "tag has to exist")


def _check_service_probe(path: str, probe: ServiceProbe) -> Iterator[Violation]:
    if probe.interval is not None:
        yield from check_proto_duration(f"{path}.interval", probe.interval)
    if probe.timeout is not None:
        yield from check_proto_duration(f"{path}.timeout", probe.timeout)
    for field, value in (
        ("unhealthyThreshold", probe.unhealthy_threshold),
        ("healthyThreshold", probe.healthy_threshold),
    ):
        if value is not None and value <= 0:
            yield Violation(f"{path}.{field}", "must have a positive value")
        elif value is not None and value > _UINT32_MAX:
            yield Violation(f"{path}.{field}", f"must be at most {_UINT32_MAX}")


def _check_outbound(path: str, outbound: Outbound) -> Iterator[Violation]:
    if outbound.interface:
        is_beside = bool(outbound.port or outbound.address)
        yield Violation(f"{path}.interface", _INTERFACE_BESIDE_MESSAGE if is_beside else _OUTBOUND_INTERFACE_MESSAGE)
    else:
        yield from check_port(f"{path}.port", outbound.port)
    yield from check_ip(f"{path}.address", outbound.address)
    reference = outbound.backend_ref
    if reference is None:
        yield from check_tags(f"{path}.tags", outbound.tags, requires_service=True)
        return
    if reference.kind not in _BACKEND_KINDS:
        yield Violation(f"{path}.backendRef.kind", _KIND_MESSAGE)
    if not reference.name and not reference.labels:
        yield Violation(f"{path}.backendRef", "either 'name' or 'labels' should be specified")
    # An external service has its ports in its endpoints.
    if reference.kind != _EXTERNAL_KIND or reference.port:
        yield from check_port(f"{path}.backendRef.port", reference.port)
    if outbound.tags:
        yield Violation(f"{path}.backendRef", "both backendRef and tags/service cannot be defined")


def _check_listeners(networking: Networking) -> Iterator[Violation]:
    names = {inbound.section_name for inbound in networking.inbound}
    inbound_sockets = {(networking.inbound_address(inbound), inbound.port) for inbound in networking.inbound}
    types: dict[tuple[str, int], str] = {}
    for i, listener in enumerate(networking.listeners):
        path = f"networking.listeners[{i}]"
        if listener.type not in _LISTENER_TYPES:
            yield Violation(f"{path}.type", "type must be ZoneIngress or ZoneEgress")
        yield from check_port(f"{path}.port", listener.port)
        yield from check_ip(f"{path}.address", listener.address)
        name = listener.name or str(listener.port)
        if name in names:
            yield Violation(f"{path}.name", f'name "{name}" must be unique across inbounds and listeners')
        names.add(name)
        socket = (listener.address or networking.address, listener.port)
        where = f"address:port {socket[0]}:{socket[1]}"
        if types.get(socket, listener.type) != listener.type:
            yield Violation(path, f"{where} is used by listeners of different types")
        elif socket in types:
            yield Violation(path, f"{where} is already used by another listener")
        if socket in inbound_sockets:
            yield Violation(path, f"{where} collides with an inbound listener")
        types.setdefault(socket, listener.type)


def _check_transparent(path: str, transparent: TransparentProxying) -> Iterator[Violation]:
    for field, port in (
        ("redirectPortInbound", transparent.redirect_port_inbound),
        ("redirectPortOutbound", transparent.redirect_port_outbound),
    ):
        if port:
            yield from check_port(f"{path}.{field}", port)
    if transparent.reachable_backends is not None:
        for i, reference in enumerate(transparent.reachable_backends.refs):
            yield from _check_reachable(f"{path}.reachableBackends.refs[{i}]", reference)


def _check_reachable(path: str, reference: BackendRef) -> Iterator[Violation]:
    if reference.kind not in _BACKEND_KINDS:
        yield Violation(f"{path}.kind", _KIND_MESSAGE)
    if reference.name:
        yield from check_name(f"{path}.name", reference.name)
    elif reference.namespace:
        yield Violation(f"{path}.name", "name is required, when namespace is defined")
    elif not reference.labels:
        yield Violation(f"{path}.name", "name or labels are required")
    if (reference.name or reference.namespace) and reference.labels:
        yield Violation(f"{path}.labels", "labels cannot be defined when name is specified")


def _check_probes(probes: Probes | None) -> Iterator[Violation]:
    if probes is None:
        return
    yield from check_port("probes.port", probes.port)
    for i, endpoint in enumerate(probes.endpoints):
        path = f"probes.endpoints[{i}]"
        yield from check_port(f"{path}.inboundPort", endpoint.inbound_port)
        for field, url in (("inboundPath", endpoint.inbound_path), ("path", endpoint.path)):
            if not _is_url_path(url):
                yield Violation(f"{path}.{field}", "should be a valid URL Path")


def _is_url_path(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return url.isprintable() and (url.startswith("/") or bool(parts.scheme))


def _check_metrics(metrics: Metrics | None) -> Iterator[Violation]:
    if metrics is not None and metrics.type != _METRICS_TYPE:
        yield Violation("metrics.type", f'unknown backend type. Available backends: "{_METRICS_TYPE}"')
