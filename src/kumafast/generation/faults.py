"""What policies about faults of either family have in common: what goes wrong in a share of the requests.

In: shares in percent with what goes wrong. Out: the configuration of Envoy's filter. Never: whose requests they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from envoy.extensions.filters.http.fault.v3 import fault_pb2

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
            fault.delay.percentage.CopyFrom(fields.fraction(percentage))
        if self.abort is not None:
            percentage, fault.abort.http_status = self.abort
            fault.abort.percentage.CopyFrom(fields.fraction(percentage))
        if self.kilobits is not None:
            percentage, fault.response_rate_limit.fixed_limit.limit_kbps = self.kilobits
            fault.response_rate_limit.percentage.CopyFrom(fields.fraction(percentage))
        return fault
