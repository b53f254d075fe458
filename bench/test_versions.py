"""What a client holds against what it should: the compiled difference against the twin's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench import cases
from bench.conftest import Record
from bench.timing import best
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles import diff_naive

from kumafast import diff_versions

Report = Callable[[str], None]


@pytest.mark.gate
def test_difference_against_the_twin(report: Report, record: Record) -> None:
    """500 resources, one changed, one removed, one added: the twin is never faster."""
    held = cases.versions(500)
    names = list(held)
    wanted = {**held, names[7]: "changed", "added": "1"}
    del wanted[names[9]]
    assert diff_versions(held, wanted) == ([names[7], "added"], [names[9]]) == diff_naive.diff_versions(held, wanted)
    core = best(lambda: [diff_versions(held, wanted) for _ in range(100)]) / 100
    twin = best(lambda: [diff_naive.diff_versions(held, wanted) for _ in range(100)]) / 100
    report(f"{core * 1e6:.1f} µs; the twin {twin * 1e6:.1f} µs, {twin / core:.1f} times")
    record(difference_s=core, difference_twin_s=twin)
    assert twin >= core


@pytest.mark.gate
def test_the_same_map_is_not_looked_at(report: Report) -> None:
    """The same object twice costs the same for 10 and for 10,000 names."""
    small, large = cases.versions(10), cases.versions(10_000)
    assert diff_versions(large, large) == ([], [])
    few = best(lambda: [diff_versions(small, small) for _ in range(10_000)]) / 10_000
    many = best(lambda: [diff_versions(large, large) for _ in range(10_000)]) / 10_000
    report(f"{few * 1e9:.0f} ns for 10 names, {many * 1e9:.0f} ns for 10,000")
    assert many < 3 * few


@pytest.mark.informational
@pytest.mark.parametrize("size", [10, 500, 10_000])
def test_diff_versions(benchmark: BenchmarkFixture, size: int) -> None:
    held, wanted = cases.versions(size), cases.versions(size) | {"added": "1"}
    assert benchmark(diff_versions, held, wanted) == (["added"], [])
