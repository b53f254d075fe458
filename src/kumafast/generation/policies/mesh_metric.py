"""What MeshMetric changes: ports where metrics are asked for, sockets to collectors, and what the launcher is told.

In: a merged conf, the host of one proxy. Out: parts. Never: anything of a proxy whose launcher has no directory, for
nobody would answer there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from kumafast.generation import names
from kumafast.generation.host import Host
from kumafast.generation.proxy import (
    Collector,
    CollectorSocket,
    LauncherConfig,
    LauncherMetrics,
    MetricsPort,
    Part,
)
from kumafast.resources import otel
from kumafast.resources.policies.mesh_metric import (
    ACTIVE_MTLS_BACKEND,
    OPEN_TELEMETRY,
    PROMETHEUS,
    PROVIDED_TLS,
    Conf,
    MeshMetric,
    OpenTelemetry,
    Prometheus,
)

KIND = MeshMetric.type.name

_DOCUMENT = "/meshmetric"
_REFRESH_INTERVAL = "1m0s"
_CONFS_MAX = 1_024


def on_host(conf: Mapping[str, Any], host: Host) -> tuple[Part, ...]:
    """What a proxy has because its metrics are published, beside its inbounds and outbounds."""
    written = _read(conf)
    asked = [each.prometheus for each in written.backends or () if each.type == PROMETHEUS and each.prometheus]
    sent = [each.open_telemetry for each in written.backends or () if each.type == OPEN_TELEMETRY]
    reached = [each for each in sent if each is not None and each.endpoint and otel.address(each.endpoint) is not None]
    if not asked and not reached:
        return ()
    # Of two with one name Envoy could have one only; the later counts, as with all that Kuma generates.
    ports = {part.name: part for part in (_port(each, host) for each in asked)}.values()
    return (
        *dict.fromkeys(LauncherMetrics(port.cluster_name, host.metrics_socket) for port in ports),
        *ports,
        *dict.fromkeys(part for each in reached for part in _collector(each, host)),
        LauncherConfig(
            host.config_socket,
            ((_DOCUMENT, _document(written, bool(asked), reached, host)),),
            is_unified=host.is_unified,
        ),
    )


@lru_cache(maxsize=_CONFS_MAX)
def _read(conf: Mapping[str, Any]) -> Conf:
    return Conf.model_validate(conf)


def _port(backend: Prometheus, host: Host) -> MetricsPort:
    mode = "" if backend.tls is None else backend.tls.mode
    name = names.metrics_listener_name(backend.client_id or "", is_unified=host.is_unified)
    return MetricsPort(
        name,
        host.address,
        backend.port,
        backend.path,
        # There each client has a cluster of its own, of the same name.
        name if host.is_unified else names.METRICS,
        # Without the files there is a port without TLS, as in Kuma.
        certificate=host.metrics_certificate if mode == PROVIDED_TLS else None,
        mesh=host.mesh if mode == ACTIVE_MTLS_BACKEND else "",
        reuses_port=host.reuses_port,
    )


def _collector(backend: OpenTelemetry, host: Host) -> Iterator[Part]:
    where = otel.address(backend.endpoint)
    assert where is not None
    name = names.metrics_collector_name(_backend_name(backend), is_unified=host.is_unified)
    yield Collector(name, *where, is_http2=True)
    yield CollectorSocket(name, _collector_socket(backend, host))


def _backend_name(backend: OpenTelemetry) -> str:
    """A collector's name, which is that of a file too."""
    return backend.endpoint.replace("/", "").replace(":", "-")


def _collector_socket(backend: OpenTelemetry, host: Host) -> str:
    return host.socket(f"kuma-otel-{_backend_name(backend)}")


def _document(conf: Conf, is_asked: bool, sent: list[OpenTelemetry], host: Host) -> str:
    """What the launcher is told, as kuma-dp reads it."""
    applications = [
        {
            **({} if each.name is None else {"name": each.name}),
            "path": each.path,
            "port": each.port,
            "address": each.address,
        }
        for each in conf.applications or ()
    ]
    backends: list[dict[str, Any]] = [{"type": PROMETHEUS, "name": None}] if is_asked else []
    for each in sent:
        about = {
            "endpoint": _collector_socket(each, host),
            "refreshInterval": each.refresh_interval or _REFRESH_INTERVAL,
        }
        backends.append({"type": OPEN_TELEMETRY, "name": _backend_name(each), "openTelemetry": about})
    told: dict[str, Any] = {"applications": applications or None, "backends": backends}
    if conf.sidecar is not None:
        told["sidecar"] = conf.sidecar.model_dump(mode="json", by_alias=True, exclude_unset=True)
    told["extraLabels"] = dict(host.labels)
    return json.dumps({"observability": {"metrics": told}}, separators=(",", ":"))
