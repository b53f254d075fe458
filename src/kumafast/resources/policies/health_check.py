"""HealthCheck: how the instances of a service are asked whether they are well.

In: documents in Kuma's 2.14 form. Out: `HealthCheck`, frozen, and the rules that it breaks. Never: what Envoy makes of
it.
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
from kumafast.resources.fields import Base64, Count, Flag, Number, Text
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope

_STATUSES = range(100, 600)
_PERCENT_MAX = 100


class Tcp(Frozen):
    """Bytes that are sent, and blocks of bytes of which each has to come back, in their order."""

    send: Base64 | None = None
    receive: tuple[Base64, ...] = ()


class HeaderValue(Frozen):
    """A header of a request."""

    key: Text = ""
    value: Text = ""


class HeaderToAdd(Frozen):
    """A header, and whether it stands beside one that is there already instead of in its place."""

    header: HeaderValue | None = None
    append: Flag | None = None


class Http(Frozen):
    """A request, and the answers that are good; 200 where none is named."""

    path: Text = ""
    request_headers_to_add: tuple[HeaderToAdd, ...] = ()
    expected_statuses: tuple[Count, ...] = ()


class Conf(Frozen):
    """How often an instance is asked, and what its answers come to.

    Without `tcp` and `http` it is enough that it takes a connection.
    """

    interval: ProtoDuration | None = None
    timeout: ProtoDuration | None = None
    unhealthy_threshold: Count = 0
    healthy_threshold: Count = 0
    initial_jitter: ProtoDuration | None = None
    interval_jitter: ProtoDuration | None = None
    interval_jitter_percent: Count = 0
    healthy_panic_threshold: Number | None = None
    fail_traffic_on_panic: Flag | None = None
    event_log_path: Text = ""
    always_log_health_check_failures: Flag | None = None
    no_traffic_interval: ProtoDuration | None = None
    tcp: Tcp | None = None
    http: Http | None = None
    reuse_connection: Flag | None = None


class HealthCheck(ConnectionPolicy):
    """Has some dataplanes ask the instances of some services whether they are well; who is not is sent nothing."""

    type: ClassVar[ResourceType] = ResourceType(
        name="HealthCheck",
        scope=Scope.MESH,
        path="health-checks",
        singular="Health Check",
        plural="Health Checks",
        is_in_federation=True,
        policy=PolicyTraits(order=1200, successor="MeshHealthCheck", is_by_service=True),
    )

    conf: Conf | None = None

    def settings(self) -> Conf | None:
        """The checks that it sets."""
        return self.conf

    def violations(self) -> Iterator[Violation]:
        """Every rule of health checks that this one breaks, in the order of Kuma's checks."""
        yield from check_sources("sources", self.sources)
        yield from check_service_destinations("destinations", self.destinations)
        conf = self.conf
        if conf is None:
            yield Violation("conf", "has to be defined")
            return
        for name, value in (("interval", conf.interval), ("timeout", conf.timeout)):
            if value is None:
                yield Violation(f"conf.{name}", "must have a positive value")
            yield from check_positive("conf", conf, name)
        for name, threshold in (
            ("unhealthyThreshold", conf.unhealthy_threshold),
            ("healthyThreshold", conf.healthy_threshold),
        ):
            if not threshold:
                yield Violation(f"conf.{name}", "must have a positive value")
        yield from check_positive("conf", conf, "initialJitter", "intervalJitter", "noTrafficInterval")
        if not 0 <= (conf.healthy_panic_threshold or 0) <= _PERCENT_MAX:
            yield Violation("conf.healthyPanicThreshold", "must be in range [0.0 - 100.0]")
        if conf.http is not None:
            yield from _check_http("conf.http", conf.http)
        if conf.tcp is not None and conf.http is not None:
            yield Violation("conf", "http and tcp cannot be defined at the same time")


def _check_http(path: str, http: Http) -> Iterator[Violation]:
    if not http.path:
        yield Violation(f"{path}.path", "has to be defined and cannot be empty")
    for i, status in enumerate(http.expected_statuses):
        if status not in _STATUSES:
            yield Violation(f"{path}.expectedStatuses[{i}]", "must be in range [100, 600)")
    for i, added in enumerate(http.request_headers_to_add):
        where = f"{path}.requestHeadersToAdd[{i}].header"
        if added.header is None:
            yield Violation(where, "has to be defined")
        elif not added.header.key:
            yield Violation(f"{where}.key", "cannot be empty")
