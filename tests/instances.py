"""Control planes as processes on one PostgreSQL, a small mesh of simulated Envoys, and what one asks about them.

In: a URL, names of dataplanes. Out: instances, one address for all of them, who is online and who holds what.
Never: assertions about what is tested, but that requests are answered.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from bench.real_wires import truth
from bench.real_wires.fleet import Fleet, until
from prometheus_client.parser import text_string_to_metric_families
from tests.cli.running import PROGRAM, Run

from kumafast.store import Keyring
from kumafast.store.postgres import PostgresStore

KEY = os.urandom(32)
SERVICES, EACH = 4, 5
NAMES = [f"dp-{service}-{number}" for service in range(SERVICES) for number in range(EACH)]
NODES = [f"default.{name}" for name in NAMES]
WAIT_S = 90.0


class Instance(Run):
    """A control plane that is one of several."""

    def __init__(self, directory: Path, url: str, *flags: object, program: Sequence[str] = PROGRAM) -> None:
        directory.mkdir(exist_ok=True)
        key = directory / "key"
        key.write_bytes(base64.b64encode(KEY))
        self.url = url
        super().__init__(
            directory, "--no-dp-tls", "--secrets-key-file", key, *flags, env={"KUMAFAST_STORE": url}, program=program
        )
        self.dp_port = int(self.ready.split()[2].rpartition(":")[2])

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(20)


class Workers(Instance):
    """A command with workers."""

    def __init__(self, directory: Path, url: str, count: int, *flags: object) -> None:
        super().__init__(directory, url, "--workers", count, *flags)
        self.diagnostics = self.ready.split()[3].partition("=")[2]

    @property
    def pids(self) -> list[int]:
        """The workers' processes."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def samples(self) -> dict[str, float]:
        """What `/metrics` shows, without labels."""
        families = text_string_to_metric_families(httpx.get(f"{self.diagnostics}/metrics", timeout=30).text)
        return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


@contextmanager
def pair(directory: Path, url: str) -> Iterator[tuple[Instance, Instance]]:
    """Two on one store. The first of them has come first, and leads."""
    first = Instance(directory / "first", url)
    try:
        second = Instance(directory / "second", url)
        try:
            yield first, second
        finally:
            second.stop()
    finally:
        first.stop()


class Balancer:
    """One address for all instances, as in production: a new connection goes to the first that takes it."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self._tasks: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        for port in self.ports:
            with suppress(OSError):
                to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    pumps = [
                        asyncio.create_task(_pump(reader, to_writer)),
                        asyncio.create_task(_pump(to_reader, writer)),
                    ]
                    await asyncio.wait(pumps, return_when="FIRST_COMPLETED")
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
                finally:
                    to_writer.close()
                break
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


def dataplane(name: str, port: int = 8080) -> dict[str, Any]:
    """An instance of its service, with an outbound to each service."""
    service = int(name.split("-")[1])
    outbounds = [{"port": 10_000 + other, "tags": {"kuma.io/service": f"service-{other}"}} for other in range(SERVICES)]
    inbound = {"port": port, "tags": {"kuma.io/service": f"service-{service}", "kuma.io/protocol": "http"}}
    networking = {"address": f"127.1.{service}.{NAMES.index(name) + 1}", "inbound": [inbound], "outbound": outbounds}
    return {"type": "Dataplane", "mesh": "default", "name": name, "networking": networking}


async def fill(client: httpx.AsyncClient, api: str) -> None:
    """Write all dataplanes."""
    for name in NAMES:
        response = await client.put(f"{api}/meshes/default/dataplanes/{name}", json=dataplane(name))
        assert response.status_code == 201, response.text


async def online(client: httpx.AsyncClient, api: str) -> set[str]:
    """The dataplanes with an open subscription, as an instance shows them."""
    items = (await client.get(f"{api}/meshes/default/dataplanes/_overview?size=1000")).json()["items"]
    return {
        item["name"]
        for item in items
        if any("disconnectTime" not in each for each in item.get("dataplaneInsight", {}).get("subscriptions", []))
    }


async def shown(client: httpx.AsyncClient, api: str, expected: set[str]) -> float:
    """The seconds until an instance shows just these online."""
    began = time.monotonic()
    while await online(client, api) != expected:
        assert time.monotonic() - began < WAIT_S, await online(client, api)
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def differences(url: str, fleet: Fleet) -> list[str]:
    """Where what is held is not what a control plane computes that is started now."""
    store = await PostgresStore.open(url, keyring=Keyring([KEY]))
    try:
        return await truth.differences_from(store, fleet.envoys.values())
    finally:
        await store.close()


async def came_back(fleet: Fleet, opened: int) -> None:
    """Return when every Envoy has opened a stream once more."""
    await until(lambda: fleet.streams["opened"] >= opened + len(NAMES), "all come back", timeout_s=WAIT_S)


async def settled(url: str, fleet: Fleet) -> None:
    """Return when all is held that should be."""
    async with asyncio.timeout(WAIT_S):
        while await differences(url, fleet):
            await asyncio.sleep(0.1)


async def insights_of(client: httpx.AsyncClient, api: str, is_good: Any) -> None:
    """Return when every insight is good."""
    async with asyncio.timeout(WAIT_S):
        while True:
            listed = (await client.get(f"{api}/meshes/default/dataplane-insights?size=1000")).json()["items"]
            if all(map(is_good, listed)):
                return
            await asyncio.sleep(0.1)


def is_open_at_one(insight: dict[str, Any]) -> bool:
    """Whether an insight has just one open subscription."""
    return len([each for each in insight["subscriptions"] if "disconnectTime" not in each]) == 1
