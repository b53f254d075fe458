"""Workloads that their Envoys probe: one that does not listen any more gets no requests until it does again."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.envoy.harness import ECHO, EchoService, Mesh, Traffic, free_port, get, rejected, wait_until

pytestmark = pytest.mark.envoy


def probed(mesh: Mesh, name: str, port: int, probe: dict[str, Any]) -> None:
    """An instance of `echo` whose workload, which may not be there yet, is probed."""
    inbound = {
        "port": free_port(),
        "servicePort": port,
        "tags": {**ECHO, "kuma.io/protocol": "http"},
        "serviceProbe": probe,
    }
    mesh.sidecar(name, inbound=[inbound])


def state(mesh: Mesh, name: str) -> dict[str, Any]:
    [inbound] = mesh.control_plane.get(f"{mesh.control_plane.api}/meshes/default/dataplanes/{name}")["networking"][
        "inbound"
    ]
    return dict(inbound)


def endpoints(mesh: Mesh, client: Any) -> int:
    """How many instances of `echo` a client has."""
    lines = client.admin("/clusters").splitlines()
    return sum(line.startswith("echo::") and line.endswith("::health_flags::healthy") for line in lines)


def test_a_workload_that_does_not_listen_has_no_clients(mesh: Mesh) -> None:
    probe = {"interval": "0.2s", "timeout": "0.2s", "tcp": {}}
    stays = EchoService("stays")
    mesh.ending.callback(stays.stop)
    goes = EchoService("goes")
    for service in (stays, goes):
        probed(mesh, service.name, service.port, probe)
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: endpoints(mesh, client) == 2, "both are there")
    assert state(mesh, "goes").get("state", "Ready") == "Ready"

    goes.stop()
    wait_until(lambda: state(mesh, "goes").get("state") == "NotReady", "its Envoy has found out")
    wait_until(lambda: endpoints(mesh, client) == 1, "it is no endpoint any more")
    assert {get(port).json()["instance"] for _ in range(10)} == {"stays"}
    assert state(mesh, "stays").get("state", "Ready") == "Ready"

    back = EchoService("goes", port=goes.port)
    mesh.ending.callback(back.stop)
    wait_until(lambda: endpoints(mesh, client) == 2, "it is one again")
    assert state(mesh, "goes")["health"] == {"ready": True}
    wait_until(lambda: get(port).json()["instance"] == "goes", "it answers")
    assert rejected(client) == []


def test_a_restarted_control_plane_takes_nobody_away(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    echo = EchoService("echo-1")
    mesh.ending.callback(echo.stop)
    probed(mesh, "echo-1", echo.port, {"interval": "0.2s", "tcp": {}})
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: endpoints(mesh, client) == 1, "it is there")
    with Traffic(port).running() as traffic:
        mesh.control_plane.stop()
        mesh.control_plane.start()
        wait_until(lambda: hds_streams(mesh) == 2, "both Envoys are back")
        # What they report first is there by then, and the next.
        seen = client.stats("^cluster.echo.membership_change$")["cluster.echo.membership_change"]
        time.sleep(0.5)
        assert client.stats("^cluster.echo.membership_change$")["cluster.echo.membership_change"] == seen == 1
    assert traffic.failures == []


def hds_streams(mesh: Mesh) -> int:
    return int(mesh.control_plane.metrics()["kumafast_health_streams"])


def test_an_envoy_that_drains_has_no_clients(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    echo = EchoService("echo-1")
    mesh.ending.callback(echo.stop)
    _, sidecar = mesh.echo("echo-2")
    client, _ = mesh.client("web-1", ECHO)
    wait_until(lambda: endpoints(mesh, client) == 1, "it is there")
    sidecar.admin_post("/healthcheck/fail")
    wait_until(lambda: endpoints(mesh, client) == 0, "it is no endpoint any more")
    sidecar.admin_post("/healthcheck/ok")
    wait_until(lambda: endpoints(mesh, client) == 1, "it is one again")
