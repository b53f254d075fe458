"""The guards of a service that have a targetRef, seen in traffic: each does what it says, and nothing once gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, free_port, rejected, wait_until
from tests.envoy.test_guards import Scene, all_answered, at_once, get

pytestmark = pytest.mark.envoy

WEB = {"kind": "MeshService", "name": "web-1"}
TO_ECHO = {"kind": "MeshService", "name": "echo"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Scene]:
    """One for all: each test leaves it as it was."""
    directory: Path = tmp_path_factory.mktemp("mesh-guards")
    mesh = Mesh(directory, envoy_binary, uses_delta=True)
    with mesh.ending:
        scene = Scene(mesh)
        yield scene
        assert rejected(scene.server) == rejected(scene.web) == rejected(scene.job) == []


def sent(scene: Scene, kind: str, path: str, default: dict[str, Any]) -> AbstractContextManager[None]:
    """A policy for what the client sends to the service."""
    spec = {"targetRef": WEB, "to": [{"targetRef": TO_ECHO, "default": default}]}
    return scene.control_plane.policy(path, type=kind, spec=spec)


def test_a_mesh_retry_tries_again(scene: Scene) -> None:
    scene.echo.failures += [418, 418]
    assert get(scene.web_port).status_code == 418
    scene.echo.failures.clear()
    again = {"http": {"numRetries": 3, "retryOn": ["418"], "backOff": {"baseInterval": "1ms", "maxInterval": "5ms"}}}
    with sent(scene, "MeshRetry", "meshretries", again):
        scene.echo.failures += [418, 418]
        answered = scene.echo.answered
        assert get(scene.web_port).status_code == 200
        assert scene.echo.answered == answered + 3
        # Whom it is not for gets the failure.
        scene.echo.failures += [418]
        assert get(scene.job_port).status_code == 418


def test_what_a_new_mesh_says_of_retries_holds_until_it_is_deleted(scene: Scene) -> None:
    initial = f"{scene.control_plane.api}/meshes/default/meshretries/mesh-retry-all-default"
    document = scene.control_plane.get(initial)
    scene.echo.failures += [503, 503]
    assert get(scene.web_port).status_code == 200
    scene.control_plane.settle("DELETE", initial)
    try:
        scene.echo.failures += [503]
        assert get(scene.web_port).status_code == 503
    finally:
        scene.control_plane.settle("PUT", initial, document)
    scene.echo.failures += [503]
    assert get(scene.web_port).status_code == 200


def test_a_mesh_circuit_breaker_limits_what_is_under_way(scene: Scene) -> None:
    assert at_once(scene, 3) == [(200, "")] * 3
    with sent(scene, "MeshCircuitBreaker", "meshcircuitbreakers", {"connectionLimits": {"maxRequests": 1}}):
        assert at_once(scene, 3) == [(200, ""), (503, "true"), (503, "true")]
    assert at_once(scene, 3) == [(200, "")] * 3


def test_a_mesh_circuit_breaker_leaves_out_who_fails(scene: Scene) -> None:
    outliers = {"interval": "1s", "baseEjectionTime": "30s", "maxEjectionPercent": 100}
    outliers |= {"detectors": {"totalFailures": {"consecutive": 2}}}
    ejected = "cluster.echo.outlier_detection.ejections_active"
    with sent(scene, "MeshCircuitBreaker", "meshcircuitbreakers", {"outlierDetection": outliers}):
        scene.echo.failures += [500, 500]
        assert [get(scene.web_port).status_code for _ in range(2)] == [500, 500]
        wait_until(lambda: scene.web.stats("ejections_active")[ejected] == 1, "the instance is left out")
    wait_until(lambda: get(scene.web_port).status_code == 200, "the instance is back")


def test_a_mesh_health_check_finds_the_dead(scene: Scene) -> None:
    dead = {"port": free_port(), "tags": {**ECHO, "kuma.io/protocol": "http"}}
    networking = {"address": "127.0.0.1", "inbound": [dead]}
    document = {"type": "Dataplane", "mesh": "default", "name": "echo-dead", "networking": networking}
    scene.control_plane.converge(scene.control_plane.put(document))
    members = ("cluster.echo.membership_healthy", "cluster.echo.membership_total")

    def well() -> tuple[int, ...]:
        stats = scene.web.stats("^cluster.echo.membership_(healthy|total)$")
        return tuple(stats[name] for name in members)

    check = {"interval": "1s", "timeout": "1s", "unhealthyThreshold": 1, "http": {"path": "/"}}
    try:
        wait_until(lambda: well() == (2, 2), "both instances count as well")
        with sent(scene, "MeshHealthCheck", "meshhealthchecks", check):
            wait_until(lambda: well() == (1, 2), "the dead instance is found")
            answered = scene.echo.answered
            assert [get(scene.web_port).status_code for _ in range(8)] == [200] * 8
            assert scene.echo.answered >= answered + 8
    finally:
        scene.control_plane.converge(scene.control_plane.delete("default", "echo-dead"))
    wait_until(lambda: well() == (1, 1), "the dead instance is gone")


SERVER_NAME = {"type": "Exact", "value": "echo{mesh=default}"}
"""What clients of the service ask for."""
ECHO_REF = {"kind": "MeshService", "name": "echo"}


@contextmanager
def taken(scene: Scene, kind: str, path: str, **spec: Any) -> Iterator[None]:
    """A policy for what the service takes; at the end no open connection of any client knows of it any more."""
    with scene.control_plane.policy(path, type=kind, spec={"targetRef": ECHO_REF} | spec):
        yield
    wait_until(lambda: both_answered(scene), "it is gone")


def from_(ref: dict[str, Any], default: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"targetRef": ref, "default": default}]


def test_a_mesh_rate_limit_counts_everybody(scene: Scene) -> None:
    answer = {"status": 423, "headers": {"set": [{"name": "x-limited", "value": "yes"}]}}
    local = {"http": {"requestRate": {"num": 2, "interval": "600s"}, "onRateLimit": answer}}
    with taken(scene, "MeshRateLimit", "meshratelimits", **{"from": from_({"kind": "Mesh"}, {"local": local})}):
        wait_until(lambda: all_answered(scene.web_port, 423), "there have been so many requests")
        # A connection that is open when its listener is replaced has its next answer by the old one.
        wait_until(lambda: all_answered(scene.job_port, 423), "another client is counted too")
        assert get(scene.job_port).headers["x-limited"] == "yes"


def test_a_mesh_rate_limit_counts_connections(scene: Scene) -> None:
    local = {"tcp": {"connectionRate": {"num": 1, "interval": "600s"}}}
    limited = "tcp_rate_limit.rate_limited"
    with taken(scene, "MeshRateLimit", "meshratelimits", **{"from": from_({"kind": "Mesh"}, {"local": local})}):

        def refused() -> int:
            # Past the client's sidecar, which keeps its connections.
            with suppress(httpx.HTTPError):
                get(scene.inbound_port)
            return sum(scene.server.stats(limited).values())

        wait_until(lambda: refused() > 0, "a connection is closed")


def test_a_mesh_fault_is_met_by_its_source_alone(scene: Scene) -> None:
    faults = {"http": [{"abort": {"percentage": 100, "httpStatus": 418}}]}
    with taken(scene, "MeshFaultInjection", "meshfaultinjections", **{"from": from_(WEB, faults)}):
        wait_until(lambda: all_answered(scene.web_port, 418), "the source's requests are refused")
        answered = scene.echo.answered
        assert get(scene.web_port).status_code == 418
        assert scene.echo.answered == answered
        assert get(scene.job_port).status_code == 200


@contextmanager
def secured(scene: Scene) -> Iterator[None]:
    """Mutual TLS, with which everybody may connect."""
    url = f"{scene.control_plane.api}/meshes/default"
    everybody = [{"match": {"kuma.io/service": "*"}}]
    ends = {"sources": everybody, "destinations": everybody}
    permission = {"type": "TrafficPermission", "mesh": "default", "name": "all", **ends}
    backend = {"name": "ca-1", "type": "builtin", "mode": "STRICT"}
    plain = {"type": "Mesh", "name": "default"}
    scene.control_plane.settle("PUT", f"{url}/traffic-permissions/all", permission)
    scene.control_plane.settle("PUT", url, {**plain, "mtls": {"enabledBackend": "ca-1", "backends": [backend]}})
    try:
        wait_until(lambda: both_answered(scene), "the service answers over TLS")
        yield
    finally:
        scene.control_plane.settle("PUT", url, plain)
        scene.control_plane.settle("DELETE", f"{url}/traffic-permissions/all")
        wait_until(lambda: both_answered(scene), "the service answers in plaintext")


def both_answered(scene: Scene) -> bool:
    return all_answered(scene.web_port, 200) and all_answered(scene.job_port, 200)


def identity(service: str) -> dict[str, dict[str, str]]:
    return {"spiffeID": {"type": "Exact", "value": f"spiffe://default/{service}"}}


def test_clients_are_told_apart_by_their_certificates(scene: Scene) -> None:
    with secured(scene):
        tell_apart(scene)


def tell_apart(scene: Scene) -> None:
    rate = {"requestRate": {"num": 1, "interval": "600s"}}
    rules = [
        {"matches": [identity("web-1")], "default": {"local": {"http": rate}}},
        {"matches": [identity("web")], "default": {"local": {"http": {"disabled": True}}}},
    ]
    with taken(scene, "MeshRateLimit", "meshratelimits", targetRef={"kind": "Dataplane"}, rules=rules):
        wait_until(lambda: all_answered(scene.web_port, 429), "the client has had its request")
        assert [get(scene.job_port).status_code for _ in range(4)] == [200] * 4
        # What a client claims of its certificate is dropped.
        claim = {"x-forwarded-client-cert": "URI=spiffe://default/web-1"}
        assert get(scene.job_port, headers=claim).status_code == 200
    faults = [
        {"default": {"http": [{"abort": {"percentage": 100, "httpStatus": 418}}]}},
        {"matches": [{**identity("job-1"), "sni": SERVER_NAME}], "default": {"http": []}},
    ]
    with taken(scene, "MeshFaultInjection", "meshfaultinjections", rules=faults):
        wait_until(lambda: all_answered(scene.web_port, 418), "all requests are refused")
        assert [get(scene.job_port).status_code for _ in range(4)] == [200] * 4
