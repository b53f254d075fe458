"""One set of metrics out of those of several workers.

In: what each worker shows on `/metrics`. Out: the same metrics once, over all of them. Never: a counter that falls
because a worker has gone: what it had counted when it was read last stays.

Counts, sizes and times of work are added up. Of when something began and of limits the least is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_Labels: TypeAlias = tuple[tuple[str, str], ...]
_Samples: TypeAlias = dict[tuple[str, _Labels], float]

_LEAST: Final = frozenset({"process_start_time_seconds", "process_max_fds"})
_LASTING: Final = frozenset({"counter", "histogram"})


class WorkerMetrics:
    """What workers have shown, by whatever names them."""

    def __init__(self) -> None:
        self._shown: dict[str, list[Metric]] = {}
        self._past: dict[str, Metric] = {}

    def see(self, worker: str, exposition: bytes) -> None:
        """Take in what a worker shows now, in Prometheus' text format."""
        self._shown[worker] = list(text_string_to_metric_families(exposition.decode()))

    def retire(self, worker: str) -> None:
        """A worker is no more; what it has counted stays."""
        gone = [family for family in self._shown.pop(worker, []) if family.type in _LASTING]
        self._past = {family.name: family for family in _merged([*self._past.values(), *gone])}

    def exposition(self, own: CollectorRegistry | None = None) -> bytes:
        """All of it in the same format, with what the metrics of another registry add."""
        families = [*self._past.values(), *(family for shown in self._shown.values() for family in shown)]
        registry = CollectorRegistry()
        registry.register(_Given(list(_merged(families))))
        return generate_latest(registry) + (b"" if own is None else generate_latest(own))


class _Given(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def _merged(families: Iterable[Metric]) -> Iterator[Metric]:
    """One family of each name, in the order in which they come first."""
    merged: dict[str, Metric] = {}
    samples: dict[str, _Samples] = {}
    for family in families:
        merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        of_family = samples.setdefault(family.name, {})
        is_least = family.name in _LEAST or family.name.endswith("_created")
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            before = of_family.get(key)
            if before is None:
                of_family[key] = sample.value
            else:
                of_family[key] = min(before, sample.value) if is_least else before + sample.value
    for name, family in merged.items():
        for (sample_name, labels), value in samples[name].items():
            family.add_sample(sample_name, dict(labels), value)
        yield family
