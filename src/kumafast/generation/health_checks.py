"""What policies about health checks of either family have in common: when instances are asked, what is written down.

In: numbers, durations as they are written. Out: fields of a `HealthCheck`. Never: how an instance is asked by HTTP;
each family has its own words for that.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable
from typing import Protocol

from envoy.config.core.v3 import health_check_pb2
from envoy.extensions.health_check.event_sinks.file.v3 import file_pb2

from kumafast.generation import fields
from kumafast.resources.durations import as_timedelta

_EVENT_SINK = "envoy.health_check.event_sinks.file"


class Asked(Protocol):
    """What both say beside the intervals and thresholds, for which each has defaults of its own."""

    @property
    def initial_jitter(self) -> str | None: ...
    @property
    def interval_jitter(self) -> str | None: ...
    @property
    def interval_jitter_percent(self) -> int | None: ...
    @property
    def no_traffic_interval(self) -> str | None: ...
    @property
    def always_log_health_check_failures(self) -> bool | None: ...
    @property
    def event_log_path(self) -> str | None: ...
    @property
    def reuse_connection(self) -> bool | None: ...


def ask(
    check: health_check_pb2.HealthCheck,
    conf: Asked,
    *,
    interval: str | None,
    timeout: str | None,
    unhealthy: int,
    healthy: int,
) -> None:
    """Ask in such intervals and wait so long; so many answers make an instance `unhealthy`, or `healthy` again."""
    for field, written in (
        (check.interval, interval),
        (check.timeout, timeout),
        (check.initial_jitter, conf.initial_jitter),
        (check.interval_jitter, conf.interval_jitter),
        (check.no_traffic_interval, conf.no_traffic_interval),
    ):
        if written is not None:
            field.CopyFrom(fields.duration(as_timedelta(written)))
    check.interval_jitter_percent = conf.interval_jitter_percent or 0
    check.unhealthy_threshold.value = unhealthy
    check.healthy_threshold.value = healthy
    check.always_log_health_check_failures = bool(conf.always_log_health_check_failures)
    if conf.event_log_path:
        # Kuma uses the field that Envoy has deprecated in favour of this.
        sink = check.event_logger.add(name=_EVENT_SINK)
        sink.typed_config.Pack(
            file_pb2.HealthCheckEventFileSink(event_log_path=conf.event_log_path), deterministic=True
        )
    if conf.reuse_connection is not None:
        check.reuse_connection.value = conf.reuse_connection


def ask_in_bytes(
    check: health_check_pb2.HealthCheck.TcpHealthCheck, *, send: str | None, receive: Iterable[str]
) -> None:
    """Send and expect blocks, in base64; without anything to send it is enough that a connection is taken."""
    check.SetInParent()
    if send is not None:
        check.send.text = b64decode(send).hex()
    for block in receive:
        check.receive.add(text=b64decode(block).hex())
