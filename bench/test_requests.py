"""What it costs to know that a request asks for too much, against parsing it to find out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from bench.timing import best
from envoy.service.discovery.v3 import discovery_pb2
from pytest_benchmark.fixture import BenchmarkFixture
from tests.oracles.excess_naive import is_too_much

from kumafast._core import request_excess

Report = Callable[[str], None]
_NAMES = [f"cluster-{at}" for at in range(15_000)]
_REQUEST = discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=_NAMES).SerializeToString()


@pytest.mark.gate
def test_excess_against_the_twin(report: Report) -> None:
    """15,000 names: a look at the lengths against a parser."""
    assert request_excess(_REQUEST, is_delta=True) is None
    assert not is_too_much(_REQUEST, is_delta=True)
    core = best(lambda: request_excess(_REQUEST, is_delta=True))
    twin = best(lambda: is_too_much(_REQUEST, is_delta=True))
    report(f"{core * 1e6:.0f} µs; the twin {twin * 1e6:.0f} µs, {twin / core:.0f} times")
    assert twin > 5 * core


@pytest.mark.gate
def test_excess_costs_the_limit_and_not_the_request(report: Report) -> None:
    few, many = bytes((0x1A, 0)) * 25_000, bytes((0x1A, 0)) * 10_000_000
    assert request_excess(few, is_delta=True) == request_excess(many, is_delta=True) == "too many names"
    short = best(lambda: [request_excess(few, is_delta=True) for _ in range(20)])
    long = best(lambda: [request_excess(many, is_delta=True) for _ in range(20)])
    report(f"{short / 20 * 1e6:.0f} µs for 25,000 names, {long / 20 * 1e6:.0f} µs for ten million")
    assert long < 3 * short


@pytest.mark.informational
def test_request_excess(benchmark: BenchmarkFixture) -> None:
    assert benchmark(request_excess, _REQUEST, is_delta=True) is None
