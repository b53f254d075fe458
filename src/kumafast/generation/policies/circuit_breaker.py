"""What CircuitBreaker changes: how much may be under way to a service, and which instances are left out.

In: the conf of the one policy that applies. Out: effects. Never: what Envoy is told of outliers; that is `outliers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from kumafast.generation.effects import Effect
from kumafast.generation.fields import fill
from kumafast.generation.outliers import InARow, Outliers, Share, outlier_detection
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.circuit_breaker import CircuitBreaker, Conf, Detectors, Errors, Thresholds

KIND = CircuitBreaker.type.name


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
        cluster.outlier_detection.CopyFrom(outlier_detection(_outliers(self.conf)))


def destination(conf: Mapping[str, Any], protocol: str) -> Effect:
    """What changes in the cluster of an outbound."""
    return Broken(Conf.model_validate(conf))


def _limit(thresholds: circuit_breaker_pb2.CircuitBreakers.Thresholds, written: Thresholds) -> None:
    fill(
        thresholds,
        max_connections=written.max_connections,
        max_pending_requests=written.max_pending_requests,
        max_retries=written.max_retries,
        max_requests=written.max_requests,
    )


def _outliers(conf: Conf) -> Outliers:
    detectors = conf.detectors or Detectors()
    deviation, failure = detectors.standard_deviation, detectors.failure
    factor = None if deviation is None else deviation.factor
    return Outliers(
        interval=None if conf.interval is None else as_timedelta(conf.interval),
        base_ejection_time=None if conf.base_ejection_time is None else as_timedelta(conf.base_ejection_time),
        max_ejection_percent=conf.max_ejection_percent,
        splits_origins=conf.split_external_and_local_errors,
        failures=_in_a_row(detectors.total_errors),
        gateway_failures=_in_a_row(detectors.gateway_errors),
        local_origin_failures=_in_a_row(detectors.local_errors),
        success_rate=None
        if deviation is None
        else Share(
            minimum_hosts=deviation.minimum_hosts,
            request_volume=deviation.request_volume,
            bound=None if factor is None else int(factor * 1000),
        ),
        failure_percentage=None
        if failure is None
        else Share(minimum_hosts=failure.minimum_hosts, request_volume=failure.request_volume, bound=failure.threshold),
    )


def _in_a_row(errors: Errors | None) -> InARow | None:
    # Without a number it is Envoy's own.
    return None if errors is None else InARow(errors.consecutive)
