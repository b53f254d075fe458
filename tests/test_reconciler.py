"""The pipeline from commits to snapshots: only what is affected is touched, and the end is that of a fresh start."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.pipeline import (
    HERE,
    HTTP,
    Pipeline,
    dataplane,
    names,
    service,
    with_default_mesh,
)
from tests.random_resources import random_policy

from kumafast.errors import KumafastError
from kumafast.metrics import Metrics
from kumafast.reached import READ_MAX, Reached
from kumafast.reconciler import Reconciler
from kumafast.registry import DataplaneId
from kumafast.resources import Dataplane, Mesh, ResourceKey, initial_resources
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import Change, MemoryStore, Put, Store


def test_an_outbound_leads_to_the_inbounds_with_all_its_tags() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(dataplane("v1", address="10.0.0.1", tags=service("backend", version="v1")))
        await store.put(dataplane("v2", address="10.0.0.2", tags=service("backend", version="v2")))
        await store.put(dataplane("web", reaches=[service("backend"), service("backend", version="v2")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            snapshot = pipeline.snapshot("web")
            clusters = names(snapshot, ENDPOINT)
            assert "backend" in clusters
            (split,) = clusters - {"backend"}
            assert split.startswith("backend-")
            body = snapshot.resources(ENDPOINT)[split].body
            assert b"10.0.0.2" in body
            assert b"10.0.0.1" not in body
            assert {"outbound:127.0.0.1:10000", "outbound:127.0.0.1:10001"} <= names(snapshot, LISTENER)
            assert clusters <= names(snapshot, CLUSTER)

    asyncio.run(main())


def test_an_endpoint_that_is_not_ready_is_not_sent() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(dataplane("backend", tags=service("backend"), state="NotReady"))
        await store.put(dataplane("web", reaches=[service("backend")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            assert b"10.0.0.1" not in pipeline.snapshot("web").resources(ENDPOINT)["backend"].body
            await store.put(dataplane("backend", tags=service("backend")))
            await pipeline.settle()
            assert b"10.0.0.1" in pipeline.snapshot("web").resources(ENDPOINT)["backend"].body

    asyncio.run(main())


def test_a_deleted_dataplane_leaves_its_clients_and_keeps_its_own_configuration() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        backend = dataplane("backend", address="10.0.0.9", tags=service("backend"))
        await store.put(backend)
        await store.put(dataplane("web", reaches=[service("backend")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web", "backend")
            before = pipeline.snapshot("backend")
            await store.delete(backend.key)
            await pipeline.settle()
            assert b"10.0.0.9" not in pipeline.snapshot("web").resources(ENDPOINT)["backend"].body
            assert pipeline.snapshot("backend") is before

    asyncio.run(main())


def test_meshes_share_nothing() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(Mesh(name="other"))
        await store.put(dataplane("backend", address="10.0.0.1", tags=service("backend")))
        await store.put(dataplane("backend", mesh="other", address="10.9.9.9", tags=service("backend")))
        await store.put(dataplane("web", reaches=[service("backend")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            before = pipeline.snapshot("web")
            assert all(b"10.9.9.9" not in resource.body for layer in before.layers for resource in layer)
            await store.put(dataplane("backend-2", mesh="other", address="10.9.9.8", tags=service("backend")))
            await pipeline.settle()
            assert pipeline.snapshot("web") is before

    asyncio.run(main())


@pytest.mark.parametrize("bystanders", [10, 300])
def test_a_change_generates_for_what_it_changes_whatever_the_size_of_the_mesh(bystanders: int) -> None:
    async def main() -> None:
        store = await with_default_mesh()
        for number in range(bystanders):
            await store.put(dataplane(f"other-{number}", tags=service(f"other-{number}"), reaches=[service("shared")]))
        for number in range(5):
            await store.put(dataplane(f"web-{number}", reaches=[service("backend")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect(*(f"other-{number}" for number in range(bystanders)), *(f"web-{n}" for n in range(5)))
            calls = pipeline.generator_calls()
            await store.put(dataplane("backend", tags=service("backend")))
            await pipeline.settle()
            # The service's endpoints once for all five clients; its cluster and their listeners, since the first
            # endpoint tells the protocol: one listener, because all five are equal.
            assert pipeline.generator_calls() - calls == 3
            await store.put(dataplane("backend-2", address="10.0.0.2", tags=service("backend")))
            await pipeline.settle()
            assert pipeline.generator_calls() - calls == 4

    asyncio.run(main())


def test_a_write_that_envoy_cannot_see_generates_nothing() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(dataplane("backend", tags=service("backend")))
        web = dataplane("web", reaches=[service("backend")])
        await store.put(web)
        async with Pipeline(store) as pipeline:
            pipeline.connect("web", "backend")
            calls, before = pipeline.generator_calls(), pipeline.snapshot("web")
            await store.put(web)
            await store.put(web.model_copy(update={"labels": {"team": "a"}}))
            await store.put(Mesh(name="default", labels={"a": "b"}))
            await pipeline.settle()
            assert pipeline.generator_calls() == calls
            assert pipeline.snapshot("web") is before

    asyncio.run(main())


def test_nobody_connected_means_nothing_computed() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        async with Pipeline(store) as pipeline:
            await store.put(dataplane("backend", tags=service("backend")))
            await store.put(dataplane("web", reaches=[service("backend")]))
            await pipeline.settle()
            assert pipeline.generator_calls() == 0
            pipeline.connect("web")
            assert pipeline.generator_calls() > 0
            pipeline.reconciler.disconnect("stream of default.web", "default.web")
            assert len(pipeline.cache) == 0

    asyncio.run(main())


def test_the_first_client_of_many_endpoints_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    serves = Reached._serves

    def count(self: Reached, dataplane: Dataplane) -> object:
        nonlocal looked
        looked += 1
        return serves(self, dataplane)

    monkeypatch.setattr(Reached, "_serves", count)

    async def main() -> None:
        store = await with_default_mesh()
        many = [dataplane(f"b-{number}", address=_address(number), tags=service("backend")) for number in range(1_000)]
        await store.write([Put(each) for each in many])
        await store.put(dataplane("web", reaches=[service("backend")]))
        await store.put(dataplane("other"))
        cache, fresh = SnapshotCache(), SnapshotCache()
        reconciler = Reconciler(store=store, cache=cache, metrics=Metrics(), debounce_ms=0)
        await reconciler.load()
        reconciler.connect("web", Node("default.web"))
        reconciler.connect("other", Node("default.other"))
        assert cache.get("default.web") is None
        assert cache.get("default.other") is not None
        # While it is looked at some move, one goes and one comes: of those that were looked at and of the others.
        moved = [dataplane(f"b-{n}", address=_address(2_000 + n), tags=service("backend")) for n in (3, 500, 998)]
        moved.append(dataplane("b-new", address=_address(3_000), tags=service("backend")))
        stored = [await store.put(each) for each in moved]
        gone = [many[4].key, many[997].key]
        for key in gone:
            await store.delete(key)
        changes = [*(Change(each.resource.key, each) for each in stored), *(Change(key, None) for key in gone)]
        reconciler.take_in(changes, revision=await store.revision())
        turns = [looked]
        while cache.get("default.web") is None:
            reconciler.publish_slice()
            turns.append(looked - sum(turns))
        assert max(turns) <= READ_MAX + len(changes)
        assert reconciler.revision == await store.revision()
        again = Reconciler(store=store, cache=fresh, metrics=Metrics(), debounce_ms=0)
        await again.load()
        again.connect("web", Node("default.web"))
        while again.publish_slice():
            pass
        one, other = cache.get("default.web"), fresh.get("default.web")
        assert one is not None
        assert other is not None
        assert one.has_content_of(other)

    asyncio.run(main())


def _address(number: int) -> str:
    return f"10.1.{number >> 8}.{number & 255}"


def test_an_endpoint_with_a_host_name_comes_when_the_name_has_an_address() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(dataplane("backend", address="localhost", tags=service("backend")))
        await store.put(dataplane("web", reaches=[service("backend")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web", "backend")
            for _ in range(500):
                if b"127.0.0.1" in pipeline.snapshot("web").resources(ENDPOINT)["backend"].body:
                    break
                await asyncio.sleep(0.01)
            assert b"127.0.0.1" in pipeline.snapshot("web").resources(ENDPOINT)["backend"].body
            assert "inbound:127.0.0.1:8080" in names(pipeline.snapshot("backend"), LISTENER)

    asyncio.run(main())


SERVICES = [service("a"), service("b"), service("a", version="1"), service("b", version="2"), service("c", zone="z")]


async def random_change(store: Store, rng: random.Random) -> None:
    """One write of any kind; refused ones are part of the history."""
    mesh = rng.choice(["default", "other"])
    name = f"dp-{rng.randrange(6)}"
    try:
        match rng.randrange(14):
            case 0:
                await store.delete(ResourceKey("Dataplane", mesh, name))
            case 1:
                await store.delete(ResourceKey("Mesh", "", mesh))
            case 2:
                made = Mesh(name=mesh)
                await store.write([Put(made, 0), *map(Put, initial_resources(made, zone="default"))])
            case 3 | 4 | 5:
                await store.put(random_policy(rng, mesh))
            case 6:
                await store.delete(ResourceKey(rng.choice(["Timeout", "MeshTimeout"]), mesh, f"p{rng.randrange(3)}"))
            case 7:
                await store.delete(ResourceKey("MeshTimeout", mesh, f"mesh-timeout-all-{mesh}"))
            case _:
                await store.put(
                    dataplane(
                        name,
                        mesh=mesh,
                        address=f"10.0.0.{rng.randrange(1, 5)}",
                        port=rng.choice([80, 81]),
                        tags=rng.choice([None, *SERVICES, service("a", **HTTP), service("b", **HTTP)]),
                        reaches=rng.sample(SERVICES, rng.randrange(3)),
                        state=rng.choice(["Ready", "Ready", "NotReady", "Ignored"]),
                        labels=rng.choice([{}, {"team": "x"}, HERE]),
                    )
                )
    except KumafastError:
        pass


@pytest.mark.parametrize("seed", range(150))
def test_any_history_ends_as_a_fresh_start_would(seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        store = MemoryStore()
        await store.put(Mesh(name="default"))
        connected: set[DataplaneId] = set()
        async with Pipeline(store) as pipeline:
            for _ in range(60):
                await random_change(store, rng)
                if rng.random() < 0.3:
                    proxy = DataplaneId(rng.choice(["default", "other"]), f"dp-{rng.randrange(6)}")
                    if proxy in connected:
                        connected.discard(proxy)
                        pipeline.reconciler.disconnect(f"stream of {proxy.node_id}", proxy.node_id)
                    else:
                        connected.add(proxy)
                        pipeline.connect(proxy.name, mesh=proxy.mesh)
                if rng.random() < 0.5:
                    await asyncio.sleep(0)
            await pipeline.settle()
            present = {(stored.resource.mesh, stored.resource.name) for stored in (await store.list("Dataplane")).items}
            async with Pipeline(store) as fresh:
                for proxy in connected & {DataplaneId(*key) for key in present}:
                    fresh.connect(proxy.name, mesh=proxy.mesh)
                    failure = fresh.reconciler.failure(proxy.node_id)
                    assert pipeline.reconciler.failure(proxy.node_id) == failure
                    if failure is not None:
                        # It keeps what it had before its templates could not be applied; a fresh start knows of none.
                        assert fresh.cache.get(proxy.node_id) is None
                        continue
                    ours, theirs = (
                        pipeline.snapshot(proxy.name, mesh=proxy.mesh),
                        fresh.snapshot(proxy.name, mesh=proxy.mesh),
                    )
                    assert {t: set(ours.resources(t).values()) for t in ours.type_urls} == {
                        t: set(theirs.resources(t).values()) for t in theirs.type_urls
                    }

    asyncio.run(main())
