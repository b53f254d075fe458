"""Traffic that the host redirects: listeners that take it in and clusters that send it where it was going.

In: a `TransparentProxy`. Out: `Cluster` and `Listener` messages. Never: the redirection itself, which the host does.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.core.v3 import base_pb2
from google.protobuf.message import Message

from kumafast.generation import clusters, listeners, names
from kumafast.generation.proxy import TransparentProxy


def passthrough(transparent: TransparentProxy) -> tuple[Message, ...]:
    """Both directions in each family of addresses that the host has: first all clusters, then all listeners."""
    families = [("ipv4", "0.0.0.0", clusters.SIDECAR_SOURCE_IPV4)]
    if transparent.has_ipv6:
        families.append(("ipv6", "::", clusters.SIDECAR_SOURCE_IPV6))
    return (
        *(cluster for family, _, source in families for cluster in _clusters(transparent, family, source=source)),
        *(listener for family, every, _ in families for listener in _listeners(transparent, family, address=every)),
    )


# Port 0 would have Envoy listen on any free port, where nothing is ever redirected to.
def _clusters(transparent: TransparentProxy, family: str, *, source: str) -> Iterator[Message]:
    if transparent.redirect_port_inbound:
        yield clusters.original_destination_cluster(names.passthrough_name("inbound", family), source=source)
    if transparent.redirect_port_outbound:
        yield clusters.original_destination_cluster(names.passthrough_name("outbound", family))


def _listeners(transparent: TransparentProxy, family: str, *, address: str) -> Iterator[Message]:
    if transparent.redirect_port_inbound:
        yield listeners.passthrough_listener(
            names.passthrough_name("inbound", family),
            address=address,
            port=transparent.redirect_port_inbound,
            direction=base_pb2.TrafficDirection.INBOUND,
            reuses_port=transparent.reuses_port,
        )
    if transparent.redirect_port_outbound:
        yield listeners.passthrough_listener(
            names.passthrough_name("outbound", family),
            address=address,
            port=transparent.redirect_port_outbound,
            direction=base_pb2.TrafficDirection.OUTBOUND,
            reuses_port=None if transparent.reuses_port else False,
            effects=transparent.effects,
            source=transparent.source,
        )
