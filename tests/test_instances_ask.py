"""Two control planes on one PostgreSQL, as processes: whichever is asked answers for the proxies of both."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import grpc.aio
import httpx
import pytest
import yaml
from bench.real_wires.fleet import Fleet, until
from bench.real_wires.simulated_envoy import SimulatedEnvoy
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from tests.cli.running import PROGRAM, environment
from tests.instances import NAMES, NODES, WAIT_S, Instance, dataplane, fill, pair, shown
from tests.postgresql import Server

from kumafast.snapshot.resource import ENDPOINT

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HALF = len(NODES) // 2


class Mute:
    """An Envoy that takes everything and says nothing to it."""

    def receive(self, *_: object) -> list[bytes]:
        return []


@pytest.fixture
def instances(postgresql: Server, tmp_path: Path) -> Iterator[tuple[Instance, Instance]]:
    with pair(tmp_path, postgresql.new_store()) as two:
        yield two


async def _apply(instance: Instance, directory: Path, timeout_s: int, port: int) -> tuple[int, str]:
    """`kumafast apply --wait` of a dataplane that all reach: its exit code and all that it says."""
    path = directory / "dataplane.yaml"
    path.write_text(yaml.safe_dump(dataplane(NAMES[0], port)))
    command = [*PROGRAM, "apply", "-f", str(path), "--wait", "--timeout", f"{timeout_s}s", "--api", instance.api]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, env=environment(), timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


async def _config(client: httpx.AsyncClient, instance: Instance, name: str) -> httpx.Response:
    return await client.get(f"{instance.api}/meshes/default/dataplanes/{name}/_config")


async def _clients(instance: Instance) -> list[str]:
    """The nodes that CSDS shows at an instance."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{instance.dp_port}") as channel:
        stub: Any = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
        answer = await stub.FetchClientStatus(csds_pb2.ClientStatusRequest(), timeout=60)
    return sorted(config.node.id for config in answer.config)


async def test_whichever_is_asked_answers_for_the_proxies_of_both(
    instances: tuple[Instance, Instance], tmp_path: Path
) -> None:
    first, second = instances
    here, there = Fleet(NODES[:HALF]), Fleet(NODES[HALF:])
    async with httpx.AsyncClient(timeout=120) as client:
        await fill(client, first.api)
        here.start("127.0.0.1", first.dp_port)
        there.start("127.0.0.1", second.dp_port)
        envoys = [*here.envoys.values(), *there.envoys.values()]
        await until(lambda: all(each.is_configured() for each in envoys), "all", timeout_s=WAIT_S)
        await shown(client, first.api, set(NAMES))
        for port, instance in enumerate(instances, 81):
            code, said = await _apply(instance, tmp_path, 60, port)
            assert (code, f"acknowledged by {len(NAMES)} proxies" in said) == (0, True), said
            for other, name in itertools.product(instances, (NAMES[0], NAMES[-1])):
                config = await _config(client, other, name)
                assert f'"portValue":{port}' in json.dumps(
                    config.json()["xds"][ENDPOINT]["service-0"], separators=(",", ":")
                )
            assert await _clients(instance) == sorted(NODES)

        # One that does not acknowledge is named, wherever it is connected.
        there._sidecars[-1].envoy = cast(SimulatedEnvoy, Mute())
        code, said = await _apply(first, tmp_path, 3, 83)
        assert (code, f"{NODES[-1]} has not acknowledged" in said) == (1, True), said
        assert said.count("has not acknowledged") == 1
        # A proxy that nobody has is nowhere, and one on an instance that hangs is not said to be.
        path = f"{first.api}/meshes/default/dataplanes/nobody"
        await client.put(path, json={**dataplane(NAMES[0]), "name": "nobody"})
        assert (await client.get(f"{path}/_config")).status_code == 404
        second.process.send_signal(signal.SIGSTOP)
        response = await _config(client, first, NAMES[-1])
        second.process.send_signal(signal.SIGCONT)
        # Its lease runs out at about the time at which it is given up.
        assert response.status_code in {404, 503}
        assert response.status_code == 404 or "which does not answer" in response.json()["detail"]
        await here.stop()
        await there.stop()
