"""Routes in the pipeline: they lead elsewhere, touch those for whom they do, and go without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from tests.pipeline import (
    HTTP,
    Pipeline,
    dataplane,
    names,
    request_timeout,
    service,
    split,
    timeout,
    traffic_permission,
    traffic_route,
    with_new_mesh,
)

from kumafast.generation.names import cluster_name
from kumafast.publisher import Work
from kumafast.resources.policies.timeout import Conf
from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import MemoryStore, Put

V1, V2 = service("backend", version="1"), service("backend", version="2")
CANARY = split((90, V1), (10, V2))


async def canary_mesh() -> MemoryStore:
    store = await with_new_mesh()
    for number, tags in enumerate((V1, V2)):
        await store.put(dataplane(f"backend-{number}", tags={**tags, **HTTP}, address=f"10.0.0.{number + 1}"))
    await store.put(dataplane("web", tags=service("web"), reaches=[service("backend")]))
    return store


def routes(snapshot: Snapshot, listener: str = "outbound:127.0.0.1:10000") -> list[route_components_pb2.Route]:
    message = listener_pb2.Listener.FromString(snapshot.resources(LISTENER)[listener].body)
    manager = http_connection_manager_pb2.HttpConnectionManager()
    message.filter_chains[0].filters[0].typed_config.Unpack(manager)
    return list(manager.route_config.virtual_hosts[0].routes)


def shares(route: route_components_pb2.Route) -> dict[str, int]:
    return {each.name: each.weight.value for each in route.route.weighted_clusters.clusters}


def cluster(snapshot: Snapshot, name: str) -> cluster_pb2.Cluster:
    return cluster_pb2.Cluster.FromString(snapshot.resources(CLUSTER)[name].body)


def test_a_split_leads_to_clusters_of_their_own_and_its_deletion_restores_what_was() -> None:
    async def main() -> None:
        async with Pipeline(await canary_mesh()) as pipeline:
            pipeline.connect("web")
            before = pipeline.snapshot("web")
            route = traffic_route(destinations=["backend"], split=CANARY)
            await pipeline.store.put(route)
            await pipeline.settle()
            after = pipeline.snapshot("web")
            assert [shares(each) for each in routes(after)] == [{cluster_name(V1): 90, cluster_name(V2): 10}]
            assert names(after, ENDPOINT) == {cluster_name(V1), cluster_name(V2)}
            assert "backend" not in names(after, CLUSTER)
            await pipeline.store.delete(route.key)
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(before)

    asyncio.run(main())


def test_a_part_that_nobody_serves_yet_does_not_make_requests_bytes() -> None:
    async def main() -> None:
        async with Pipeline(await canary_mesh()) as pipeline:
            pipeline.connect("web")
            nobody = service("backend", version="3")
            await pipeline.store.put(traffic_route(split=split((1, V1), (1, nobody))))
            await pipeline.settle()
            assert shares(routes(pipeline.snapshot("web"))[0]) == {cluster_name(V1): 1, cluster_name(nobody): 1}

    asyncio.run(main())


def test_connections_are_split_where_one_of_the_parts_is_no_http() -> None:
    async def main() -> None:
        store = await canary_mesh()
        await store.put(dataplane("db", tags=service("db"), address="10.0.0.9"))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            await store.put(traffic_route(split=split((1, V1), (3, service("db")))))
            await pipeline.settle()
            body = pipeline.snapshot("web").resources(LISTENER)["outbound:127.0.0.1:10000"].body
            proxy = tcp_proxy_pb2.TcpProxy()
            listener_pb2.Listener.FromString(body).filter_chains[0].filters[0].typed_config.Unpack(proxy)
            found = {each.name: each.weight for each in proxy.weighted_clusters.clusters}
            assert found == {cluster_name(V1): 1, "db": 3}

    asyncio.run(main())


def test_policies_of_a_cluster_are_those_of_its_service_and_of_the_listener_those_of_the_outbound() -> None:
    async def main() -> None:
        store = await canary_mesh()
        await store.put(dataplane("other", tags=service("other", **HTTP), address="10.0.0.9"))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            await store.put(traffic_route(split=split((1, V1), (1, service("other")))))
            for destination, limit in (("backend", "2s"), ("other", "3s")):
                conf = {"connectTimeout": limit, "http": {"requestTimeout": limit}}
                policy = timeout(destination, sources=[service("web")], destinations=[destination], request=limit)
                await store.put(policy.model_copy(update={"conf": Conf.model_validate(conf)}))
                await pipeline.settle()
            snapshot = pipeline.snapshot("web")
            assert request_timeout(snapshot).total_seconds() == 2
            found = {name: cluster(snapshot, name).connect_timeout.seconds for name in (cluster_name(V1), "other")}
            assert found == {cluster_name(V1): 2, "other": 3}

    asyncio.run(main())


def test_the_first_route_that_names_a_balancer_decides_for_a_cluster() -> None:
    async def main() -> None:
        store = await canary_mesh()
        await store.put(dataplane("web", tags=service("web"), reaches=[service("backend"), service("x"), service("y")]))
        backend = service("backend")
        await store.put(traffic_route("x", destinations=["x"], loadBalancer={"random": {}}, destination=backend))
        await store.put(traffic_route("y", destinations=["y"], loadBalancer={"maglev": {}}, destination=backend))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            assert cluster(pipeline.snapshot("web"), "backend").lb_policy == cluster_pb2.Cluster.RANDOM

    asyncio.run(main())


Counted = Callable[[Awaitable[object]], Awaitable[tuple[int, int, int, int]]]
"""What a write costs: proxies touched, resolved as a whole, rebound and spliced."""


def counting(pipeline: Pipeline) -> Counted:
    def spent() -> Sequence[int]:
        work: Work = pipeline.reconciler.work
        return int(pipeline.touched()), work.resolved, work.rebound, work.spliced

    async def counted(write: Awaitable[object]) -> tuple[int, int, int, int]:
        before = spent()
        await write
        await pipeline.settle()
        touched, resolved, rebound, spliced = (now - then for now, then in zip(spent(), before, strict=True))
        return touched, resolved, rebound, spliced

    return counted


@pytest.mark.parametrize("bystanders", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_route_costs_what_it_reroutes_whatever_the_size_of_the_mesh(bystanders: int) -> None:
    async def main() -> None:
        store = await canary_mesh()
        users = [f"user-{n}" for n in range(10)]
        others = [f"other-{n}" for n in range(bystanders)]
        for group, reached in ((users, service("backend")), (others, service("shared"))):
            tags = service(group[0].partition("-")[0])
            await store.write([Put(dataplane(name, tags=tags, reaches=[reached])) for name in group])
        await store.put(traffic_route("route-all"))
        async with Pipeline(store) as pipeline:
            pipeline.connect(*users, *others)
            counted = counting(pipeline)
            put = store.put
            route = traffic_route("canary", destinations=["backend"], split=CANARY)
            assert await counted(put(route)) == (10, 10, 0, 0)
            # The same said again, in other words, and by whom nobody is led anywhere else.
            assert await counted(put(traffic_route("canary-2", destinations=["backend"], split=CANARY))) == (0, 0, 0, 0)
            away = traffic_route("away", sources=[service("nobody")], destinations=["shared"], destination=V1)
            assert await counted(put(away)) == (0, 0, 0, 0)
            assert await counted(put(traffic_route("route-all", destination=service("*", version="*")))) == (0, 0, 0, 0)
            # One endpoint of a part of it, which those alone reach who are led there.
            more = dataplane("backend-9", tags={**V2, **HTTP}, address="10.0.9.9")
            assert await counted(put(more)) == (10, 0, 0, 10)
            assert await counted(put(dataplane("x", tags=service("backend", version="7", **HTTP)))) == (0, 0, 0, 0)
            # A policy about the service of a cluster, for those who reach it; the listeners are theirs too.
            limit = timeout(sources=[service("*")], destinations=["backend"], request="1s")
            assert await counted(put(limit)) == (10, 0, 10, 0)
            permission = traffic_permission("p", sources=[service("user")], destinations=[service("backend")])
            assert (await counted(put(permission)))[0] == 0
            assert await counted(store.delete(route.key)) == (0, 0, 0, 0)
            assert await counted(store.delete(route.key._replace(name="canary-2"))) == (10, 10, 0, 0)

    asyncio.run(main())
