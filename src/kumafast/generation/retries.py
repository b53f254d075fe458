"""What policies about retries of either family have in common: how often, for how long, after what time.

In: numbers and durations. Out: a `RetryPolicy`. Never: what is tried again; each family has its own words for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from envoy.config.route.v3 import route_components_pb2

from kumafast.generation import fields
from kumafast.resources.durations import as_timedelta

ON_HTTP = "gateway-error,connect-failure,refused-stream"
"""What requests are tried again for where no policy says it."""
ON_GRPC = "cancelled,connect-failure,gateway-error,refused-stream,reset,resource-exhausted,unavailable"
STATUS_CODES = "retriable-status-codes"


class BackOff(Protocol):
    """The time before the first retry, and before any; as durations are written."""

    @property
    def base_interval(self) -> str | None: ...
    @property
    def max_interval(self) -> str | None: ...


class Limits(Protocol):
    """What both families say of retries."""

    @property
    def num_retries(self) -> int | None: ...
    @property
    def per_try_timeout(self) -> str | None: ...
    @property
    def back_off(self) -> BackOff | None: ...


def limited(written: Limits) -> route_components_pb2.RetryPolicy:
    """How often it is tried again, for how long, and after what time; what is not said is left to Envoy."""
    policy = route_components_pb2.RetryPolicy()
    if written.num_retries is not None:
        policy.num_retries.value = written.num_retries
    if written.per_try_timeout is not None:
        policy.per_try_timeout.CopyFrom(fields.duration(as_timedelta(written.per_try_timeout)))
    if written.back_off is not None:
        _wait(policy.retry_back_off, written.back_off)
    return policy


def _wait(wait: route_components_pb2.RetryPolicy.RetryBackOff, written: BackOff) -> None:
    base = None if written.base_interval is None else as_timedelta(written.base_interval)
    longest = None if written.max_interval is None else as_timedelta(written.max_interval)
    if base is not None:
        wait.base_interval.CopyFrom(fields.duration(base))
    if longest is not None:
        # Each may be another policy's word. Envoy refuses a longest time that is shorter than the first.
        wait.max_interval.CopyFrom(fields.duration(longest if base is None else max(base, longest)))


def add_reasons(policy: route_components_pb2.RetryPolicy, reasons: Sequence[str], codes: Sequence[int]) -> None:
    """Try again for reasons, or for those that hold where none is named, and for statuses."""
    named = list(reasons) or ON_HTTP.split(",")
    if codes:
        policy.retriable_status_codes.extend(codes)
        named += [] if STATUS_CODES in named else [STATUS_CODES]
    policy.retry_on = ",".join(named)


def add_method(policy: route_components_pb2.RetryPolicy, method: str) -> None:
    """Try again only what has one of the methods that are added."""
    header = policy.retriable_request_headers.add(name=":method")
    header.string_match.exact = method
