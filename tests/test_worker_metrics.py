"""Metrics of workers: added up, and nothing that was counted is lost with whom counted it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from kumafast.metrics import Metrics
from kumafast.worker_metrics import WorkerMetrics


def _samples(exposition: bytes) -> dict[tuple[str, str], float]:
    return {
        (sample.name, ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


def _worker(*, connected: int, pushes: int, seconds: float) -> Metrics:
    metrics = Metrics()
    metrics.connected_proxies.set(connected)
    metrics.xds("type.googleapis.com/envoy.config.cluster.v3.Cluster").pushes += pushes
    metrics.reconcile_seconds.observe(seconds)
    return metrics


def test_they_are_added_up_by_labels_and_buckets() -> None:
    merged = WorkerMetrics()
    merged.see("a", _worker(connected=3, pushes=10, seconds=0.002).exposition())
    merged.see("b", _worker(connected=4, pushes=5, seconds=2.0).exposition())
    shown = _samples(merged.exposition())
    assert shown["kumafast_connected_proxies", ""] == 7
    assert shown["kumafast_xds_pushes_total", "type=Cluster"] == 15
    assert shown["kumafast_reconcile_seconds_count", ""] == 2
    assert shown["kumafast_reconcile_seconds_bucket", "le=0.0025"] == 1
    assert shown["kumafast_reconcile_seconds_bucket", "le=+Inf"] == 2
    assert shown["kumafast_reconcile_seconds_sum", ""] == 2.002


def test_of_limits_and_beginnings_the_least_is_shown() -> None:
    merged = WorkerMetrics()
    text = "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {}\n# TYPE process_max_fds gauge\n{}"
    merged.see("a", text.format("200.0", "process_max_fds 1024\n").encode())
    merged.see("b", text.format("100.0", "process_max_fds 4096\n").encode())
    shown = _samples(merged.exposition())
    assert (shown["process_start_time_seconds", ""], shown["process_max_fds", ""]) == (100, 1024)


def test_what_is_seen_anew_replaces_what_was_seen() -> None:
    merged = WorkerMetrics()
    for pushes in (5, 8):
        merged.see("a", _worker(connected=1, pushes=pushes, seconds=1).exposition())
    assert _samples(merged.exposition())["kumafast_xds_pushes_total", "type=Cluster"] == 8


def test_counts_outlive_their_worker_and_what_is_there_now_does_not() -> None:
    merged = WorkerMetrics()
    for name in ("a", "b", "c"):
        merged.see(name, _worker(connected=3, pushes=10, seconds=1).exposition())
    merged.retire("a")
    merged.retire("b")
    merged.retire("never seen")
    shown = _samples(merged.exposition())
    assert shown["kumafast_connected_proxies", ""] == 3
    assert shown["kumafast_xds_pushes_total", "type=Cluster"] == 30
    assert shown["kumafast_reconcile_seconds_bucket", "le=1.0"] == 3


def test_another_registry_stands_beside() -> None:
    registry = CollectorRegistry()
    Gauge("kumafast_workers", "Workers.", registry=registry).set(2)
    merged = WorkerMetrics()
    merged.see("a", _worker(connected=1, pushes=1, seconds=1).exposition())
    shown = _samples(merged.exposition(registry))
    assert (shown["kumafast_workers", ""], shown["kumafast_connected_proxies", ""]) == (2, 1)
