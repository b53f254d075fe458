"""The control plane goes away and comes back: traffic does not notice, and nothing is sent that is held."""

from __future__ import annotations

import random
import re
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from tests.envoy.harness import ECHO, ControlPlane, Mesh, Traffic, get, online, rejected, wait_until

pytestmark = pytest.mark.envoy

# What moves when an Envoy applies something again.
APPLIED = (
    "cluster_modified|cluster_added|cluster_removed|listener_modified|listener_added|listener_removed|membership_change"
)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_restart_sends_nothing_again_and_drops_nothing(delta_mesh: Mesh, how: signal.Signals) -> None:
    mesh, control_plane = delta_mesh, delta_mesh.control_plane
    mesh.echo("echo-1")
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: get(port).status_code == 200, "the service answers")
    before = client.stats(APPLIED)
    traffic = Traffic(port)
    with traffic.running():
        exit_code = control_plane.stop(how)
        assert exit_code == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        time.sleep(1)
        control_plane.start()
        wait_until(lambda: connected(control_plane) == 2, "both Envoys are back")
        # A re-send would follow the reconnect at once.
        time.sleep(1)
        metrics = control_plane.metrics()
        sent = {name: value for name, value in metrics.items() if re.match(r"kumafast_xds_\w+_total", name)}
        assert {name: value for name, value in sent.items() if value} == {}
        assert client.stats(APPLIED) == before
        assert online(mesh, "web-1")
        # And what has changed arrives.
        mesh.echo("echo-2")
        wait_until(lambda: "echo-2" in traffic.answers, "a new instance is seen after the restart")
    assert traffic.failures == []
    assert rejected(client) == []


def connected(control_plane: ControlPlane) -> float:
    return control_plane.metrics().get("kumafast_connected_proxies", 0)


def test_what_changed_while_it_was_away_arrives_exactly(delta_mesh: Mesh) -> None:
    mesh, control_plane = delta_mesh, delta_mesh.control_plane
    mesh.echo("echo-1")
    second, second_sidecar = mesh.echo("echo-2")
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: {get(port).json()["instance"] for _ in range(10)} == {"echo-1", "echo-2"}, "both answer")
    # The removal is stored, and the control plane dies before its Envoys can have heard of it.
    client.process.child.send_signal(signal.SIGSTOP)
    control_plane.delete("default", "echo-2")
    control_plane.stop(signal.SIGKILL)
    client.process.child.send_signal(signal.SIGCONT)
    control_plane.start()
    wait_until(
        lambda: "membership_total: 1" in client.admin("/stats?filter=^cluster.echo.membership_total"),
        "the endpoint that was removed meanwhile has left",
    )
    second_sidecar.stop()
    second.stop()
    assert {get(port).json()["instance"] for _ in range(10)} == {"echo-1"}


@pytest.mark.parametrize("seed", range(3))
def test_no_acknowledged_write_is_lost_when_it_is_killed(tmp_path: Path, seed: int) -> None:
    control_plane = ControlPlane(tmp_path).start()
    rng = random.Random(seed)
    acknowledged: list[str] = []
    killer = threading.Timer(rng.uniform(0.05, 0.4), lambda: control_plane.stop(signal.SIGKILL))
    killer.start()
    with httpx.Client(base_url=control_plane.api, timeout=5) as client:
        for number in range(200):
            name = f"dp-{number}"
            document = {
                "type": "Dataplane",
                "mesh": "default",
                "name": name,
                "networking": {"address": "127.0.0.1", "inbound": [{"port": 80, "tags": ECHO}]},
            }
            try:
                if client.put(f"/meshes/default/dataplanes/{name}", json=document).status_code == 201:
                    acknowledged.append(name)
            except httpx.TransportError:
                break
    killer.join()
    control_plane.start()
    try:
        listed = httpx.get(control_plane.api + "/meshes/default/dataplanes?size=1000").json()["items"]
        stored = {item["name"] for item in listed}
        assert set(acknowledged) <= stored
        # At most the one that was under way is there without having been acknowledged.
        assert len(stored - set(acknowledged)) <= 1
    finally:
        control_plane.stop()
