"""What MeshTrace changes: requests that a proxy handles are reported to a collector, which is a cluster of its own.

In: a merged conf. Out: effects, and the part that is the collector. Never: a trace of what is no request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from kumafast.generation import names, protocols
from kumafast.generation.effects import Collector, Effect
from kumafast.generation.proxy import Part
from kumafast.generation.tracing import DatadogTracing, OtelTracing, Reporting, SpanTag, ZipkinTracing
from kumafast.resources import otel
from kumafast.resources.conf_rules import decimal
from kumafast.resources.policies.mesh_trace import Backend, Conf, MeshTrace, Sampling, Tag, collector

KIND = MeshTrace.type.name


def proxy(conf: Mapping[str, Any]) -> tuple[Part, ...]:
    """What a proxy has beside its inbounds and outbounds: the collector."""
    backend = _backend(Conf.model_validate(conf))
    found = None if backend is None else _collector(backend)
    return () if found is None else (found,)


def outbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an outbound."""
    written = Conf.model_validate(conf)
    backend = _backend(written)
    if backend is None or not protocols.is_http(protocol) or _collector(backend) is None:
        return None
    return _tracing(backend, _reporting(written))


def inbound(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of an inbound."""
    return outbound(conf, protocol)


def gateway(conf: Mapping[str, Any], protocol: str) -> Effect | None:
    """What changes in the listener of a gateway."""
    return outbound(conf, protocol)


def _backend(conf: Conf) -> Backend | None:
    return next(iter(conf.backends or ()), None)


def _collector(backend: Backend) -> Collector | None:
    """Where spans go; None where the backend does not say it."""
    name = names.trace_cluster_name(backend.type)
    if backend.type == "OpenTelemetry":
        endpoint = "" if backend.open_telemetry is None else backend.open_telemetry.endpoint
        if endpoint and "://" not in endpoint:
            where = otel.address(endpoint)
            return None if where is None else Collector(name, *where, is_http2=True)
        url = endpoint
    elif backend.type == "Datadog":
        url = "" if backend.datadog is None else backend.datadog.url
    else:
        url = "" if backend.zipkin is None else backend.zipkin.url
    where = collector(url)
    return None if where is None else Collector(name, *where, is_tls=urlsplit(url).scheme == "https")


def _tracing(backend: Backend, reporting: Reporting) -> Effect | None:
    name = names.trace_cluster_name(backend.type)
    if backend.type == "Datadog" and backend.datadog is not None:
        return DatadogTracing(name, is_split=backend.datadog.split_service, reporting=reporting)
    if backend.type == "OpenTelemetry" and backend.open_telemetry is not None:
        endpoint = backend.open_telemetry.endpoint
        return OtelTracing(name, url=endpoint if "://" in endpoint else "", reporting=reporting)
    if backend.zipkin is None:
        return None
    url = urlsplit(backend.zipkin.url)
    return ZipkinTracing(
        name,
        path=url.path or "/",
        host=url.netloc.rpartition("@")[2],
        version=backend.zipkin.api_version,
        has_128bit_ids=backend.zipkin.trace_id_128bit,
        shares_span_context=backend.zipkin.shared_span_context,
        reporting=reporting,
    )


def _reporting(conf: Conf) -> Reporting:
    sampling = conf.sampling or Sampling()
    return Reporting(
        overall=_share(sampling.overall),
        client=_share(sampling.client),
        random=_share(sampling.random),
        tags=tuple(map(_tag, conf.tags or ())),
    )


def _tag(tag: Tag) -> SpanTag:
    if tag.header is None:
        return SpanTag(tag.name, tag.literal or "")
    return SpanTag(tag.name, tag.header.default, header=tag.header.name)


def _share(written: int | str | None) -> float | None:
    return None if written is None else float(decimal(written) or 0)
