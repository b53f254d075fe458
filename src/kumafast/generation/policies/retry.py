"""What Retry changes: which requests are tried again.

In: the conf of the one policy that applies. Out: effects. Never: retries of a protocol that it says nothing about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from kumafast.generation import protocols, retries
from kumafast.generation.effects import Effect
from kumafast.resources.policies.retry import Conf, Grpc, Http, Retry

KIND = Retry.type.name

_ENVOY_NAMES = {"all_5xx": "5xx"}


@dataclass(frozen=True, slots=True)
class Retried(Effect):
    """What is tried again; None for nothing. A part has the section of its own protocol alone."""

    http: Http | None = None
    grpc: Grpc | None = None
    connect_attempts: int | None = None

    def on_outbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Say it for all routes at once."""
        policy = None
        if self.http is not None:
            policy = _http_policy(self.http)
        elif self.grpc is not None:
            policy = _grpc_policy(self.grpc)
        if policy is not None:
            for host in manager.route_config.virtual_hosts:
                host.retry_policy.CopyFrom(policy)

    def on_outbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Say how often it is tried to connect."""
        if self.connect_attempts is not None:
            proxy.max_connect_attempts.value = self.connect_attempts


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound."""
    written = Conf.model_validate(conf)
    if protocols.is_grpc(protocol):
        retried = Retried(grpc=written.grpc)
    elif protocols.is_http(protocol):
        retried = Retried(http=written.http)
    else:
        retried = Retried(connect_attempts=None if written.tcp is None else written.tcp.max_connect_attempts)
    return None if retried == Retried() else retried


def _http_policy(http: Http) -> route_components_pb2.RetryPolicy:
    policy = retries.limited(http)
    retries.add_reasons(policy, [_envoy_name(reason) for reason in http.retry_on], http.retriable_status_codes)
    for method in http.retriable_methods:
        retries.add_method(policy, method)
    return policy


def _grpc_policy(grpc: Grpc) -> route_components_pb2.RetryPolicy:
    policy = retries.limited(grpc)
    policy.retry_on = ",".join(map(_envoy_name, grpc.retry_on)) or retries.ON_GRPC
    return policy


def _envoy_name(reason: str) -> str:
    return _ENVOY_NAMES.get(reason, reason.replace("_", "-"))
