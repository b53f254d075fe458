"""What MeshCircuitBreaker changes: how much may be under way, and which instances of a service are left out.

In: a merged conf. Out: effects. Never: an instance left out for what no detector looks for: Envoy's own values would do
that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2, outlier_detection_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from kumafast.generation import fields
from kumafast.generation.effects import Effect
from kumafast.resources.conf_rules import decimal
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.mesh_circuit_breaker import (
    Conf,
    ConnectionLimits,
    Consecutive,
    Detectors,
    MeshCircuitBreaker,
    OutlierDetection,
)

KIND = MeshCircuitBreaker.type.name

_ALWAYS = 100
_NEVER = 0


@dataclass(frozen=True, slots=True)
class Broken(Effect):
    """Limits of what is under way, and instances that are left out."""

    limits: ConnectionLimits | None = None
    outliers: OutlierDetection | None = None

    def on_destination_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions
    ) -> None:
        """Limit what is under way to a service, and look for instances that fail."""
        self._change(cluster)

    def on_local_cluster(
        self, cluster: cluster_pb2.Cluster, options: http_protocol_options_pb2.HttpProtocolOptions | None
    ) -> None:
        """Limit what is under way to the workload, and look whether it fails."""
        self._change(cluster)

    def _change(self, cluster: cluster_pb2.Cluster) -> None:
        if self.limits is not None:
            _limit(cluster, self.limits)
        if self.outliers is not None:
            cluster.outlier_detection.CopyFrom(_outlier_detection(self.outliers))
            panic = self.outliers.healthy_panic_threshold
            if panic is not None:
                cluster.common_lb_config.healthy_panic_threshold.value = float(decimal(panic) or 0)


def destination(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the cluster of an outbound."""
    written = Conf.model_validate(conf)
    outliers = written.outlier_detection
    broken = Broken(written.connection_limits, None if outliers is None or outliers.disabled else outliers)
    return None if broken == Broken() else broken


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the local cluster of an inbound."""
    return destination(conf, protocol)


def _limit(cluster: cluster_pb2.Cluster, limits: ConnectionLimits) -> None:
    thresholds = cluster.circuit_breakers.thresholds[0]
    for field, value in (
        (thresholds.max_connections, limits.max_connections),
        (thresholds.max_connection_pools, limits.max_connection_pools),
        (thresholds.max_pending_requests, limits.max_pending_requests),
        (thresholds.max_retries, limits.max_retries),
        (thresholds.max_requests, limits.max_requests),
    ):
        if value is not None:
            field.value = value


def _outlier_detection(written: OutlierDetection) -> outlier_detection_pb2.OutlierDetection:
    outliers = outlier_detection_pb2.OutlierDetection(
        split_external_local_origin_errors=bool(written.split_external_and_local_errors)
    )
    if written.interval is not None:
        outliers.interval.CopyFrom(fields.duration(as_timedelta(written.interval)))
    if written.base_ejection_time is not None:
        outliers.base_ejection_time.CopyFrom(fields.duration(as_timedelta(written.base_ejection_time)))
    if written.max_ejection_percent is not None:
        outliers.max_ejection_percent.value = written.max_ejection_percent
    detectors = written.detectors or Detectors()
    for detector, enforced, consecutive in (
        (detectors.total_failures, outliers.enforcing_consecutive_5xx, outliers.consecutive_5xx),
        (
            detectors.gateway_failures,
            outliers.enforcing_consecutive_gateway_failure,
            outliers.consecutive_gateway_failure,
        ),
        (
            detectors.local_origin_failures,
            outliers.enforcing_consecutive_local_origin_failure,
            outliers.consecutive_local_origin_failure,
        ),
    ):
        count = (detector or Consecutive()).consecutive
        enforced.value = _NEVER if count is None else _ALWAYS
        if count is not None:
            consecutive.value = count
    _compare_shares(outliers, detectors)
    return outliers


def _compare_shares(outliers: outlier_detection_pb2.OutlierDetection, detectors: Detectors) -> None:
    rate, share = detectors.success_rate, detectors.failure_percentage
    # Where errors are split, each share is looked at for the instance's own errors and for those on the way to it.
    for enforced in (outliers.enforcing_success_rate, outliers.enforcing_local_origin_success_rate):
        enforced.value = _NEVER if rate is None else _ALWAYS
    for enforced in (outliers.enforcing_failure_percentage, outliers.enforcing_failure_percentage_local_origin):
        enforced.value = _NEVER if share is None else _ALWAYS
    if rate is not None:
        if rate.minimum_hosts is not None:
            outliers.success_rate_minimum_hosts.value = rate.minimum_hosts
        if rate.request_volume is not None:
            outliers.success_rate_request_volume.value = rate.request_volume
        if rate.standard_deviation_factor is not None:
            # Envoy has it in thousandths.
            factor = decimal(rate.standard_deviation_factor) or 0
            outliers.success_rate_stdev_factor.value = int(factor * 1000)
    if share is not None:
        if share.minimum_hosts is not None:
            outliers.failure_percentage_minimum_hosts.value = share.minimum_hosts
        if share.request_volume is not None:
            outliers.failure_percentage_request_volume.value = share.request_volume
        if share.threshold is not None:
            outliers.failure_percentage_threshold.value = share.threshold
