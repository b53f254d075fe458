"""Endpoints: who serves a cluster now.

In: an `EndpointSet`. Out: a `ClusterLoadAssignment`. Never: whether an endpoint is healthy; it would not be here.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from kumafast.generation import fields
from kumafast.generation.proxy import Endpoint, EndpointSet, Tags

# Subset load balancing, the choice of a TLS context and inspection each read their own namespace.
_LOAD_BALANCER = "envoy.lb"
_TRANSPORT_SOCKET_MATCH = "envoy.transport_socket_match"
_LABELS = "io.kuma.labels"

_MetadataByTags = dict[tuple[Tags, Tags], base_pb2.Metadata]

_zone = attrgetter("zone")


def load_assignment(endpoint_set: EndpointSet) -> endpoint_pb2.ClusterLoadAssignment:
    """The endpoints of a cluster, one locality for each zone, zones in order and endpoints as given. O(endpoints).

    No endpoint at all is a valid answer: Envoy then knows that the cluster is empty, instead of waiting for it.
    """
    # The instances of a service have few distinct tag sets; each is turned into a message once and copied in C.
    metadata: _MetadataByTags = {}
    # A stable sort keeps the set's own order of address and port within a zone.
    by_zone = groupby(sorted(endpoint_set.endpoints, key=_zone), key=_zone)
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=endpoint_set.cluster_name,
        endpoints=[
            endpoint_components_pb2.LocalityLbEndpoints(
                locality=base_pb2.Locality(zone=zone) if zone else None,
                lb_endpoints=[_lb_endpoint(endpoint, metadata) for endpoint in endpoints],
            )
            for zone, endpoints in by_zone
        ],
    )


def _lb_endpoint(endpoint: Endpoint, known: _MetadataByTags) -> endpoint_components_pb2.LbEndpoint:
    key = (endpoint.tags, endpoint.labels)
    metadata = known.get(key)
    if metadata is None:
        metadata = known[key] = fields.metadata(
            {_LOAD_BALANCER: endpoint.tags, _TRANSPORT_SOCKET_MATCH: endpoint.tags, _LABELS: endpoint.labels}
        )
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=fields.socket_address(endpoint.address, endpoint.port)),
        metadata=metadata if metadata.filter_metadata else None,
        load_balancing_weight={"value": endpoint.weight},
    )
