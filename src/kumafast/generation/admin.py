"""The sidecar's view of itself: its admin interface and the reporter of its readiness, as clusters.

In: an `AdminInterface`. Out: `Cluster` messages. Never: a listener that lets others in; the socket is the only way.
"""

from __future__ import annotations

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2

from kumafast.generation import clusters, defaults, fields, names
from kumafast.generation.proxy import AdminInterface

_LOOPBACK = "127.0.0.1"


def admin_clusters(admin: AdminInterface) -> tuple[cluster_pb2.Cluster, ...]:
    """A cluster for each of the two that the proxy has. A socket is preferred to a port: not everybody can open it."""
    made: list[cluster_pb2.Cluster] = []
    name = names.UNIFIED_ENVOY_ADMIN if admin.is_unified else names.ENVOY_ADMIN
    if admin.socket_path is not None:
        made.append(_internal(name, fields.pipe_address(admin.socket_path)))
    elif admin.port is not None:
        made.append(_internal(name, fields.socket_address(admin.address or _LOOPBACK, admin.port)))
    if admin.readiness_port is not None:
        readiness = names.UNIFIED_READINESS if admin.is_unified else names.READINESS
        made.append(_internal(readiness, fields.socket_address(_LOOPBACK, admin.readiness_port)))
    return tuple(made)


def _internal(name: str, address: address_pb2.Address) -> cluster_pb2.Cluster:
    return clusters.static_cluster(name, address, connect_timeout=defaults.INTERNAL_CONNECT_TIMEOUT)
