"""The guards of a service seen in traffic: each policy does what it says, and nothing once it is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, EchoService, Mesh, Sidecar, free_port, rejected, wait_until

pytestmark = pytest.mark.envoy

WEB = [{"match": {"kuma.io/service": "web-1"}}]
TO_ECHO = [{"match": ECHO}]


class Scene:
    """A service with its sidecar, and two clients of it."""

    def __init__(self, mesh: Mesh) -> None:
        self.control_plane = mesh.control_plane
        self.echo: EchoService
        self.echo, self.server = mesh.echo("echo-1")
        self.inbound_port = mesh.inbound_ports["echo-1"]
        self.web: Sidecar
        self.web, (self.web_port,) = mesh.client("web-1", ECHO)
        self.job: Sidecar
        self.job, (self.job_port,) = mesh.client("job-1", ECHO)
        wait_until(lambda: get(self.web_port).status_code == 200, "the service answers")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Scene]:
    """One for all: each test leaves it as it was."""
    directory: Path = tmp_path_factory.mktemp("guards")
    mesh = Mesh(directory, envoy_binary, uses_delta=True)
    with mesh.ending:
        scene = Scene(mesh)
        yield scene
        assert rejected(scene.server) == rejected(scene.web) == rejected(scene.job) == []


def get(port: int, path: str = "/", *, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """One request on a connection of its own: those that are open stay with the listener that took them."""
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5, headers=headers)


def between(kind: str, conf: dict[str, Any]) -> dict[str, Any]:
    """A policy for what the client sends to the service."""
    return {"type": kind, "sources": WEB, "destinations": TO_ECHO, "conf": conf}


def test_a_health_check_finds_the_dead(scene: Scene) -> None:
    dead = {"port": free_port(), "tags": {**ECHO, "kuma.io/protocol": "http"}}
    networking = {"address": "127.0.0.1", "inbound": [dead]}
    document = {"type": "Dataplane", "mesh": "default", "name": "echo-dead", "networking": networking}
    scene.control_plane.converge(scene.control_plane.put(document))
    members = "^cluster.echo.(membership_healthy|membership_total|upstream_cx_connect_fail)$"

    def seen() -> tuple[int, int, int]:
        stats = scene.web.stats(members)
        names = ("membership_healthy", "membership_total", "upstream_cx_connect_fail")
        return tuple(stats[f"cluster.echo.{name}"] for name in names)  # type: ignore[return-value]

    try:
        wait_until(lambda: seen()[:2] == (2, 2), "both instances count as well")
        check = {"interval": "1s", "timeout": "1s", "unhealthyThreshold": 1, "healthyThreshold": 1}
        with scene.control_plane.policy("health-checks", **between("HealthCheck", {**check, "http": {"path": "/"}})):
            wait_until(lambda: seen()[:2] == (1, 2), "the dead instance is found")
            failed, answered = seen()[2], scene.echo.answered
            assert [get(scene.web_port).status_code for _ in range(8)] == [200] * 8
            assert scene.echo.answered >= answered + 8
            # The check itself may have failed to connect once more, but no request has.
            assert seen()[2] <= failed + 3
    finally:
        scene.control_plane.converge(scene.control_plane.delete("default", "echo-dead"))
    wait_until(lambda: seen()[:2] == (1, 1), "the dead instance is gone")


def at_once(scene: Scene, count: int) -> list[tuple[int, str]]:
    """What becomes of so many requests at a time: their statuses, and whether there were too many."""
    with ThreadPoolExecutor(count) as pool:
        answers = pool.map(lambda _: get(scene.web_port, "/slow"), range(count))
        return sorted((answer.status_code, answer.headers.get("x-envoy-overloaded", "")) for answer in answers)


def test_a_circuit_breaker_limits_what_is_under_way(scene: Scene) -> None:
    assert at_once(scene, 3) == [(200, "")] * 3
    with scene.control_plane.policy(
        "circuit-breakers", **between("CircuitBreaker", {"thresholds": {"maxRequests": 1}})
    ):
        assert at_once(scene, 3) == [(200, ""), (503, "true"), (503, "true")]
        assert scene.web.stats("echo.upstream_rq_active_overflow")["cluster.echo.upstream_rq_active_overflow"] == 2


def test_a_circuit_breaker_leaves_out_who_fails(scene: Scene) -> None:
    breaker = {"interval": "1s", "baseEjectionTime": "30s", "maxEjectionPercent": 100}
    breaker |= {"detectors": {"totalErrors": {"consecutive": 2}}}
    with scene.control_plane.policy("circuit-breakers", **between("CircuitBreaker", breaker)):
        scene.echo.failures += [500, 500]
        assert [get(scene.web_port).status_code for _ in range(2)] == [500, 500]
        wait_until(
            lambda: scene.web.stats("ejections_active")["cluster.echo.outlier_detection.ejections_active"] == 1,
            "the instance is left out",
        )
    wait_until(lambda: get(scene.web_port).status_code == 200, "the instance is back")


def test_a_retry_tries_again(scene: Scene) -> None:
    scene.echo.failures += [418, 418]
    assert get(scene.web_port).status_code == 418
    scene.echo.failures.clear()
    again = {"http": {"numRetries": 3, "retriableStatusCodes": [418], "backOff": {"baseInterval": "1ms"}}}
    with scene.control_plane.policy("retries", **between("Retry", again)):
        scene.echo.failures += [418, 418]
        answered = scene.echo.answered
        assert get(scene.web_port).status_code == 200
        assert scene.echo.answered == answered + 3
        scene.echo.failures += [418] * 9
        assert get(scene.web_port).status_code == 418
        assert len(scene.echo.failures) == 9 - 4
        scene.echo.failures.clear()


def all_answered(port: int, status: int) -> bool:
    """Whether several requests in a row have a status.

    Each worker of a client's Envoy may have a connection that the old listener took; it ends with its next answer,
    which is by the old rule still.
    """
    return all(get(port).status_code == status for _ in range(6))


def told(response: httpx.Response) -> object:
    """What the workload was told of who sends."""
    return response.json()["headers"].get("x-kuma-tags")


def delays(scene: Scene) -> int:
    """How many requests the server's sidecar has delayed."""
    return sum(scene.server.stats("fault.delays_injected").values())


def test_a_fault_is_met_by_its_source_alone(scene: Scene) -> None:
    faults = between("FaultInjection", {"abort": {"percentage": 100, "httpStatus": 418}})
    faults["destinations"] = [{"match": {**ECHO, "kuma.io/protocol": "http"}}]
    with scene.control_plane.policy("fault-injections", **faults):
        wait_until(lambda: all_answered(scene.web_port, 418), "the source's requests are refused")
        answered = scene.echo.answered
        assert get(scene.web_port).status_code == 418
        assert scene.echo.answered == answered
        other = get(scene.job_port)
        assert (other.status_code, told(other)) == (200, None)
    wait_until(lambda: all_answered(scene.web_port, 200), "the fault is gone")
    faults["conf"] = {"delay": {"percentage": 100, "value": "200ms"}}
    with scene.control_plane.policy("fault-injections", **faults):
        before = delays(scene)
        wait_until(lambda: all_answered(scene.web_port, 200) and delays(scene) > before, "requests are delayed")
        started, before = time.monotonic(), delays(scene)
        delayed = get(scene.web_port)
        assert time.monotonic() - started >= 0.2
        # What sidecars tell each other is none of the workload's business.
        assert (delayed.status_code, told(delayed)) == (200, None)
        assert get(scene.job_port).status_code == 200
        assert delays(scene) == before + 1


def test_a_rate_limit_counts_its_source_alone(scene: Scene) -> None:
    answer = {"headers": [{"key": "x-limited", "value": "yes"}]}
    limits = between("RateLimit", {"http": {"requests": 2, "interval": "600s", "onRateLimit": answer}})
    # Whoever claims to be another is told by its own sidecar.
    limits["sources"] = [*WEB, {"match": {"kuma.io/service": "nobody"}}]
    with scene.control_plane.policy("rate-limits", **limits):
        wait_until(lambda: all_answered(scene.web_port, 429), "the source has had its requests")
        assert get(scene.web_port).headers["x-limited"] == "yes"
        assert scene.server.stats("rate_limit.*.ok$") == {"rate_limit.http_local_rate_limit.ok": 2}
        pretended = get(scene.web_port, headers={"x-kuma-tags": "&kuma.io/service=nobody&"})
        assert pretended.status_code == 429
        assert [get(scene.job_port).status_code for _ in range(4)] == [200] * 4
    wait_until(lambda: all_answered(scene.web_port, 200), "the limit is gone")
