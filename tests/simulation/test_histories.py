"""Whatever happened, in whatever order: the end is that of a control plane that starts now.

A failing seed prints the shortest history found that fails. `KUMAFAST_HISTORIES=100000` makes a long run.
"""

from __future__ import annotations

import gc
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from tests.simulation.histories import Step, World, history
from tests.simulation.shrinking import shrunk
from tests.simulation.situations import situation
from tests.simulation.variants import POLICIES, VARIANTS, policy, served

from kumafast import garbage, publisher, reached
from kumafast.metrics import Metrics
from kumafast.registry.mesh_state import MeshState
from kumafast.registry.policies import Policies
from kumafast.resources import catalog
from kumafast.snapshot import Snapshot

LENGTH = 300
CHUNK = 100
LOOK_EVERY = 10
KIND_MIN = 2
HISTORIES = int(os.environ.get("KUMAFAST_HISTORIES", "2000"))
SITUATIONS = max(800, HISTORIES // 3)


def _make_small(patch: pytest.MonkeyPatch) -> None:
    # One node in a slice, so that most of what happens happens while somebody is behind.
    patch.setattr(publisher, "SLICE_NODES_MAX", 1)
    # And one dataplane at a time, so that most services are not ready when their first client asks.
    patch.setattr(reached, "READ_MAX", 1)


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    _make_small(monkeypatch)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of lines are logged of broken authorities, each of which pytest would keep."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module", autouse=True)
def left_out() -> None:
    """Looks for dead cycles leave out what was there before, which other tests have left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def other() -> Iterator[Executor]:
    """A second process, which plays every other history."""
    # What is logged is not to be shown there either.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=logging.disable) as executor:
        yield executor


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


def _first_faulty(seeds: Iterable[int], metrics: Metrics) -> int | None:
    # Cycles are looked for between histories only.
    with garbage.left_alone():
        for played, seed in enumerate(seeds, start=1):
            if _faults(history(seed, LENGTH), metrics):
                return seed
            if played % LOOK_EVERY == 0:
                gc.collect()
    return None


def _first_faulty_elsewhere(seeds: Iterable[int]) -> int | None:
    """In another process, which has not seen this one's fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        _make_small(patch)
        return _first_faulty(seeds, Metrics())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_any_history_ends_as_a_fresh_start_would(first: int, metrics: Metrics, other: Executor) -> None:
    seeds = range(first, min(first + CHUNK, HISTORIES))
    elsewhere = other.submit(_first_faulty_elsewhere, seeds[1::2])
    found = _first_faulty(seeds[::2], metrics)
    if found is None:
        found = elsewhere.result()
    if found is not None:
        pytest.fail(f"seed {found}: {_report(history(found, LENGTH), metrics)}", pytrace=False)


def _first_faulty_situation(metrics: Metrics) -> int | None:
    return next((seed for seed in range(SITUATIONS) if _faults(situation(seed), metrics)), None)


def test_any_situation_ends_as_a_fresh_start_would(metrics: Metrics) -> None:
    """What many later changes would make good is not missing when they do not come."""
    found = _first_faulty_situation(metrics)
    if found is not None:
        pytest.fail(f"situation {found}: {_report(situation(found), metrics)}", pytrace=False)


def _names_stay(patch: pytest.MonkeyPatch) -> None:
    settle = MeshState.settle_names
    patch.setattr(
        MeshState, "settle_names", lambda state, gathered, *, is_rerouted: settle(state, gathered, is_rerouted=False)
    )


@pytest.mark.parametrize(
    "plant",
    [
        lambda patch: patch.setattr(Policies, "_differs_at_gateway", lambda *_: False),
        lambda patch: patch.setattr(MeshState, "note_readers", lambda *_: None),
        _names_stay,
    ],
    ids=["policies of gateways", "secrets that are read", "names that routes lead elsewhere"],
)
def test_what_long_histories_make_good_situations_find(
    plant: Callable[[pytest.MonkeyPatch], None], metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert _first_faulty_situation(metrics) is not None


def test_every_kind_takes_part() -> None:
    bound = Counter(policy("default", number).type.name for number in range(POLICIES))
    assert {kind.name for kind in catalog.POLICY_TYPES if bound[kind.name] < KIND_MIN} == set()
    assert {served("default", number).type.name for number in range(VARIANTS)} == {
        "MeshExternalService",
        "MeshMultiZoneService",
        "MeshService",
    }
    moves = {step.what for seed in range(20) for step in history(seed, LENGTH)}
    assert moves >= {"bind", "unbind", "serve", "withdraw", "generate", "degenerate", "christen", "unname", "allocate"}


def test_a_fault_is_found_and_its_history_shrunk(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Snapshot, "replaced", lambda self, layers: self)
    steps = next(steps for steps in (history(seed, LENGTH) for seed in range(100)) if _faults(steps, metrics))
    kept = shrunk(steps, lambda fewer: bool(_faults(fewer, metrics)))
    # A proxy that reaches a service, its stream, and an endpoint that comes: nothing can be left out, and its order
    # within a commit does not count. Each endpoint that is there already takes a slice to be read.
    happened = [step.what for step in kept if step.what not in ("commit", "publish")]
    assert 0 < len(happened) <= 8
    assert len(kept) <= 10
    # What is shrunk already is reported as it is.
    assert _report(kept, metrics).count("Step(") == len(kept)
