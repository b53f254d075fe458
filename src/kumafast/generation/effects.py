"""What a policy changes in the messages of a part.

In: messages as they are without the policy. Out: the same messages, changed in place. Never: anything but its own
fields: an effect is a frozen value within a part, and so belongs to the cache key.
"""

from __future__ import annotations

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2


class Effect:
    """One policy's share in a part. Kinds of effects are frozen dataclasses that override what they change.

    The hooks are called while the messages are built, before extensions are packed, in the order of the effects.
    """

    __slots__ = ()

    def on_inbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Change how requests to the workload are handled; the routes stand inside."""

    def on_inbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Change how connections to the workload are handled."""

    def on_local_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions | None
    ) -> None:
        """Change how the workload is reached; there are options where it speaks HTTP."""

    def on_outbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Change how the workload's requests are handled; the routes stand inside."""

    def on_outbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Change how the workload's connections are handled."""

    def on_destination_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions
    ) -> None:
        """Change how a service is reached."""
