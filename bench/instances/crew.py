"""Instances on one PostgreSQL with a fleet of simulated Envoys, under load.

In: a directory, a URL of a store, how many proxies. Out: instances that can be killed and started again, a fleet that
finds those that are there, and whether all hold what they should. Never: figures; those are the scenarios'.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from bench import ending
from bench.instances.pairs import Load, Ring
from bench.instances.witness import Witness
from bench.real_wires import truth
from bench.real_wires.fleet import Fleet, until
from tests.cli.running import PROGRAM
from tests.instances import KEY, Instance

from kumafast.resources import Mesh, parse, with_defaults
from kumafast.store import Keyring, Put
from kumafast.store.postgres import PostgresStore
from kumafast.store.postgres import connection as connections

WAIT_S = 300.0
QUIET_S = 0.5
"""Nothing has come for so long: nothing is on its way."""
_PUTS, _PUTS_AT_ONCE = 200, 50


@dataclass(frozen=True)
class Held:
    """What an Envoy holds, to be sent to another process."""

    node_id: str
    held: Mapping[str, Mapping[str, str]]
    warming: Sequence[str]


class Crew:
    """Two instances by their numbers, None where one is not there."""

    def __init__(self, directory: Path, url: str, *, size: int, rate: float, flags: Sequence[object] = ()) -> None:
        self.url = url
        self.size = size
        self._directory, self._flags = directory, flags
        self.program: Sequence[str] = PROGRAM
        """Which kumafast those are that are started from now on."""
        self.instances: list[Instance | None] = [None, None]
        self.ring = Ring(size)
        self.fleet = Fleet(map(self.ring.node_id, self.ring.numbers))
        self.load = Load(self.ring, rate=rate, arrivals=self.fleet.arrivals, apis=self.apis)
        self.witness = Witness(len(self.instances))
        self._rng = random.Random(7)
        self._only: int | None = None
        self._checking = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=ending.by_its_parent
        )

    @contextlib.asynccontextmanager
    async def running(self, *, makes_tables: bool = True) -> AsyncIterator[Crew]:
        """With the mesh stored, both instances started, all proxies connected and configured, and no load.

        Where we are not to make the tables the first instance does, as the program that it is has them.
        """
        try:
            if makes_tables:
                await fill(self.url, self.ring, self.witness.ring)
                await self.start(0)
            else:
                await fill_through((await self.start(0)).api, self.ring, self.witness.ring)
            for number in range(1, len(self.instances)):
                await self.start(number)
            self.fleet.start("127.0.0.1", self._port)
            await self.all_configured()
            yield self
        finally:
            self.witness.stop()
            await self.fleet.stop()
            for instance in self.instances:
                if instance is not None:
                    await asyncio.to_thread(instance.stop)
            self._checking.shutdown()

    @contextlib.asynccontextmanager
    async def loaded(self) -> AsyncIterator[Load]:
        """While this lasts there is load."""
        task = asyncio.create_task(self.load.run())
        self.witness.tell(is_writing=True)
        try:
            yield self.load
        finally:
            self.witness.tell(is_writing=False)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def start(self, number: int) -> Instance:
        """An instance that serves under a number."""
        directory = self._directory / str(number)
        instance = await asyncio.to_thread(Instance, directory, self.url, *self._flags, program=self.program)
        self.instances[number] = instance
        self._tell_witness()
        return instance

    def _tell_witness(self) -> None:
        ports = [None if each is None else each.dp_port for each in self.instances]
        self.witness.tell(ports=ports, apis=self.apis())

    def kill(self, number: int) -> None:
        """End one without a word."""
        instance, self.instances[number] = self.instances[number], None
        assert instance is not None
        instance.kill()
        instance.stop()
        self._tell_witness()

    async def replace(self, number: int, program: Sequence[str]) -> int:
        """Have one leave in order, as on an upgrade, and put another program in its place, which then has half of the
        proxies; how many streams ended that were neither its own nor sent there."""
        instance, self.instances[number] = self.instances[number], None
        assert instance is not None
        leaving, closed = len(self.fleet.at(instance.dp_port)), self.fleet.streams["closed"]
        self._tell_witness()
        await asyncio.to_thread(instance.stop)
        await self.all_connected()
        self.program = program
        moved = await self.balance(await self.start(number))
        await self.all_connected()
        return self.fleet.streams["closed"] - closed - leaving - moved

    @property
    def living(self) -> list[Instance]:
        """Those that are there."""
        return [instance for instance in self.instances if instance is not None]

    def apis(self) -> list[str]:
        """Where the living take writes."""
        return [instance.api for instance in self.living]

    def _port(self) -> int:
        return self._only or self._rng.choice([instance.dp_port for instance in self.living])

    async def balance(self, instance: Instance) -> int:
        """Have half of the proxies come to an instance that has none, as a balancer does in time; how many."""
        self._only = instance.dp_port
        try:
            count = self.fleet.cut(0.5)
            await until(lambda: len(self.fleet.at(instance.dp_port)) >= count, "balanced", timeout_s=WAIT_S)
            return count
        finally:
            self._only = None

    async def all_connected(self) -> float:
        """The second at which all streams were seen to be open."""
        return await until(lambda: self.fleet.connected == self.size, "all are connected", timeout_s=WAIT_S)

    async def all_configured(self) -> None:
        """Return when every Envoy could serve."""
        envoys = self.fleet.envoys.values()
        await until(lambda: all(envoy.is_configured() for envoy in envoys), "all are configured", timeout_s=WAIT_S)

    async def quiet(self) -> float:
        """Begin no more writes; the second from which on all are connected and hold every change."""
        await self.load.rest()
        fleet = self.fleet
        there_at = await until(
            lambda: fleet.connected == self.size and not fleet.arrivals.missing(), "all is there", timeout_s=WAIT_S
        )
        # A dataplane that moves has other listeners too, which nobody waits for by name.
        await until(lambda: time.monotonic() - fleet.arrivals.last > QUIET_S, "nothing comes", timeout_s=WAIT_S)
        return max(there_at, fleet.arrivals.last)

    async def differences(self) -> list[str]:
        """Who does not hold what a control plane computes that is started now; what was acknowledged and is lost."""
        held = [Held(each.node_id, each.held, sorted(each.warming)) for each in self.fleet.envoys.values()]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._checking, _differences, self.url, KEY, held, self.load.acknowledged)

    async def lost(self) -> list[str]:
        """What was acknowledged and is not in PostgreSQL, read without a store, which would bring tables forward."""
        connection = await connections.connect(connections.parse_url(self.url))
        try:
            rows = await connection.fetch("SELECT name, content FROM resources WHERE type = 'Dataplane'")
        finally:
            await connections.disconnect(connection)
        stored = {row["name"]: json.loads(row["content"])["networking"]["address"] for row in rows}
        return _lost(self.load.acknowledged, stored)


def _lost(acknowledged: Mapping[str, str], stored: Mapping[str, str]) -> list[str]:
    return [f"lost: {name} at {address}" for name, address in acknowledged.items() if stored.get(name) != address]


def _differences(url: str, key: bytes, held: Sequence[Held], acknowledged: Mapping[str, str]) -> list[str]:
    return asyncio.run(_compare(url, key, held, acknowledged))


async def _compare(url: str, key: bytes, held: Iterable[Held], acknowledged: Mapping[str, str]) -> list[str]:
    store = await PostgresStore.open(url, keyring=Keyring([key]))
    try:
        stored = {
            each.resource.name: each.resource.networking.address  # type: ignore[attr-defined]
            for each in (await store.list("Dataplane", "default")).items
        }
        return [*_lost(acknowledged, stored), *await truth.differences_from(store, held)]
    finally:
        await store.close()


async def fill(url: str, *rings: Ring) -> None:
    """Write the mesh and all dataplanes."""
    store = await PostgresStore.open(url, keyring=Keyring([KEY]))
    try:
        await store.put(with_defaults(Mesh(name="default"), zone="default"))
        puts = [
            Put(with_defaults(parse(ring.dataplane(number, ring.first_address(number))), zone="default"))
            for ring in rings
            for number in ring.numbers
        ]
        for start in range(0, len(puts), _PUTS):
            await store.write(puts[start : start + _PUTS])
    finally:
        await store.close()


async def fill_through(api: str, *rings: Ring) -> None:
    """Write all dataplanes through the API of whoever has made the mesh."""
    async with httpx.AsyncClient(timeout=WAIT_S) as client:

        async def put(ring: Ring, number: int) -> None:
            path = f"{api}/meshes/default/dataplanes/{ring.name(number)}"
            response = await client.put(path, json=ring.dataplane(number, ring.first_address(number)))
            response.raise_for_status()

        response = await client.put(f"{api}/meshes/default", json={"type": "Mesh", "name": "default"})
        response.raise_for_status()
        for ring in rings:
            for start in range(0, ring.size, _PUTS_AT_ONCE):
                numbers = ring.numbers[start : start + _PUTS_AT_ONCE]
                await asyncio.gather(*(put(ring, number) for number in numbers))
