"""What Retry changes: which requests are tried again.

In: the conf of the one policy that applies. Out: effects. Never: a mixture with the retries that there are without it;
a policy that says nothing about a protocol ends these too, as in Kuma.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from kumafast.generation import defaults, fields, protocols, requests
from kumafast.generation.effects import Effect
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.retry import Conf, Grpc, Http, Retry

KIND = Retry.type.name

_STATUS_CODES = "retriable-status-codes"
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
        for host in manager.route_config.virtual_hosts:
            for action in requests.actions(host):
                action.ClearField("retry_policy")
            if policy is not None:
                host.retry_policy.CopyFrom(policy)

    def on_outbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Say how often it is tried to connect."""
        if self.connect_attempts is None:
            proxy.ClearField("max_connect_attempts")
        else:
            proxy.max_connect_attempts.value = self.connect_attempts


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect:
    """What changes in the listener of an outbound."""
    written = Conf.model_validate(conf)
    if protocols.is_grpc(protocol):
        return Retried(grpc=written.grpc)
    if protocols.is_http(protocol):
        return Retried(http=written.http)
    return Retried(connect_attempts=None if written.tcp is None else written.tcp.max_connect_attempts)


def _http_policy(http: Http) -> route_components_pb2.RetryPolicy:
    policy = _policy(http)
    reasons = [_envoy_name(reason) for reason in http.retry_on] or defaults.RETRY_ON_HTTP.split(",")
    if http.retriable_status_codes:
        policy.retriable_status_codes.extend(http.retriable_status_codes)
        reasons += [] if _STATUS_CODES in reasons else [_STATUS_CODES]
    policy.retry_on = ",".join(reasons)
    for method in http.retriable_methods:
        header = policy.retriable_request_headers.add(name=":method")
        header.string_match.exact = method
    return policy


def _grpc_policy(grpc: Grpc) -> route_components_pb2.RetryPolicy:
    policy = _policy(grpc)
    policy.retry_on = ",".join(map(_envoy_name, grpc.retry_on)) or defaults.RETRY_ON_GRPC
    return policy


def _policy(written: Http | Grpc) -> route_components_pb2.RetryPolicy:
    policy = route_components_pb2.RetryPolicy()
    if written.num_retries is not None:
        policy.num_retries.value = written.num_retries
    if written.per_try_timeout is not None:
        policy.per_try_timeout.CopyFrom(fields.duration(as_timedelta(written.per_try_timeout)))
    if written.back_off is not None:
        for field, value in (
            (policy.retry_back_off.base_interval, written.back_off.base_interval),
            (policy.retry_back_off.max_interval, written.back_off.max_interval),
        ):
            if value is not None:
                field.CopyFrom(fields.duration(as_timedelta(value)))
    return policy


def _envoy_name(reason: str) -> str:
    return _ENVOY_NAMES.get(reason, reason.replace("_", "-"))
