"""Workloads and what their Envoys find: told what to probe, believed, written together, and nothing for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from envoy.service.health.v3 import hds_pb2
from tests.builders import dataplane, inbound, mesh

from kumafast.errors import StoreUnavailableError
from kumafast.insights import WorkloadHealth
from kumafast.insights import health as health_module
from kumafast.resources import Dataplane, ResourceKey
from kumafast.snapshot.node import Node
from kumafast.store import Delete, MemoryStore, Put, Store

ADMIN = {"dataplane.admin.port": "9901"}
PROBED = inbound(80, servicePort=8080, serviceProbe={"interval": "2s", "healthyThreshold": 3})
WELL, SICK = {"localhost:8080": True}, {"localhost:8080": False}


class Envoy:
    """A stream, and what it was told."""

    def __init__(self, health: WorkloadHealth, name: str, stream: str = "") -> None:
        self._health = health
        self.told: list[hds_pb2.HealthCheckSpecifier] = []
        self.stream = stream or name
        health.opened(self.stream, Node(f"default.{name}", metadata=ADMIN), self._take)

    def _take(self, message: bytes) -> None:
        self.told.append(hds_pb2.HealthCheckSpecifier.FromString(message))

    def reports(self, health: dict[str, bool]) -> bool:
        return self._health.reported(self.stream, health)


async def world(*dataplanes: Dataplane) -> tuple[MemoryStore, WorkloadHealth]:
    store = MemoryStore()
    await store.put(mesh())
    for each in dataplanes:
        await store.put(each)
    return store, WorkloadHealth(store)


async def inbounds(store: Store, name: str) -> list[dict[str, Any]]:
    held = (await store.get(ResourceKey("Dataplane", "default", name))).resource
    assert isinstance(held, Dataplane)
    return [{"state": each.state, "health": each.health and each.health.ready} for each in held.inbounds]


async def prepared(health: WorkloadHealth, *names: str) -> list[Envoy]:
    """Envoys that were told what to probe and have said once that all is well."""
    envoys = [Envoy(health, name) for name in names]
    await health.flush()
    for envoy in envoys:
        assert envoy.reports(WELL)
    await health.flush()
    return envoys


@asynccontextmanager
async def following(health: WorkloadHealth) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in (health.watch(), health.follow())]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.001)


def test_an_envoy_is_told_what_to_probe_with_the_defaults_for_what_is_not_said() -> None:
    async def main() -> None:
        _, health = await world(dataplane("web-1", inbound=[PROBED, inbound(81)]))
        envoy = Envoy(health, "web-1")
        await health.flush()
        [told] = envoy.told
        workload, admin = told.cluster_health_checks
        [check] = workload.health_checks
        assert (workload.cluster_name, admin.cluster_name) == ("localhost:8080", "kuma:envoy:admin")
        assert (check.interval.seconds, check.timeout.seconds) == (2, 2)
        assert (check.healthy_threshold.value, check.unhealthy_threshold.value) == (3, 1)
        assert told.interval.ToTimedelta() == timedelta(milliseconds=100)

    asyncio.run(main())


def test_an_envoy_without_a_workload_to_probe_reports_seldom() -> None:
    async def main() -> None:
        _, health = await world(dataplane("web-1"))
        envoy = Envoy(health, "web-1")
        await health.flush()
        assert envoy.told[0].interval.ToTimedelta() == timedelta(seconds=5)

    asyncio.run(main())


def test_a_workload_goes_and_comes_back_and_the_same_again_is_no_write() -> None:
    async def main() -> None:
        store, health = await world(dataplane("web-1", inbound=[PROBED, inbound(81)]))
        [envoy] = await prepared(health, "web-1")
        started = await store.revision()
        for said, expected in (
            (SICK, {"state": "NotReady", "health": False}),
            (WELL, {"state": "Ready", "health": True}),
        ):
            envoy.reports(said)
            await health.flush()
            assert await inbounds(store, "web-1") == [expected, {"state": "Ready", "health": None}]
            revision = await store.revision()
            envoy.reports(said)
            await health.flush()
            assert await store.revision() == revision
        assert await store.revision() == started + 2

    asyncio.run(main())


def test_what_is_found_before_anything_was_probed_does_not_count() -> None:
    async def main() -> None:
        store, health = await world(dataplane("web-1", inbound=[PROBED]))
        envoy = Envoy(health, "web-1")
        await health.flush()
        assert not envoy.reports(SICK)
        await health.flush()
        assert await inbounds(store, "web-1") == [{"state": "Ready", "health": None}]
        assert envoy.reports(SICK)
        await health.flush()
        assert await inbounds(store, "web-1") == [{"state": "NotReady", "health": False}]

    asyncio.run(main())


def test_an_envoy_that_drains_closes_all_its_inbounds_and_opens_those_that_it_has_closed() -> None:
    async def main() -> None:
        ours = [PROBED, inbound(81), inbound(82, state="NotReady"), inbound(83, state="Ignored")]
        store, health = await world(dataplane("web-1", inbound=ours))
        [envoy] = await prepared(health, "web-1")
        envoy.reports({**WELL, "kuma:envoy:admin": False})
        await health.flush()
        closed = {"state": "NotReady", "health": False}
        theirs = [{"state": "NotReady", "health": None}, {"state": "Ignored", "health": None}]
        assert await inbounds(store, "web-1") == [closed, closed, *theirs]
        envoy.reports({**WELL, "kuma:envoy:admin": True})
        await health.flush()
        opened = {"state": "Ready", "health": True}
        assert await inbounds(store, "web-1") == [opened, opened, *theirs]

    asyncio.run(main())


def test_what_nobody_asked_about_is_not_kept_and_strangers_are_told_nothing() -> None:
    async def main() -> None:
        store, health = await world(dataplane("web-1", inbound=[PROBED]))
        stranger, nobody = Envoy(health, "web-2"), Envoy(health, "")
        [envoy] = await prepared(health, "web-1")
        envoy.reports({**WELL, "localhost:1": False})
        stranger.reports(SICK)
        revision = await store.revision()
        await health.flush()
        assert await store.revision() == revision
        assert stranger.told == nobody.told == []
        for each in (envoy, stranger, nobody):
            health.closed(each.stream)
        assert len(health) == 0

    asyncio.run(main())


def test_what_a_proxys_newest_stream_says_counts() -> None:
    async def main() -> None:
        store, health = await world(dataplane("web-1", inbound=[PROBED]))
        [old] = await prepared(health, "web-1")
        new = Envoy(health, "web-1", "another")
        await health.flush()
        new.reports(WELL)
        old.reports(SICK)
        await health.flush()
        assert await inbounds(store, "web-1") == [{"state": "Ready", "health": None}]
        health.closed(new.stream)
        old.reports(WELL)
        old.reports(SICK)
        await health.flush()
        assert await inbounds(store, "web-1") == [{"state": "NotReady", "health": False}]

    asyncio.run(main())


def test_a_dataplane_that_is_written_again_is_told_and_judged_again() -> None:
    """What the Envoy said last is still true, though its user has written another state; what it probes follows."""

    async def main() -> None:
        store, health = await world(dataplane("web-1", inbound=[PROBED]))
        async with following(health):
            envoy = Envoy(health, "web-1")
            await until(lambda: _holds(bool(envoy.told)))
            envoy.reports(WELL)
            envoy.reports(SICK)

            async def is_closed() -> bool:
                return bool((await inbounds(store, "web-1"))[0]["state"] == "NotReady")

            await until(is_closed)
            await store.put(dataplane("web-1", inbound=[PROBED]))
            await until(is_closed)
            await store.put(dataplane("web-1", inbound=[{**PROBED, "servicePort": 9090}]))
            await until(lambda: _holds(len(envoy.told) == 2))
            assert envoy.told[1].cluster_health_checks[0].cluster_name == "localhost:9090"
            # Another workload, of which nothing is known.
            assert (await inbounds(store, "web-1"))[0]["state"] == "Ready"

    asyncio.run(main())


async def _holds(value: bool) -> bool:
    return value


def test_many_reports_are_few_commits() -> None:
    async def main() -> None:
        names = [f"web-{number}" for number in range(100)]
        store, health = await world(*(dataplane(name, inbound=[PROBED]) for name in names))
        envoys = await prepared(health, *names)
        before = await store.revision()
        for envoy in envoys:
            envoy.reports(SICK)
        await health.flush()
        assert await store.revision() == before + 2
        for name in names:
            assert await inbounds(store, name) == [{"state": "NotReady", "health": False}]

    asyncio.run(main())


class FailingStore(MemoryStore):
    """A store that cannot be written for a while."""

    fails = False

    async def write(self, operations: Sequence[Put | Delete]) -> int:
        if self.fails:
            raise StoreUnavailableError("no")
        return await super().write(operations)


def test_what_was_found_while_the_store_could_not_be_written_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "RETRY_S_MAX", 0.01)

    async def main() -> None:
        store = FailingStore()
        await store.put(mesh())
        await store.put(dataplane("web-1", inbound=[PROBED]))
        health = WorkloadHealth(store)
        [envoy] = await prepared(health, "web-1")
        store.fails = True
        async with following(health):
            envoy.reports(SICK)
            await asyncio.sleep(0.05)
            assert await inbounds(store, "web-1") == [{"state": "Ready", "health": None}]
            store.fails = False

            async def is_closed() -> bool:
                return bool((await inbounds(store, "web-1"))[0]["state"] == "NotReady")

            await until(is_closed)

    asyncio.run(main())
