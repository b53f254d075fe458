"""What TrafficTrace changes: requests that a proxy handles are reported to the backend, which is a cluster of its own.

In: the backend of the one policy that applies. Out: effects, and the part that is the backend. Never: a trace of what
is no request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from kumafast.generation import names, protocols
from kumafast.generation.effects import Effect
from kumafast.generation.proxy import Collector, Part
from kumafast.generation.tracing import DatadogTracing, Reporting, ZipkinTracing
from kumafast.resources.policies.traffic_trace import Trace, TrafficTrace
from kumafast.resources.telemetry import DATADOG, Datadog, TracingBackend, Zipkin

KIND = TrafficTrace.type.name


def proxy(conf: Mapping[str, Any]) -> tuple[Part, ...]:
    """What a proxy has beside its inbounds and outbounds: the collector."""
    backend = Trace.model_validate(conf).backend
    if backend is None:
        return ()
    if backend.type == DATADOG:
        datadog = Datadog.model_validate(backend.conf or {})
        return (Collector(names.tracing_cluster_name(backend.name), datadog.address, datadog.port),)
    url = urlsplit(Zipkin.model_validate(backend.conf or {}).url)
    return (
        Collector(
            names.tracing_cluster_name(backend.name), url.hostname or "", url.port or 0, is_tls=url.scheme == "https"
        ),
    )


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound."""
    backend = Trace.model_validate(conf).backend
    return None if backend is None or not protocols.is_http(protocol) else _tracing(backend)


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an inbound."""
    return outbound(conf, protocol)


def gateway(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of a gateway."""
    return outbound(conf, protocol)


def _tracing(backend: TracingBackend) -> Effect:
    cluster = names.tracing_cluster_name(backend.name)
    if backend.type == DATADOG:
        datadog = Datadog.model_validate(backend.conf or {})
        return DatadogTracing(cluster, is_split=bool(datadog.split_service), reporting=Reporting(backend.sampling))
    zipkin = Zipkin.model_validate(backend.conf or {})
    url = urlsplit(zipkin.url)
    return ZipkinTracing(
        cluster,
        path=url.path or "/",
        host=url.netloc.rpartition("@")[2],
        version=zipkin.api_version,
        has_128bit_ids=zipkin.trace_id_128bit,
        shares_span_context=zipkin.shared_span_context,
        reporting=Reporting(backend.sampling),
    )
