"""Which instances of a service are left out, as Envoy is told; what both forms of the policy come to.

In: what is looked for, in numbers. Out: `OutlierDetection`. Never: an instance left out for what nobody asked to look
for: Envoy's own values would do that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from envoy.config.cluster.v3 import outlier_detection_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from kumafast.generation import fields

_ALWAYS = 100
_NEVER = 0


@dataclass(frozen=True, slots=True)
class InARow:
    """So many failures one after the other; as many as Envoy has it where `count` is None."""

    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """An instance beside the others: from so many of them and of requests on, and how far off it may be.

    `bound`: thousandths of a standard deviation for the rate of successes, percent for that of failures.
    """

    minimum_hosts: int | None = None
    request_volume: int | None = None
    bound: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """What is looked for; None is not."""

    interval: timedelta | None = None
    base_ejection_time: timedelta | None = None
    max_ejection_percent: int | None = None
    splits_origins: bool = False
    """Whether failures on the way to an instance are counted apart from its own."""
    failures: InARow | None = None
    gateway_failures: InARow | None = None
    local_origin_failures: InARow | None = None
    success_rate: Share | None = None
    failure_percentage: Share | None = None


def outlier_detection(written: Outliers) -> outlier_detection_pb2.OutlierDetection:
    """What Envoy is told of it."""
    made = outlier_detection_pb2.OutlierDetection(split_external_local_origin_errors=written.splits_origins)
    if written.interval is not None:
        made.interval.CopyFrom(fields.duration(written.interval))
    if written.base_ejection_time is not None:
        made.base_ejection_time.CopyFrom(fields.duration(written.base_ejection_time))
    _set(made.max_ejection_percent, written.max_ejection_percent)
    for failures, enforced, consecutive in (
        (written.failures, made.enforcing_consecutive_5xx, made.consecutive_5xx),
        (
            written.gateway_failures,
            made.enforcing_consecutive_gateway_failure,
            made.consecutive_gateway_failure,
        ),
        (
            written.local_origin_failures,
            made.enforcing_consecutive_local_origin_failure,
            made.consecutive_local_origin_failure,
        ),
    ):
        enforced.value = _NEVER if failures is None else _ALWAYS
        if failures is not None:
            _set(consecutive, failures.count)
    _compare_shares(made, written)
    return made


def _compare_shares(made: outlier_detection_pb2.OutlierDetection, written: Outliers) -> None:
    rate, failures = written.success_rate, written.failure_percentage
    # Where errors are split, each share is looked at for the instance's own errors and for those on the way to it.
    for enforced in (made.enforcing_success_rate, made.enforcing_local_origin_success_rate):
        enforced.value = _NEVER if rate is None else _ALWAYS
    for enforced in (made.enforcing_failure_percentage, made.enforcing_failure_percentage_local_origin):
        enforced.value = _NEVER if failures is None else _ALWAYS
    if rate is not None:
        _set(made.success_rate_minimum_hosts, rate.minimum_hosts)
        _set(made.success_rate_request_volume, rate.request_volume)
        _set(made.success_rate_stdev_factor, rate.bound)
    if failures is not None:
        _set(made.failure_percentage_minimum_hosts, failures.minimum_hosts)
        _set(made.failure_percentage_request_volume, failures.request_volume)
        _set(made.failure_percentage_threshold, failures.bound)


def _set(field: UInt32Value, value: int | None) -> None:
    if value is not None:
        field.value = value
