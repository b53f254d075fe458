"""A mesh: the space in which names of services and policies have a meaning, and what holds for all of it.

In: documents in Kuma's 2.14 form, or the older ones that `aliases` knows. Out: `Mesh`, frozen, and the rules it breaks.
Never: keys, certificates, or what a policy says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import Strict

from kumafast.errors import Violation
from kumafast.resources import aliases
from kumafast.resources.fields import Flag, FrozenMap, Loose, Tags, Text
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope
from kumafast.resources.validation import check_selector

_CA_TYPES = ("builtin", "provided")
_UNKNOWN_TYPE = "unknown backend type. Available backends: "
_ZIPKIN_VERSIONS = ("httpJsonV1", "httpJson", "httpProto")
_HOST_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+):[^:]+")
_GO_DURATION = re.compile(r"0|([0-9]+(\.[0-9]*)?(y|w|d|h|m|s|ms))+")
_PORT_MAX = 65535


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


class TracingBackend(Frozen):
    """Where traces go. `sampling` in percent; None is all."""

    name: Text = ""
    sampling: Annotated[float, Strict()] | None = None
    type: Text = ""
    conf: Loose | None = None


class Tracing(Frozen):
    """Backends of TrafficTrace."""

    default_backend: Text = ""
    backends: tuple[TracingBackend, ...] = ()


class LoggingBackend(Frozen):
    """Where access logs go."""

    name: Text = ""
    format: Text = ""
    type: Text = ""
    conf: Loose | None = None


class Logging(Frozen):
    """Backends of TrafficLog."""

    default_backend: Text = ""
    backends: tuple[LoggingBackend, ...] = ()


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

    def violations(self) -> Iterator[Violation]:
        """Every rule of meshes that this one breaks, in the order of Kuma's checks."""
        return _check(self)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def _check(mesh: Mesh) -> Iterator[Violation]:
    if mesh.mtls is not None:
        yield from _check_mtls("mtls", mesh.mtls)
    if mesh.logging is not None:
        yield from _check_logging("logging", mesh.logging)
    if mesh.tracing is not None:
        yield from _check_tracing("tracing", mesh.tracing)
    if mesh.metrics is not None:
        yield from _check_metrics("metrics", mesh.metrics)
    if mesh.constraints is not None:
        yield from _check_constraints("constraints", mesh.constraints)


def _used_before(backends: Sequence[_Named]) -> Iterator[bool]:
    names: set[str] = set()
    for backend in backends:
        yield backend.name in names
        names.add(backend.name)


def _check_unique(path: str, name: str, *, is_used: bool) -> Iterator[Violation]:
    if is_used:
        yield Violation(f"{path}.name", f'"{name}" name is already used for another backend')


def _check_chosen(path: str, chosen: str, backends: Sequence[_Named], message: str) -> Iterator[Violation]:
    if chosen and chosen not in {backend.name for backend in backends}:
        yield Violation(path, message)


def _check_mtls(path: str, mtls: Mtls) -> Iterator[Violation]:
    for i, (backend, is_used) in enumerate(zip(mtls.backends, _used_before(mtls.backends), strict=True)):
        yield from _check_unique(f"{path}.backends[{i}]", backend.name, is_used=is_used)
    message = "has to be set to one of the backends in the mesh"
    yield from _check_chosen(f"{path}.enabledBackend", mtls.enabled_backend, mtls.backends, message)
    for i, backend in enumerate(mtls.backends):
        where = f"{path}.backends[{i}]"
        if not backend.name:
            yield Violation(f"{where}.name", "cannot be empty")
        if backend.type not in _CA_TYPES:
            yield Violation(f"{where}.type", "could not find installed plugin for this type")
        rotation = None if backend.dp_cert is None else backend.dp_cert.rotation
        if rotation is not None and rotation.expiration and not _GO_DURATION.fullmatch(rotation.expiration):
            yield Violation(f"{where}.dpCert.rotation.expiration", "has to be a valid format")


def _check_logging(path: str, logging: Logging) -> Iterator[Violation]:
    for i, (backend, is_used) in enumerate(zip(logging.backends, _used_before(logging.backends), strict=True)):
        where = f"{path}.backends[{i}]"
        yield from _check_logging_backend(where, backend)
        yield from _check_unique(where, backend.name, is_used=is_used)
    message = "has to be set to one of the logging backend in mesh"
    yield from _check_chosen(f"{path}.defaultBackend", logging.default_backend, logging.backends, message)


def _check_logging_backend(path: str, backend: LoggingBackend) -> Iterator[Violation]:
    if not backend.name:
        yield Violation(f"{path}.name", "cannot be empty")
    conf: Mapping[str, object] = backend.conf or {}
    if backend.type == "file":
        if not conf.get("path"):
            yield Violation(f"{path}.config.path", "cannot be empty")
    elif backend.type == "tcp":
        address = conf.get("address")
        if not address:
            yield Violation(f"{path}.config.address", "cannot be empty")
        elif not isinstance(address, str) or not _HOST_PORT.fullmatch(address):
            yield Violation(f"{path}.config.address", "has to be in format of HOST:PORT")
    else:
        yield Violation(f"{path}.type", f'{_UNKNOWN_TYPE}"tcp", "file"')


def _check_tracing(path: str, tracing: Tracing) -> Iterator[Violation]:
    for i, (backend, is_used) in enumerate(zip(tracing.backends, _used_before(tracing.backends), strict=True)):
        where = f"{path}.backends[{i}]"
        yield from _check_tracing_backend(where, backend)
        yield from _check_unique(where, backend.name, is_used=is_used)
    message = "has to be set to one of the tracing backend in mesh"
    yield from _check_chosen(f"{path}.defaultBackend", tracing.default_backend, tracing.backends, message)


def _check_tracing_backend(path: str, backend: TracingBackend) -> Iterator[Violation]:
    if not backend.name:
        yield Violation(f"{path}.name", "cannot be empty")
    if backend.sampling is not None and not 0.0 <= backend.sampling <= 100.0:
        yield Violation(f"{path}.sampling", "has to be in [0.0 - 100.0] range")
    conf: Mapping[str, object] = backend.conf or {}
    if backend.type == "zipkin":
        yield from _check_zipkin(f"{path}.config", conf)
    elif backend.type == "datadog":
        yield from _check_datadog(f"{path}.config", conf)
    else:
        yield Violation(f"{path}.type", f'{_UNKNOWN_TYPE}"zipkin", "datadog"')


def _check_zipkin(path: str, conf: Mapping[str, object]) -> Iterator[Violation]:
    if conf.get("apiVersion") and conf["apiVersion"] not in _ZIPKIN_VERSIONS:
        yield Violation(f"{path}.apiVersion", f"has invalid value. Allowed values: {', '.join(_ZIPKIN_VERSIONS)}")
    url = conf.get("url")
    if not url:
        yield Violation(f"{path}.url", "cannot be empty")
        return
    try:
        parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        port = parts.port
    except ValueError:
        yield Violation(f"{path}.url", "invalid URL")
        return
    if not parts.scheme or not parts.netloc:
        yield Violation(f"{path}.url", "invalid URL")
    elif port is None:
        yield Violation(f"{path}.url", "port has to be explicitly specified")


def _check_datadog(path: str, conf: Mapping[str, object]) -> Iterator[Violation]:
    address = conf.get("address") or ""
    if not address:
        yield Violation(f"{path}.address", "cannot be empty")
    text = address if isinstance(address, str) else ""
    if text.startswith("unix:"):
        return
    port = text.rpartition(":")[2]
    if ":" not in text:
        yield Violation(f"{path}.address", "must be of format address:port or unix:/path/to/socket")
    elif not (port.isascii() and port.isdigit() and 1 <= int(port) <= _PORT_MAX):
        yield Violation(f"{path}.address", "port must be number in range 1-65535")


def _check_metrics(path: str, metrics: MeshMetrics) -> Iterator[Violation]:
    for i, (backend, is_used) in enumerate(zip(metrics.backends, _used_before(metrics.backends), strict=True)):
        where = f"{path}.backends[{i}]"
        yield from _check_unique(where, backend.name, is_used=is_used)
        if backend.type != "prometheus":
            yield Violation(f"{where}.type", f'{_UNKNOWN_TYPE}"prometheus"')
    message = "has to be set to one of the backends in the mesh"
    yield from _check_chosen(f"{path}.enabledBackend", metrics.enabled_backend, metrics.backends, message)


def _check_constraints(path: str, constraints: Constraints) -> Iterator[Violation]:
    proxy = constraints.dataplane_proxy
    if proxy is None:
        return
    for field, rules in (("requirements", proxy.requirements), ("restrictions", proxy.restrictions)):
        for i, rule in enumerate(rules):
            yield from check_selector(f"{path}.dataplaneProxy.{field}[{i}].tags", rule.tags)
