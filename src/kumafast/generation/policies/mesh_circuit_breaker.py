"""What MeshCircuitBreaker changes: how much may be under way, and which instances of a service are left out.

In: a merged conf. Out: effects. Never: what Envoy is told of outliers; that is `outliers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from kumafast.generation.effects import Effect
from kumafast.generation.fields import fill
from kumafast.generation.outliers import InARow, Outliers, Share, outlier_detection
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
            cluster.outlier_detection.CopyFrom(outlier_detection(_outliers(self.outliers)))
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
    fill(
        thresholds,
        max_connections=limits.max_connections,
        max_connection_pools=limits.max_connection_pools,
        max_pending_requests=limits.max_pending_requests,
        max_retries=limits.max_retries,
        max_requests=limits.max_requests,
    )


def _outliers(written: OutlierDetection) -> Outliers:
    detectors = written.detectors or Detectors()
    rate, failures = detectors.success_rate, detectors.failure_percentage
    factor = None if rate is None else rate.standard_deviation_factor
    return Outliers(
        interval=None if written.interval is None else as_timedelta(written.interval),
        base_ejection_time=None if written.base_ejection_time is None else as_timedelta(written.base_ejection_time),
        max_ejection_percent=written.max_ejection_percent,
        splits_origins=bool(written.split_external_and_local_errors),
        failures=_in_a_row(detectors.total_failures),
        gateway_failures=_in_a_row(detectors.gateway_failures),
        local_origin_failures=_in_a_row(detectors.local_origin_failures),
        success_rate=None
        if rate is None
        else Share(
            minimum_hosts=rate.minimum_hosts,
            request_volume=rate.request_volume,
            bound=None if factor is None else int((decimal(factor) or 0) * 1000),
        ),
        failure_percentage=None
        if failures is None
        else Share(
            minimum_hosts=failures.minimum_hosts, request_volume=failures.request_volume, bound=failures.threshold
        ),
    )


def _in_a_row(detector: Consecutive | None) -> InARow | None:
    # Without a number it is off.
    return None if detector is None or detector.consecutive is None else InARow(detector.consecutive)
