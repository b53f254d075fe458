"""Timeout: how long a connection may take to open, be idle, and answer. The form with sources and destinations.

In: documents in Kuma's 2.14 form. Out: `Timeout`, frozen, and the rules that it breaks. Never: what Envoy makes of it.
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
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope


class Tcp(Frozen):
    """What holds for connections without HTTP."""

    idle_timeout: ProtoDuration | None = None


class Http(Frozen):
    """What holds for HTTP."""

    request_timeout: ProtoDuration | None = None
    idle_timeout: ProtoDuration | None = None
    stream_idle_timeout: ProtoDuration | None = None
    max_stream_duration: ProtoDuration | None = None


class Grpc(Frozen):
    """What holds for gRPC where `http` does not say it; deprecated in favour of that."""

    stream_idle_timeout: ProtoDuration | None = None
    max_stream_duration: ProtoDuration | None = None


class Conf(Frozen):
    """Timeouts; what is not set has its default."""

    connect_timeout: ProtoDuration | None = None
    tcp: Tcp | None = None
    http: Http | None = None
    grpc: Grpc | None = None


class Timeout(ConnectionPolicy):
    """Timeouts of connections from some dataplanes to some services."""

    type: ClassVar[ResourceType] = ResourceType(
        name="Timeout",
        scope=Scope.MESH,
        path="timeouts",
        singular="Timeout",
        plural="Timeouts",
        is_in_federation=True,
        policy=PolicyTraits(order=1000, successor="MeshTimeout"),
    )

    conf: Conf | None = None

    def settings(self) -> Conf | None:
        """The timeouts that it sets."""
        return self.conf

    def violations(self) -> Iterator[Violation]:
        """Every rule of timeouts that this one breaks, in the order of Kuma's checks."""
        yield from check_sources("sources", self.sources)
        yield from check_service_destinations("destinations", self.destinations)
        if self.conf is None:
            yield Violation("conf", "has to be defined")
            return
        yield from check_positive("conf", self.conf, "connectTimeout")
        yield from _check_section("conf.tcp", self.conf.tcp)
        yield from _check_section("conf.http", self.conf.http)
        yield from _check_section("conf.grpc", self.conf.grpc)


def _check_section(path: str, section: Tcp | Http | Grpc | None) -> Iterator[Violation]:
    if section is None:
        return
    if section == type(section)():
        yield Violation(path, "at least one timeout in section has to be defined")
    names = [str(field.alias) for field in type(section).model_fields.values()]
    yield from check_positive(path, section, *names)
