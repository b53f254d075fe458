"""What CircuitBreaker changes: how much may be under way to a service, and which instances are left out.

In: the conf of the one policy that applies. Out: effects. Never: an instance left out for what no detector looks for:
Envoy's own values would do that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from kumafast.generation import fields
from kumafast.generation.effects import Effect
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.circuit_breaker import CircuitBreaker, Conf, Detectors, Thresholds

KIND = CircuitBreaker.type.name

_ALWAYS = 100
_NEVER = 0


@dataclass(frozen=True, slots=True)
class Broken(Effect):
    """Limits of what is under way, and instances that are left out."""

    conf: Conf

    def on_destination_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions
    ) -> None:
        """Set the limits that there are, and look for what the detectors look for."""
        if self.conf.thresholds is not None:
            _limit(cluster.circuit_breakers.thresholds[0], self.conf.thresholds)
        cluster.outlier_detection.CopyFrom(_outlier_detection(self.conf))


def destination(conf: Mapping[str, Any], protocol: str) -> Effect:
    """What changes in the cluster of an outbound."""
    return Broken(Conf.model_validate(conf))


def _limit(thresholds: circuit_breaker_pb2.CircuitBreakers.Thresholds, written: Thresholds) -> None:
    for field, value in (
        (thresholds.max_connections, written.max_connections),
        (thresholds.max_pending_requests, written.max_pending_requests),
        (thresholds.max_retries, written.max_retries),
        (thresholds.max_requests, written.max_requests),
    ):
        if value is not None:
            field.value = value


def _outlier_detection(conf: Conf) -> outlier_detection_pb2.OutlierDetection:
    outliers = outlier_detection_pb2.OutlierDetection(
        split_external_local_origin_errors=conf.split_external_and_local_errors
    )
    if conf.interval is not None:
        outliers.interval.CopyFrom(fields.duration(as_timedelta(conf.interval)))
    if conf.base_ejection_time is not None:
        outliers.base_ejection_time.CopyFrom(fields.duration(as_timedelta(conf.base_ejection_time)))
    if conf.max_ejection_percent is not None:
        outliers.max_ejection_percent.value = conf.max_ejection_percent
    detectors = conf.detectors or Detectors()
    _count_errors(outliers, detectors)
    _compare_shares(outliers, detectors)
    return outliers


def _count_errors(outliers: outlier_detection_pb2.OutlierDetection, detectors: Detectors) -> None:
    for errors, enforced, consecutive in (
        (detectors.total_errors, outliers.enforcing_consecutive_5xx, outliers.consecutive_5xx),
        (
            detectors.gateway_errors,
            outliers.enforcing_consecutive_gateway_failure,
            outliers.consecutive_gateway_failure,
        ),
        (
            detectors.local_errors,
            outliers.enforcing_consecutive_local_origin_failure,
            outliers.consecutive_local_origin_failure,
        ),
    ):
        enforced.value = _NEVER if errors is None else _ALWAYS
        if errors is not None and errors.consecutive is not None:
            consecutive.value = errors.consecutive


def _compare_shares(outliers: outlier_detection_pb2.OutlierDetection, detectors: Detectors) -> None:
    deviation, failure = detectors.standard_deviation, detectors.failure
    # Where errors are split, each share is looked at for the instance's own errors and for those on the way to it.
    for enforced in (outliers.enforcing_success_rate, outliers.enforcing_local_origin_success_rate):
        enforced.value = _NEVER if deviation is None else _ALWAYS
    for enforced in (outliers.enforcing_failure_percentage, outliers.enforcing_failure_percentage_local_origin):
        enforced.value = _NEVER if failure is None else _ALWAYS
    if deviation is not None:
        if deviation.request_volume is not None:
            outliers.success_rate_request_volume.value = deviation.request_volume
        if deviation.minimum_hosts is not None:
            outliers.success_rate_minimum_hosts.value = deviation.minimum_hosts
        if deviation.factor is not None:
            outliers.success_rate_stdev_factor.value = int(deviation.factor * 1000)
    if failure is not None:
        if failure.request_volume is not None:
            outliers.failure_percentage_request_volume.value = failure.request_volume
        if failure.minimum_hosts is not None:
            outliers.failure_percentage_minimum_hosts.value = failure.minimum_hosts
        if failure.threshold is not None:
            outliers.failure_percentage_threshold.value = failure.threshold
