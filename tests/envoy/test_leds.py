"""Endpoints one by one to real Envoys: they have exactly those that there are, over restarts and changed clusters.

The last test shows with a server of our own making why collections are named as they are.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bench.leds.collection_server import CollectionServer, Naming, endpoint
from bench.leds.real_envoy import RealEnvoy
from tests.envoy.harness import ECHO, Mesh, Sidecar, rejected, wait_until

from kumafast.snapshot.resource import LB_ENDPOINT

pytestmark = pytest.mark.envoy

THRESHOLD = 3


@pytest.fixture
def mesh(tmp_path: Path, envoy_binary: str) -> Iterator[Mesh]:
    flags = ("--leds-threshold", str(THRESHOLD))
    mesh = Mesh(tmp_path, envoy_binary, uses_delta=True, control_plane_flags=flags)
    with mesh.ending:
        yield mesh


def put(mesh: Mesh, number: int, **tags: str) -> int:
    """An instance of the service that has no Envoy and gets no traffic."""
    inbound = [{"port": 80, "tags": {**ECHO, "kuma.io/protocol": "http", **tags}}]
    networking = {"address": f"127.0.1.{number}", "inbound": inbound}
    return mesh.control_plane.put(
        {"type": "Dataplane", "mesh": "default", "name": f"echo-{number}", "networking": networking}
    )


def endpoints(sidecar: Sidecar) -> set[int]:
    """The numbers of the instances that an Envoy has."""
    clusters: list[dict[str, Any]] = json.loads(sidecar.admin("/clusters?format=json"))["cluster_statuses"]
    hosts = [host for cluster in clusters if cluster["name"] == "echo" for host in cluster.get("host_statuses", [])]
    return {int(host["address"]["socket_address"]["address"].rpartition(".")[2]) for host in hosts}


def wait_for(sidecar: Sidecar, numbers: set[int]) -> None:
    wait_until(lambda: endpoints(sidecar) == numbers, f"{sidecar.name} has {sorted(numbers)}", timeout_s=40)


def sent(mesh: Mesh) -> dict[str, float]:
    """Responses by the short names of their types."""
    samples = mesh.control_plane.metrics()
    types = ("ClusterLoadAssignment", "LbEndpoint")
    return {
        short: sum(value for name, value in samples.items() if "pushes_total" in name and f'{short}"' in name)
        for short in types
    }


def test_endpoints_come_and_go_one_by_one(mesh: Mesh) -> None:
    for number in range(1, 7):
        put(mesh, number, **{"kuma.io/zone": "east" if number % 2 else "west"})
    client, _ = mesh.client("web-1", ECHO)
    wait_for(client, {1, 2, 3, 4, 5, 6})
    before = sent(mesh)
    put(mesh, 7, **{"kuma.io/zone": "east"})
    wait_for(client, {1, 2, 3, 4, 5, 6, 7})
    mesh.control_plane.delete("default", "echo-2")
    wait_for(client, {1, 3, 4, 5, 6, 7})
    after = sent(mesh)
    assert after["LbEndpoint"] - before["LbEndpoint"] == 2
    assert after["ClusterLoadAssignment"] == before["ClusterLoadAssignment"]
    # A zone that empties, and a service that has few again.
    for number in (4, 6):
        mesh.control_plane.delete("default", f"echo-{number}")
    wait_for(client, {1, 3, 5, 7})
    for number in (1, 3):
        mesh.control_plane.delete("default", f"echo-{number}")
    wait_for(client, {5, 7})
    put(mesh, 8)
    wait_for(client, {5, 7, 8})
    assert rejected(client) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_what_went_while_the_control_plane_was_away_is_gone(mesh: Mesh, how: signal.Signals) -> None:
    for number in range(1, 7):
        put(mesh, number)
    client, _ = mesh.client("web-1", ECHO)
    wait_for(client, {1, 2, 3, 4, 5, 6})
    there = {1, 2, 3, 4, 5, 6}
    for gone in (2, 5):
        client.process.child.send_signal(signal.SIGSTOP)
        mesh.control_plane.delete("default", f"echo-{gone}")
        mesh.control_plane.stop(how)
        client.process.child.send_signal(signal.SIGCONT)
        mesh.control_plane.start()
        there.remove(gone)
        wait_for(client, there)
    put(mesh, 9)
    wait_for(client, {*there, 9})
    assert rejected(client) == []


def test_a_changed_cluster_gets_all_of_its_endpoints_again(mesh: Mesh) -> None:
    for number in range(1, 7):
        put(mesh, number)
    client, _ = mesh.client("web-1", ECHO)
    wait_for(client, {1, 2, 3, 4, 5, 6})
    # Of policies for the whole mesh the one with the earlier name counts, also against those that a mesh begins with.
    spec = {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionTimeout": "7s"}}]}
    document = {"type": "MeshTimeout", "mesh": "default", "name": "a-timeout", "spec": spec}
    response = httpx.put(mesh.control_plane.api + "/meshes/default/meshtimeouts/a-timeout", json=document)
    assert response.status_code == 201, response.text
    wait_until(lambda: '"connect_timeout": "7s"' in client.admin("/config_dump"), "the cluster is changed")
    wait_until(
        lambda: client.stats("warming_clusters") == {"cluster_manager.warming_clusters": 0}, "it is warm", timeout_s=40
    )
    wait_for(client, {1, 2, 3, 4, 5, 6})
    mesh.control_plane.delete("default", "echo-6")
    wait_for(client, {1, 2, 3, 4, 5})
    assert rejected(client) == []


@pytest.mark.parametrize("naming", list(Naming))
def test_an_envoy_forgets_what_went_only_with_the_name_of_the_collection(naming: Naming, tmp_path: Path) -> None:
    async def main() -> None:
        server = CollectionServer(naming, range(20))
        await server.start()
        envoy = RealEnvoy(tmp_path, server.port)
        try:
            await envoy.members(20)
            for gone in (3, 4):
                await server.stop()
                await server.remove(gone)
                await server.start()
                kept = 20 if naming is Naming.FIXED else len(server.endpoints)
                await _answered(server)
                await envoy.members(kept)
                extra = await envoy.addresses() - {endpoint(number).address for number in server.endpoints}
                assert bool(extra) is (naming is Naming.FIXED)
            # Nothing has changed: only who can tell that from what the client says need not send all again.
            await server.stop()
            before = server.sent.resources[LB_ENDPOINT]
            await server.start()
            await _answered(server)
            again = server.sent.resources[LB_ENDPOINT] - before
            assert again == (18 if naming in (Naming.FIXED, Naming.STREAM) else 0)
            assert server.refusals == []
        finally:
            await envoy.stop()
            await server.stop()

    asyncio.run(main())


async def _answered(server: CollectionServer) -> None:
    """Wait until the Envoy is back and has been told what it asked for."""
    for _ in range(500):
        if server.streams:
            break
        await asyncio.sleep(0.02)
    assert server.streams
    await asyncio.sleep(0.5)
