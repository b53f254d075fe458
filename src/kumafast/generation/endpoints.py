"""Endpoints: who serves a cluster now.

In: an `EndpointSet`. Out: a `ClusterLoadAssignment`. Never: whether an endpoint is healthy; it would not be here.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from kumafast.generation import fields
from kumafast.generation.proxy import Endpoint, EndpointSet, Tags

# Subset load balancing, the choice of a TLS context and inspection each read their own namespace.
_LOAD_BALANCER = "envoy.lb"
_TRANSPORT_SOCKET_MATCH = "envoy.transport_socket_match"
_LABELS = "io.kuma.labels"

# What endpoints of a service have in common: tags, labels and weight, to the bytes of all but the address.
_KnownRests = dict[tuple[Tags, Tags, int], bytes]

_zone = attrgetter("zone")


def load_assignment(endpoint_set: EndpointSet) -> endpoint_pb2.ClusterLoadAssignment:
    """The endpoints of a cluster, one locality for each zone, zones in order and endpoints as given. O(endpoints).

    No endpoint at all is a valid answer: Envoy then knows that the cluster is empty, instead of waiting for it.
    """
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=endpoint_set.cluster_name)
    known: _KnownRests = {}
    # A stable sort keeps the set's own order of address and port within a zone.
    for zone, endpoints in groupby(sorted(endpoint_set.endpoints, key=_zone), key=_zone):
        locality = assignment.endpoints.add()
        if zone:
            locality.locality.zone = zone
        for endpoint in endpoints:
            # Filled in place: a message that is handed to another's constructor is copied at every level, which was
            # most of the time of a large service. The instances of a service have few distinct tag sets, so what they
            # share is built once and merged as bytes.
            lb_endpoint = locality.lb_endpoints.add()
            lb_endpoint.MergeFromString(_rest(endpoint, known))
            address = lb_endpoint.endpoint.address.socket_address
            address.address = endpoint.address
            address.port_value = endpoint.port
    return assignment


def _rest(endpoint: Endpoint, known: _KnownRests) -> bytes:
    key = (endpoint.tags, endpoint.labels, endpoint.weight)
    rest = known.get(key)
    if rest is None:
        metadata = fields.metadata(
            {_LOAD_BALANCER: endpoint.tags, _TRANSPORT_SOCKET_MATCH: endpoint.tags, _LABELS: endpoint.labels}
        )
        message = endpoint_components_pb2.LbEndpoint(
            metadata=metadata if metadata.filter_metadata else None,
            load_balancing_weight={"value": endpoint.weight},
        )
        rest = known[key] = message.SerializeToString(deterministic=True)
    return rest
