"""What the Envoys of these tests are sent: 29 resources of five types that lead a request through TLS to a backend.

A request to the listener `l2` goes by the route `r2` and the cluster `tls` to the listener `l1`, both ends with
certificates from secrets, and from there by `r1` and `c1` to a backend. `l0` and `l3` are plain ways to `c0` and `c3`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from tests.clients.authority import Authority, Pair
from tests.clients.raw_envoy import Mode

CLUSTERS = 8
LISTENERS = 4
TLS_LISTENER = 1
COUNT = 2 * (CLUSTERS + 1) + 2 * LISTENERS + 3

_TYPE = "type.googleapis.com/"
# Messages that only stand within others' `Any` must be known as well.
_PACKED = (router_pb2.Router, http_connection_manager_pb2.HttpConnectionManager, tls_pb2.UpstreamTlsContext)


@dataclass
class EnvoyContents:
    """One Envoy's resources; tests alter the fields and publish `messages()` again."""

    mode: Mode
    authority: Authority
    ports: list[int]
    """Of the listeners, by number."""
    backend: int
    backends: dict[str, int] = field(default_factory=dict)
    """Clusters whose endpoint is another than `backend`."""
    connect_timeouts: dict[str, str] = field(default_factory=dict)
    listener_stats: dict[int, str] = field(default_factory=dict)
    prefixes: dict[int, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    """Resources, as `TYPE/NAME`, that there are no more."""
    server_pair: Pair | None = None

    def messages(self) -> list[tuple[str, Message]]:
        """All resources with their names, 29 unless some were removed."""
        named: list[tuple[str, str, Message]] = []
        for name in [*(f"c{number}" for number in range(CLUSTERS)), "tls"]:
            named.append(("cds", name, self._cluster(name)))
            named.append(("eds", name, self._endpoints(name)))
        for number in range(LISTENERS):
            named.append(("lds", f"l{number}", self._listener(number)))
            named.append(("rds", f"r{number}", self._route(number)))
        server = self.server_pair or self.authority.server
        named.append(("sds", "server", _certificate("server", server)))
        named.append(("sds", "client", _certificate("client", self.authority.client)))
        ca = {"name": "ca", "validation_context": {"trusted_ca": {"inline_string": self.authority.ca.read_text()}}}
        named.append(("sds", "ca", parse(ca, secret_pb2.Secret())))
        return [(name, message) for kind, name, message in named if f"{kind}/{name}" not in self.removed]

    def _cluster(self, name: str) -> Message:
        document: dict[str, Any] = {
            "name": name,
            "type": "EDS",
            "connect_timeout": self.connect_timeouts.get(name, "1s"),
            "eds_cluster_config": {"eds_config": self.mode.config_source()},
        }
        if name == "tls":
            document["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "localhost",
                    "common_tls_context": {
                        "tls_certificate_sds_secret_configs": [self._secret("client")],
                        "validation_context_sds_secret_config": self._secret("ca"),
                    },
                },
            }
        return parse(document, cluster_pb2.Cluster())

    def _secret(self, name: str) -> dict[str, Any]:
        return {"name": name, "sds_config": self.mode.config_source()}

    def _endpoints(self, name: str) -> Message:
        port = self.ports[TLS_LISTENER] if name == "tls" else self.backends.get(name, self.backend)
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        document = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
        return parse(document, endpoint_pb2.ClusterLoadAssignment())

    def _listener(self, number: int) -> Message:
        router = {"name": "envoy.filters.http.router", "typed_config": {"@type": _TYPE + _full_name(_PACKED[0])}}
        manager = {
            "@type": _TYPE + _full_name(_PACKED[1]),
            "stat_prefix": self.listener_stats.get(number, f"l{number}"),
            "rds": {"route_config_name": f"r{number}", "config_source": self.mode.config_source()},
            "http_filters": [router],
        }
        chain: dict[str, Any] = {
            "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        }
        if number == TLS_LISTENER:
            chain["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "require_client_certificate": True,
                    "common_tls_context": {
                        "tls_certificate_sds_secret_configs": [self._secret("server")],
                        "validation_context_sds_secret_config": self._secret("ca"),
                    },
                },
            }
        address = {"socket_address": {"address": "127.0.0.1", "port_value": self.ports[number]}}
        return parse({"name": f"l{number}", "address": address, "filter_chains": [chain]}, listener_pb2.Listener())

    def _route(self, number: int) -> Message:
        cluster = "tls" if number == TLS_LISTENER + 1 else f"c{number}"
        action: dict[str, Any] = {"cluster": cluster}
        if number in self.prefixes:
            action["prefix_rewrite"] = self.prefixes[number]
        host = {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}
        return parse({"name": f"r{number}", "virtual_hosts": [host]}, route_pb2.RouteConfiguration())


def parse(document: dict[str, Any], message: Message) -> Message:
    """The message with the fields that its JSON form names."""
    ParseDict(document, message)
    return message


def _full_name(kind: Any) -> str:
    return str(kind.DESCRIPTOR.full_name)


def _certificate(name: str, pair: Pair) -> Message:
    document = {
        "name": name,
        "tls_certificate": {
            "certificate_chain": {"inline_string": pair.certificate.read_text()},
            "private_key": {"inline_string": pair.key.read_text()},
        },
    }
    return parse(document, secret_pb2.Secret())
