"""MeshServices that are made from dataplanes: which there are, with which ports, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from tests import builders
from tests.test_control_plane import settings

from kumafast import ControlPlane
from kumafast.own_services import GRACE_LABEL, ServiceGenerator
from kumafast.resources import Dataplane, Mesh, MeshService
from kumafast.store import MemoryStore

MODE = {"mode": "Everywhere"}


def instance(name: str, *inbound: dict[str, Any]) -> Dataplane:
    made = builders.dataplane(name, inbound=[{**each, "tags": {"kuma.io/service": "web"}} for each in inbound])
    assert isinstance(made, Dataplane)
    return made


class Clock:
    """The time, as a test says it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def generating(store: MemoryStore, clock: Clock) -> AsyncIterator[None]:
    task = asyncio.create_task(ServiceGenerator(store=store, zone="east", now=clock).follow())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def services(store: MemoryStore) -> dict[str, MeshService]:
    """Those that there are, once nothing is on its way."""
    for _ in range(50):
        await asyncio.sleep(0)
    found = [stored.resource for stored in (await store.list("MeshService")).items]
    return {each.name: each for each in found if isinstance(each, MeshService)}


async def ports(store: MemoryStore) -> list[int]:
    return [port.port for port in (await services(store))["web"].spec.ports]


async def mesh(store: MemoryStore, **fields: Any) -> None:
    await store.put(Mesh.model_validate({"name": "default", **fields}))


def run(story: Callable[[MemoryStore, Clock], Any]) -> None:
    async def main() -> None:
        store, clock = MemoryStore(), Clock()
        await mesh(store, meshServices=MODE)
        async with generating(store, clock):
            await story(store, clock)

    asyncio.run(main())


def test_a_service_has_the_ports_of_its_inbounds_and_is_marked_as_made() -> None:
    async def story(store: MemoryStore, clock: Clock) -> None:
        named = {"port": 8080, "name": "main", "protocol": "http"}
        await store.put(
            instance("w-1", named, {"port": 8081, "servicePort": 90}, {"port": 8081, "address": "10.0.0.9"})
        )
        await store.put(builders.dataplane("odd", inbound=[{"port": 1, "tags": {"kuma.io/service": "odd_one.x"}}]))
        found = await services(store)
        assert set(found) == {"web"}
        assert found["web"].model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"] == {
            "selector": {"dataplaneTags": {"kuma.io/service": "web"}},
            "ports": [
                {"name": "main", "port": 8080, "targetPort": 8080, "appProtocol": "http"},
                {"name": "8081", "port": 8081, "targetPort": 8081, "appProtocol": "tcp"},
            ],
        }
        assert dict(found["web"].labels) == {
            "kuma.io/display-name": "web",
            "kuma.io/env": "universal",
            "kuma.io/managed-by": "meshservice-generator",
            "kuma.io/mesh": "default",
            "kuma.io/origin": "zone",
            "kuma.io/zone": "east",
        }

    run(story)


def test_ports_stay_as_long_as_an_instance_has_them_and_are_then_those_of_the_first() -> None:
    async def story(store: MemoryStore, clock: Clock) -> None:
        await store.put(instance("w-3", {"port": 3}))
        assert await ports(store) == [3]
        await store.put(instance("w-1", {"port": 1}))
        await store.put(instance("w-2", {"port": 2}))
        assert await ports(store) == [3]
        await store.delete(instance("w-3").key)
        assert await ports(store) == [1]

    run(story)


def test_a_service_without_instances_stays_for_an_hour() -> None:
    async def story(store: MemoryStore, clock: Clock) -> None:
        await store.put(instance("w-1", {"port": 1}))
        await services(store)
        await store.delete(instance("w-1").key)
        assert GRACE_LABEL in (await services(store))["web"].labels
        clock.now += timedelta(minutes=59)
        await store.put(instance("w-1", {"port": 1}))
        assert GRACE_LABEL not in (await services(store))["web"].labels
        await store.delete(instance("w-1").key)
        await services(store)
        clock.now += timedelta(minutes=59)
        await store.put(instance("other"))
        assert "web" in await services(store)
        clock.now += timedelta(minutes=1)
        await store.delete(instance("other").key)
        assert "web" not in await services(store)

    run(story)


def test_what_users_wrote_is_left_alone_and_what_was_made_goes_with_the_mode() -> None:
    async def story(store: MemoryStore, clock: Clock) -> None:
        own = MeshService(mesh="default", name="web")
        await store.put(own)
        await store.put(instance("w-1", {"port": 1}))
        await store.put(builders.dataplane("db", inbound=[{"port": 2, "tags": {"kuma.io/service": "db"}}]))
        found = await services(store)
        assert (set(found), found["web"]) == ({"web", "db"}, own)
        await store.delete(own.key)
        assert await ports(store) == [1]
        await store.put(own)
        await mesh(store)
        assert await services(store) == {"web": own}
        await store.put(builders.dataplane("db", inbound=[{"port": 3, "tags": {"kuma.io/service": "db"}}]))
        assert set(await services(store)) == {"web"}
        await mesh(store, meshServices=MODE)
        assert (await services(store))["db"].spec.ports[0].port == 3

    run(story)


def test_one_more_instance_among_thousands_costs_no_write_and_one_more_service_one() -> None:
    async def story(store: MemoryStore, clock: Clock) -> None:
        for number in range(2000):
            tags = {"kuma.io/service": f"s-{number}"}
            await store.put(builders.dataplane(f"d-{number}", inbound=[{"port": 80, "tags": tags}]))
        while len(await services(store)) < 2000:
            await asyncio.sleep(0.01)
        before = await store.revision()
        await store.put(builders.dataplane("more", inbound=[{"port": 80, "tags": {"kuma.io/service": "s-7"}}]))
        await store.put(instance("w-1", {"port": 1}))
        while "web" not in await services(store):
            await asyncio.sleep(0.01)
        assert await store.revision() == before + 3

    run(story)


def test_a_running_control_plane_makes_services_and_does_so_again_after_a_restart(tmp_path: Path) -> None:
    async def main(*names: str) -> None:
        async with ControlPlane(settings(tmp_path)) as control_plane:
            await control_plane.put(Mesh.model_validate({"name": "default", "meshServices": MODE}))
            for name in names:
                await control_plane.put(
                    builders.dataplane(name, inbound=[{"port": 80, "tags": {"kuma.io/service": name}}])
                )
            async with asyncio.timeout(10):
                while {each.resource.name for each in await control_plane.list("MeshService")} != {"a", "b"}:
                    await asyncio.sleep(0.01)
            if len(names) > 1:
                await control_plane.delete("Dataplane", "b", mesh="default")

    uvloop.run(main("a", "b"))
    uvloop.run(main("a"))
