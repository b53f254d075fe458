"""External services in the pipeline: who reaches one follows it and its secrets, and nobody else hears of it."""

from __future__ import annotations

import asyncio

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tests.pipeline import (
    HTTP,
    Pipeline,
    connection_policy,
    dataplane,
    external_service,
    names,
    secured,
    service,
    split,
    traffic_permission,
    traffic_route,
    with_new_mesh,
)
from tests.test_reconciler_routes import cluster, counting, routes

from kumafast.resources import Resource, Secret, secret_data
from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, SECRET
from kumafast.store import MemoryStore, Put

BILLING = service("billing", **HTTP)


def secret(content: str) -> Secret:
    return Secret(mesh="default", name="ca", data=secret_data(content.encode()))


def billing(address: str = "192.0.2.1:80", /, **tls: object) -> Resource:
    return external_service("billing-1", address, BILLING, tls=tls or None)


def hosts(found: cluster_pb2.Cluster) -> list[str]:
    return [
        f"{each.endpoint.address.socket_address.address}:{each.endpoint.address.socket_address.port_value}"
        for locality in found.load_assignment.endpoints
        for each in locality.lb_endpoints
    ]


async def mesh_with(*resources: Resource) -> MemoryStore:
    store = await with_new_mesh()
    for resource in resources:
        await store.put(resource)
    return store


def test_comes_with_its_endpoints_and_goes_without_a_trace() -> None:
    async def main() -> None:
        store = await mesh_with(dataplane("web", tags=service("web"), reaches=[service("billing")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            before = pipeline.snapshot("web")
            assert names(before, ENDPOINT) == {"billing"}
            await store.put(billing())
            await store.put(external_service("billing-2", "billing.example:80", BILLING))
            await pipeline.settle()
            snapshot = pipeline.snapshot("web")
            found = cluster(snapshot, "billing")
            assert found.type == cluster_pb2.Cluster.STRICT_DNS
            assert hosts(found) == ["192.0.2.1:80", "billing.example:80"]
            assert names(snapshot, ENDPOINT) == set()
            assert routes(snapshot)[0].route.auto_host_rewrite.value
            await store.delete(billing().key._replace(name="billing-2"))
            await pipeline.settle()
            assert cluster(pipeline.snapshot("web"), "billing").type == cluster_pb2.Cluster.STATIC
            await store.delete(billing().key)
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(before)

    asyncio.run(main())


def test_no_tls_of_the_mesh_is_spoken_to_the_outside() -> None:
    async def main() -> None:
        store = await mesh_with(billing(), dataplane("web", tags=service("web"), reaches=[service("billing")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            before = cluster(pipeline.snapshot("web"), "billing")
            await store.put(secured())
            await pipeline.settle()
            assert cluster(pipeline.snapshot("web"), "billing") == before

    asyncio.run(main())


def test_what_is_outside_comes_before_what_is_within() -> None:
    async def main() -> None:
        within = dataplane("billing-0", tags=BILLING, address="10.0.0.1")
        store = await mesh_with(within, billing(), dataplane("web", tags=service("web"), reaches=[service("billing")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            counted = counting(pipeline)
            assert hosts(cluster(pipeline.snapshot("web"), "billing")) == ["192.0.2.1:80"]
            # Endpoints within come and go unseen, until nothing is outside any more.
            assert await counted(store.put(dataplane("more", tags=BILLING, address="10.0.0.2"))) == (0, 0, 0, 0)
            await store.delete(billing().key)
            await pipeline.settle()
            assert names(pipeline.snapshot("web"), ENDPOINT) == {"billing"}
            assert cluster(pipeline.snapshot("web"), "billing").type == cluster_pb2.Cluster.EDS

    asyncio.run(main())


def test_a_part_of_a_split_may_be_outside() -> None:
    async def main() -> None:
        within = dataplane("backend-0", tags=service("backend", **HTTP), address="10.0.0.1")
        store = await mesh_with(within, billing(), dataplane("web", tags=service("web"), reaches=[service("backend")]))
        halves = split((1, service("backend")), (1, service("billing")))
        await store.put(traffic_route(destinations=["backend"], split=halves))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            snapshot = pipeline.snapshot("web")
            assert names(snapshot, CLUSTER) >= {"backend", "billing"}
            assert names(snapshot, ENDPOINT) == {"backend"}
            assert routes(snapshot)[0].route.auto_host_rewrite.value

    asyncio.run(main())


def test_a_key_is_in_a_secret_and_nowhere_else() -> None:
    async def main() -> None:
        shown: dict[str, object] = {"clientCert": {"inlineString": "a chain"}, "clientKey": {"inlineString": "a key"}}
        store = await mesh_with(billing(**shown), dataplane("web", tags=service("web"), reaches=[service("billing")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            snapshot = pipeline.snapshot("web")
            holding = {
                name
                for type_url in snapshot.type_urls
                for name, resource in snapshot.resources(type_url).items()
                if b"a key" in resource.body
            }
            assert holding == {"external_cert:secret:billing:0"}
            before = snapshot.resources(CLUSTER)["billing"]
            shown["clientKey"] = {"inlineString": "another key"}
            await store.put(billing(**shown))
            await pipeline.settle()
            # Envoy replaces it in the cluster that is there.
            assert pipeline.snapshot("web").resources(CLUSTER)["billing"] == before
            [secret] = pipeline.snapshot("web").resources(SECRET).values()
            assert b"another key" in secret.body

    asyncio.run(main())


@pytest.mark.parametrize("bystanders", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_touches_those_who_reach_it_whatever_the_size_of_the_mesh(bystanders: int) -> None:
    async def main() -> None:
        store = await with_new_mesh()
        users, others = [f"user-{n}" for n in range(10)], [f"other-{n}" for n in range(bystanders)]
        for group, reached in ((users, service("billing")), (others, service("shared"))):
            await store.write([Put(dataplane(name, tags=service("x"), reaches=[reached])) for name in group])
        async with Pipeline(store) as pipeline:
            pipeline.connect(*users, *others)
            counted = counting(pipeline)
            assert await counted(store.put(billing())) == (10, 10, 0, 0)
            assert await counted(store.put(billing().model_copy(update={"labels": {"a": "b"}}))) == (0, 0, 0, 0)
            nobody = external_service("nobody", "192.0.2.9:80", service("nobody"))
            assert await counted(store.put(nobody)) == (0, 0, 0, 0)
            elsewhere = external_service("elsewhere", "192.0.2.9:80", service("shared"))
            assert (await counted(store.put(elsewhere)))[0] == bystanders
            # Until its secret is there it has no endpoint; another content is another cluster, any other secret is not.
            assert await counted(store.put(billing(caCert={"secret": "ca"}))) == (10, 10, 0, 0)
            assert hosts(cluster(pipeline.snapshot("user-0"), "billing")) == []
            assert await counted(store.put(secret("one"))) == (10, 10, 0, 0)
            assert hosts(cluster(pipeline.snapshot("user-0"), "billing")) == ["192.0.2.1:80"]
            assert await counted(store.put(secret("two"))) == (10, 10, 0, 0)
            assert await counted(store.put(secret("three").model_copy(update={"name": "other"}))) == (0, 0, 0, 0)
            assert await counted(store.put(billing())) == (10, 10, 0, 0)
            assert await counted(store.put(secret("four"))) == (0, 0, 0, 0)

    asyncio.run(main())


def permission(name: str, *sources: str, to: str = "billing") -> Resource:
    return traffic_permission(name, sources=map(service, sources), destinations=[service(to)])


def test_whoever_has_no_permission_finds_nobody_there_once_the_mesh_has_permissions() -> None:
    async def main() -> None:
        reaches = [service("billing")]
        clients = [dataplane(name, tags=service(name), reaches=reaches) for name in ("web", "shop")]
        store = await mesh_with(billing(), *clients, dataplane("other", tags=service("other")))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web", "shop", "other")
            open_to_all, other = pipeline.snapshot("web"), pipeline.snapshot("other")
            assert hosts(cluster(open_to_all, "billing")) == ["192.0.2.1:80"]
            await store.put(permission("unrelated", "web", to="somebody"))
            await pipeline.settle()
            for name in ("web", "shop"):
                assert hosts(cluster(pipeline.snapshot(name), "billing")) == []
            await store.put(permission("bills", "web"))
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(open_to_all)
            assert hosts(cluster(pipeline.snapshot("shop"), "billing")) == []
            shut = pipeline.snapshot("shop")
            # A newer one that is as specific counts alone.
            await store.put(permission("newer", "shop"))
            await pipeline.settle()
            assert hosts(cluster(pipeline.snapshot("web"), "billing")) == []
            assert hosts(cluster(pipeline.snapshot("shop"), "billing")) == ["192.0.2.1:80"]
            await store.delete(permission("newer", "shop").key)
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(open_to_all)
            assert pipeline.snapshot("shop").has_content_of(shut)
            for name in ("bills", "unrelated"):
                await store.delete(permission(name, "web").key)
            await pipeline.settle()
            assert hosts(cluster(pipeline.snapshot("shop"), "billing")) == ["192.0.2.1:80"]
            assert pipeline.snapshot("other") is other

    asyncio.run(main())


def test_a_permission_touches_those_who_reach_what_it_is_about() -> None:
    async def main() -> None:
        clients = [dataplane(f"web-{n}", tags=service("web"), reaches=[service("billing")]) for n in range(3)]
        others = [dataplane(f"shop-{n}", tags=service("shop"), reaches=[service("goods")]) for n in range(20)]
        goods = external_service("goods-1", "192.0.2.9:80", service("goods"))
        everybody = traffic_permission("all", sources=[service("*")], destinations=[service("*")])
        store = await mesh_with(billing(), goods, everybody, *clients, *others)
        async with Pipeline(store) as pipeline:
            pipeline.connect(*(each.name for each in (*clients, *others)))
            resolved, calls = pipeline.reconciler.work.resolved, pipeline.generator_calls()
            await store.put(permission("bills", "shop"))
            await pipeline.settle()
            assert pipeline.reconciler.work.resolved == resolved + 3
            # One cluster for all of them.
            assert pipeline.generator_calls() == calls + 1
            assert hosts(cluster(pipeline.snapshot("web-2"), "billing")) == []
            assert hosts(cluster(pipeline.snapshot("shop-7"), "goods")) == ["192.0.2.9:80"]

    asyncio.run(main())


def test_of_several_in_one_service_those_are_reached_that_are_permitted() -> None:
    async def main() -> None:
        eu = external_service("billing-eu", "192.0.2.2:80", {**BILLING, "region": "eu"})
        store = await mesh_with(
            billing(),
            eu,
            dataplane("web", tags=service("web"), reaches=[service("billing")]),
            traffic_permission("eu", sources=[service("web")], destinations=[service("billing", region="eu")]),
        )
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            assert hosts(cluster(pipeline.snapshot("web"), "billing")) == ["192.0.2.2:80"]

    asyncio.run(main())


def rate_limit(requests: int, *sources: str, name: str = "limit", to: str = "billing") -> Resource:
    conf = {"http": {"requests": requests, "interval": "1s"}}
    origins = [service(each) for each in sources]
    return connection_policy("RateLimit", name, sources=origins, destinations=[service(to)], conf=conf)


def limit_of(snapshot: Snapshot, port: int = 10_000) -> int | None:
    """How many requests an outbound takes at once; None where it has no limit."""
    body = snapshot.resources(LISTENER)[f"outbound:127.0.0.1:{port}"].body
    manager = http_connection_manager_pb2.HttpConnectionManager()
    listener_pb2.Listener.FromString(body).filter_chains[0].filters[0].typed_config.Unpack(manager)
    (host,) = manager.route_config.virtual_hosts
    if "envoy.filters.http.local_ratelimit" not in host.typed_per_filter_config:
        return None
    bucket = local_rate_limit_pb2.LocalRateLimit()
    host.typed_per_filter_config["envoy.filters.http.local_ratelimit"].Unpack(bucket)
    return int(bucket.token_bucket.max_tokens)


def test_what_is_sent_outside_is_limited_by_the_most_specific_policy_where_it_is_sent() -> None:
    async def main() -> None:
        reaches = [service("billing"), service("backend")]
        clients = [dataplane(f"{name}-1", tags=service(name), reaches=reaches) for name in ("web", "shop", "job")]
        store = await mesh_with(billing(), dataplane("backend", tags=service("backend", **HTTP)), *clients)
        async with Pipeline(store) as pipeline:
            pipeline.connect("web-1", "shop-1", "job-1", "backend")

            def limits(port: int = 10_000) -> list[int | None]:
                return [limit_of(pipeline.snapshot(name), port) for name in ("web-1", "shop-1", "job-1")]

            async def touched_by(policy: Resource) -> float:
                before = pipeline.touched()
                await store.put(policy)
                await pipeline.settle()
                return pipeline.touched() - before

            assert await touched_by(rate_limit(10, "web", "shop", name="some")) == 2
            assert limits() == [10, 10, None]
            assert await touched_by(rate_limit(5, "*", name="all", to="*")) >= 2
            assert limits() == [10, 10, 5]
            # Within the mesh it is the other end that counts.
            assert limits(10_001) == [None, None, None]
            assert await touched_by(rate_limit(20, "web", "shop", name="some")) == 2
            assert limits() == [20, 20, 5]
            await store.delete(billing().key)
            await store.put(dataplane("billing", tags=service("billing", **HTTP)))
            await pipeline.settle()
            assert limits() == [None, None, None]
            await store.put(billing())
            await pipeline.settle()
            assert limits() == [20, 20, 5]

    asyncio.run(main())
