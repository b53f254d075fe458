"""MeshRetry: which requests are tried again, how often and after what time. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshRetry`, frozen, and the rules that it breaks; that of a new mesh.
Never: what Envoy makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from kumafast.errors import Violation
from kumafast.resources.conf_rules import MUST_BE_DEFINED, MUST_NOT_BE_EMPTY, check_counts, check_durations
from kumafast.resources.durations import GoDuration, nanoseconds
from kumafast.resources.fields import Count, Tags, Text, Whole
from kumafast.resources.header_match import HeaderMatch
from kumafast.resources.resource import Frozen, PolicyTraits, Resource, ResourceType, Scope
from kumafast.resources.target_ref import (
    MESH,
    MESH_EXTERNAL_SERVICE,
    MESH_GATEWAY,
    MESH_HTTP_ROUTE,
    PROXIES,
    SERVICES,
    check_target_ref,
)
from kumafast.resources.target_ref_policy import OutboundSpec, TargetRefPolicy

_TOP_KINDS = (*PROXIES, MESH_HTTP_ROUTE)
_TO_KINDS = (MESH, *SERVICES, MESH_HTTP_ROUTE)
_ONLY_TO_EVERYTHING = (MESH_GATEWAY, MESH_HTTP_ROUTE)

HTTP_REASONS = {
    "5xx": "5xx",
    "GatewayError": "gateway-error",
    "Reset": "reset",
    "Retriable4xx": "retriable-4xx",
    "ConnectFailure": "connect-failure",
    "EnvoyRatelimited": "envoy-ratelimited",
    "RefusedStream": "refused-stream",
    "Http3PostConnectFailure": "http3-post-connect-failure",
}
"""Why requests may be tried again, and what Envoy calls that."""

GRPC_REASONS = {
    "Canceled": "cancelled",
    "DeadlineExceeded": "deadline-exceeded",
    "Internal": "internal",
    "ResourceExhausted": "resource-exhausted",
    "Unavailable": "unavailable",
}
"""Why calls of gRPC may be tried again, and what Envoy calls that. Kuma sends `canceled`, which Envoy does not know."""

METHODS = {
    f"HttpMethod{method.capitalize()}": method
    for method in ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
}
"""Methods that requests must have to be tried again."""

_STATUS = re.compile(r"[0-9]{3}", re.ASCII)

Reason = Annotated[Text, BeforeValidator(lambda value: str(value) if type(value) is int else value)]
"""A reason, a method or a status; a status may be written as a number."""


class BackOff(Frozen):
    """The time before the first retry, and before any; it grows with each."""

    base_interval: GoDuration | None = None
    max_interval: GoDuration | None = None


class ResetHeader(Frozen):
    """A header of an answer that says when to try again: in so many seconds, or at a time."""

    name: Text = ""
    format: Literal["Seconds", "UnixTimestamp"] = "Seconds"


class RateLimitedBackOff(Frozen):
    """The time before a retry where the answer says how long that is to be."""

    reset_headers: tuple[ResetHeader, ...] | None = None
    max_interval: GoDuration | None = None


class Predicate(Frozen):
    """Which instances are not tried again. `update_frequency` counts attempts."""

    predicate: Text = ""
    tags: Tags | None = None
    update_frequency: Whole = 2


class Tcp(Frozen):
    """How often it is tried to connect."""

    max_connect_attempt: Count | None = None


class Grpc(Frozen):
    """What holds for calls of gRPC; no retries at all is 0."""

    num_retries: Count | None = None
    per_try_timeout: GoDuration | None = None
    back_off: BackOff | None = None
    rate_limited_back_off: RateLimitedBackOff | None = None
    retry_on: tuple[Reason, ...] | None = None


class Http(Grpc):
    """What holds for requests; no retries at all is 0."""

    retriable_response_headers: tuple[HeaderMatch, ...] | None = None
    retriable_request_headers: tuple[HeaderMatch, ...] | None = None
    host_selection: tuple[Predicate, ...] | None = None
    host_selection_max_attempts: Whole | None = None


class Conf(Frozen):
    """One section for each family of protocols; where one is not set, nothing is tried again."""

    tcp: Tcp | None = None
    http: Http | None = None
    grpc: Grpc | None = None


class MeshRetry(TargetRefPolicy):
    """Retries of requests that proxies send."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshRetry",
        scope=Scope.MESH,
        path="meshretries",
        singular="Mesh Retry",
        plural="Mesh Retries",
        short_name="mr",
        is_in_federation=True,
        policy=PolicyTraits(order=1400, is_target_ref=True, has_to=True),
    )

    spec: OutboundSpec[Conf] = OutboundSpec()

    @classmethod
    def initial(cls, mesh: str) -> tuple[Resource, ...]:
        """That for all proxies."""
        again = {"numRetries": 5, "perTryTimeout": "16s", "backOff": {"baseInterval": "25ms", "maxInterval": "250ms"}}
        conf = {"tcp": {"maxConnectAttempt": 5}, "http": again, "grpc": again}
        everything = {"kind": MESH}
        spec = {"targetRef": everything, "to": [{"targetRef": everything, "default": conf}]}
        return (cls.model_validate({"name": f"mesh-retry-all-{mesh}", "mesh": mesh, "spec": spec}),)

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh retries that this one breaks, in the order of Kuma's checks."""
        top = self.spec.top
        yield from check_target_ref("spec.targetRef", top, kinds=_TOP_KINDS)
        if not self.spec.to:
            yield Violation("spec.to", "needs at least one item")
        kinds = (MESH, MESH_EXTERNAL_SERVICE) if top.kind in _ONLY_TO_EVERYTHING else _TO_KINDS
        for i, item in enumerate(self.spec.to):
            yield from check_target_ref(f"spec.to[{i}].targetRef", item.target_ref, kinds=kinds)
            # As in Kuma, the path of a conf has `conf` in it.
            yield from _check_conf(f"spec.to[{i}].default.conf", item.default or Conf())


def _check_conf(path: str, conf: Conf) -> Iterator[Violation]:
    if conf == Conf():
        yield Violation(path, "at least one of the 'tcp', 'http', 'grpc' must be specified")
    if conf.tcp is not None:
        if conf.tcp.max_connect_attempt is None:
            yield Violation(f"{path}.tcp", MUST_NOT_BE_EMPTY)
        yield from check_counts(f"{path}.tcp", conf.tcp, "maxConnectAttempt")
    if conf.http is not None:
        yield from _check_http(f"{path}.http", conf.http)
    if conf.grpc is not None:
        if conf.grpc == Grpc():
            yield Violation(f"{path}.grpc", MUST_NOT_BE_EMPTY)
        yield from _check_times(f"{path}.grpc", conf.grpc)
        for i, reason in enumerate(conf.grpc.retry_on or ()):
            if reason not in GRPC_REASONS:
                yield Violation(f"{path}.grpc.retryOn[{i}]", f"unknown item '{reason}'")


def _check_http(path: str, http: Http) -> Iterator[Violation]:
    if http == Http(host_selection_max_attempts=http.host_selection_max_attempts):
        yield Violation(path, MUST_NOT_BE_EMPTY)
    yield from _check_times(path, http)
    for i, reason in enumerate(http.retry_on or ()):
        if reason not in HTTP_REASONS and reason not in METHODS and status(reason) is None:
            yield Violation(f"{path}.retryOn[{i}]", f"unknown item '{reason}'")
    yield from _check_predicates(f"{path}.hostSelection", http.host_selection or ())
    for name, headers in (
        ("retriableResponseHeaders", http.retriable_response_headers),
        ("retriableRequestHeaders", http.retriable_request_headers),
    ):
        for i, header in enumerate(headers or ()):
            yield from header.violations(f"{path}.{name}[{i}]")


def status(reason: str) -> int | None:
    """The status that a reason is; None where it is none that has a name."""
    return int(reason) if _STATUS.fullmatch(reason) and int(reason) in list(HTTPStatus) else None


def _check_times(path: str, section: Grpc) -> Iterator[Violation]:
    if section.back_off is not None:
        yield from _check_back_off(f"{path}.backOff", section.back_off)
    limited = section.rate_limited_back_off
    if limited is None:
        return
    where = f"{path}.rateLimitedBackOff"
    if limited.max_interval is not None and nanoseconds(limited.max_interval) <= 0:
        yield Violation(f"{where}.maxInterval", "must be defined and greater than zero")
    if not limited.reset_headers:
        # Kuma lets an empty list pass, and its Envoys refuse the listener.
        yield Violation(f"{where}.resetHeaders", MUST_BE_DEFINED)
    for i, header in enumerate(limited.reset_headers or ()):
        if not header.name:
            yield Violation(f"{where}.resetHeaders[{i}].name", MUST_BE_DEFINED)


def _check_back_off(path: str, back_off: BackOff) -> Iterator[Violation]:
    if back_off == BackOff():
        yield Violation(path, MUST_NOT_BE_EMPTY)
    # Kuma lets these pass, and its Envoys refuse the listener.
    yield from check_durations(path, back_off, "baseInterval", "maxInterval")
    base, longest = back_off.base_interval, back_off.max_interval
    if base is not None and longest is not None and 0 < nanoseconds(longest) < nanoseconds(base):
        yield Violation(f"{path}.maxInterval", "has to be at least as long as baseInterval")


def _check_predicates(path: str, predicates: tuple[Predicate, ...]) -> Iterator[Violation]:
    has_priorities = False
    for i, each in enumerate(predicates):
        match each.predicate:
            case "OmitHostsWithTags":
                if each.tags is None:
                    yield Violation(f"{path}[{i}].tags", MUST_BE_DEFINED)
            case "OmitPreviousPriorities":
                if has_priorities:
                    yield Violation(f"{path}[{i}].predicate", f"{each.predicate} must only be specified once")
                if each.update_frequency <= 0:
                    yield Violation(f"{path}[{i}].updateFrequency", "must be defined and greater than zero")
                has_priorities = True
            case "OmitPreviousHosts":
                pass
            case _:
                yield Violation(f"{path}[{i}].predicate", f"unknown predicate type '{each.predicate}'")
