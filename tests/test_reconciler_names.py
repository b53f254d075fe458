"""Names of a mesh and their addresses: which proxies get listeners and a table for them, and what a change costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.udp.dns_filter.v3 import dns_filter_pb2
from tests.pipeline import (
    HTTP,
    Pipeline,
    connection_policy,
    dataplane,
    external_service,
    names,
    request_timeout,
    service,
    timeout,
    traffic_permission,
    traffic_route,
    virtual_outbound,
    with_default_mesh,
)

from kumafast.ipam import Allocator, Ranges
from kumafast.resources import Dataplane, ResourceKey, parse
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import MemoryStore, Put, Store

DNS_PORT = 15053


def redirected(
    name: str,
    *,
    tags: dict[str, str] | None = None,
    reaches: Iterable[dict[str, str]] = (),
    services: Iterable[str] = (),
    address: str = "10.0.0.1",
) -> Dataplane:
    """A dataplane whose outbound traffic is redirected to its proxy."""
    document = dataplane(name, tags=tags or service(name), reaches=reaches, address=address).model_dump(by_alias=True)
    document["networking"]["transparentProxying"] = {
        "redirectPortInbound": 15006,
        "redirectPortOutbound": 15001,
        "reachableServices": list(services),
    }
    resource = parse({"type": "Dataplane", **document})
    assert isinstance(resource, Dataplane)
    return resource


class Named(Pipeline):
    """A pipeline with an allocator, whose proxies answer for names."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.allocator = Allocator(
            store=store,
            books=self.reconciler.registry.unsettled_addresses,
            settle=self.reconciler.settle,
            moved=self.reconciler.moved,
            applied=self.reconciler.applied,
            ranges=Ranges(),
        )

    def connect(self, *names: str, mesh: str = "default") -> None:
        for name in names:
            node = Node(f"{mesh}.{name}", metadata={"dataplane.dns.port": str(DNS_PORT)})
            self.reconciler.connect(f"stream of {mesh}.{name}", node)

    async def settle(self) -> None:
        await super().settle()
        while await self.allocator.step():
            await super().settle()


def table(snapshot: Snapshot) -> dict[str, list[str]]:
    """What a proxy answers for names."""
    message = listener_pb2.Listener.FromString(snapshot.resources(LISTENER)["kuma:dns"].body)
    config = dns_filter_pb2.DnsFilterConfig()
    message.listener_filters[0].typed_config.Unpack(config)
    domains = config.server_config.inline_dns_table.virtual_domains
    return {each.name: list(each.endpoint.address_list.address) for each in domains}


def listeners(snapshot: Snapshot) -> set[str]:
    """Those for names."""
    return {name for name in snapshot.resources(LISTENER) if name.startswith("outbound:2")}


def address(snapshot: Snapshot, name: str) -> str:
    return table(snapshot)[name][0]


async def with_services(*names: str) -> MemoryStore:
    store = await with_default_mesh()
    for name in names:
        await store.put(dataplane(f"{name}-1", tags=service(name)))
    return store


def test_a_service_has_a_name_a_listener_and_its_endpoints() -> None:
    async def main() -> None:
        store = await with_services("web", "a_b_svc_80")
        await store.put(redirected("client"))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            snapshot = pipeline.snapshot("client")
            found = table(snapshot)
            assert set(found) == {"web.mesh", "client.mesh", "a_b_svc_80.mesh", "a.b.svc.80.mesh"}
            assert found["a_b_svc_80.mesh"] == found["a.b.svc.80.mesh"]
            assert len({each[0] for each in found.values()}) == 3
            assert listeners(snapshot) == {f"outbound:{each[0]}:80" for each in found.values()}
            assert {"web", "a_b_svc_80"} <= names(snapshot, CLUSTER)
            assert {"web", "a_b_svc_80"} <= names(snapshot, ENDPOINT)

    asyncio.run(main())


def test_proxies_without_redirected_traffic_see_no_names_and_no_address_is_given_for_them() -> None:
    async def main() -> None:
        store = await with_services("web")
        await store.put(dataplane("client", tags=service("client"), reaches=[service("web")]))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            assert names(pipeline.snapshot("client"), LISTENER) == {"inbound:10.0.0.1:8080", "outbound:127.0.0.1:10000"}
            assert not (await store.list("VirtualIP")).items
            await store.put(redirected("other"))
            await pipeline.settle()
            assert len((await store.list("VirtualIP")).items) == 3

    asyncio.run(main())


def test_a_name_keeps_its_address_and_an_address_goes_with_its_name() -> None:
    async def main() -> None:
        store = await with_services("web", "db")
        await store.put(redirected("client"))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            before = table(pipeline.snapshot("client"))
            await store.delete(dataplane("db-1").key)
            await store.put(dataplane("new-1", tags=service("new")))
            await pipeline.settle()
            after = table(pipeline.snapshot("client"))
            assert set(after) == {"web.mesh", "client.mesh", "new.mesh"}
            assert after["web.mesh"] == before["web.mesh"]
            assert {each.resource.name for each in (await store.list("VirtualIP")).items} == {
                each[0] for each in after.values()
            }
            await store.put(dataplane("db-1", tags=service("db")))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            assert table(pipeline.snapshot("client")) == {**after, "db.mesh": before["db.mesh"]}

    asyncio.run(main())


def test_a_proxy_sees_the_services_that_it_says_it_reaches() -> None:
    async def main() -> None:
        store = await with_services("web", "db")
        await store.put(redirected("all"))
        await store.put(redirected("some", services=["web"]))
        async with Named(store) as pipeline:
            pipeline.connect("all", "some")
            await pipeline.settle()
            assert set(table(pipeline.snapshot("some"))) == {"web.mesh"}
            assert set(table(pipeline.snapshot("all"))) == {"web.mesh", "db.mesh", "all.mesh", "some.mesh"}
            assert names(pipeline.snapshot("some"), ENDPOINT) == {"web"}
            before = pipeline.snapshot("some")
            resolved = pipeline.reconciler.work.resolved
            await store.put(dataplane("new-1", tags=service("new")))
            await pipeline.settle()
            assert "new.mesh" in table(pipeline.snapshot("all"))
            assert pipeline.snapshot("some") is before
            assert pipeline.reconciler.work.resolved == resolved + 1

    asyncio.run(main())


def test_an_instance_more_of_a_service_changes_no_names_and_resolves_nobody() -> None:
    async def main() -> None:
        store = await with_services("web")
        await store.put(redirected("client"))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            resolved, revision = pipeline.reconciler.work.resolved, await store.revision()
            before = pipeline.snapshot("client")
            await store.put(dataplane("web-2", tags=service("web"), address="10.0.0.2"))
            await pipeline.settle()
            assert pipeline.reconciler.work.resolved == resolved
            assert await store.revision() == revision + 1
            after = pipeline.snapshot("client")
            assert after.digest(LISTENER) == before.digest(LISTENER)
            assert after.digest(ENDPOINT) != before.digest(ENDPOINT)

    asyncio.run(main())


def test_what_proxies_see_alike_is_made_once() -> None:
    async def main() -> None:
        store = await with_services("web", "db")
        for number in range(20):
            await store.put(redirected(f"client-{number}", tags=service("client")))
        async with Named(store) as pipeline:
            pipeline.connect(*(f"client-{number}" for number in range(20)))
            await pipeline.settle()
            calls = pipeline.generator_calls()
            await store.put(dataplane("new-1", tags=service("new")))
            await pipeline.settle()
            # The table, a listener, a cluster and its endpoints, for all of them together.
            assert pipeline.generator_calls() == calls + 4
            tables = {pipeline.snapshot(f"client-{number}").resources(LISTENER)["kuma:dns"] for number in range(20)}
            assert len(tables) == 1

    asyncio.run(main())


def test_a_virtual_outbound_names_what_some_tags_choose() -> None:
    async def main() -> None:
        store = await with_services("db")
        for version in ("v1", "v2"):
            await store.put(dataplane(f"web-{version}", tags=service("web", version=version)))
        await store.put(redirected("client", services=["web"]))
        rule = virtual_outbound("versions", "{{.v}}.{{.service}}.svc", "8080", match=[{"version": "*"}], v="version")
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            without = pipeline.snapshot("client")
            assert set(table(without)) == {"web.mesh"}
            await store.put(rule)
            await pipeline.settle()
            snapshot = pipeline.snapshot("client")
            found = table(snapshot)
            assert set(found) == {"web.mesh", "v1.web.svc", "v2.web.svc"}
            assert {f"outbound:{found[f'{v}.web.svc'][0]}:8080" for v in ("v1", "v2")} <= listeners(snapshot)
            assert len(names(snapshot, ENDPOINT)) == 3
            await store.put(virtual_outbound("versions", "{{.v}}.{{.service}}.svc", "{{.v}}", v="version"))
            await pipeline.settle()
            # A version is no port, and then there is no name.
            assert pipeline.snapshot("client").has_content_of(without)

    asyncio.run(main())


def test_the_most_specific_rule_gives_a_port_its_meaning() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(dataplane("web-1", tags=service("web", version="1")))
        await store.put(redirected("client", services=["web"]))
        await store.put(virtual_outbound("any", "web.here", "80"))
        await store.put(virtual_outbound("one", "web.here", "80", match=[service("web", version="*")], v="version"))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            snapshot = pipeline.snapshot("client")
            message = listener_pb2.Listener.FromString(
                snapshot.resources(LISTENER)[f"outbound:{address(snapshot, 'web.here')}:80"].body
            )
            chosen = message.metadata.filter_metadata["io.kuma.tags"].fields
            assert {key: value.string_value for key, value in chosen.items()} == service("web", version="1")

    asyncio.run(main())


def test_what_is_outside_has_the_name_of_its_service_and_of_its_host() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(external_service("pay-1", "pay.example:8443", service("pay")))
        await store.put(external_service("ip", "192.0.2.7:5432", service("pg")))
        await store.put(redirected("client", services=["pay", "pg"]))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            snapshot = pipeline.snapshot("client")
            found = table(snapshot)
            assert set(found) == {"pay.mesh", "pg.mesh", "pay.example"}
            ports = {"pay.mesh": (80, 8443), "pay.example": (80, 8443), "pg.mesh": (80, 5432)}
            expected = {f"outbound:{found[name][0]}:{port}" for name, each in ports.items() for port in each}
            assert names(snapshot, LISTENER) >= {*expected, "outbound:192.0.2.7:5432"}
            assert names(snapshot, CLUSTER) >= {"pay", "pg"}

    asyncio.run(main())


def test_names_lead_where_routes_say_and_policies_of_what_they_lead_to_count() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        for version in ("1", "2"):
            await store.put(dataplane(f"web-{version}", tags=service("web", version=version, **HTTP)))
        await store.put(dataplane("other-1", tags=service("other", **HTTP)))
        await store.put(redirected("client", services=["web"]))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            without = pipeline.snapshot("client")
            assert names(without, ENDPOINT) == {"web"}
            await store.put(traffic_route(destinations=["web"], destination=service("other")))
            await pipeline.settle()
            assert names(pipeline.snapshot("client"), ENDPOINT) == {"other"}
            await store.put(dataplane("other-2", tags=service("other", **HTTP), address="10.0.0.9"))
            await pipeline.settle()
            assert b"10.0.0.9" in pipeline.snapshot("client").resources(ENDPOINT)["other"].body
            guard = connection_policy(
                "CircuitBreaker",
                "cb",
                sources=[service("*")],
                destinations=[service("other")],
                conf={"thresholds": {"maxRequests": 7}},
            )
            await store.put(guard)
            before = pipeline.snapshot("client")
            await pipeline.settle()
            assert pipeline.snapshot("client").digest(CLUSTER) != before.digest(CLUSTER)

    asyncio.run(main())


def test_a_policy_about_a_service_that_is_seen_by_name_counts() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(dataplane("web-1", tags=service("web", **HTTP)))
        await store.put(redirected("client"))
        await store.put(redirected("blind", services=["client"]))
        async with Named(store) as pipeline:
            pipeline.connect("client", "blind")
            await pipeline.settle()
            blind = pipeline.snapshot("blind")
            outbound = f"outbound:{address(pipeline.snapshot('client'), 'web.mesh')}:80"
            await store.put(timeout(sources=[service("*")], destinations=["web"], request="7s"))
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("client"), outbound) == timedelta(seconds=7)
            assert pipeline.snapshot("blind") is blind

    asyncio.run(main())


def test_own_outbounds_stand_beside_names_and_give_way_to_them() -> None:
    async def main() -> None:
        store = await with_services("web", "db")
        await store.put(redirected("client", services=["web"], reaches=[service("web"), service("db")]))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            snapshot = pipeline.snapshot("client")
            web = address(snapshot, "web.mesh")
            own = {"outbound:127.0.0.1:10000", "outbound:127.0.0.1:10001"}
            assert names(snapshot, LISTENER) >= {f"outbound:{web}:80", *own}
            assert names(snapshot, ENDPOINT) == {"web", "db"}
            # Nothing stands in two layers, where one would hide the other.
            assert sum(len(layer) for layer in snapshot.layers) == sum(
                len(snapshot.resources(each)) for each in snapshot.type_urls
            )
            document = redirected("client", services=["web"]).model_dump(by_alias=True)
            document["networking"]["outbound"] = [{"address": web, "port": 80, "tags": service("db")}]
            await store.put(parse({"type": "Dataplane", **document}))
            await pipeline.settle()
            assert names(pipeline.snapshot("client"), ENDPOINT) == {"web"}

    asyncio.run(main())


@pytest.mark.parametrize("what", ["dataplane", "mesh"])
def test_with_the_last_that_sees_them_nothing_is_left(what: str) -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(redirected("client"))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            assert not list(pipeline.reconciler.registry.unsettled_addresses())
            await store.delete(redirected("client").key)
            await pipeline.settle()
            assert not (await store.list("VirtualIP")).items
            if what == "mesh":
                await store.delete(ResourceKey("Mesh", "", "default"))
                await pipeline.settle()
                assert pipeline.reconciler.registry.mesh("default") is None

    asyncio.run(main())


def test_a_preview_shows_a_new_name_at_the_address_that_it_then_has() -> None:
    async def main() -> None:
        store = await with_services("web")
        await store.put(redirected("client"))
        async with Named(store) as pipeline:
            pipeline.connect("client")
            await pipeline.settle()
            new = dataplane("new-1", tags=service("new"))
            changes = await store.plan([Put(new)])
            fork = pipeline.reconciler.fork()
            fork.take_in(changes)
            assert {each.name for each in fork.concerned()} == {"client", "new-1"}
            node = pipeline.reconciler.node("default.client")
            assert node is not None
            foreseen = fork.after(node)
            assert isinstance(foreseen, Snapshot)
            assert "new.mesh" in table(foreseen)
            assert len((await store.list("VirtualIP")).items) == 2
            await store.put(new)
            await pipeline.settle()
            assert pipeline.snapshot("client").has_content_of(foreseen)

    asyncio.run(main())


def test_clients_of_what_is_outside_share_what_they_see_where_they_may_reach_the_same() -> None:
    async def main() -> None:
        store = await with_default_mesh()
        await store.put(external_service("pay-1", "192.0.2.1:80", service("pay")))
        await store.put(traffic_permission("pay", sources=[service("shop")], destinations=[service("pay")]))
        for name in ("shop", "web"):
            for number in range(3):
                await store.put(redirected(f"{name}-{number}", tags=service(name)))
        async with Named(store) as pipeline:
            pipeline.connect(*(f"{name}-{number}" for name in ("shop", "web") for number in range(3)))
            await pipeline.settle()
            bodies = {
                name: {pipeline.snapshot(f"{name}-{number}").resources(CLUSTER)["pay"].body for number in range(3)}
                for name in ("shop", "web")
            }
            assert [len(each) for each in bodies.values()] == [1, 1]
            counts = {
                name: len(cluster_pb2.Cluster.FromString(body).load_assignment.endpoints)
                for name, (body,) in bodies.items()
            }
            assert counts == {"shop": 1, "web": 0}
            # The names are the same for all of them.
            tables = {
                pipeline.snapshot(f"{name}-{number}").resources(LISTENER)["kuma:dns"]
                for name in ("shop", "web")
                for number in range(3)
            }
            assert len(tables) == 1

    asyncio.run(main())
