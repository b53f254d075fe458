"""Metrics as collectors take them: each kind of metric of the text form, with labels beside its own."""

from __future__ import annotations

import struct
from typing import Any

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2

from kumafast.cli import metrics_export

TEXT = """\
# HELP requests_total All that came.
# TYPE requests_total counter
requests_total{code="2"} 3
# TYPE depth gauge
depth 1.5
# TYPE took histogram
took_bucket{le="1"} 1
took_bucket{le="5"} 4
took_bucket{le="+Inf"} 6
took_sum 20.5
took_count 6
# TYPE size summary
size{quantile="0.5"} 10
size_sum 30
size_count 2
"""


def exported(*texts: str, **labels: str) -> dict[str, Any]:
    """The metrics of a message by name."""
    frame = metrics_export.request(texts, labels, at_ns=7)
    compressed, length = struct.unpack(">BI", frame[:5])
    assert (compressed, length) == (0, len(frame) - 5)
    message = metrics_service_pb2.ExportMetricsServiceRequest.FromString(frame[5:])
    return {each.name: each for each in message.resource_metrics[0].instrumentation_library_metrics[0].metrics}


def attributes(point: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in point.attributes}


def test_every_kind_of_metric_has_its_form() -> None:
    found = exported(TEXT, mesh="default", code="9")
    (counted,) = found["requests_total"].sum.data_points
    assert found["requests_total"].sum.is_monotonic
    assert found["requests_total"].description == "All that came."
    assert (counted.as_double, counted.time_unix_nano) == (3.0, 7)
    assert attributes(counted) == {"mesh": "default", "code": "2"}
    (depth,) = found["depth"].gauge.data_points
    assert depth.as_double == 1.5
    (took,) = found["took"].histogram.data_points
    assert (list(took.explicit_bounds), list(took.bucket_counts)) == ([1.0, 5.0], [1, 3, 2])
    assert (took.count, took.sum) == (6, 20.5)
    (size,) = found["size"].summary.data_points
    assert [(each.quantile, each.value) for each in size.quantile_values] == [(0.5, 10.0)]
    assert (size.count, size.sum) == (2, 30.0)


def test_what_is_no_metric_takes_nobody_elses_along() -> None:
    assert set(exported("<html>\n", TEXT)) == {"requests_total", "depth", "took", "size"}
