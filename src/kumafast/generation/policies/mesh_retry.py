"""What MeshRetry changes: which requests are tried again.

In: a merged conf. Out: effects. Never: retries of a protocol that the conf says nothing about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.retry.host.omit_host_metadata.v3 import omit_host_metadata_config_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2

from kumafast.generation import fields, protocols, retries
from kumafast.generation.effects import Effect
from kumafast.generation.header_matchers import header_matcher
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.mesh_retry import (
    GRPC_REASONS,
    HTTP_REASONS,
    METHODS,
    Conf,
    Grpc,
    Http,
    MeshRetry,
    Predicate,
    RateLimitedBackOff,
    status,
)

KIND = MeshRetry.type.name

_Policy = route_components_pb2.RetryPolicy
_RESET_FORMATS = {"Seconds": _Policy.SECONDS, "UnixTimestamp": _Policy.UNIX_TIMESTAMP}
_RESPONSE_HEADERS = "retriable-headers"
_PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
_OMIT_METADATA = "envoy.retry_host_predicates.omit_host_metadata"
_PREVIOUS_PRIORITIES = "envoy.retry_priorities.previous_priorities"
_LOAD_BALANCER = "envoy.lb"


@dataclass(frozen=True, slots=True)
class Retried(Effect):
    """Requests that are tried again, or calls of gRPC."""

    section: Grpc

    def on_outbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Say it for each route that leads anywhere."""
        policy = _http_policy(self.section) if isinstance(self.section, Http) else _grpc_policy(self.section)
        for host in manager.route_config.virtual_hosts:
            for route in host.routes:
                if route.HasField("route"):
                    route.route.retry_policy.CopyFrom(policy)


@dataclass(frozen=True, slots=True)
class Reconnected(Effect):
    """Connections that are tried several times."""

    attempts: int

    def on_outbound_tcp(self, proxy: tcp_proxy_pb2.TcpProxy) -> None:
        """Say how often it is tried to connect."""
        proxy.max_connect_attempts.value = self.attempts


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound."""
    written = Conf.model_validate(conf)
    if not protocols.is_http(protocol):
        attempts = None if written.tcp is None else written.tcp.max_connect_attempt
        return None if attempts is None else Reconnected(attempts)
    section = written.grpc if protocols.is_grpc(protocol) else written.http
    return None if section is None or section.num_retries == 0 else Retried(section)


def _http_policy(http: Http) -> route_components_pb2.RetryPolicy:
    policy = retries.limited(http)
    _wait_as_told(policy, http.rate_limited_back_off)
    written = http.retry_on or ()
    codes = [code for reason in written if (code := status(reason)) is not None]
    retries.add_reasons(policy, [HTTP_REASONS[each] for each in written if each in HTTP_REASONS], codes)
    if http.retriable_response_headers:
        # Kuma leaves that to the user, whose policies have no word for it.
        policy.retry_on += f",{_RESPONSE_HEADERS}"
    for reason in written:
        if reason in METHODS:
            retries.add_method(policy, METHODS[reason])
    policy.retriable_request_headers.extend(map(header_matcher, http.retriable_request_headers or ()))
    policy.retriable_headers.extend(map(header_matcher, http.retriable_response_headers or ()))
    _choose_hosts(policy, http.host_selection or ())
    if http.host_selection_max_attempts is not None:
        policy.host_selection_retry_max_attempts = http.host_selection_max_attempts
    return policy


def _grpc_policy(grpc: Grpc) -> route_components_pb2.RetryPolicy:
    policy = retries.limited(grpc)
    _wait_as_told(policy, grpc.rate_limited_back_off)
    policy.retry_on = ",".join(GRPC_REASONS[reason] for reason in grpc.retry_on or ()) or retries.ON_GRPC
    return policy


def _wait_as_told(policy: route_components_pb2.RetryPolicy, back_off: RateLimitedBackOff | None) -> None:
    """Wait as long as the answer says."""
    if back_off is None:
        return
    told = policy.rate_limited_retry_back_off
    for header in back_off.reset_headers or ():
        told.reset_headers.add(name=header.name, format=_RESET_FORMATS[header.format])
    if back_off.max_interval is not None:
        told.max_interval.CopyFrom(fields.duration(as_timedelta(back_off.max_interval)))


def _choose_hosts(policy: route_components_pb2.RetryPolicy, predicates: Iterable[Predicate]) -> None:
    """Say which instances are not tried again."""
    for each in predicates:
        match each.predicate:
            case "OmitPreviousHosts":
                config = previous_hosts_pb2.PreviousHostsPredicate()
                policy.retry_host_predicate.add(name=_PREVIOUS_HOSTS, typed_config=fields.packed(config))
            case "OmitHostsWithTags":
                tags = fields.metadata({_LOAD_BALANCER: tuple((each.tags or {}).items())})
                omitted = omit_host_metadata_config_pb2.OmitHostMetadataConfig(metadata_match=tags)
                policy.retry_host_predicate.add(name=_OMIT_METADATA, typed_config=fields.packed(omitted))
            case "OmitPreviousPriorities":
                priorities = previous_priorities_config_pb2.PreviousPrioritiesConfig(
                    update_frequency=each.update_frequency
                )
                policy.retry_priority.name = _PREVIOUS_PRIORITIES
                policy.retry_priority.typed_config.CopyFrom(fields.packed(priorities))
