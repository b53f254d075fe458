"""Traces: proxies report the requests that they handle to a collector.

In: a collector and what share of requests is reported. Out: effects that turn tracing on. Never: the collector's
cluster, which is a part of its own.
Source of the values: Kuma 2.14.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from envoy.config.trace.v3 import datadog_pb2, http_tracer_pb2, opentelemetry_pb2, zipkin_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf.message import Message

from kumafast.generation import fields
from kumafast.generation.effects import INBOUND, Call, Config, Effect

_Hcm = http_connection_manager_pb2.HttpConnectionManager
_Zipkin = zipkin_pb2.ZipkinConfig
_EXPORT_TIMEOUT = timedelta(seconds=10)
# Version 1 of the format is no more; as in Kuma the second is spoken in its place.
_VERSIONS = {"httpProto": _Zipkin.HTTP_PROTO}


@dataclass(frozen=True, slots=True)
class SpanTag:
    """A tag of each span: a text or, with a header, the value of that and the text where there is none."""

    name: str
    text: str
    header: str = ""


@dataclass(frozen=True, slots=True)
class Reporting:
    """Shares of the requests in percent, and what spans say beside. None is Envoy's own choice, which is all."""

    overall: float | None = None
    client: float | None = None
    """Of those whose client asks for a trace."""
    random: float | None = None
    """Of all others."""
    tags: tuple[SpanTag, ...] = ()

    def add_to(self, tracing: http_connection_manager_pb2.HttpConnectionManager.Tracing) -> None:
        """Say it."""
        for field, share in (
            (tracing.overall_sampling, self.overall),
            (tracing.client_sampling, self.client),
            (tracing.random_sampling, self.random),
        ):
            if share is not None:
                field.value = share
        for tag in self.tags:
            custom = tracing.custom_tags.add(tag=tag.name)
            if tag.header:
                custom.request_header.name = tag.header
                custom.request_header.default_value = tag.text
            else:
                custom.literal.value = tag.text


@dataclass(frozen=True, slots=True)
class ZipkinTracing(Effect):
    """Spans in Zipkin's format."""

    cluster_name: str
    path: str
    host: str
    version: str = ""
    has_128bit_ids: bool = False
    shares_span_context: bool | None = None
    reporting: Reporting = Reporting()

    def watch(self, config: Config, call: Call) -> None:
        """Report requests; mere connections have no trace."""
        zipkin = _Zipkin(
            collector_cluster=self.cluster_name,
            collector_endpoint=self.path,
            collector_hostname=self.host,
            collector_endpoint_version=_VERSIONS.get(self.version, _Zipkin.HTTP_JSON),
            trace_id_128bit=self.has_128bit_ids,
        )
        if self.shares_span_context is not None:
            zipkin.shared_span_context.value = self.shares_span_context
        _trace(config, "envoy.tracers.zipkin", zipkin, self.reporting)


@dataclass(frozen=True, slots=True)
class DatadogTracing(Effect):
    """Spans for Datadog's agent, of the proxy's service, or of one for each of its directions and destinations."""

    cluster_name: str
    is_split: bool = False
    reporting: Reporting = Reporting()

    @property
    def needs_source(self) -> bool:
        """Spans bear the name of the proxy's service."""
        return True

    def watch(self, config: Config, call: Call) -> None:
        """Report requests; mere connections have no trace."""
        service = _service(call)
        parts = [call.direction] if call.direction == INBOUND else [call.direction, call.destination]
        name = "_".join((service, *parts)) if self.is_split else service
        datadog = datadog_pb2.DatadogConfig(collector_cluster=self.cluster_name, service_name=name)
        _trace(config, "envoy.tracers.datadog", datadog, self.reporting)


@dataclass(frozen=True, slots=True)
class OtelTracing(Effect):
    """Spans of OpenTelemetry over gRPC or, with a URL, over HTTP."""

    cluster_name: str
    url: str = ""
    reporting: Reporting = Reporting()

    @property
    def needs_source(self) -> bool:
        """Spans bear the name of the proxy's service."""
        return True

    def watch(self, config: Config, call: Call) -> None:
        """Report requests; mere connections have no trace."""
        otel = opentelemetry_pb2.OpenTelemetryConfig(service_name=_service(call))
        if self.url:
            uri = otel.http_service.http_uri
            uri.uri, uri.cluster = self.url, self.cluster_name
            uri.timeout.CopyFrom(fields.duration(_EXPORT_TIMEOUT))
        else:
            otel.grpc_service.envoy_grpc.cluster_name = self.cluster_name
        _trace(config, "envoy.tracers.opentelemetry", otel, self.reporting)


def _service(call: Call) -> str:
    """The service of the proxy."""
    if call.direction == INBOUND:
        return call.destination
    return "" if call.source is None else call.source.service


def _trace(config: Config, name: str, provider: Message, reporting: Reporting) -> None:
    if not isinstance(config, _Hcm):
        return
    tracing = _Hcm.Tracing(provider=http_tracer_pb2.Tracing.Http(name=name, typed_config=fields.packed(provider)))
    reporting.add_to(tracing)
    config.tracing.CopyFrom(tracing)
