"""What FaultInjection changes: some requests that come in go wrong.

In: the conf of the one policy that applies. Out: effects. Never: a fault for whoever does not say that it is one of the
sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from kumafast.generation import http_filters, protocols, senders
from kumafast.generation.effects import Effect
from kumafast.generation.faults import FILTER, Fault
from kumafast.generation.proxy import Tags
from kumafast.resources.durations import as_timedelta
from kumafast.resources.policies.fault_injection import (
    Abort,
    Conf,
    Delay,
    FaultInjection,
    ResponseBandwidth,
    kilobits,
)

KIND = FaultInjection.type.name


@dataclass(frozen=True, slots=True)
class Faulty(Effect):
    """A fault in requests from the sources."""

    sources: tuple[Tags, ...]
    fault: Fault

    def on_inbound_http(self, manager: http_connection_manager_pb2.HttpConnectionManager) -> None:
        """Have requests go wrong before they reach the workload."""
        config = self.fault.config()
        config.headers.append(senders.is_from(self.sources))
        http_filters.add_before_router(manager, FILTER, config)


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound of a source."""
    return senders.NamesSender() if protocols.is_http(protocol) else None


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an inbound."""
    written = Conf.model_validate(conf)
    if not protocols.is_http(protocol) or not written.sources:
        return None
    fault = Fault(
        delay=_delay(written.delay or Delay()),
        abort=_abort(written.abort or Abort()),
        kilobits=_kilobits(written.response_bandwidth or ResponseBandwidth()),
    )
    sources = tuple(tuple(source.items()) for source in written.sources)
    return None if fault == Fault() else Faulty(sources, fault)


def _delay(written: Delay) -> tuple[float, timedelta] | None:
    if written.percentage is None or written.value is None:
        return None
    return written.percentage, as_timedelta(written.value)


def _abort(written: Abort) -> tuple[float, int] | None:
    if written.percentage is None or written.http_status is None:
        return None
    return written.percentage, written.http_status


def _kilobits(written: ResponseBandwidth) -> tuple[float, int] | None:
    limit = None if written.limit is None else kilobits(written.limit)
    return None if written.percentage is None or limit is None else (written.percentage, limit)
