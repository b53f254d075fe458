"""What MeshTimeout changes: limits of connections, requests and streams.

In: a merged conf. Out: effects; what the conf does not say has its value of `defaults`. Never: 0 as "at once": to Envoy
and in the conf it is "no limit".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from kumafast.generation import defaults, fields, protocols, requests
from kumafast.generation.effects import Effect
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.mesh_timeout import Conf, Http, MeshTimeout

KIND = MeshTimeout.type.name

_Manager: TypeAlias = http_connection_manager_pb2.HttpConnectionManager
_Options: TypeAlias = http_protocol_options_pb2.HttpProtocolOptions


@dataclass(frozen=True, slots=True)
class OutboundTimeouts(Effect):
    """Limits of what the workload sends, in an outbound's listener; those that its protocol lacks are default."""

    idle: timedelta = defaults.IDLE_TIMEOUT
    request: timedelta = defaults.REQUEST_TIMEOUT
    stream_idle: timedelta = defaults.STREAM_IDLE_TIMEOUT
    request_headers: timedelta = defaults.NO_TIMEOUT

    def on_outbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Limit how long a connection may be idle."""
        proxy.idle_timeout.CopyFrom(fields.duration(self.idle))

    def on_outbound_http(self, manager: _Manager) -> None:
        """Limit requests and streams."""
        _limit_requests(manager, request=self.request, stream_idle=self.stream_idle, headers=self.request_headers)


@dataclass(frozen=True, slots=True)
class ClusterTimeouts(Effect):
    """Limits of connections to a service."""

    connect: timedelta = defaults.CONNECT_TIMEOUT
    idle: timedelta = defaults.IDLE_TIMEOUT
    max_stream: timedelta = defaults.NO_TIMEOUT
    max_connection: timedelta = defaults.NO_TIMEOUT

    def on_destination_cluster(self, cluster: cluster_pb2.Cluster, options: _Options) -> None:
        """Limit connections; those of HTTP are kept in a pool, so that their idleness is the cluster's matter."""
        cluster.connect_timeout.CopyFrom(fields.duration(self.connect))
        if options.HasField("common_http_protocol_options"):
            _limit_connections(options, idle=self.idle, stream=self.max_stream, connection=self.max_connection)


@dataclass(frozen=True, slots=True)
class InboundTimeouts(Effect):
    """Limits of what the workload is sent; those that its protocol does not have are default."""

    connect: timedelta = defaults.INBOUND_CONNECT_TIMEOUT
    idle: timedelta = defaults.INBOUND_IDLE_TIMEOUT
    request: timedelta = defaults.NO_TIMEOUT
    stream_idle: timedelta = defaults.INBOUND_STREAM_IDLE_TIMEOUT
    max_stream: timedelta = defaults.NO_TIMEOUT
    max_connection: timedelta = defaults.NO_TIMEOUT
    request_headers: timedelta = defaults.NO_TIMEOUT

    def on_inbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Limit how long a connection may be idle."""
        proxy.idle_timeout.CopyFrom(fields.duration(self.idle))

    def on_inbound_http(self, manager: _Manager) -> None:
        """Limit requests and streams."""
        _limit_requests(manager, request=self.request, stream_idle=self.stream_idle, headers=self.request_headers)
        manager.stream_idle_timeout.CopyFrom(fields.duration(self.stream_idle))

    def on_local_cluster(self, cluster: cluster_pb2.Cluster, options: _Options | None) -> None:
        """Limit connections to the workload."""
        cluster.connect_timeout.CopyFrom(fields.duration(self.connect))
        if options is not None:
            _limit_connections(options, idle=self.idle, stream=self.max_stream, connection=self.max_connection)


@dataclass(frozen=True, slots=True)
class GatewayTimeouts(Effect):
    """Limits of what a gateway takes in; those that are not said stay as they are."""

    idle: timedelta | None = None
    stream_idle: timedelta | None = None
    request_headers: timedelta | None = None

    def on_gateway_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Limit how long a connection may be idle."""
        if self.idle is not None:
            proxy.idle_timeout.CopyFrom(fields.duration(self.idle))

    def on_gateway_http(self, manager: _Manager) -> None:
        """Limit connections and streams; what requests may take is a matter of their routes."""
        if self.idle is not None:
            manager.common_http_protocol_options.idle_timeout.CopyFrom(fields.duration(self.idle))
        if self.stream_idle is not None:
            manager.stream_idle_timeout.CopyFrom(fields.duration(self.stream_idle))
        if self.request_headers is not None:
            manager.request_headers_timeout.CopyFrom(fields.duration(self.request_headers))


@dataclass(frozen=True, slots=True)
class RouteTimeouts(Effect):
    """Limits of requests that a gateway sends on; those that are not said stay as they are."""

    request: timedelta | None = None
    stream_idle: timedelta | None = None

    def on_outbound_http(self, manager: _Manager) -> None:
        """Limit requests and streams."""
        for host in manager.route_config.virtual_hosts:
            for action in requests.actions(host):
                if self.request is not None:
                    action.timeout.CopyFrom(fields.duration(self.request))
                if self.stream_idle is not None:
                    action.idle_timeout.CopyFrom(fields.duration(self.stream_idle))


def gateway(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of a gateway."""
    written = Conf.model_validate(conf)
    http = written.http or Http()
    return _unless_default(
        GatewayTimeouts(
            idle=_said(written.idle_timeout),
            stream_idle=_said(http.stream_idle_timeout),
            request_headers=_said(http.request_headers_timeout),
        )
    )


def route(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the routes of a gateway."""
    http = Conf.model_validate(conf).http or Http()
    return _unless_default(
        RouteTimeouts(request=_said(http.request_timeout), stream_idle=_said(http.stream_idle_timeout))
    )


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound."""
    written = Conf.model_validate(conf)
    if not protocols.is_http(protocol):
        return _unless_default(OutboundTimeouts(idle=_or(written.idle_timeout, defaults.IDLE_TIMEOUT)))
    http = written.http or Http()
    return _unless_default(
        OutboundTimeouts(
            request=_or(http.request_timeout, defaults.REQUEST_TIMEOUT),
            stream_idle=_or(http.stream_idle_timeout, defaults.STREAM_IDLE_TIMEOUT),
            request_headers=_or(http.request_headers_timeout, defaults.NO_TIMEOUT),
        )
    )


def destination(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the cluster of an outbound."""
    written = Conf.model_validate(conf)
    connect = _or(written.connection_timeout, defaults.CONNECT_TIMEOUT)
    if not protocols.is_http(protocol):
        return _unless_default(ClusterTimeouts(connect=connect))
    http = written.http or Http()
    return _unless_default(
        ClusterTimeouts(
            connect=connect,
            idle=_or(written.idle_timeout, defaults.IDLE_TIMEOUT),
            max_stream=_or(http.max_stream_duration, defaults.NO_TIMEOUT),
            max_connection=_or(http.max_connection_duration, defaults.NO_TIMEOUT),
        )
    )


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener and the local cluster of an inbound."""
    written = Conf.model_validate(conf)
    connect = _or(written.connection_timeout, defaults.INBOUND_CONNECT_TIMEOUT)
    idle = _or(written.idle_timeout, defaults.INBOUND_IDLE_TIMEOUT)
    if not protocols.is_http(protocol):
        return _unless_default(InboundTimeouts(connect=connect, idle=idle))
    http = written.http or Http()
    return _unless_default(
        InboundTimeouts(
            connect=connect,
            idle=idle,
            request=_or(http.request_timeout, defaults.NO_TIMEOUT),
            stream_idle=_or(http.stream_idle_timeout, defaults.INBOUND_STREAM_IDLE_TIMEOUT),
            max_stream=_or(http.max_stream_duration, defaults.NO_TIMEOUT),
            max_connection=_or(http.max_connection_duration, defaults.NO_TIMEOUT),
            request_headers=_or(http.request_headers_timeout, defaults.NO_TIMEOUT),
        )
    )


def _unless_default(effect: Effect) -> Effect | None:
    # Values that hold anyway are no effect, so that parts with and without such a policy are the same part.
    return None if effect == type(effect)() else effect


def _said(written: str | None) -> timedelta | None:
    return None if written is None else as_timedelta(written)


def _or(written: str | None, default: timedelta) -> timedelta:
    return default if written is None else as_timedelta(written)


def _limit_requests(manager: _Manager, *, request: timedelta, stream_idle: timedelta, headers: timedelta) -> None:
    manager.request_headers_timeout.CopyFrom(fields.duration(headers))
    for host in manager.route_config.virtual_hosts:
        for action in requests.actions(host):
            action.timeout.CopyFrom(fields.duration(request))
            action.idle_timeout.CopyFrom(fields.duration(stream_idle))


def _limit_connections(options: _Options, *, idle: timedelta, stream: timedelta, connection: timedelta) -> None:
    common = options.common_http_protocol_options
    common.idle_timeout.CopyFrom(fields.duration(idle))
    common.max_stream_duration.CopyFrom(fields.duration(stream))
    common.max_connection_duration.CopyFrom(fields.duration(connection))
