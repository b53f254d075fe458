"""What the gRPC clients of these tests are sent: up to 29 resources by which their channels find backends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf.message import Message
from tests.clients.envoy_contents import parse

CLUSTERS = 13
TARGETS = ("echo", "other.example:80")
COUNT = len(TARGETS) + 1 + 2 * CLUSTERS

_TYPE = "type.googleapis.com/"
_ADS = {"resource_api_version": "V3", "ads": {}}
_POLICIES = ("ROUND_ROBIN", "RING_HASH")


@dataclass
class GrpcContents:
    """One client's resources: two listeners that share a route, which goes to all clusters by weight."""

    backends: list[int]
    """The ports of the endpoints of every cluster."""
    others: dict[str, list[int]] = field(default_factory=dict)
    """Clusters whose endpoints are others than `backends`."""
    only_cluster: str | None = None
    """Where the route leads if not to all."""
    priorities: dict[str, int] = field(default_factory=dict)
    """Clusters with a priority other than 0: a gap, which clients refuse."""
    removed: set[str] = field(default_factory=set)

    def messages(self) -> list[tuple[str, Message]]:
        """All resources with their names, 29 unless some were removed."""
        named: list[tuple[str, str, Message]] = [("lds", target, _listener(target)) for target in TARGETS]
        named.append(("rds", "route", self._route()))
        for number in range(CLUSTERS):
            name = f"g{number}"
            named.append(("cds", name, _cluster(name, _POLICIES[number % len(_POLICIES)])))
            named.append(("eds", name, self._endpoints(name)))
        return [(name, message) for kind, name, message in named if f"{kind}/{name}" not in self.removed]

    def _route(self) -> Message:
        if self.only_cluster is not None:
            action: dict[str, Any] = {"cluster": self.only_cluster}
        else:
            weighted = [{"name": f"g{number}", "weight": 1} for number in range(CLUSTERS)]
            action = {"weighted_clusters": {"clusters": weighted}}
        host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": ""}, "route": action}]}
        return parse({"name": "route", "virtual_hosts": [host]}, route_pb2.RouteConfiguration())

    def _endpoints(self, name: str) -> Message:
        endpoints = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
            for port in self.others.get(name, self.backends)
        ]
        locality = {
            "locality": {"region": "here"},
            "load_balancing_weight": 1,
            "priority": self.priorities.get(name, 0),
            "lb_endpoints": endpoints,
        }
        return parse({"cluster_name": name, "endpoints": [locality]}, endpoint_pb2.ClusterLoadAssignment())


def _cluster(name: str, policy: str) -> Message:
    document = {"name": name, "type": "EDS", "lb_policy": policy, "eds_cluster_config": {"eds_config": _ADS}}
    return parse(document, cluster_pb2.Cluster())


def _listener(name: str) -> Message:
    manager = http_connection_manager_pb2.HttpConnectionManager.DESCRIPTOR.full_name
    router = {"name": "router", "typed_config": {"@type": _TYPE + router_pb2.Router.DESCRIPTOR.full_name}}
    listener = {
        "@type": _TYPE + manager,
        "rds": {"route_config_name": "route", "config_source": _ADS},
        "http_filters": [router],
    }
    return parse({"name": name, "api_listener": {"api_listener": listener}}, listener_pb2.Listener())
