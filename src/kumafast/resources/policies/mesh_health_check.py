"""MeshHealthCheck: how the instances of a service are asked whether they are well. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshHealthCheck`, frozen, and the rules that it breaks.
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
    check_durations,
    check_percentage,
    check_status,
    check_whole_percentage,
    is_file_path,
)
from kumafast.resources.durations import GoDuration
from kumafast.resources.fields import Base64, Flag, Int32, Text
from kumafast.resources.header_match import HeaderModifier
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import MESH, PROXIES, SERVICES, check_target_ref
from kumafast.resources.target_ref_policy import OutboundSpec, TargetRefPolicy

_TO_KINDS = (MESH, *SERVICES)


class Tcp(Frozen):
    """Bytes that are sent, and blocks of bytes of which each has to come back, in their order."""

    disabled: Flag | None = None
    send: Base64 | None = None
    receive: tuple[Base64, ...] | None = None


class Http(Frozen):
    """A request, and the answers that are good; 200 where none is named."""

    disabled: Flag | None = None
    path: Text | None = None
    request_headers_to_add: HeaderModifier | None = None
    expected_statuses: tuple[Int32, ...] | None = None


class Grpc(Frozen):
    """A call of gRPC's own health service."""

    disabled: Flag | None = None
    service_name: Text | None = None
    authority: Text | None = None


class Conf(Frozen):
    """How often an instance is asked, and what its answers come to.

    Of the sections that of the service's protocol counts; where it is disabled, that of tcp.
    """

    interval: GoDuration | None = None
    timeout: GoDuration | None = None
    unhealthy_threshold: Int32 | None = None
    healthy_threshold: Int32 | None = None
    initial_jitter: GoDuration | None = None
    interval_jitter: GoDuration | None = None
    interval_jitter_percent: Int32 | None = None
    healthy_panic_threshold: DecimalNumber | None = None
    fail_traffic_on_panic: Flag | None = None
    event_log_path: Text | None = None
    always_log_health_check_failures: Flag | None = None
    no_traffic_interval: GoDuration | None = None
    http: Http | None = None
    tcp: Tcp | None = None
    grpc: Grpc | None = None
    reuse_connection: Flag | None = None


class MeshHealthCheck(TargetRefPolicy):
    """Has proxies ask the instances of services whether they are well; who is not is sent nothing."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshHealthCheck",
        scope=Scope.MESH,
        path="meshhealthchecks",
        singular="Mesh Health Check",
        plural="Mesh Health Checks",
        short_name="mhc",
        is_in_federation=True,
        policy=PolicyTraits(order=1200, is_target_ref=True, has_to=True),
    )

    spec: OutboundSpec[Conf] = OutboundSpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh health checks that this one breaks, in the order of Kuma's checks."""
        yield from check_target_ref("spec.targetRef", self.spec.top, kinds=PROXIES)
        for i, item in enumerate(self.spec.to):
            yield from check_target_ref(f"spec.to[{i}].targetRef", item.target_ref, kinds=_TO_KINDS)
            yield from _check_conf(f"spec.to[{i}].default", item.default or Conf())


def _check_conf(path: str, conf: Conf) -> Iterator[Violation]:
    yield from check_durations(path, conf, "interval", "timeout")
    for name, threshold in (
        ("unhealthyThreshold", conf.unhealthy_threshold),
        ("healthyThreshold", conf.healthy_threshold),
    ):
        if threshold is not None and threshold <= 0:
            yield Violation(f"{path}.{name}", "must be greater than zero when defined")
    yield from check_durations(path, conf, "initialJitter", "intervalJitter")
    yield from check_whole_percentage(f"{path}.intervalJitterPercent", conf.interval_jitter_percent)
    yield from check_percentage(f"{path}.healthyPanicThreshold", conf.healthy_panic_threshold)
    yield from check_durations(path, conf, "noTrafficInterval")
    if conf.event_log_path is not None and not is_file_path(conf.event_log_path):
        yield Violation(f"{path}.eventLogPath", "must be a valid path when defined")
    if conf.http is not None:
        yield from _check_http(f"{path}.http", conf.http)
    yield from check_any(path, conf, "http", "tcp", "grpc")


def _check_http(path: str, http: Http) -> Iterator[Violation]:
    if http.path == "":
        yield Violation(f"{path}.path", MUST_BE_DEFINED)
    for i, status in enumerate(http.expected_statuses or ()):
        yield from check_status(f"{path}.expectedStatuses[{i}]", status)
    if http.request_headers_to_add is not None:
        yield from http.request_headers_to_add.violations(f"{path}.requestHeadersToAdd")
