"""What an Envoy is to probe for its control plane: a `HealthCheckSpecifier` of the health discovery service.

In: an `AdminInterface`, frozen `Probe`s. Out: the message, and under which name an Envoy reports on each of them.
Never: what is made of a report.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from envoy.config.core.v3 import address_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2
from envoy.service.health.v3 import hds_pb2

from kumafast.generation import fields, names
from kumafast.generation.proxy import AdminInterface

_LOOPBACK = "127.0.0.1"
_READY_PATH = "/ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a probe is made and how long it may take; so many results in a row say that something else holds."""

    interval: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=2)
    healthy_threshold: int = 1
    unhealthy_threshold: int = 1


@dataclass(frozen=True, slots=True)
class Probe:
    """A port of a workload that is well as long as a TCP connection to it can be opened."""

    address: str
    port: int
    timing: Timing

    @property
    def name(self) -> str:
        """What it is called in reports: as its cluster is, as long as the workload is on the sidecar's host."""
        return names.local_cluster_name(self.port) if self.address == _LOOPBACK else f"{self.address}:{self.port}"


def specifier(
    admin: AdminInterface, probes: Iterable[Probe], *, timing: Timing, report_interval: timedelta
) -> hds_pb2.HealthCheckSpecifier:
    """What an Envoy probes, and how often it reports. Its own readiness is asked for by `timing`: it ends with a drain.

    Of probes of one name the first counts.
    """
    by_name: dict[str, Probe] = {}
    for probe in probes:
        by_name.setdefault(probe.name, probe)
    clusters = [
        _check(name, fields.socket_address(probe.address, probe.port), _tcp(probe.timing))
        for name, probe in by_name.items()
    ]
    own = _admin_address(admin)
    if own is not None:
        clusters.append(_check(names.ENVOY_ADMIN, own, _ready(timing)))
    return hds_pb2.HealthCheckSpecifier(
        cluster_health_checks=clusters,
        interval=fields.duration(report_interval),
    )


def _check(name: str, address: address_pb2.Address, check: health_check_pb2.HealthCheck) -> hds_pb2.ClusterHealthCheck:
    endpoint = endpoint_components_pb2.Endpoint(address=address)
    return hds_pb2.ClusterHealthCheck(
        cluster_name=name,
        health_checks=[check],
        locality_endpoints=[hds_pb2.LocalityEndpoints(endpoints=[endpoint])],
    )


def _tcp(timing: Timing) -> health_check_pb2.HealthCheck:
    check = _timed(timing)
    check.tcp_health_check.SetInParent()
    return check


def _ready(timing: Timing) -> health_check_pb2.HealthCheck:
    check = _timed(timing)
    check.http_health_check.path = _READY_PATH
    return check


def _timed(timing: Timing) -> health_check_pb2.HealthCheck:
    interval = fields.duration(timing.interval)
    return health_check_pb2.HealthCheck(
        timeout=fields.duration(timing.timeout),
        interval=interval,
        # No traffic ever goes through these clusters, so this is the interval that counts.
        no_traffic_interval=interval,
        healthy_threshold={"value": timing.healthy_threshold},
        unhealthy_threshold={"value": timing.unhealthy_threshold},
    )


def _admin_address(admin: AdminInterface) -> address_pb2.Address | None:
    if admin.socket_path is not None:
        return fields.pipe_address(admin.socket_path)
    return None if admin.port is None else fields.socket_address(admin.address or _LOOPBACK, admin.port)
