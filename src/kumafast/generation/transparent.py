"""Traffic that the host redirects: listeners that take it in and clusters that send it where it was going.

In: a `TransparentProxy`. Out: `Cluster` and `Listener` messages. Never: the redirection itself, which the host does.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.core.v3 import base_pb2
from google.protobuf.message import Message

from kumafast.generation import clusters, listeners, names, passages
from kumafast.generation.effects import Passage, Way
from kumafast.generation.proxy import TransparentProxy


def passthrough(transparent: TransparentProxy) -> tuple[Message, ...]:
    """Both directions in each family of addresses that the host has: first all clusters, then all listeners."""
    families = [("ipv4", "0.0.0.0", clusters.SIDECAR_SOURCE_IPV4)]
    if transparent.has_ipv6:
        families.append(("ipv6", "::", clusters.SIDECAR_SOURCE_IPV6))
    ways = {family: _ways(transparent, is_ipv6=family == "ipv6") for family, _, _ in families}
    # Each once: a domain is in both families.
    distinct = dict.fromkeys(way for each in ways.values() for way in each or ())
    return (
        *(
            cluster
            for family, _, source in families
            for cluster in _clusters(transparent, family, source=source, is_open=ways[family] is None)
        ),
        *(passages.cluster(way, has_ipv6=transparent.has_ipv6) for way in distinct),
        *(
            listener
            for family, every, _ in families
            for listener in _listeners(transparent, family, address=every, ways=ways[family] or ())
        ),
    )


def _ways(transparent: TransparentProxy, *, is_ipv6: bool) -> tuple[Way, ...] | None:
    """The only ways out that there are in a family of addresses; None where everything goes out."""
    found = (effect.passage() for effect in transparent.effects)
    passage = next((each for each in found if each is not None), Passage(is_open=transparent.lets_through))
    if passage.is_open or not transparent.redirect_port_outbound:
        return None
    return passages.ways_out(passage, is_ipv6=is_ipv6)


# Port 0 would have Envoy listen on any free port, where nothing is ever redirected to.
def _clusters(transparent: TransparentProxy, family: str, *, source: str, is_open: bool) -> Iterator[Message]:
    if transparent.redirect_port_inbound:
        yield clusters.original_destination_cluster(_name(transparent, "inbound", family), source=source)
    if transparent.redirect_port_outbound and is_open:
        yield clusters.original_destination_cluster(_name(transparent, "outbound", family))


def _listeners(transparent: TransparentProxy, family: str, *, address: str, ways: tuple[Way, ...]) -> Iterator[Message]:
    if transparent.redirect_port_inbound:
        yield listeners.passthrough_listener(
            _name(transparent, "inbound", family),
            address=address,
            port=transparent.redirect_port_inbound,
            direction=base_pb2.TrafficDirection.INBOUND,
            reuses_port=transparent.reuses_port,
        )
    if transparent.redirect_port_outbound:
        yield listeners.passthrough_listener(
            _name(transparent, "outbound", family),
            address=address,
            port=transparent.redirect_port_outbound,
            direction=base_pb2.TrafficDirection.OUTBOUND,
            reuses_port=None if transparent.reuses_port else False,
            effects=transparent.effects,
            source=transparent.source,
            ways=ways,
        )


def _name(transparent: TransparentProxy, direction: str, family: str) -> str:
    return names.passthrough_name(direction, family, is_unified=transparent.is_unified)
