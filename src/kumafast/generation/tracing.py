"""Traces: proxies report the requests that they handle to a collector.

In: a collector and what share of requests is reported. Out: effects that turn tracing on. Never: the collector's
cluster, which is a part of its own.
Source of the values: Kuma 2.14.
"""

from __future__ import annotations

from dataclasses import dataclass

from envoy.config.trace.v3 import datadog_pb2, http_tracer_pb2, zipkin_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf.message import Message

from kumafast.generation import fields
from kumafast.generation.effects import INBOUND, Call, Config, Effect

_Hcm = http_connection_manager_pb2.HttpConnectionManager
_Zipkin = zipkin_pb2.ZipkinConfig
# Version 1 of the format is no more; as in Kuma the second is spoken in its place.
_VERSIONS = {"httpProto": _Zipkin.HTTP_PROTO}


@dataclass(frozen=True, slots=True)
class ZipkinTracing(Effect):
    """Spans in Zipkin's format. `sampling` in percent; None is Envoy's own choice, which is all."""

    cluster_name: str
    path: str
    host: str
    version: str = ""
    has_128bit_ids: bool = False
    shares_span_context: bool | None = None
    sampling: float | None = None

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
        _trace(config, "envoy.tracers.zipkin", zipkin, self.sampling)


@dataclass(frozen=True, slots=True)
class DatadogTracing(Effect):
    """Spans for Datadog's agent, of the proxy's service, or of one for each of its directions and destinations."""

    cluster_name: str
    is_split: bool = False
    sampling: float | None = None

    @property
    def needs_source(self) -> bool:
        """Spans bear the name of the proxy's service."""
        return True

    def watch(self, config: Config, call: Call) -> None:
        """Report requests; mere connections have no trace."""
        service = call.destination
        parts = [call.direction]
        if call.direction != INBOUND:
            service = "" if call.source is None else call.source.service
            parts.append(call.destination)
        name = "_".join((service, *parts)) if self.is_split else service
        datadog = datadog_pb2.DatadogConfig(collector_cluster=self.cluster_name, service_name=name)
        _trace(config, "envoy.tracers.datadog", datadog, self.sampling)


def _trace(config: Config, name: str, provider: Message, sampling: float | None) -> None:
    if not isinstance(config, _Hcm):
        return
    tracing = _Hcm.Tracing(provider=http_tracer_pb2.Tracing.Http(name=name, typed_config=fields.packed(provider)))
    if sampling is not None:
        tracing.overall_sampling.value = sampling
    config.tracing.CopyFrom(tracing)
