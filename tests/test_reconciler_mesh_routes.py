"""Routes with a targetRef in the pipeline: whom they touch, what they silence, and that they go without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from tests.pipeline import (
    HTTP,
    Pipeline,
    backend,
    dataplane,
    mesh_route,
    names,
    path,
    service,
    traffic_route,
    with_new_mesh,
)
from tests.test_reconciler_routes import cluster, routes, shares

from kumafast.generation.names import cluster_name
from kumafast.resources import Resource
from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import MemoryStore, Put

V1, V2 = service("backend", version="1"), service("backend", version="2")
CANARY = [backend("backend", 90, version="1"), backend("backend", 10, version="2")]
OTHER = "outbound:127.0.0.1:10001"


async def mesh(*reaches: str) -> MemoryStore:
    """Two versions of a backend, another service and a database; a client of the backend and of what it reaches."""
    store = await with_new_mesh()
    for number, tags in enumerate((V1, V2)):
        await store.put(dataplane(f"backend-{number}", tags={**tags, **HTTP}, address=f"10.0.0.{number + 1}"))
    await store.put(dataplane("other-0", tags=service("other", **HTTP), address="10.0.0.8"))
    await store.put(dataplane("db-0", tags=service("db"), address="10.0.0.9"))
    outbounds = [service("backend"), *map(service, reaches)]
    await store.put(dataplane("web", tags=service("web"), reaches=outbounds))
    return store


async def put(pipeline: Pipeline, *resources: Resource) -> Snapshot:
    await pipeline.store.write([Put(each) for each in resources])
    await pipeline.settle()
    return pipeline.snapshot("web")


def led_to(snapshot: Snapshot, listener: str = "outbound:127.0.0.1:10000") -> list[str | dict[str, int]]:
    """The cluster or shares of each route."""
    return [each.route.cluster or shares(each) for each in routes(snapshot, listener)]


def bytes_to(snapshot: Snapshot, listener: str) -> str | dict[str, int]:
    """The cluster or shares of connections."""
    body = snapshot.resources(LISTENER)[listener].body
    proxy = tcp_proxy_pb2.TcpProxy()
    assert listener_pb2.Listener.FromString(body).filter_chains[0].filters[0].typed_config.Unpack(proxy)
    return proxy.cluster or {each.name: each.weight for each in proxy.weighted_clusters.clusters}


def test_requests_are_split_and_the_deletion_restores_what_was() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web")
            before = pipeline.snapshot("web")
            route = mesh_route(rules=[{"matches": [path("/v")], "default": {"backendRefs": CANARY}}])
            after = await put(pipeline, route)
            split = {cluster_name(V1): 90, cluster_name(V2): 10}
            assert led_to(after) == [split, split, "backend"]
            assert names(after, ENDPOINT) == {"backend", cluster_name(V1), cluster_name(V2)}
            await pipeline.store.delete(route.key)
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(before)

    asyncio.run(main())


def test_a_route_touches_those_who_reach_its_service_whatever_the_mesh() -> None:
    async def main() -> None:
        works = []
        for size in (20, 200):
            store = await mesh()
            await store.write(
                [
                    Put(dataplane(f"idle-{number}", tags=service("idle"), reaches=[service("other")]))
                    for number in range(size)
                ]
            )
            async with Pipeline(store) as pipeline:
                pipeline.connect("web", *(f"idle-{number}" for number in range(size)))
                touched, generated = pipeline.touched(), pipeline.generator_calls()
                work = pipeline.reconciler.work.resolved
                await put(pipeline, mesh_route(backends=CANARY))
                works.append(
                    (
                        pipeline.touched() - touched,
                        pipeline.generator_calls() - generated,
                        pipeline.reconciler.work.resolved - work,
                    )
                )
        assert works[0] == works[1]
        assert works[0][0] == 1

    asyncio.run(main())


def test_what_rules_lead_to_does_not_change_how_the_service_is_spoken_to() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web")
            after = await put(pipeline, mesh_route(backends=[backend("db"), backend("nobody")]))
            assert led_to(after) == [{"db": 1, "nobody": 1}]

    asyncio.run(main())


def test_a_service_takes_up_its_route_of_requests_when_it_speaks_http() -> None:
    async def main() -> None:
        async with Pipeline(await mesh("late")) as pipeline:
            pipeline.connect("web")
            requests = mesh_route(service="late", rules=[{"matches": [path("/a")], "default": {}}])
            connections = mesh_route("MeshTCPRoute", "tr", service="late", backends=[backend("db")])
            after = await put(pipeline, requests, connections)
            assert bytes_to(after, OTHER) == "db"
            after = await put(pipeline, dataplane("late-0", tags=service("late", **HTTP), address="10.0.0.20"))
            assert led_to(after, OTHER) == ["late", "late", "late"]

    asyncio.run(main())


def test_requests_are_connections_under_a_route_of_connections_alone() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web")
            after = await put(pipeline, mesh_route("MeshTCPRoute", backends=[backend("backend", 3), backend("db")]))
            assert bytes_to(after, "outbound:127.0.0.1:10000") == {"backend": 3, "db": 1}

    asyncio.run(main())


@pytest.mark.parametrize("newer_first", [False, True])
def test_a_newer_route_silences_the_older_of_its_proxy_for_all_services_that_speak_as_it_does(
    newer_first: bool,
) -> None:
    async def main() -> None:
        async with Pipeline(await mesh("other", "db")) as pipeline:
            pipeline.connect("web")
            untouched = pipeline.snapshot("web")
            older = traffic_route(destination=service("db", version="9"))
            newer = mesh_route(rules=[{"matches": [path("/v")], "default": {}}])
            for resource in (newer, older) if newer_first else (older, newer):
                after = await put(pipeline, resource)
            assert led_to(after) == ["backend", "backend", "backend"]
            assert led_to(after, OTHER) == ["other"]
            # The database does not speak HTTP: for that the older route still counts.
            led_away = cluster_name(service("db", version="9"))
            assert bytes_to(after, "outbound:127.0.0.1:10002") == led_away
            connections = mesh_route("MeshTCPRoute", "tr", service="elsewhere", backends=[backend("db")])
            after = await put(pipeline, connections)
            assert bytes_to(after, "outbound:127.0.0.1:10002") == "db"
            for resource in (newer, connections, older):
                await pipeline.store.delete(resource.key)
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(untouched)

    asyncio.run(main())


def test_of_two_routes_the_weightier_says_first_and_both_say() -> None:
    def for_path(name: str, to: str, value: str, top: dict[str, str]) -> Resource:
        rules = [{"matches": [path(value, "Exact")], "default": {"backendRefs": [backend(to)]}}]
        return mesh_route(name=name, top=top, rules=rules)

    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web")
            everybody, web = {"kind": "Mesh"}, {"kind": "MeshService", "name": "web"}
            after = await put(pipeline, for_path("a", "other", "/a", everybody), for_path("b", "db", "/b", everybody))
            assert led_to(after) == ["other", "db", "backend"]
            after = await put(pipeline, for_path("z", "db", "/a", web))
            assert led_to(after) == ["db", "db", "backend"]

    asyncio.run(main())


def test_a_balancer_of_an_older_route_goes_with_it() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web")
            older = traffic_route(destination=service("*"), loadBalancer={"random": {}})
            assert cluster(await put(pipeline, older), "backend").lb_policy == 3
            after = await put(pipeline, mesh_route(service="elsewhere", backends=[backend("db")]))
            assert cluster(after, "backend").lb_policy == 0
            assert names(after, CLUSTER) >= {"backend"}

    asyncio.run(main())


_ORDERS: Sequence[tuple[int, ...]] = ((0, 1, 2), (2, 1, 0), (1, 2, 0))


def test_the_order_in_which_routes_come_makes_no_difference() -> None:
    async def main() -> None:
        written = [
            mesh_route(backends=CANARY),
            mesh_route(name="by-path", rules=[{"matches": [path("/v")], "default": {"backendRefs": [backend("db")]}}]),
            traffic_route(split=[{"weight": 1, "destination": service("other")}]),
        ]
        found = []
        for order in _ORDERS:
            async with Pipeline(await mesh("db")) as pipeline:
                pipeline.connect("web")
                for number in order:
                    await put(pipeline, written[number])
                found.append(pipeline.snapshot("web"))
        assert all(each.has_content_of(found[0]) for each in found)

    asyncio.run(main())
