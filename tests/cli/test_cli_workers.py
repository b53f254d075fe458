"""run --workers: several processes on the same ports, one ready line; proxies and users notice nothing of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from bench.real_wires.fleet import Fleet, until
from tests.cli.running import arguments, environment
from tests.instances import NAMES, NODES, WAIT_S, Workers, came_back, dataplane, fill, settled, shown
from tests.postgresql import Server

from kumafast.snapshot.resource import CLUSTER

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def workers(postgresql: Server, tmp_path: Path) -> Iterator[Workers]:
    started = Workers(tmp_path / "data", postgresql.new_store(), 2, "--drain-s", "0.5")
    yield started
    started.stop()


async def _all_connected(workers: Workers) -> None:
    async with asyncio.timeout(WAIT_S):
        while (await asyncio.to_thread(workers.samples))["kumafast_connected_proxies"] != len(NAMES):
            await asyncio.sleep(0.05)


async def _instances(client: httpx.AsyncClient, api: str) -> set[str]:
    """The instances that the proxies are connected to."""
    listed = (await client.get(f"{api}/meshes/default/dataplane-insights?size=1000")).json()["items"]
    return {
        each["controlPlaneInstanceId"]
        for insight in listed
        for each in insight["subscriptions"]
        if "disconnectTime" not in each
    }


async def test_workers_answer_for_each_other(workers: Workers) -> None:
    fleet = Fleet(NODES)
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(f"{workers.diagnostics}/ready")).status_code == 200
        await fill(client, workers.api)
        fleet.start("127.0.0.1", workers.dp_port)
        await until(lambda: all(envoy.is_configured() for envoy in fleet.envoys.values()), "all", timeout_s=WAIT_S)
        # The kernel deals connections by their ports: that 20 come to one of two is as likely as 20 heads.
        await shown(client, workers.api, set(NAMES))
        assert len(await _instances(client, workers.api)) == 2
        await _all_connected(workers)
        written = await client.put(f"{workers.api}/meshes/default/dataplanes/{NAMES[0]}", json=dataplane(NAMES[0], 81))
        revision = written.headers["X-Kumafast-Revision"]
        # A client of its own for each, which comes to either worker.
        for _ in range(4):
            async with httpx.AsyncClient(timeout=60) as other:
                report = (await other.get(f"{workers.api}/_convergence?revision={revision}&timeout=60s")).json()
                assert (report["is_converged"], report["proxies"]) == (True, len(NAMES))
        for name in NAMES:
            async with httpx.AsyncClient(timeout=60) as other:
                config = await other.get(f"{workers.api}/meshes/default/dataplanes/{name}/_config")
                assert config.status_code == 200
                assert "service-3" in config.json()["xds"][CLUSTER]
        await fleet.stop()


async def test_a_worker_that_dies_is_replaced_and_its_proxies_lack_nothing(workers: Workers) -> None:
    fleet = Fleet(NODES)
    async with httpx.AsyncClient(timeout=60) as client:
        await fill(client, workers.api)
        fleet.start("127.0.0.1", workers.dp_port)
        await until(lambda: all(envoy.is_configured() for envoy in fleet.envoys.values()), "all", timeout_s=WAIT_S)
        await _all_connected(workers)
        before = await asyncio.to_thread(workers.samples)
        fleet.take_received()
        killed = workers.pids[0]
        os.kill(killed, signal.SIGKILL)
        await until(lambda: fleet.streams["closed"] > 0, "cut off", timeout_s=WAIT_S)
        await until(lambda: fleet.connected == len(NODES), "back", timeout_s=WAIT_S)
        await _all_connected(workers)
        async with asyncio.timeout(WAIT_S):
            while (after := await asyncio.to_thread(workers.samples))["kumafast_workers"] < 2:
                await asyncio.sleep(0.05)
        assert killed not in workers.pids
        assert len(workers.pids) == 2
        assert after["kumafast_worker_restarts_total"] == 1
        # What the dead one had counted is not forgotten, and who came back was sent nothing.
        assert after["kumafast_reconcile_seconds_count"] >= before["kumafast_reconcile_seconds_count"]
        assert sum(fleet.take_received().resources.values()) == 0
        await client.put(f"{workers.api}/meshes/default/dataplanes/{NAMES[0]}", json=dataplane(NAMES[0], 82))
        await settled(workers.url, fleet)
        await fleet.stop()
    assert "worker 1 has died (signal 9)" in workers.stop() or "worker 2 has died (signal 9)" in workers.stderr


async def test_sighup_replaces_all_one_after_the_other(workers: Workers) -> None:
    fleet = Fleet(NODES)
    async with httpx.AsyncClient(timeout=60) as client:
        await fill(client, workers.api)
        fleet.start("127.0.0.1", workers.dp_port)
        await until(lambda: all(envoy.is_configured() for envoy in fleet.envoys.values()), "all", timeout_s=WAIT_S)
        fleet.take_received()
        opened, before = fleet.streams["opened"], set(workers.pids)
        workers.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(WAIT_S):
            while before & set(workers.pids) or len(workers.pids) != 2:
                # Somebody serves at each moment: the port, the API and the diagnostics.
                assert (await client.get(f"{workers.diagnostics}/ready")).status_code == 200
                async with httpx.AsyncClient(timeout=60) as other:
                    assert (await _patiently(other, f"{workers.api}/meshes")).status_code == 200
                await asyncio.sleep(0.05)
        await came_back(fleet, opened)
        await until(lambda: fleet.connected == len(NODES), "back", timeout_s=WAIT_S)
        assert sum(fleet.take_received().resources.values()) == 0
        await shown(client, workers.api, set(NAMES))
        await settled(workers.url, fleet)
        await fleet.stop()
    workers.process.send_signal(signal.SIGINT)
    assert workers.process.wait(20) == 0
    said = workers.stop()
    assert [re.findall(r"worker (\d) is replaced", said)] == [["1", "2"]]
    assert "has died" not in said


async def _patiently(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """An answer, at the second attempt where a worker has closed its door on the first."""
    try:
        return await client.get(url)
    except httpx.TransportError:
        return await client.get(url)


def test_workers_that_cannot_start_are_one_sentence(tmp_path: Path) -> None:
    started = subprocess.run(
        arguments(tmp_path, "--workers", "2"), capture_output=True, text=True, timeout=120, check=False,
        env=environment({"KUMAFAST_STORE": "postgres://nobody@127.0.0.1:1/none"}),
    )  # fmt: skip
    assert (started.returncode, started.stdout) == (1, "")
    assert "error: PostgreSQL at 127.0.0.1:1/none cannot be used as the store" in started.stderr
    assert "error: worker 1 has ended before it served (exit code 1)" in started.stderr
    assert "Traceback" not in started.stderr


def test_workers_end_with_their_supervisor(workers: Workers) -> None:
    pids = workers.pids
    workers.kill()
    for pid in pids:
        _ended(pid)


def _ended(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline, f"{pid} is still there"
        time.sleep(0.05)
