"""The numbers that a control plane shows on `/metrics`.

In: what the stages count and time. Out: the text of Prometheus. Never: a global registry; each control plane has its
own, so that two in one process, as in tests, do not add up.

Stages fetch a bound child once (`xds("type.googleapis.com/…Cluster")`, `generator("inbound")`) and keep it: binding
looks up a label under a lock, counting on a bound child does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Type URLs come from clients. Beyond this many they are counted together, lest somebody fills the memory with labels.
XDS_TYPES_MAX: Final = 64

_FAST_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PROXIES: Final = (0, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000)


@dataclass(frozen=True, slots=True)
class XdsMetrics:
    """The bound counters of one resource type: responses sent, their bytes, and how many were refused."""

    pushes: Counter
    bytes: Counter
    rejects: Counter


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
        self._pushes = Counter("kumafast_xds_pushes", "xDS responses sent.", ("type",), registry=registry)
        self._bytes = Counter("kumafast_xds_bytes", "Bytes of xDS responses sent.", ("type",), registry=registry)
        self.certificates_issued = Counter(
            "kumafast_certificates_issued", "Workload certificates that were signed.", registry=registry
        )
        """Certificates that were signed by this instance."""
        self._rejects = Counter(
            "kumafast_xds_rejects", "xDS responses that proxies refused.", ("type",), registry=registry
        )
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
        """The counters of a resource type, bound once; beyond `XDS_TYPES_MAX` types they share the label `other`."""
        found = self._xds.get(type_url)
        if found is None:
            if len(self._xds) >= XDS_TYPES_MAX:
                return self._bind("other")
            found = self._xds[type_url] = self._bind(type_url.rpartition(".")[2] or "other")
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

    def _bind(self, label: str) -> XdsMetrics:
        return XdsMetrics(
            pushes=self._pushes.labels(label), bytes=self._bytes.labels(label), rejects=self._rejects.labels(label)
        )
