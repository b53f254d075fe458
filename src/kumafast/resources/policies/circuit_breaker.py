"""CircuitBreaker: when a service is sent no more, and which of its instances are left out for a while.

In: documents in Kuma's 2.14 form. Out: `CircuitBreaker`, frozen, and the rules that it breaks. Never: what Envoy makes
of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from kumafast.errors import Violation
from kumafast.resources.connection_policy import (
    ConnectionPolicy,
    check_positive,
    check_service_destinations,
    check_sources,
)
from kumafast.resources.durations import ProtoDuration
from kumafast.resources.fields import Count, Flag, Number
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope

_PERCENT_MAX = 100


class Errors(Frozen):
    """So many failures without a success between them."""

    consecutive: Count | None = None


class StandardDeviation(Frozen):
    """A share of successes below the mean of all instances by so many standard deviations."""

    request_volume: Count | None = None
    minimum_hosts: Count | None = None
    factor: Number | None = None


class Failure(Frozen):
    """A share of failures, in percent."""

    request_volume: Count | None = None
    minimum_hosts: Count | None = None
    threshold: Count | None = None


class Detectors(Frozen):
    """What an instance is left out for; one that is not set is off, and one that is empty has Envoy's own values."""

    total_errors: Errors | None = None
    gateway_errors: Errors | None = None
    local_errors: Errors | None = None
    standard_deviation: StandardDeviation | None = None
    failure: Failure | None = None


class Thresholds(Frozen):
    """How much may be under way at a time; what is not set has its default."""

    max_connections: Count | None = None
    max_pending_requests: Count | None = None
    max_retries: Count | None = None
    max_requests: Count | None = None


class Conf(Frozen):
    """What is looked at how often, and for how long an instance is left out the first time."""

    interval: ProtoDuration | None = None
    base_ejection_time: ProtoDuration | None = None
    max_ejection_percent: Count | None = None
    split_external_and_local_errors: Flag = False
    detectors: Detectors | None = None
    thresholds: Thresholds | None = None


class CircuitBreaker(ConnectionPolicy):
    """Limits of what some dataplanes send to some services."""

    type: ClassVar[ResourceType] = ResourceType(
        name="CircuitBreaker",
        scope=Scope.MESH,
        path="circuit-breakers",
        singular="Circuit Breaker",
        plural="Circuit Breakers",
        is_in_federation=True,
        policy=PolicyTraits(order=1300, successor="MeshCircuitBreaker", is_by_service=True),
    )

    conf: Conf | None = None

    def settings(self) -> Conf | None:
        """The limits that it sets."""
        return self.conf

    def violations(self) -> Iterator[Violation]:
        """Every rule of circuit breakers that this one breaks, in the order of Kuma's checks."""
        yield from check_sources("sources", self.sources)
        yield from check_service_destinations("destinations", self.destinations)
        conf = self.conf or Conf()
        if conf.detectors in (None, Detectors()) and conf.thresholds in (None, Thresholds()):
            yield Violation("conf", "must have at least one of the detector or threshold configured")
            return
        if conf.detectors == Detectors():
            yield Violation("conf.detectors", "can't be empty")
        yield from _check_percentage("conf.maxEjectionPercent", conf.max_ejection_percent)
        if conf.detectors is not None and conf.detectors.failure is not None:
            yield from _check_percentage("conf.detectors.failure.threshold", conf.detectors.failure.threshold)
        if conf.thresholds == Thresholds():
            yield Violation("conf.thresholds", "can't be empty")
        # Kuma lets these pass, and its Envoys refuse the cluster.
        yield from check_positive("conf", conf, "interval", "baseEjectionTime")
        if conf.detectors is not None and conf.detectors.standard_deviation is not None:
            yield from _check_factor("conf.detectors.standardDeviation.factor", conf.detectors.standard_deviation)


def _check_percentage(path: str, value: int | None) -> Iterator[Violation]:
    if value is not None and value > _PERCENT_MAX:
        yield Violation(path, "has to be in [0.0 - 100.0] range")


def _check_factor(path: str, deviation: StandardDeviation) -> Iterator[Violation]:
    # Envoy has it in thousandths, as a whole number of 32 bits.
    if deviation.factor is not None and not 0 <= deviation.factor * 1000 < 2**32:
        yield Violation(path, "must be a number between 0 and 4294967")
