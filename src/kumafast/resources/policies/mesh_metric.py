"""MeshMetric: which metrics proxies and their workloads publish, and where. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshMetric`, frozen, and the rules that it breaks.
Never: what Envoy makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from kumafast.errors import Violation
from kumafast.resources.conf_rules import MUST_BE_DEFINED, is_url
from kumafast.resources.durations import GoDuration
from kumafast.resources.fields import Count, Flag, Text
from kumafast.resources.otel import BackendRef, OtelBackend, address, check_otel_backend
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import PROXIES, check_target_ref
from kumafast.resources.target_ref_policy import ProxySpec, TargetRefPolicy

ALL = "All"
BASIC = "Basic"
NONE = "None"

PROMETHEUS = "Prometheus"
OPEN_TELEMETRY = "OpenTelemetry"

REGEX = "Regex"
PREFIX = "Prefix"
EXACT = "Exact"
CONTAINS = "Contains"

PROVIDED_TLS = "ProvidedTLS"
ACTIVE_MTLS_BACKEND = "ActiveMTLSBackend"

_PORT = "port must be a valid (1-65535)"


class Profile(Frozen):
    """A set of metrics that is known by name."""

    name: Text = ""


class Selector(Frozen):
    """Metrics by their names."""

    type: Text = ""
    match: Text = ""


class Profiles(Frozen):
    """Which metrics are published: those of the profiles but for the excluded, and the included in any case."""

    append_profiles: tuple[Profile, ...] = ()
    exclude: tuple[Selector, ...] | None = None
    include: tuple[Selector, ...] | None = None


class Sidecar(Frozen):
    """The proxy's own metrics; those that never moved only where it says so."""

    profiles: Profiles | None = None
    include_unused: Flag | None = None


class Application(Frozen):
    """Where a workload answers with its metrics; without an address where the proxy is."""

    name: Text | None = None
    path: Text = "/metrics/prometheus"
    address: Text = ""
    port: Count = 0


class PrometheusTls(Frozen):
    """How those who ask for metrics are secured."""

    mode: Literal["Disabled", "ProvidedTLS", "ActiveMTLSBackend"] = "Disabled"


class Prometheus(Frozen):
    """A port of the proxy where all metrics are asked for."""

    client_id: Text | None = None
    port: Count = 5670
    path: Text = "/metrics"
    tls: PrometheusTls | None = None


class OpenTelemetry(Frozen):
    """A collector that metrics are sent to, every so often: `host:port`, or a resource that says it."""

    endpoint: Text = ""
    backend_ref: BackendRef | None = None
    refresh_interval: GoDuration | None = None


class Backend(Frozen):
    """Where metrics are published, in the section of its type."""

    type: Text = ""
    prometheus: Prometheus | None = None
    open_telemetry: OpenTelemetry | None = None


class Conf(Frozen):
    """Which metrics of the proxy, of whom else, and where they are published; nowhere without a backend."""

    sidecar: Sidecar | None = None
    applications: tuple[Application, ...] | None = None
    backends: tuple[Backend, ...] | None = None


class MeshMetric(TargetRefPolicy):
    """Publishes the metrics of proxies and of their workloads."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshMetric",
        scope=Scope.MESH,
        path="meshmetrics",
        singular="Mesh Metric",
        plural="Mesh Metrics",
        short_name="mm",
        is_in_federation=True,
        policy=PolicyTraits(order=1500, is_target_ref=True),
    )

    spec: ProxySpec[Conf] = ProxySpec()

    def remarks(self) -> Iterator[str]:
        """That metrics lead nowhere."""
        for backend in (self.spec.default or Conf()).backends or ():
            if backend.open_telemetry is not None and backend.open_telemetry.backend_ref is not None:
                yield "backendRef: MeshOpenTelemetryBackend is not known here, so nothing is sent; name an endpoint"

    def violations(self) -> Iterator[Violation]:
        """Every rule of mesh metrics that this one breaks, in the order of Kuma's checks."""
        yield from check_target_ref("spec.targetRef", self.spec.top, kinds=PROXIES)
        conf = self.spec.default or Conf()
        if conf.sidecar is not None and conf.sidecar.profiles is not None:
            yield from _check_profiles("spec.default.sidecar.profiles", conf.sidecar.profiles)
        for i, application in enumerate(conf.applications or ()):
            if not 0 < application.port < 65536:
                # Kuma's path has the singular, and ends before the port.
                yield Violation(f"spec.default.applications.application[{i}]", _PORT)
        for i, backend in enumerate(conf.backends or ()):
            yield from _check_backend(f"spec.default.backends.backend[{i}]", backend)


def _check_profiles(path: str, profiles: Profiles) -> Iterator[Violation]:
    for name, selectors in (("exclude", profiles.exclude), ("include", profiles.include)):
        for i, selector in enumerate(selectors or ()):
            yield from _check_selector(f"{path}.{name}[{i}]", selector)
    for i, profile in enumerate(profiles.append_profiles):
        if profile.name not in (ALL, BASIC, NONE):
            message = f"unrecognized profile name '{profile.name}' - 'All', 'None', 'Basic' are supported"
            yield Violation(f"{path}.appendProfiles[{i}].name", message)


def _check_selector(path: str, selector: Selector) -> Iterator[Violation]:
    if selector.type == REGEX:
        if not _is_regex(selector.match):
            yield Violation(f"{path}.match", "invalid regex")
    elif selector.type not in (PREFIX, EXACT, CONTAINS):
        message = f"unrecognized type '{selector.type}' - 'Regex', 'Prefix', 'Exact' are supported"
        yield Violation(f"{path}.type", message)


def _check_backend(path: str, backend: Backend) -> Iterator[Violation]:
    if backend.type == PROMETHEUS:
        if backend.prometheus is None:
            yield Violation(f"{path}.prometheus", MUST_BE_DEFINED)
        elif not 0 < backend.prometheus.port < 65536:
            yield Violation(f"{path}.port", _PORT)
    elif backend.type == OPEN_TELEMETRY:
        if backend.open_telemetry is None:
            yield Violation(f"{path}.openTelemetry", MUST_BE_DEFINED)
        else:
            yield from _check_open_telemetry(f"{path}.openTelemetry", backend.open_telemetry)
    else:
        yield Violation(path, "unrecognized type")


def _check_open_telemetry(path: str, backend: OpenTelemetry) -> Iterator[Violation]:
    if backend.backend_ref is not None:
        yield from check_otel_backend(path, OtelBackend(endpoint=backend.endpoint, backend_ref=backend.backend_ref))
        return
    if not is_url(backend.endpoint):
        yield Violation(f"{path}.endpoint", "must be a valid url")
    if backend.endpoint.startswith(("http://", "https://")):
        yield Violation(f"{path}.endpoint", "must not use schema")
    elif is_url(backend.endpoint) and address(backend.endpoint) is None:
        # Kuma takes the port for another then, and its Envoys refuse the cluster.
        yield Violation(f"{path}.endpoint", "must be in host:port format, with a port in the range [1, 65535]")


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
