"""The pipeline from commits to snapshots: only what is affected is touched, and the end is that of a fresh start."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from kumafast.errors import KumafastError
from kumafast.metrics import Metrics
from kumafast.reconciler import Reconciler
from kumafast.registry import DataplaneId
from kumafast.resources import Dataplane, Mesh, Resource, ResourceKey, initial_resources, parse, with_defaults
from kumafast.snapshot import Snapshot, SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import MemoryStore, Put, Store


def dataplane(
    name: str,
    *,
    mesh: str = "default",
    address: str = "10.0.0.1",
    port: int = 8080,
    tags: dict[str, str] | None = None,
    reaches: Iterable[dict[str, str]] = (),
    state: str = "Ready",
    labels: dict[str, str] | None = None,
) -> Dataplane:
    inbound = [] if tags is None else [{"port": port, "tags": tags, "state": state}]
    outbound = [{"port": 10_000 + number, "tags": reached} for number, reached in enumerate(reaches)]
    networking = {"address": address, "inbound": inbound, "outbound": outbound}
    fields = {"name": name, "mesh": mesh, "labels": labels or {}, "networking": networking}
    resource = parse({"type": "Dataplane", **fields})
    assert isinstance(resource, Dataplane)
    return resource


def service(name: str, **tags: str) -> dict[str, str]:
    return {"kuma.io/service": name, **tags}


class Pipeline:
    """A store, a reconciler that follows it, and nodes that are connected without a network."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cache = SnapshotCache()
        self.metrics = Metrics()
        self.reconciler = Reconciler(store=store, cache=self.cache, metrics=self.metrics, debounce_ms=0)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Pipeline:
        await self.reconciler.load()
        self._task = asyncio.create_task(self.reconciler.follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def connect(self, *names: str, mesh: str = "default") -> None:
        for name in names:
            self.reconciler.connect(f"stream of {mesh}.{name}", Node(f"{mesh}.{name}"))

    async def settle(self) -> None:
        await asyncio.wait_for(self.reconciler.reached(await self.store.revision()), 10)

    def snapshot(self, name: str, *, mesh: str = "default") -> Snapshot:
        snapshot = self.cache.get(f"{mesh}.{name}")
        assert snapshot is not None
        return snapshot

    def generator_calls(self) -> float:
        return self._total("kumafast_generator_calls_total")

    def touched(self) -> float:
        """How many snapshots moved because of changes."""
        return self._total("kumafast_affected_proxies_sum")

    def _total(self, name: str) -> float:
        families = self.metrics.registry.collect()
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def with_default_mesh() -> MemoryStore:
    store = MemoryStore()
    await store.put(Mesh(name="default"))
    return store


def names(snapshot: Snapshot, type_url: str) -> set[str]:
    return set(snapshot.resources(type_url))


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


def mesh_timeout(
    name: str = "mt", *, mesh: str = "default", labels: dict[str, str] | None = None, **spec: Any
) -> Resource:
    """A policy as the API stores it."""
    document = {"type": "MeshTimeout", "name": name, "mesh": mesh, "labels": labels or {}, "spec": spec}
    return with_defaults(parse(document), zone="default")


def to_everything(request: str, kind: str = "Mesh", **ref: str) -> list[dict[str, Any]]:
    return [{"targetRef": {"kind": kind, **ref}, "default": {"http": {"requestTimeout": request}}}]


def timeout(
    name: str = "t", *, mesh: str = "default", sources: list[dict[str, str]], destinations: list[str], request: str
) -> Resource:
    return parse(
        {
            "type": "Timeout",
            "name": name,
            "mesh": mesh,
            "sources": [{"match": match} for match in sources],
            "destinations": [{"match": service(destination)} for destination in destinations],
            "conf": {"http": {"requestTimeout": request}},
        }
    )


HTTP = {"kuma.io/protocol": "http"}
HERE = {"kuma.io/zone": "default"}


def request_timeout(snapshot: Snapshot, listener: str = "outbound:127.0.0.1:10000") -> timedelta:
    """How long a request through an outbound may take, read from what is sent to Envoy."""
    message = listener_pb2.Listener.FromString(snapshot.resources(LISTENER)[listener].body)
    manager = http_connection_manager_pb2.HttpConnectionManager()
    message.filter_chains[0].filters[0].typed_config.Unpack(manager)
    limit: timedelta = manager.route_config.virtual_hosts[0].routes[0].route.timeout.ToTimedelta()
    return limit


async def with_new_mesh() -> MemoryStore:
    """A store with a mesh as users create it, with its policies."""
    store = MemoryStore()
    mesh = Mesh(name="default")
    await store.write([Put(mesh), *map(Put, initial_resources(mesh, zone="default"))])
    return store


def test_a_policy_applies_and_its_deletion_restores_what_was() -> None:
    async def main() -> None:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        await store.put(dataplane("web", tags=service("web"), reaches=[service("backend")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            before = pipeline.snapshot("web")
            assert request_timeout(before) == timedelta(seconds=15)
            policy = mesh_timeout("a", to=to_everything("300ms", "MeshService", name="backend"))
            await store.put(policy)
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(milliseconds=300)
            await store.delete(policy.key)
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(before)

    asyncio.run(main())


def test_what_a_user_wrote_outweighs_what_came_with_the_mesh() -> None:
    async def main() -> None:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        await store.put(dataplane("web", tags=service("web"), reaches=[service("backend")]))
        legacy = timeout(sources=[service("*")], destinations=["*"], request="2s")
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            await store.put(legacy)
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=2)
            # One of the newer family that a user wrote wins, also over a more specific one of the older.
            await store.put(mesh_timeout("a", to=to_everything("3s")))
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=3)
            await store.delete(ResourceKey("MeshTimeout", "default", "a"))
            await store.delete(legacy.key)
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=15)

    asyncio.run(main())


def test_an_initial_policy_that_a_user_edits_is_a_user_s() -> None:
    async def main() -> None:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        await store.put(dataplane("web", tags=service("web"), reaches=[service("backend")]))
        await store.put(timeout(sources=[service("*")], destinations=["*"], request="2s"))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=2)
            await store.put(mesh_timeout("mesh-timeout-all-default", to=to_everything("4s")))
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=4)

    asyncio.run(main())


@pytest.mark.parametrize("bystanders", [100, 2000])
def test_a_policy_touches_those_for_whom_it_makes_a_difference(bystanders: int) -> None:
    async def main() -> None:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        operations = [
            Put(dataplane(f"other-{n}", tags=service(f"other-{n}", **HTTP), reaches=[service("shared")]))
            for n in range(bystanders)
        ]
        await store.write([*operations, Put(dataplane("shared", tags=service("shared", **HTTP)))])
        for n in range(5):
            await store.put(dataplane(f"web-{n}", tags=service("web"), reaches=[service("backend")], labels=HERE))
        async with Pipeline(store) as pipeline:
            pipeline.connect(*(f"other-{n}" for n in range(bystanders)), *(f"web-{n}" for n in range(5)))
            calls, touched = pipeline.generator_calls(), pipeline.touched()

            async def write(policy: Resource) -> tuple[float, float]:
                nonlocal calls, touched
                before = calls, touched
                await store.put(policy)
                await pipeline.settle()
                calls, touched = pipeline.generator_calls(), pipeline.touched()
                return calls - before[0], touched - before[1]

            # One listener for all five, as they are equal; the cluster has no request timeout.
            to_backend = to_everything("300ms", "MeshService", name="backend")
            assert await write(mesh_timeout("a", to=to_backend)) == (1, 5)
            # The same said again in other words, to the same end; about others only; in a place that nobody looks at.
            assert await write(mesh_timeout("b", to=to_backend)) == (0, 0)
            assert await write(mesh_timeout("a", to=to_backend, targetRef={"kind": "Mesh"})) == (0, 0)
            assert await write(mesh_timeout("a", to=to_backend, labels={"team": "x"})) == (0, 0)
            assert await write(mesh_timeout("c", to=to_everything("1s", "MeshService", name="nobody"))) == (0, 0)
            one = {"kind": "Dataplane", "name": "web-3"}
            assert await write(mesh_timeout("0", targetRef=one, to=to_backend)) == (0, 0)
            assert await write(mesh_timeout("0", targetRef=one, to=to_everything("7s"))) == (1, 1)
            # From one to another: those who lose it and those who gain it. The listener is taken over from the one, or
            # made anew where the one was first to let go of it.
            other = {"kind": "Dataplane", "name": "web-4"}
            assert (await write(mesh_timeout("0", targetRef=other, to=to_everything("7s"))))[1] == 2
            legacy = timeout(sources=[service("web")], destinations=["backend"], request="9s")
            assert await write(legacy) == (0, 0), "what a user wrote in the newer family outweighs it"

    asyncio.run(main())


SERVICES = [service("a"), service("b"), service("a", version="1"), service("b", version="2"), service("c", zone="z")]


def random_policy(rng: random.Random, mesh: str) -> Resource:
    """A policy of either family, for anybody and about anything that the other random resources may be."""
    name, limit = f"p{rng.randrange(3)}", rng.choice(["1s", "2s", "15s"])
    if rng.random() < 0.3:
        matches = [service("*"), service("a"), service("a", version="1"), service("b", version="*")]
        destinations = rng.sample(["*", "a", "b", "c"], 2)
        return timeout(name, mesh=mesh, sources=rng.sample(matches, 2), destinations=destinations, request=limit)
    top = rng.choice(
        [
            {"kind": "Mesh"},
            {"kind": "Mesh", "proxyTypes": ["Gateway"]},
            {"kind": "MeshSubset", "tags": {"version": "1"}},
            {"kind": "MeshService", "name": "a"},
            {"kind": "MeshServiceSubset", "name": "b", "tags": {"version": "2"}},
            {"kind": "Dataplane", "name": f"dp-{rng.randrange(6)}"},
            {"kind": "Dataplane", "labels": {"team": "x"}},
            {"kind": "Dataplane", "sectionName": "80"},
            {"kind": "MeshHTTPRoute", "name": "nowhere"},
        ]
    )
    everything = {"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": limit, "connectionTimeout": limit}}
    to = rng.choice([[], [everything], to_everything(limit, "MeshService", name=rng.choice("abc"))])
    labels = rng.choice([{}, {}, {"kuma.io/effect": "shadow"}])
    return mesh_timeout(
        name, mesh=mesh, labels=labels, targetRef=top, to=to, **{"from": rng.choice([[], [everything]])}
    )


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
                    ours, theirs = (
                        pipeline.snapshot(proxy.name, mesh=proxy.mesh),
                        fresh.snapshot(proxy.name, mesh=proxy.mesh),
                    )
                    assert {t: set(ours.resources(t).values()) for t in ours.type_urls} == {
                        t: set(theirs.resources(t).values()) for t in theirs.type_urls
                    }

    asyncio.run(main())
