"""A mesh with real Envoys: what is generated is taken, traffic flows, changes arrive."""

from __future__ import annotations

import statistics
import sys
import time

import pytest
from tests.envoy.harness import ECHO, Mesh, Traffic, free_port, get, online, rejected, wait_until

pytestmark = pytest.mark.envoy


def test_a_request_goes_through_both_sidecars(mesh: Mesh) -> None:
    service, echo = mesh.echo("echo-1")
    client, (port,) = mesh.client("web-1", ECHO)
    response = wait_until(lambda: (r := get(port, "/hello")).status_code == 200 and r, "the request is answered")
    answered = response.json()
    assert (answered["instance"], answered["path"]) == ("echo-1", "/hello")
    assert service.answered >= 1
    assert client.stats("^cluster.echo.upstream_rq_200$")["cluster.echo.upstream_rq_200"] >= 1
    assert sum(echo.stats(r"http\.localhost_\d+\.downstream_rq_2xx").values()) >= 1
    assert rejected(client) == []
    assert rejected(echo) == []
    wait_until(lambda: online(mesh, "web-1"), "the overview says online")
    total = wait_until(lambda: acknowledged_total(mesh, "web-1"), "the overview counts what was acknowledged")
    assert "responsesRejected" not in total
    client.stop()
    wait_until(lambda: not online(mesh, "web-1"), "the overview says offline")


def acknowledged_total(mesh: Mesh, name: str) -> dict[str, str] | None:
    """The totals of the newest subscription once CDS, EDS and LDS are acknowledged."""
    subscription = mesh.control_plane.overview("default", name)["dataplaneInsight"]["subscriptions"][-1]
    total: dict[str, str] = subscription.get("status", {}).get("total", {})
    return total if int(total.get("responsesAcknowledged", "0")) >= 3 else None


def test_an_instance_comes_and_another_goes_without_a_lost_request(mesh: Mesh) -> None:
    first, first_sidecar = mesh.echo("echo-1")
    _, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: get(port).status_code == 200, "the first instance answers")
    traffic = Traffic(port)
    with traffic.running():
        mesh.echo("echo-2")
        wait_until(lambda: "echo-2" in traffic.answers, "the second instance is seen")
        revision = mesh.control_plane.delete("default", "echo-1")
        report = mesh.control_plane.converge(revision)
        assert report["is_converged"], report
        removed_at = len(traffic.answers)
        wait_until(lambda: len(traffic.answers) > removed_at + 5, "requests go on")
        first_sidecar.stop()
        first.stop()
        wait_until(lambda: len(traffic.answers) > removed_at + 100, "requests go on without the first instance")
    assert traffic.failures == []
    # One request may have been under way to the first instance when its removal was acknowledged.
    assert set(traffic.answers[removed_at + 1 :]) == {"echo-2"}


def test_tags_other_than_the_service_choose_the_endpoints(mesh: Mesh) -> None:
    mesh.echo("echo-1", version="v1")
    mesh.echo("echo-2", version="v2")
    _, (any_port, v2_port) = mesh.client("web-1", ECHO, {**ECHO, "version": "v2"})
    wait_until(lambda: get(v2_port).status_code == 200, "the outbound answers")
    assert {get(v2_port).json()["instance"] for _ in range(10)} == {"echo-2"}
    wait_until(lambda: {get(any_port).json()["instance"] for _ in range(10)} == {"echo-1", "echo-2"}, "both answer")


def test_tcp_and_http_reach_their_services(mesh: Mesh) -> None:
    service, _ = mesh.echo("echo-1", service="plain", **{"kuma.io/protocol": "tcp"})
    client, (port,) = mesh.client("web-1", {"kuma.io/service": "plain"})
    wait_until(lambda: get(port).status_code == 200, "the outbound answers")
    assert service.answered >= 1
    assert client.stats(r"^tcp.plain.downstream_cx_total")["tcp.plain.downstream_cx_total"] >= 1
    assert rejected(client) == []


def test_a_transparent_proxy_is_taken(mesh: Mesh) -> None:
    ports = {"redirectPortInbound": free_port(), "redirectPortOutbound": free_port()}
    sidecar = mesh.sidecar(
        "web-1",
        inbound=[{"port": free_port(), "tags": {"kuma.io/service": "web"}}],
        outbound=[{"port": free_port(), "tags": ECHO}],
        transparentProxying=ports,
    )
    assert rejected(sidecar) == []
    listeners = [
        listener["name"]
        for config in sidecar.config_dump()["configs"]
        for listener in config.get("dynamic_listeners", [])
        if "active_state" in listener
    ]
    assert any(name.startswith("outbound:passthrough") for name in listeners)


def test_a_change_of_endpoints_is_acknowledged_in_time(delta_mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    mesh = delta_mesh
    service, _ = mesh.echo("echo-1")
    _, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: get(port).status_code == 200, "the service answers")
    took_ms = []
    for number in range(20):
        document = {
            "type": "Dataplane",
            "mesh": "default",
            "name": "echo-extra",
            "networking": {
                "address": f"127.0.1.{number + 1}",
                "inbound": [{"port": service.port, "tags": {**ECHO, "kuma.io/protocol": "http"}}],
            },
        }
        started = time.perf_counter()
        report = mesh.control_plane.converge(mesh.control_plane.put(document))
        took_ms.append((time.perf_counter() - started) * 1000)
        assert report["is_converged"], report
        assert report["proxies"] == 1
    p50, p99 = statistics.median(took_ms), max(took_ms)
    with capsys.disabled():
        sys.stdout.write(f"\nstore write to ACK of a real Envoy, 20 changes: p50 {p50:.1f} ms, p99 {p99:.1f} ms\n")
    assert p50 < 100


def test_meshes_see_nothing_of_one_another(mesh: Mesh) -> None:
    mesh.control_plane.put({"type": "Mesh", "name": "other"})
    mesh.echo("echo-red")
    blue_service, _ = mesh.echo("echo-blue", mesh="other")
    red, (red_port,) = mesh.client("web-red", ECHO)
    blue, (blue_port,) = mesh.client("web-blue", ECHO, {"kuma.io/service": "only-here"}, mesh="other")[0], [0]
    wait_until(lambda: get(red_port).status_code == 200, "the first mesh answers")
    assert {get(red_port).json()["instance"] for _ in range(10)} == {"echo-red"}
    red_dump, blue_dump = str(red.config_dump()), str(blue.config_dump())
    assert "only-here" in blue_dump
    assert "only-here" not in red_dump
    assert "web-blue" not in red_dump
    assert "echo-blue" not in red_dump
    assert "web-red" not in blue_dump
    assert blue_service.answered == 0
    assert blue_port == 0
