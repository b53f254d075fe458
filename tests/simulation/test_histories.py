"""Whatever happened, in whatever order: the end is that of a control plane that starts now.

A failing seed prints the shortest history found that fails. `KUMAFAST_HISTORIES=100000` makes a long run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from tests.simulation.histories import Step, World, history, shrunk

from kumafast import publisher
from kumafast.metrics import Metrics
from kumafast.snapshot import Snapshot

LENGTH = 300
CHUNK = 100
HISTORIES = int(os.environ.get("KUMAFAST_HISTORIES", "1200"))


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    # One node in a slice, so that most of what happens happens while somebody is behind.
    monkeypatch.setattr(publisher, "SLICE_NODES_MAX", 1)


def _faults(steps: Sequence[Step], metrics: Metrics) -> list[str]:
    world = World(metrics)
    try:
        world.play(steps)
        world.settle()
        return list(world.differences())
    except Exception as error:
        return [repr(error)]


def _report(steps: Sequence[Step], metrics: Metrics) -> str:
    kept = shrunk(steps, lambda fewer: bool(_faults(fewer, metrics)))
    lines = "\n".join(f"    {step!r}," for step in kept)
    return f"{_faults(kept, metrics)}\nafter World.play([\n{lines}\n])"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_any_history_ends_as_a_fresh_start_would(first: int, metrics: Metrics) -> None:
    for seed in range(first, min(first + CHUNK, HISTORIES)):
        steps = history(seed, LENGTH)
        if _faults(steps, metrics):
            pytest.fail(f"seed {seed}: {_report(steps, metrics)}", pytrace=False)


def test_a_fault_is_found_and_its_history_shrunk(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Snapshot, "replaced", lambda self, layers: self)
    steps = next(steps for steps in (history(seed, LENGTH) for seed in range(100)) if _faults(steps, metrics))
    kept = shrunk(steps, lambda fewer: bool(_faults(fewer, metrics)))
    # A proxy that reaches a service, its stream, and an endpoint that comes: nothing can be left out, and its order
    # within a commit does not count.
    assert [step.what for step in kept if step.what not in ("commit", "publish")] != []
    assert len(kept) <= 8
    assert _report(steps, metrics).count("Step(") == len(kept)
