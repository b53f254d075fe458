"""The numbers that a control plane shows on `/metrics`.

In: what the stages count and time. Out: the text of Prometheus. Never: a global registry; each control plane has its
own, so that two in one process, as in tests, do not add up.

Stages fetch a bound child once (`generator("inbound")`) and keep it: binding looks up a label under a lock. What is
counted for each message of each stream (`xds("type.googleapis.com/…Cluster")`) is plain numbers, read with the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Type URLs come from clients. Beyond this many they are counted together, lest somebody fills the memory with labels.
XDS_TYPES_MAX: Final = 64

_FAST_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PROXIES: Final = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000)


@dataclass(slots=True)
class XdsMetrics:
    """What is counted of one resource type: responses sent, their bytes, and how many were refused."""

    pushes: int = 0
    bytes: int = 0
    rejects: int = 0
    since: float = field(default_factory=time.time)
    """The second since 1970 from which on that was counted."""


_XDS: Final = {
    "pushes": "xDS responses sent.",
    "bytes": "Bytes of xDS responses sent.",
    "rejects": "xDS responses that proxies refused.",
}


class _XdsCollector(Collector):
    """Shows what was counted of types, by their labels."""

    def __init__(self, counted: Mapping[str, XdsMetrics]) -> None:
        self._counted = counted

    def collect(self) -> Iterator[CounterMetricFamily]:
        for counter, meaning in _XDS.items():
            family = CounterMetricFamily(f"kumafast_xds_{counter}", meaning, labels=("type",))
            for label, counts in self._counted.items():
                family.add_metric((label,), getattr(counts, counter), created=counts.since)
            yield family


class Metrics:
    """All metrics of one control plane, in one registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.connected_proxies = Gauge(
            "kumafast_connected_proxies", "Proxies with an open xDS stream to this instance.", registry=registry
        )
        self.reconcile_seconds = Histogram(
            "kumafast_reconcile_seconds", "From taking up changes to publishing.", buckets=_FAST_S, registry=registry
        )
        self.proxy_convergence_seconds = Histogram(
            "kumafast_proxy_convergence_seconds",
            "From a change of the store to the acknowledgement of an affected proxy.",
            buckets=_FAST_S,
            registry=registry,
        )
        self._affected = Histogram(
            "kumafast_affected_proxies",
            "Proxies that one change affected.",
            ("cause",),
            buckets=_PROXIES,
            registry=registry,
        )
        self._generator_calls = Counter(
            "kumafast_generator_calls",
            "Calls of generators that were not answered from memory.",
            ("generator",),
            registry=registry,
        )
        # By the label of the type; a counter of the library takes a lock and half a microsecond each time.
        self._xds_labels: dict[str, XdsMetrics] = {}
        registry.register(_XdsCollector(self._xds_labels))
        self.certificates_issued = Counter(
            "kumafast_certificates_issued", "Workload certificates that were signed.", registry=registry
        )
        """Certificates that were signed by this instance."""
        self._cache_entries = Gauge(
            "kumafast_snapshot_cache_entries", "Snapshots that are kept for nodes.", registry=registry
        )
        self._asyncio_tasks = Gauge(
            "kumafast_asyncio_tasks", "Tasks of the event loop that have not ended.", registry=registry
        )
        self._store_failing = Gauge(
            "kumafast_store_failing", "1 while nothing can be written to the store, else 0.", registry=registry
        )
        self._health_streams = Gauge(
            "kumafast_health_streams", "Streams on which proxies report what they probe.", registry=registry
        )
        self._xds: dict[str, XdsMetrics] = {}
        self._generators: dict[str, Counter] = {}
        ProcessCollector(registry=registry)

    def affected_proxies(self, cause: str) -> Histogram:
        """The histogram of affected proxies for one cause, such as the type of the changed resource."""
        return self._affected.labels(cause)

    def generator_calls(self, generator: str) -> Counter:
        """The counter of one generator's calls, bound once; there are as many as there are kinds of parts."""
        found = self._generators.get(generator)
        if found is None:
            found = self._generators[generator] = self._generator_calls.labels(generator)
        return found

    def xds(self, type_url: str) -> XdsMetrics:
        """The counts of a resource type, for the caller to add to; beyond `XDS_TYPES_MAX` types they share the label
        `other`.
        """
        found = self._xds.get(type_url)
        if found is None:
            if len(self._xds) >= XDS_TYPES_MAX:
                return self._labelled("other")
            found = self._xds[type_url] = self._labelled(type_url.rpartition(".")[2] or "other")
        return found

    def count_snapshots_with(self, count: Callable[[], int]) -> None:
        """Ask `count` for the number of kept snapshots whenever the metrics are read."""
        self._cache_entries.set_function(count)

    def count_tasks_with(self, count: Callable[[], int]) -> None:
        """Ask `count` for the number of the loop's tasks whenever the metrics are read."""
        self._asyncio_tasks.set_function(count)

    def show_store_with(self, failure: Callable[[], str]) -> None:
        """Ask `failure` why nothing can be written, if so, whenever the metrics are read."""
        self._store_failing.set_function(lambda: float(bool(failure())))

    def count_health_streams_with(self, count: Callable[[], int]) -> None:
        """Ask `count` for the number of streams of health discovery whenever the metrics are read."""
        self._health_streams.set_function(count)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    async def read(self) -> bytes:
        """The same, for whoever waits for it."""
        return self.exposition()

    def _labelled(self, label: str) -> XdsMetrics:
        found = self._xds_labels.get(label)
        if found is None:
            found = self._xds_labels[label] = XdsMetrics()
        return found
