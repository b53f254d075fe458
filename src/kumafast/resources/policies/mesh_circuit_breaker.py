"""MeshCircuitBreaker: how much may be under way, and which instances are left out. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshCircuitBreaker`, frozen, and the rules that it breaks; that of a new mesh.
Never: what Envoy makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.conf_rules import (
    MUST_BE_DEFINED,
    DecimalNumber,
    check_any,
    check_counts,
    check_durations,
    check_percentage,
    check_whole_percentage,
    decimal,
)
from kumafast.resources.durations import GoDuration
from kumafast.resources.fields import Count, Flag
from kumafast.resources.resource import Frozen, PolicyTraits, Resource, ResourceType, Scope
from kumafast.resources.target_ref import MESH, PROXIES, SERVICES, check_target_ref
from kumafast.resources.target_ref_policy import TargetRefPolicy, UnmatchedSpec, check_parts

_TO_KINDS = (MESH, *SERVICES)
_FACTOR_MAX = 4_294_967
"""Envoy has a thousand times as much, as a whole number of 32 bits."""


class ConnectionLimits(Frozen):
    """How much may be under way at a time; what is not set has Envoy's own value."""

    max_connections: Count | None = None
    max_connection_pools: Count | None = None
    max_pending_requests: Count | None = None
    max_retries: Count | None = None
    max_requests: Count | None = None


class Consecutive(Frozen):
    """So many failures without a success between them; without a number it is off."""

    consecutive: Count | None = None


class SuccessRate(Frozen):
    """A share of successes below the mean of all instances by so many standard deviations."""

    minimum_hosts: Count | None = None
    request_volume: Count | None = None
    standard_deviation_factor: DecimalNumber | None = None


class FailurePercentage(Frozen):
    """A share of failures, in percent."""

    minimum_hosts: Count | None = None
    request_volume: Count | None = None
    threshold: Count | None = None


class Detectors(Frozen):
    """What an instance is left out for; one that is not set is off."""

    total_failures: Consecutive | None = None
    gateway_failures: Consecutive | None = None
    local_origin_failures: Consecutive | None = None
    success_rate: SuccessRate | None = None
    failure_percentage: FailurePercentage | None = None


class OutlierDetection(Frozen):
    """What is looked at how often, and for how long an instance is left out the first time."""

    disabled: Flag | None = None
    interval: GoDuration | None = None
    base_ejection_time: GoDuration | None = None
    max_ejection_percent: Count | None = None
    split_external_and_local_errors: Flag | None = None
    detectors: Detectors | None = None
    healthy_panic_threshold: DecimalNumber | None = None


class Conf(Frozen):
    """Limits, and the instances that are left out."""

    connection_limits: ConnectionLimits | None = None
    outlier_detection: OutlierDetection | None = None


class MeshCircuitBreaker(TargetRefPolicy):
    """Limits of what proxies send and take."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshCircuitBreaker",
        scope=Scope.MESH,
        path="meshcircuitbreakers",
        singular="Mesh Circuit Breaker",
        plural="Mesh Circuit Breakers",
        short_name="mcb",
        is_in_federation=True,
        policy=PolicyTraits(
            order=1300, is_target_ref=True, has_to=True, has_from=True, has_rules=True, is_from_as_rules=True
        ),
    )

    spec: UnmatchedSpec[Conf] = UnmatchedSpec()

    @classmethod
    def initial(cls, mesh: str) -> tuple[Resource, ...]:
        """That for all proxies."""
        limits = {"maxConnections": 1024, "maxPendingRequests": 1024, "maxRetries": 3, "maxRequests": 1024}
        everything = {"kind": MESH}
        to = [{"targetRef": everything, "default": {"connectionLimits": limits}}]
        spec = {"targetRef": everything, "to": to}
        return (cls.model_validate({"name": f"mesh-circuit-breaker-all-{mesh}", "mesh": mesh, "spec": spec}),)

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh circuit breakers that this one breaks, in the order of Kuma's checks."""
        spec = self.spec
        yield from check_target_ref("spec.targetRef", spec.top, kinds=PROXIES, is_inbound=spec.is_inbound)
        yield from check_parts(spec)
        for i, source in enumerate(spec.from_):
            yield from check_target_ref(f"spec.from[{i}].targetRef", source.target_ref, kinds=(MESH,))
            yield from _check_conf(f"spec.from[{i}].default", source.default or Conf())
        for i, destination in enumerate(spec.to):
            yield from check_target_ref(f"spec.to[{i}].targetRef", destination.target_ref, kinds=_TO_KINDS)
            yield from _check_conf(f"spec.to[{i}].default", destination.default or Conf())
        for i, rule in enumerate(spec.rules):
            yield from _check_conf(f"spec.rules[{i}].default", rule.default or Conf())


def _check_conf(path: str, conf: Conf) -> Iterator[Violation]:
    if conf == Conf():
        yield Violation(path, "at least one of: 'connectionLimits' or 'outlierDetection' should be configured")
        return
    if conf.connection_limits is not None:
        yield from check_counts(
            f"{path}.connectionLimits",
            conf.connection_limits,
            "maxConnections",
            "maxConnectionPools",
            "maxPendingRequests",
            "maxRetries",
            "maxRequests",
        )
    if conf.outlier_detection is not None:
        yield from _check_outliers(f"{path}.outlierDetection", conf.outlier_detection)


def _check_outliers(path: str, outliers: OutlierDetection) -> Iterator[Violation]:
    yield from check_durations(path, outliers, "interval", "baseEjectionTime")
    yield from check_whole_percentage(f"{path}.maxEjectionPercent", outliers.max_ejection_percent)
    detectors = outliers.detectors
    if detectors is None:
        yield Violation(f"{path}.detectors", MUST_BE_DEFINED)
    else:
        yield from _check_detectors(f"{path}.detectors", detectors)
    yield from check_percentage(f"{path}.healthyPanicThreshold", outliers.healthy_panic_threshold)


def _check_detectors(path: str, detectors: Detectors) -> Iterator[Violation]:
    yield from check_any(
        path, detectors, "totalFailures", "gatewayFailures", "localOriginFailures", "successRate", "failurePercentage"
    )
    for name, detector in (
        ("totalFailures", detectors.total_failures),
        ("gatewayFailures", detectors.gateway_failures),
        ("localOriginFailures", detectors.local_origin_failures),
    ):
        if detector is not None:
            yield from check_counts(f"{path}.{name}", detector, "consecutive")
    if detectors.success_rate is not None:
        yield from check_counts(f"{path}.successRate", detectors.success_rate, "minimumHosts", "requestVolume")
        yield from _check_factor(f"{path}.successRate.standardDeviationFactor", detectors.success_rate)
    share = detectors.failure_percentage
    if share is not None:
        yield from check_counts(f"{path}.failurePercentage", share, "minimumHosts", "requestVolume")
        yield from check_whole_percentage(f"{path}.failurePercentage.threshold", share.threshold)


def _check_factor(path: str, rate: SuccessRate) -> Iterator[Violation]:
    if rate.standard_deviation_factor is None:
        return
    factor = decimal(rate.standard_deviation_factor)
    if factor is None:
        yield Violation(path, "invalid number")
    elif factor <= 0:
        yield Violation(path, "must be greater than 0")
    elif factor > _FACTOR_MAX:
        yield Violation(path, f"must be at most {_FACTOR_MAX}")
