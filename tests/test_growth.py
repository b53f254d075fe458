"""However much comes and goes, a control plane that goes on holds what it held: counted in Python's memory blocks.

A whole control plane with its store in a file, its API and simulated Envoys on sockets, in a process of its own: what
other tests have left in theirs is no growth. Each axis of change turns until what is bounded is full, then as often
again while blocks are counted. A value that is kept for a change is 24 blocks at least, a policy for all 450.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import httpx
import pytest
from bench.real_wires import fleet, simulated_envoy
from bench.real_wires.changes import Changes, Write
from bench.real_wires.fleet import Fleet, until
from bench.regular_mesh import address, dataplane, fill, name

from kumafast import ControlPlane, memo
from kumafast.registry import asked
from kumafast.resources.document import to_document
from kumafast.settings import Settings
from kumafast.store import watch
from kumafast.stream import standings

SIZE = 50
ENVOYS = 10
WARM, ROUNDS, SAMPLES = 120, 20, 4
BLOCKS_MAX = 14.0
"""For each change. What a bounded cache takes and gives back in turns is some hundred blocks."""
PATIENCE_S = 60.0

Turn: TypeAlias = Callable[[int], Awaitable[None]]


class Running:
    """A control plane over a regular mesh, and all that can happen to it."""

    def __init__(self, client: httpx.AsyncClient, envoys: Fleet) -> None:
        self._client, self._envoys = client, envoys
        self._changes = Changes(SIZE)

    async def endpoints(self, number: int) -> None:
        """One comes under a name and an address that nobody had, is looked at, and goes."""
        path = f"/meshes/default/dataplanes/extra-{number}"
        new = dataplane(number % SIZE, SIZE, host=address(number, network=150)).model_copy(
            update={"name": f"extra-{number}"}
        )
        (await self._client.put(path, json=to_document(new))).raise_for_status()
        (await self._client.get(f"{path}/_overview")).raise_for_status()
        (await self._client.delete(path)).raise_for_status()

    async def sidecars(self, number: int) -> None:
        """One whose Envoy is connected moves."""
        await self._write(self._changes.move(number % ENVOYS))

    async def policies(self, number: int) -> None:
        """One about a service says what none has said before."""
        write = next(self._changes.policies())
        assert write is not None
        await self._write(write)
        # Nobody waits for it.
        self._changes.expect(write, 0.0).waiting.clear()

    async def policies_for_all(self, number: int) -> None:
        """One that all sidecars show says what none has said before."""
        await self._write(self._changes.policy_for_all())

    async def meshes(self, number: int) -> None:
        """One under a name that nobody had comes and goes, with its initial policies."""
        path = f"/meshes/mesh-{number}"
        (await self._client.put(path, json={"type": "Mesh", "name": f"mesh-{number}"})).raise_for_status()
        (await self._client.delete(path)).raise_for_status()

    async def secrets(self, number: int) -> None:
        """One under a name that nobody had comes and goes."""
        path = f"/meshes/default/secrets/secret-{number}"
        document = {"type": "Secret", "mesh": "default", "name": f"secret-{number}", "data": "eA=="}
        (await self._client.put(path, json=document)).raise_for_status()
        (await self._client.delete(path)).raise_for_status()

    async def refusals(self, number: int) -> None:
        """A write and a look that are refused, each for another reason in words."""
        path = f"/meshes/default/dataplanes/none-{number}"
        assert (await self._client.get(path)).status_code == 404
        document = {"type": "Dataplane", "mesh": "default", "name": f"none-{number}", "networking": {"a": number}}
        assert (await self._client.put(path, json=document)).status_code == 400

    async def streams(self, number: int) -> None:
        """All end, and come back with what they hold."""
        opened = self._envoys.streams["opened"]
        self._envoys.cut()
        await until(lambda: self._envoys.streams["opened"] == opened + ENVOYS, "all are back", timeout_s=PATIENCE_S)

    async def _write(self, write: Write) -> None:
        answer = await self._client.request(write.method, write.path, json=write.document)
        answer.raise_for_status()


AXES = ("endpoints", "sidecars", "policies", "policies_for_all", "meshes", "secrets", "refusals", "streams")


async def _run(stack: AsyncExitStack, directory: Path) -> Running:
    data = directory / "data"
    data.mkdir()
    await fill(data / "kumafast.db", SIZE, zone="default")
    stated: dict[str, Any] = {"data_dir": str(data), "api_port": 0, "dp_port": 0, "diagnostics_port": 0}
    control_plane = await stack.enter_async_context(ControlPlane(Settings(**stated, dp_tls=False, insight_flush_ms=1)))
    client = await stack.enter_async_context(httpx.AsyncClient(base_url=control_plane.api_url, timeout=PATIENCE_S))
    host, _, port = control_plane.dp_url.rpartition("/")[2].rpartition(":")
    envoys = Fleet(f"default.{name(number)}" for number in range(ENVOYS))
    envoys.start(host, int(port))
    stack.push_async_callback(envoys.stop)
    await until(lambda: envoys.connected == ENVOYS, "all are connected", timeout_s=PATIENCE_S)
    return Running(client, envoys)


async def _growth(turn: Turn) -> float:
    """Blocks that are held for each change beyond what was held before it."""
    number = 0

    async def change(count: int) -> int:
        nonlocal number
        for _ in range(count):
            await turn(number)
            number += 1
        # What is written late is written now.
        await asyncio.sleep(0.1)
        simulated_envoy.facts.cache_clear()
        gc.collect()
        return sys.getallocatedblocks()

    await change(WARM)
    held = [await change(ROUNDS) for _ in range(2 * SAMPLES)]
    # What comes in one sample and goes in the next is no growth.
    return (median(held[SAMPLES:]) - median(held[:SAMPLES])) / ROUNDS / SAMPLES


def _measured(axis: str, directory: Path) -> float:
    """The growth of an axis, in a process that has done nothing else."""

    async def main() -> float:
        async with AsyncExitStack() as stack:
            running = await _run(stack, directory)
            return await _growth(getattr(running, axis))

    with pytest.MonkeyPatch.context() as patch:
        # Smaller bounds, so that they are reached soon.
        patch.setattr(watch, "OWN_CHANGES_MAX", 50)
        patch.setattr(memo, "GENERATION", 2 * memo.POLICY)
        patch.setattr(standings, "PAYLOADS_MAX", 32)
        patch.setattr(asked, "LISTS_MAX", 32)
        patch.setattr(fleet, "BACKOFF_S", 0.01)
        return asyncio.run(main())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("axis", AXES)
def test_what_comes_and_goes_leaves_nothing(tmp_path: Path, axis: str) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        growth = pool.submit(_measured, axis, tmp_path).result()
    assert growth <= BLOCKS_MAX, f"{growth:.1f} blocks for each change"
