"""A mesh: the space in which names of services and policies have a meaning, and what holds for all of it.

In: documents in Kuma's 2.14 form, or the older ones that `aliases` knows. Out: `Mesh`, frozen, and the rules it breaks.
Never: keys, certificates, or what a policy says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from kumafast.errors import Violation
from kumafast.resources import aliases, backends
from kumafast.resources.fields import Flag, FrozenMap, Loose, Tags, Text
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.telemetry import Logging, Tracing, check_logging, check_tracing
from kumafast.resources.validation import check_selector

_CA_TYPES = ("builtin", "provided")
_UNKNOWN_TYPE = "unknown backend type. Available backends: "
_GO_DURATION = re.compile(r"0|([0-9]+(\.[0-9]*)?(y|w|d|h|m|s|ms))+")


class DpCertRotation(Frozen):
    """How long a workload's certificate is valid, such as `1d` or `24h`."""

    expiration: Text = ""


class DpCert(Frozen):
    """How a backend issues workload certificates."""

    rotation: DpCertRotation | None = None
    request_timeout: Text | None = None


class RootChain(Frozen):
    """How a backend's own chain is fetched."""

    request_timeout: Text | None = None


class CertificateAuthority(Frozen):
    """One authority that can issue the mesh's certificates. `conf` belongs to its type."""

    name: Text = ""
    type: Text = ""
    mode: Literal["STRICT", "PERMISSIVE"] = "STRICT"
    dp_cert: DpCert | None = None
    root_chain: RootChain | None = None
    conf: Loose | None = None


class Mtls(Frozen):
    """Authorities of the mesh; TLS is on while one of them is enabled."""

    enabled_backend: Text = ""
    backends: tuple[CertificateAuthority, ...] = ()
    skip_validation: Flag = False


class MetricsBackend(Frozen):
    """How the mesh's dataplanes expose metrics."""

    name: Text = ""
    type: Text = ""
    conf: Loose | None = None


class MeshMetrics(Frozen):
    """Metrics of the mesh's dataplanes."""

    enabled_backend: Text = ""
    backends: tuple[MetricsBackend, ...] = ()


class MeshOutbound(Frozen):
    """`passthrough`: whether traffic to what is not in the mesh goes out as it came; None is yes."""

    passthrough: Flag | None = None


class MeshNetworking(Frozen):
    """How traffic leaves the mesh."""

    outbound: MeshOutbound | None = None


class Routing(Frozen):
    """How traffic finds its way between zones."""

    locality_aware_load_balancing: Flag = False
    zone_egress: Flag = False
    default_forbid_mesh_external_service_access: Flag = False


class DataplaneRule(Frozen):
    """Tags that a dataplane must have, or must not have."""

    tags: Tags = FrozenMap()


class DataplaneConstraints(Frozen):
    """Which dataplanes may join: one of the requirements must hold and none of the restrictions."""

    requirements: tuple[DataplaneRule, ...] = ()
    restrictions: tuple[DataplaneRule, ...] = ()


class Constraints(Frozen):
    """Who may join the mesh."""

    dataplane_proxy: DataplaneConstraints | None = None


class MeshServices(Frozen):
    """Whether MeshServices are made from dataplanes."""

    mode: Literal["Disabled", "Everywhere", "ReachableBackends", "Exclusive"] = "Disabled"


class Mesh(Resource):
    """A mesh.

    >>> Mesh(name="default", mtls={"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}).name
    'default'
    """

    type: ClassVar[ResourceType] = ResourceType(
        name="Mesh",
        scope=Scope.GLOBAL,
        path="meshes",
        singular="Mesh",
        plural="Meshes",
        short_name="m",
        is_in_federation=True,
    )

    mtls: Mtls | None = None
    tracing: Tracing | None = None
    logging: Logging | None = None
    metrics: MeshMetrics | None = None
    networking: MeshNetworking | None = None
    routing: Routing | None = None
    constraints: Constraints | None = None
    mesh_services: MeshServices | None = None
    skip_creating_initial_policies: tuple[Text, ...] = ()

    @classmethod
    def translated(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields with the forms of 0.1.0 to 0.6 replaced by today's."""
        return aliases.mesh_fields(fields)

    @property
    def lets_through(self) -> bool:
        """Whether traffic to what is not in the mesh goes out of transparent proxies for which no policy decides it."""
        outbound = None if self.networking is None else self.networking.outbound
        return outbound is None or outbound.passthrough is not False

    def remarks(self) -> Iterator[str]:
        """That the log of 0.1.0 is kept and needs a policy to be written to."""
        old = (aliases.ACCESS_LOG, aliases.ACCESS_LOG_FORMAT)
        if self.logging is not None and old in ((each.name, each.format) for each in self.logging.backends):
            yield (
                f"logging.accessLogs: it is the backend {aliases.ACCESS_LOG} now; connections are logged where a "
                "TrafficLog is for them"
            )

    def violations(self) -> Iterator[Violation]:
        """Every rule of meshes that this one breaks, in the order of Kuma's checks."""
        return _check(self)


def _check(mesh: Mesh) -> Iterator[Violation]:
    if mesh.mtls is not None:
        yield from _check_mtls("mtls", mesh.mtls)
    if mesh.logging is not None:
        yield from check_logging("logging", mesh.logging)
    if mesh.tracing is not None:
        yield from check_tracing("tracing", mesh.tracing)
    if mesh.metrics is not None:
        yield from _check_metrics("metrics", mesh.metrics)
    if mesh.constraints is not None:
        yield from _check_constraints("constraints", mesh.constraints)


def _check_mtls(path: str, mtls: Mtls) -> Iterator[Violation]:
    for i, (backend, is_used) in enumerate(zip(mtls.backends, backends.used_before(mtls.backends), strict=True)):
        yield from backends.check_unique(f"{path}.backends[{i}]", backend.name, is_used=is_used)
    message = "has to be set to one of the backends in the mesh"
    yield from backends.check_chosen(f"{path}.enabledBackend", mtls.enabled_backend, mtls.backends, message)
    for i, backend in enumerate(mtls.backends):
        where = f"{path}.backends[{i}]"
        if not backend.name:
            yield Violation(f"{where}.name", "cannot be empty")
        if backend.type not in _CA_TYPES:
            yield Violation(f"{where}.type", "could not find installed plugin for this type")
        rotation = None if backend.dp_cert is None else backend.dp_cert.rotation
        if rotation is not None and rotation.expiration and not _GO_DURATION.fullmatch(rotation.expiration):
            yield Violation(f"{where}.dpCert.rotation.expiration", "has to be a valid format")


def _check_metrics(path: str, metrics: MeshMetrics) -> Iterator[Violation]:
    for i, (backend, is_used) in enumerate(zip(metrics.backends, backends.used_before(metrics.backends), strict=True)):
        where = f"{path}.backends[{i}]"
        yield from backends.check_unique(where, backend.name, is_used=is_used)
        if backend.type != "prometheus":
            yield Violation(f"{where}.type", f'{_UNKNOWN_TYPE}"prometheus"')
    message = "has to be set to one of the backends in the mesh"
    yield from backends.check_chosen(f"{path}.enabledBackend", metrics.enabled_backend, metrics.backends, message)


def _check_constraints(path: str, constraints: Constraints) -> Iterator[Violation]:
    proxy = constraints.dataplane_proxy
    if proxy is None:
        return
    for field, rules in (("requirements", proxy.requirements), ("restrictions", proxy.restrictions)):
        for i, rule in enumerate(rules):
            yield from check_selector(f"{path}.dataplaneProxy.{field}[{i}].tags", rule.tags)
