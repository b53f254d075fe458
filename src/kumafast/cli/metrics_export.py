"""Metrics as OpenTelemetry's collectors take them.

In: metrics in Prometheus' text form, labels that all of them get. Out: a message of gRPC. Never: how it is sent.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

URL = "http://collector/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

_SCOPE = "kuma"
_CUMULATIVE = metrics_pb2.AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE

Labels: TypeAlias = tuple[tuple[str, str], ...]


def request(texts: Iterable[str], labels: Mapping[str, str], *, at_ns: int) -> bytes:
    """All metrics as of a moment, each with these labels beside its own, in the frame that gRPC has for a message."""
    message = metrics_service_pb2.ExportMetricsServiceRequest()
    of_scope = message.resource_metrics.add().instrumentation_library_metrics.add()
    of_scope.instrumentation_library.name = _SCOPE
    for text in texts:
        for family in _families(text):
            _fill(of_scope.metrics.add(name=family.name, description=family.documentation), family, labels, at_ns)
    body = message.SerializeToString()
    return struct.pack(">BI", 0, len(body)) + bytes(body)


def _families(text: str) -> Iterator[Metric]:
    try:
        yield from text_string_to_metric_families(text)
    except ValueError:
        # A workload that writes something else has the rest of its own left out, and nobody else's.
        return


def _fill(metric: Any, family: Metric, labels: Mapping[str, str], at_ns: int) -> None:
    if family.type == "histogram":
        metric.histogram.aggregation_temporality = _CUMULATIVE
        for own, samples in _by_labels(family).items():
            _add_histogram(metric.histogram, own, samples, labels, at_ns)
        return
    if family.type == "summary":
        for own, samples in _by_labels(family).items():
            _add_summary(metric.summary, own, samples, labels, at_ns)
        return
    points = metric.gauge.data_points
    if family.type == "counter":
        # The parser takes off the ending that the name is known by.
        metric.name = family.samples[0].name if family.samples else family.name
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = _CUMULATIVE, True
        points = metric.sum.data_points
    for sample in family.samples:
        point = points.add(time_unix_nano=at_ns, as_double=sample.value)
        point.attributes.extend(_attributes(sample.labels.items(), labels))


_Samples: TypeAlias = dict[tuple[str, str], float]
"""By the ending of the name and the bound or quantile."""


def _by_labels(family: Metric) -> dict[Labels, _Samples]:
    """Samples of a histogram or summary: those of one by the labels that they share."""
    found: dict[Labels, _Samples] = {}
    for sample in family.samples:
        rest = dict(sample.labels)
        at = rest.pop("le", rest.pop("quantile", ""))
        key = (sample.name.removeprefix(family.name), at)
        found.setdefault(tuple(rest.items()), {})[key] = sample.value
    return found


def _add_histogram(histogram: Any, own: Labels, samples: _Samples, labels: Mapping[str, str], at_ns: int) -> None:
    point = histogram.data_points.add(
        time_unix_nano=at_ns, count=int(samples.get(("_count", ""), 0)), sum=samples.get(("_sum", ""), 0.0)
    )
    point.attributes.extend(_attributes(own, labels))
    buckets: Sequence[tuple[float, float]] = sorted(
        (float(at), value) for (ending, at), value in samples.items() if ending == "_bucket"
    )
    before = 0.0
    for bound, value in buckets:
        if not math.isinf(bound):
            point.explicit_bounds.append(bound)
        # There each bucket has all below it too.
        point.bucket_counts.append(int(value - before))
        before = value


def _add_summary(summary: Any, own: Labels, samples: _Samples, labels: Mapping[str, str], at_ns: int) -> None:
    point = summary.data_points.add(
        time_unix_nano=at_ns, count=int(samples.get(("_count", ""), 0)), sum=samples.get(("_sum", ""), 0.0)
    )
    point.attributes.extend(_attributes(own, labels))
    for (ending, at), value in sorted(samples.items()):
        if not ending and at:
            point.quantile_values.add(quantile=float(at), value=value)


def _attributes(own: Iterable[tuple[str, str]], labels: Mapping[str, str]) -> Iterator[common_pb2.KeyValue]:
    # Of two with one key the later would count; the metric's own is the nearer.
    for key, value in {**labels, **dict(own)}.items():
        yield common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value))
