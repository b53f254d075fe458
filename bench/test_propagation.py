"""From a write to the store to the acknowledgement of a real Envoy, through HTTP, SQLite, the pipeline and TLS."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.envoy.harness import ECHO, Mesh, get, wait_until

pytestmark = [pytest.mark.informational, pytest.mark.envoy]


@pytest.fixture(params=["delta", "sotw"])
def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mesh]:
    """One service and one client with their Envoys."""
    from kumafast.cli import envoy

    mesh = Mesh(tmp_path, str(envoy.required()), uses_delta=request.param == "delta")
    with mesh.ending:
        mesh.echo("echo-1")
        _, (port,) = mesh.client("web-1", ECHO)
        wait_until(lambda: get(port).status_code == 200, "the service answers")
        yield mesh


def test_endpoint_change_to_acknowledgement(benchmark: Any, mesh: Mesh) -> None:
    """One endpoint moves; the client's Envoy acknowledges. Two HTTP requests of the measuring client are included."""
    numbers = itertools.count(1)

    def change() -> None:
        document = {
            "type": "Dataplane",
            "mesh": "default",
            "name": "echo-extra",
            "networking": {
                "address": f"127.0.1.{next(numbers) % 250 + 1}",
                "inbound": [{"port": 1, "tags": {**ECHO, "kuma.io/protocol": "http"}}],
            },
        }
        report = mesh.control_plane.converge(mesh.control_plane.put(document))
        assert report["is_converged"], report

    benchmark.pedantic(change, rounds=100, warmup_rounds=5)
    ordered = sorted(benchmark.stats.stats.data)
    benchmark.extra_info["p50_ms"] = round(ordered[len(ordered) // 2] * 1000, 2)
    benchmark.extra_info["p99_ms"] = round(ordered[int(len(ordered) * 0.99) - 1] * 1000, 2)
