"""The parts of a proxy that its Envoy decides by what it says of itself.

In: a dataplane, its node with metadata as `kuma-dp` and our launcher write it. Out: parts, ports, a path.
Never: anything of the mesh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kumafast.generation.host import Host
from kumafast.generation.names import socket_path
from kumafast.generation.proxy import AdminInterface, Tags, TransparentProxy
from kumafast.identity.proxies import tag_sets
from kumafast.resources import Dataplane
from kumafast.snapshot.node import Node

_NOT_IN_A_LABEL = re.compile(r"[^a-zA-Z0-9_]")


def reuses_port(node: Node) -> bool:
    """Whether several processes may listen on one of its ports."""
    return "feature-reuse-port" in _list(node.metadata.get("features"))


def wants_unified_names(node: Node) -> bool:
    """Whether its launcher asks for names of the unified scheme."""
    return "feature-unified-resource-naming" in _list(node.metadata.get("features"))


def dns_port(node: Node) -> int | None:
    """Where the proxy answers for names; None where it does not."""
    return _port(node.metadata, "dataplane.dns.port")


def log_pipe(dataplane: Dataplane, node: Node) -> str:
    """Where kuma-dp takes lines of logs that it sends on; a name that it knows as well."""
    workdir = _text(node.metadata, "workdir")
    if workdir is None or "feature-tcp-accesslog-via-named-pipe" not in _list(node.metadata.get("features")):
        return ""
    # Kuma's launcher cuts it as if it were a socket.
    return socket_path(workdir, f"kuma-al-{dataplane.name}-{dataplane.mesh}")


def host(dataplane: Dataplane, node: Node, address: str, *, is_secured: bool) -> Host | None:
    """Where the proxy runs, at an IP address; None where its launcher does not say in which directory."""
    workdir = _text(node.metadata, "workdir")
    if workdir is None:
        return None
    certificate, key = _text(node.metadata, "metricsCertPath"), _text(node.metadata, "metricsKeyPath")
    return Host(
        address=address,
        labels=_labels(dataplane),
        workdir=workdir,
        metrics_socket=socket_path(workdir, f"kuma-mh-{dataplane.name}-{dataplane.mesh}"),
        config_socket=socket_path(workdir, "kuma-mesh-metric-config"),
        metrics_certificate=None if certificate is None or key is None else (certificate, key),
        mesh=dataplane.mesh if is_secured else "",
        reuses_port=reuses_port(node),
        is_unified=wants_unified_names(node),
    )


def _labels(dataplane: Dataplane) -> Tags:
    """What metrics of the proxy are told apart by: its tags, each with its first value and with all of them."""
    values: dict[str, set[str]] = {}
    for tags in tag_sets(dataplane):
        for key, value in tags.items():
            values.setdefault(key, set()).add(value)
    labels: dict[str, str] = {}
    for key, found in sorted(values.items()):
        ordered, name = sorted(found), _NOT_IN_A_LABEL.sub("_", key)
        labels[name] = ordered[0]
        if f"{key}s" not in values:
            labels[f"{name}s"] = f",{','.join(ordered)},"
    own = {"mesh": dataplane.mesh, "dataplane": dataplane.name, "service": dataplane.identifying_service}
    return tuple(sorted({**labels, **own}.items()))


def transparent_proxy(
    dataplane: Dataplane, node: Node, *, lets_through: bool, is_unified: bool
) -> TransparentProxy | None:
    """The ports that redirected traffic comes to; None where none is redirected.

    `lets_through`: what is not for the mesh goes out as long as no policy says otherwise.
    """
    proxying = None if dataplane.networking is None else dataplane.networking.transparent_proxying
    if proxying is None or not proxying.redirect_port_outbound:
        return None
    return TransparentProxy(
        redirect_port_inbound=proxying.redirect_port_inbound,
        redirect_port_outbound=proxying.redirect_port_outbound,
        has_ipv6=proxying.ip_family_mode != "IPv4" and node.metadata.get("ipv6Enabled") is True,
        reuses_port=reuses_port(node),
        lets_through=lets_through,
        is_unified=is_unified,
    )


def admin_interface(node: Node, *, is_unified: bool = False) -> AdminInterface:
    """How the proxy's own interfaces are reached."""
    metadata = node.metadata
    return AdminInterface(
        socket_path=_text(metadata, "dataplane.admin.socketPath"),
        address=_text(metadata, "dataplane.admin.address"),
        port=_port(metadata, "dataplane.admin.port"),
        readiness_port=_port(metadata, "dataplane.readinessReporter.port"),
        is_unified=is_unified,
    )


def _text(metadata: Mapping[str, object], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value else None


def _port(metadata: Mapping[str, object], key: str) -> int | None:
    """A port that a node names, as text or number; what is no port is as good as none."""
    value = metadata.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        port = int(value) if isinstance(value, str | int) else 0
    except ValueError:
        return None
    return port if 0 < port < 65536 else None


def _list(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()
