"""How long it takes until nobody has an endpoint whose workload went, and what a report costs that says nothing new."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench import health_reports
from bench.conftest import Record, Tell
from tests.envoy.harness import ECHO, EchoService, Mesh, wait_until
from tests.envoy.test_health_envoy import endpoints, probed

ROUNDS = 20
PROBE_S = 1.0

pytestmark = [pytest.mark.informational, pytest.mark.slow]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    from kumafast.cli import envoy

    mesh = Mesh(tmp_path, str(envoy.required()), uses_delta=True, is_warm=False)
    with mesh.ending:
        yield mesh


@pytest.mark.envoy
def test_how_long_until_a_workload_that_went_has_no_clients(mesh: Mesh, tell: Tell, record: Record) -> None:
    """From the end of a listening socket to an empty cluster at the client, and back, over the probe's interval."""
    echo = EchoService("echo-1")
    probed(mesh, "echo-1", echo.port, {"interval": f"{PROBE_S:g}s", "tcp": {}})
    client, _ = mesh.client("web-1", ECHO)
    wait_until(lambda: endpoints(mesh, client) == 1, "it is there")
    went, came = [], []
    for at in range(ROUNDS):
        # At another moment between two probes each time.
        time.sleep(at % 10 * 0.1)
        echo.stop()
        went.append(_taken(lambda: endpoints(mesh, client) == 0))
        time.sleep(at * 3 % 10 * 0.1)
        echo = EchoService("echo-1", port=echo.port)
        came.append(_taken(lambda: endpoints(mesh, client) == 1))
    echo.stop()
    tell("leaves_s, comes_back_s", [round(max(times), 3) for times in (went, came)])
    record(leaves_median_s=statistics.median(went), leaves_longest_s=max(went))
    record(comes_back_median_s=statistics.median(came), comes_back_longest_s=max(came), rounds=ROUNDS)


def _taken(condition: Callable[[], bool]) -> float:
    """Seconds until a condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + 30
        time.sleep(0.002)
    return time.monotonic() - began


def test_a_report_that_says_nothing_new(tell: Tell, record: Record) -> None:
    each_us = health_reports.measure()
    tell("report_cpu_us", round(each_us, 1))
    record(report_cpu_us=each_us)
