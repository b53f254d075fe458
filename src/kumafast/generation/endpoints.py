"""Endpoints: who serves a cluster now.

In: an `EndpointSet`, or one `Endpoint`. Out: a `ClusterLoadAssignment`, or one encoded `LbEndpoint`, of which the
snapshot's `LoadAssignment` splices the same bytes. Never: whether an endpoint is healthy; it would not be here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter

from envoy.config.core.v3 import address_pb2, config_source_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from kumafast.generation import fields
from kumafast.generation.proxy import Endpoint, EndpointSet, Tags
from kumafast.memo import remembered

# Subset load balancing, the choice of a TLS context and inspection each read their own namespace.
_LOAD_BALANCER = "envoy.lb"
_TRANSPORT_SOCKET_MATCH = "envoy.transport_socket_match"
_LABELS = "io.kuma.labels"

# The instances of a service have few distinct tag sets, so what they share is encoded once.
_RESTS_MAX = 4096

_zone = attrgetter("zone")


def load_assignment(endpoint_set: EndpointSet) -> endpoint_pb2.ClusterLoadAssignment:
    """The endpoints of a cluster, one locality for each zone, zones in order and endpoints as given. O(endpoints).

    No endpoint at all is a valid answer: Envoy then knows that the cluster is empty, instead of waiting for it.
    """
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=endpoint_set.cluster_name)
    # A stable sort keeps the set's own order of address and port within a zone.
    for zone, endpoints in groupby(sorted(endpoint_set.endpoints, key=_zone), key=_zone):
        locality = assignment.endpoints.add()
        if zone:
            locality.locality.zone = zone
        for endpoint in endpoints:
            # Filled in place: a message that is handed to another's constructor is copied at every level, which was
            # most of the time of a large service.
            _fill(locality.lb_endpoints.add(), endpoint)
    return assignment


def collection_assignment(cluster_name: str, collections: Sequence[tuple[str, str]]) -> bytes:
    """The encoded `ClusterLoadAssignment` of a cluster whose endpoints come one by one (LEDS).

    It has no endpoints but `collections`: zones, each with the name of its collection.
    """
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster_name)
    for zone, name in collections:
        locality = assignment.endpoints.add()
        if zone:
            locality.locality.zone = zone
        source = locality.leds_cluster_locality_config
        source.leds_config.ads.SetInParent()
        source.leds_config.resource_api_version = config_source_pb2.V3
        source.leds_collection_name = name
    encoded: bytes = assignment.SerializeToString(deterministic=True)
    return encoded


def lb_endpoint(endpoint: Endpoint) -> bytes:
    """One endpoint as an encoded `LbEndpoint`, the bytes that it has within the `load_assignment` of its cluster."""
    # The address has the lower field number, so this is the order in which protobuf writes the fields.
    return _encoded_address(endpoint) + _rest(endpoint.tags, endpoint.labels, endpoint.weight)


def _encoded_address(endpoint: Endpoint) -> bytes:
    address, port = endpoint.address.encode(), _encoded_port(endpoint.port)
    # LbEndpoint { endpoint = 1 }, Endpoint { address = 1 }, Address { socket_address = 1 },
    # SocketAddress { address = 2; port_value = 3 }: while every length fits in a byte this is faster than a message.
    size = 2 + len(address) + len(port)
    if size + 4 < 0x80:
        return bytes((10, size + 4, 10, size + 2, 10, size, 18, len(address))) + address + port
    message = endpoint_components_pb2.LbEndpoint()
    _fill_address(message, endpoint)
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


@lru_cache(maxsize=_RESTS_MAX)
def _encoded_port(port: int) -> bytes:
    encoded: bytes = address_pb2.SocketAddress(port_value=port).SerializeToString(deterministic=True)
    return encoded


def order(endpoint: Endpoint) -> tuple[object, ...]:
    """Where an endpoint stands within its zone: by address, then port; the rest makes the order total."""
    return (endpoint.address, endpoint.port, endpoint.tags, endpoint.labels, endpoint.weight)


def _fill(message: endpoint_components_pb2.LbEndpoint, endpoint: Endpoint) -> None:
    message.MergeFromString(_rest(endpoint.tags, endpoint.labels, endpoint.weight))
    _fill_address(message, endpoint)


def _fill_address(message: endpoint_components_pb2.LbEndpoint, endpoint: Endpoint) -> None:
    address = message.endpoint.address.socket_address
    address.address = endpoint.address
    address.port_value = endpoint.port


@remembered(_RESTS_MAX)
def _rest(tags: Tags, labels: Tags, weight: int) -> bytes:
    """All but the address of an encoded `LbEndpoint`."""
    metadata = fields.metadata({_LOAD_BALANCER: tags, _TRANSPORT_SOCKET_MATCH: tags, _LABELS: labels})
    message = endpoint_components_pb2.LbEndpoint(
        metadata=metadata if metadata.filter_metadata else None, load_balancing_weight={"value": weight}
    )
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded
