"""Retry: which requests to a service are tried again, how often and after what time.

In: documents in Kuma's 2.14 form. Out: `Retry`, frozen, and the rules that it breaks. Never: what Envoy makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from kumafast.errors import Violation
from kumafast.resources.connection_policy import ConnectionPolicy, check_service_destinations, check_sources
from kumafast.resources.durations import ProtoDuration, nanoseconds
from kumafast.resources.fields import Count
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope

Method = Literal["NONE", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"]

HttpReason = Literal[
    "all_5xx",
    "gateway_error",
    "reset",
    "connect_failure",
    "envoy_ratelimited",
    "retriable_4xx",
    "refused_stream",
    "retriable_status_codes",
    "retriable_headers",
    "http3_post_connect_failure",
]

GrpcReason = Literal["cancelled", "deadline_exceeded", "internal", "resource_exhausted", "unavailable"]

_EMPTY = "field cannot be empty"
_POSITIVE = "has to be greater than 0"
_POSITIVE_IF_SET = "has to be greater than 0 when defined"


class BackOff(Frozen):
    """The time before the first retry, and before any; it grows with each."""

    base_interval: ProtoDuration | None = None
    max_interval: ProtoDuration | None = None


class Http(Frozen):
    """What holds for requests; what is not set has Envoy's own value."""

    num_retries: Count | None = None
    per_try_timeout: ProtoDuration | None = None
    back_off: BackOff | None = None
    retriable_status_codes: tuple[Count, ...] = ()
    retriable_methods: tuple[Method, ...] = ()
    retry_on: tuple[HttpReason, ...] = ()


class Tcp(Frozen):
    """How often it is tried to connect."""

    max_connect_attempts: Count = 0


class Grpc(Frozen):
    """What holds for calls of gRPC."""

    retry_on: tuple[GrpcReason, ...] = ()
    num_retries: Count | None = None
    per_try_timeout: ProtoDuration | None = None
    back_off: BackOff | None = None


class Conf(Frozen):
    """One section for each family of protocols; where one is not set, nothing is tried again."""

    http: Http | None = None
    tcp: Tcp | None = None
    grpc: Grpc | None = None


class Retry(ConnectionPolicy):
    """Retries of requests from some dataplanes to some services."""

    type: ClassVar[ResourceType] = ResourceType(
        name="Retry",
        scope=Scope.MESH,
        path="retries",
        singular="Retry",
        plural="Retries",
        is_in_federation=True,
        policy=PolicyTraits(order=1400, successor="MeshRetry", is_by_service=True),
    )

    conf: Conf | None = None

    def settings(self) -> Conf | None:
        """The retries that it sets."""
        return self.conf

    def violations(self) -> Iterator[Violation]:
        """Every rule of retries that this one breaks, in the order of Kuma's checks."""
        yield from check_sources("sources", self.sources)
        yield from check_service_destinations("destinations", self.destinations)
        conf = self.conf
        if conf is None:
            yield Violation("conf", "has to be defined")
            return
        if conf == Conf():
            yield Violation("conf", "missing protocol [grpc|http|tcp] configuration")
            return
        if conf.http is not None:
            yield from _check_http("conf.http", conf.http)
        if conf.grpc is not None:
            yield from _check_grpc("conf.grpc", conf.grpc)
        if conf.tcp is not None and not conf.tcp.max_connect_attempts:
            yield Violation("conf.tcp.maxConnectAttempts", _POSITIVE)


def _check_http(path: str, http: Http) -> Iterator[Violation]:
    if http == Http():
        yield Violation(path, _EMPTY)
    yield from _check_limits(path, http)
    for i, method in enumerate(http.retriable_methods):
        if method == "NONE":
            yield Violation(f"{path}.retriableMethods[{i}]", _EMPTY)
    for i, reason in enumerate(http.retry_on):
        if reason == "retriable_status_codes" and not http.retriable_status_codes:
            message = "retriableStatusCodes cannot be empty when this option is specified"
            yield Violation(f"{path}.retryOn[{i}]", message)


def _check_grpc(path: str, grpc: Grpc) -> Iterator[Violation]:
    if grpc == Grpc():
        yield Violation(path, _EMPTY)
    for message in sorted(_repeated(grpc.retry_on)):
        yield Violation(f"{path}.retryOn", message)
    yield from _check_limits(path, grpc)


def _repeated(values: Sequence[str]) -> Iterator[str]:
    for value in dict.fromkeys(values):
        places = [str(i) for i, each in enumerate(values) if each == value]
        if len(places) > 1:
            yield f'repeated value "{value}" at indexes [{", ".join(places)}]'


def _check_limits(path: str, section: Http | Grpc) -> Iterator[Violation]:
    if section.num_retries == 0:
        yield Violation(f"{path}.numRetries", _POSITIVE_IF_SET)
    if _is_nothing(section.per_try_timeout):
        yield Violation(f"{path}.perTryTimeout", _POSITIVE_IF_SET)
    if section.back_off is not None:
        yield from _check_back_off(f"{path}.backOff", section.back_off)


def _check_back_off(path: str, back_off: BackOff) -> Iterator[Violation]:
    base, longest = back_off.base_interval, back_off.max_interval
    if base is None:
        yield Violation(f"{path}.baseInterval", "has to be defined")
    elif _is_nothing(base):
        yield Violation(f"{path}.baseInterval", _POSITIVE)
    elif _is_nothing(longest):
        yield Violation(f"{path}.maxInterval", _POSITIVE_IF_SET)
    elif longest is not None and nanoseconds(longest) < nanoseconds(base):
        # Kuma lets this pass, and its Envoys refuse the listener.
        yield Violation(f"{path}.maxInterval", "has to be at least as long as baseInterval")


def _is_nothing(duration: str | None) -> bool:
    return duration is not None and nanoseconds(duration) <= 0
