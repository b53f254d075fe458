"""What policies about faults of either family have in common: what goes wrong in a share of the requests.

In: shares in percent with what goes wrong. Out: the configuration of Envoy's filter. Never: whose requests they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.type.v3 import percent_pb2

from kumafast.generation import fields

FILTER = "envoy.filters.http.fault"


@dataclass(frozen=True, slots=True)
class Fault:
    """Shares of the requests, in percent, that are delayed, aborted, or answered slowly."""

    delay: tuple[float, timedelta] | None = None
    abort: tuple[float, int] | None = None
    kilobits: tuple[float, int] | None = None

    def config(self) -> fault_pb2.HTTPFault:
        """The filter that makes requests go wrong before they reach the workload."""
        fault = fault_pb2.HTTPFault()
        if self.delay is not None:
            percentage, length = self.delay
            fault.delay.fixed_delay.CopyFrom(fields.duration(length))
            fault.delay.percentage.CopyFrom(_fraction(percentage))
        if self.abort is not None:
            percentage, fault.abort.http_status = self.abort
            fault.abort.percentage.CopyFrom(_fraction(percentage))
        if self.kilobits is not None:
            percentage, fault.response_rate_limit.fixed_limit.limit_kbps = self.kilobits
            fault.response_rate_limit.percentage.CopyFrom(_fraction(percentage))
        return fault


def _fraction(percentage: float) -> percent_pb2.FractionalPercent:
    """A percentage as exact as it was written, to a ten thousandth of a percent."""
    fraction = percent_pb2.FractionalPercent
    for factor, denominator in ((1, fraction.HUNDRED), (100, fraction.TEN_THOUSAND)):
        if float(percentage * factor).is_integer():
            return fraction(numerator=int(percentage * factor), denominator=denominator)
    return fraction(numerator=round(percentage * 10_000), denominator=fraction.MILLION)
