"""Built-in gateways from the store to the snapshot: who is touched by what, at which cost, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.runtime.v3 import rtds_pb2
from tests.gateways import (
    certificate_secret,
    for_gateway,
    gateway_dataplane,
    gateway_route,
    mesh_gateway,
    rule,
    targeted_route,
    targeted_rule,
    tcp_route,
    terminate,
    to,
)
from tests.pipeline import HTTP, Pipeline, dataplane, external_service, names, service, timeout, with_default_mesh

from kumafast.resources import Resource, Secret, parse
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, RUNTIME, SECRET

EDGE = mesh_gateway({"tags": {"port": "one"}}, {"port": 8081, "tags": {"port": "two"}})
SIZES = (10, 200)


@asynccontextmanager
async def behind_gateways() -> AsyncIterator[Pipeline]:
    """Two gateways of a service, one of another, and services behind them."""
    store = await with_default_mesh()
    for each in (
        gateway_dataplane("edge-1"),
        gateway_dataplane("edge-2", address="127.0.0.2"),
        gateway_dataplane("gate-1", service="gate"),
        dataplane("backend-1", tags=service("backend") | HTTP),
        dataplane("cart-1", address="10.0.0.2", tags=service("cart")),
    ):
        await store.put(each)
    async with Pipeline(store) as made:
        made.connect("edge-1", "edge-2", "gate-1")
        yield made


def in_pipeline(test: Callable[[Pipeline], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on a pipeline with gateways."""

    async def main() -> None:
        async with behind_gateways() as pipeline:
            await test(pipeline)

    # Not `functools.wraps`: pytest would take the argument for a fixture.
    def run() -> None:
        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def put(pipeline: Pipeline, *resources: Resource) -> None:
    for each in resources:
        await pipeline.store.put(each)
    await pipeline.settle()


def routes(pipeline: Pipeline, name: str = "edge-1") -> dict[str, list[tuple[str, list[str]]]]:
    """The hosts of each route configuration, each with the clusters of its routes."""
    found = {}
    for resource in pipeline.snapshot(name).resources(ROUTE).values():
        message = route_pb2.RouteConfiguration.FromString(resource.body)
        found[message.name] = [
            (host.name, [_cluster(route) for route in host.routes]) for host in message.virtual_hosts
        ]
    return found


def _cluster(route: Any) -> str:
    return str(route.route.cluster) if route.HasField("route") else f"{route.direct_response.status}"


def chains(pipeline: Pipeline, listener: str) -> list[list[str]]:
    """The server names of each chain of a listener."""
    body = pipeline.snapshot("edge-1").resources(LISTENER)[listener].body
    message = listener_pb2.Listener.FromString(body)
    return [list(chain.filter_chain_match.server_names) for chain in message.filter_chains]


@in_pipeline
async def test_a_gateway_has_listeners_once_it_is_selected(pipeline: Pipeline) -> None:
    before = pipeline.snapshot("edge-1").content_key()
    assert names(pipeline.snapshot("edge-1"), LISTENER) == set()
    assert names(pipeline.snapshot("edge-1"), RUNTIME) == {"gateway.listeners"}
    await put(pipeline, EDGE)
    assert names(pipeline.snapshot("edge-1"), LISTENER) == {"edge:HTTP:8080", "edge:HTTP:8081"}
    assert routes(pipeline) == {f"edge:HTTP:{port}:*": [("*", ["404"])] for port in (8080, 8081)}
    assert names(pipeline.snapshot("gate-1"), LISTENER) == set()
    await pipeline.store.delete(EDGE.key)
    await pipeline.settle()
    assert pipeline.snapshot("edge-1").content_key() == before


@in_pipeline
async def test_the_more_specific_gateway_wins_then_the_later(pipeline: Pipeline) -> None:
    await put(pipeline, mesh_gateway(name="first"), mesh_gateway({"port": 1}, name="second"))
    assert names(pipeline.snapshot("edge-1"), LISTENER) == {"second:HTTP:1"}
    await put(pipeline, gateway_dataplane("edge-1", version="1"), mesh_gateway(name="exact", match={"version": "1"}))
    assert names(pipeline.snapshot("edge-1"), LISTENER) == {"exact:HTTP:8080"}
    assert names(pipeline.snapshot("edge-2"), LISTENER) == {"second:HTTP:1"}


@in_pipeline
async def test_routes_are_attached_by_tags_and_lead_to_shared_clusters(pipeline: Pipeline) -> None:
    await put(pipeline, dataplane("web-1", tags=service("web"), reaches=[service("backend")]), EDGE)
    pipeline.connect("web-1")
    await put(pipeline, gateway_route(rule("/", to("backend")), match={"port": "one"}))
    await put(pipeline, gateway_route(rule("/", to("cart")), name="two", match={"port": "two"}))
    assert routes(pipeline)["edge:HTTP:8080:*"] == [("*", ["backend"])]
    assert routes(pipeline)["edge:HTTP:8081:*"] == [("*", ["cart"])]
    gateway, sidecar = pipeline.snapshot("edge-1"), pipeline.snapshot("web-1")
    for kind in (CLUSTER, ENDPOINT):
        assert gateway.resources(kind)["backend"] is sidecar.resources(kind)["backend"]
    # And the gateways of a service share all but where they listen.
    assert (
        gateway.resources(ROUTE)["edge:HTTP:8080:*"] is pipeline.snapshot("edge-2").resources(ROUTE)["edge:HTTP:8080:*"]
    )


@in_pipeline
async def test_a_targeted_route_silences_those_of_its_listener(pipeline: Pipeline) -> None:
    await put(pipeline, EDGE, gateway_route())
    before = pipeline.snapshot("edge-1").content_key()
    route = targeted_route(targeted_rule("/", "cart"), tags={"port": "one"})
    await put(pipeline, route)
    assert routes(pipeline) == {"edge:HTTP:8080:*": [("*", ["cart"])], "edge:HTTP:8081:*": [("*", ["backend"])]}
    await pipeline.store.delete(route.key)
    await pipeline.settle()
    assert pipeline.snapshot("edge-1").content_key() == before


@in_pipeline
async def test_endpoints_follow_as_for_sidecars(pipeline: Pipeline) -> None:
    await put(pipeline, EDGE, gateway_route())
    calls = pipeline.generator_calls()
    await put(pipeline, dataplane("backend-2", address="10.0.0.9", tags=service("backend") | HTTP))
    assert b"10.0.0.9" in pipeline.snapshot("edge-1").resources(ENDPOINT)["backend"].body
    # One layer of endpoints for both.
    assert pipeline.generator_calls() - calls == 1


@in_pipeline
async def test_tls_follows_its_secret(pipeline: Pipeline) -> None:
    secured = {"port": 8443, "protocol": "HTTPS", "hostname": "edge.example.com", "tls": terminate()}
    await put(pipeline, mesh_gateway({}, secured), gateway_route())
    assert names(pipeline.snapshot("edge-1"), LISTENER) == {"edge:HTTP:8080"}
    touched = pipeline.touched()
    await put(pipeline, certificate_secret())
    assert pipeline.touched() - touched == 2
    assert chains(pipeline, "edge:HTTPS:8443") == [["edge.example.com"]]
    shown = pipeline.snapshot("edge-1").resources(SECRET)["cert.ecdsa:secret:edge-cert"]
    listener = pipeline.snapshot("edge-1").resources(LISTENER)["edge:HTTPS:8443"]
    await put(pipeline, certificate_secret())
    assert pipeline.snapshot("edge-1").resources(SECRET)["cert.ecdsa:secret:edge-cert"] != shown
    assert pipeline.snapshot("edge-1").resources(LISTENER)["edge:HTTPS:8443"] is listener
    await put(pipeline, Secret(mesh="default", name="edge-cert", data="bm9uZQ=="))
    assert names(pipeline.snapshot("edge-1"), LISTENER) == {"edge:HTTP:8080"}
    touched = pipeline.touched()
    await put(pipeline, certificate_secret("another"))
    assert pipeline.touched() == touched


@in_pipeline
async def test_a_policy_for_one_listener_is_for_no_other(pipeline: Pipeline) -> None:
    await put(pipeline, EDGE, gateway_route())
    before = pipeline.snapshot("edge-1")
    fault = {"http": [{"abort": {"httpStatus": 503, "percentage": "1"}}]}
    item = {"targetRef": {"kind": "Mesh"}, "default": fault}
    policy = for_gateway("MeshFaultInjection", tags={"port": "two"}, to=[item])
    touched = pipeline.touched()
    await put(pipeline, policy)
    assert pipeline.touched() - touched == 2
    after = pipeline.snapshot("edge-1")
    for kind, one, two in (
        (LISTENER, "edge:HTTP:8080", "edge:HTTP:8081"),
        (ROUTE, "edge:HTTP:8080:*", "edge:HTTP:8081:*"),
    ):
        assert after.resources(kind)[one] == before.resources(kind)[one]
        assert after.resources(kind)[two] != before.resources(kind)[two]
    # What is outweighed for all listeners that it is for touches nobody.
    other = for_gateway("MeshFaultInjection", name="z", to=[item])
    await put(pipeline, other, for_gateway("MeshFaultInjection", name="y", tags={"port": "one"}, to=[item]))
    touched = pipeline.touched()
    await pipeline.store.delete(other.key)
    await pipeline.settle()
    assert pipeline.touched() == touched
    await pipeline.store.delete(policy.key)
    await pipeline.store.delete(other.key._replace(name="y"))
    await pipeline.settle()
    assert pipeline.snapshot("edge-1").content_key() == before.content_key()


@in_pipeline
async def test_limits_of_connections(pipeline: Pipeline) -> None:
    await put(pipeline, mesh_gateway({"resources": {"connectionLimit": 7}}))
    body = pipeline.snapshot("edge-1").resources(RUNTIME)["gateway.listeners"].body
    layer = rtds_pb2.Runtime.FromString(body).layer
    assert dict(layer) == {"envoy.resource_limits.listener.edge:HTTP:8080.connection_limit": 7}


@in_pipeline
async def test_what_changes_nothing_touches_nobody(pipeline: Pipeline) -> None:
    await put(pipeline, EDGE, gateway_route(), tcp_route(to("cart")))
    calls, touched = pipeline.generator_calls(), pipeline.touched()
    await put(pipeline, EDGE.model_copy(update={"labels": {"a": "b"}}), gateway_route())
    # A route of TCP where nothing is listened for it, one for listeners that nobody has, a gateway of nobody.
    await put(pipeline, tcp_route(to("backend"), name="t2"), gateway_route(name="no", match={"port": "three"}))
    await put(pipeline, mesh_gateway(name="nobody", match={"version": "9"}))
    assert (pipeline.generator_calls(), pipeline.touched()) == (calls, touched)


async def work_of_an_edit(sidecars: int) -> tuple[float, float, float]:
    """What the edit of a route costs in a mesh of so many sidecars: parts generated, proxies resolved, and touched."""
    store = await with_default_mesh()
    for number in range(sidecars):
        tags = service(f"s-{number % 7}") | HTTP
        await store.put(dataplane(f"dp-{number}", address=f"10.1.{number // 250}.{number % 250}", tags=tags))
    for each in (gateway_dataplane("edge-1"), gateway_dataplane("edge-2", address="127.0.0.2"), EDGE):
        await store.put(each)
    await store.put(gateway_route(rule("/", to("s-1"))))
    async with Pipeline(store) as pipeline:
        pipeline.connect("edge-1", "edge-2", *(f"dp-{number}" for number in range(sidecars)))
        await pipeline.settle()
        calls, touched, made = pipeline.generator_calls(), pipeline.touched(), pipeline.reconciler.work.resolved
        await put(pipeline, gateway_route(rule("/", to("s-2"))))
        work = pipeline.reconciler.work.resolved - made
        return pipeline.generator_calls() - calls, work, pipeline.touched() - touched


def test_an_edit_of_a_route_costs_the_gateways_that_it_is_for() -> None:
    found = [asyncio.run(work_of_an_edit(sidecars)) for sidecars in SIZES]
    # Routes of two listeners, a cluster and its endpoints, once for both gateways.
    assert found == [(4, 2, 2)] * len(SIZES)


@in_pipeline
async def test_ports_of_services_come_and_go(pipeline: Pipeline) -> None:
    ref = {"kind": "MeshService", "name": "backend", "port": 80}
    led = {**targeted_rule("/"), "default": {"backendRefs": [ref]}}
    await put(pipeline, mesh_gateway(), targeted_route(led))
    before = pipeline.snapshot("edge-1").content_key()
    assert routes(pipeline) == {"edge:HTTP:8080:*": [("*", ["500"])]}
    selector = {"dataplaneTags": {"kuma.io/service": "backend"}}
    ports = [{"port": 80, "targetPort": 8080, "appProtocol": "http"}]
    spec = {"selector": selector, "ports": ports}
    backend = parse({"type": "MeshService", "mesh": "default", "name": "backend", "spec": spec})
    await put(pipeline, backend)
    ((_, (cluster,)),) = routes(pipeline)["edge:HTTP:8080:*"]
    assert names(pipeline.snapshot("edge-1"), CLUSTER) == {cluster} == names(pipeline.snapshot("edge-1"), ENDPOINT)
    assert b"10.0.0.1" in pipeline.snapshot("edge-1").resources(ENDPOINT)[cluster].body
    await pipeline.store.delete(backend.key)
    await pipeline.settle()
    assert pipeline.snapshot("edge-1").content_key() == before


@in_pipeline
async def test_what_is_outside_is_told_its_own_host(pipeline: Pipeline) -> None:
    await put(pipeline, mesh_gateway(), gateway_route(rule("/", to("outside"))))
    await put(pipeline, external_service("es", "example.com:443", service("outside") | HTTP, tls={}))
    body = pipeline.snapshot("edge-1").resources(ROUTE)["edge:HTTP:8080:*"].body
    message = route_pb2.RouteConfiguration.FromString(body)
    assert message.virtual_hosts[0].routes[0].route.auto_host_rewrite.value
    assert b"example.com" in pipeline.snapshot("edge-1").resources(CLUSTER)["outside"].body


@in_pipeline
async def test_older_policies_hold_for_what_a_listener_sends(pipeline: Pipeline) -> None:
    await put(pipeline, EDGE, gateway_route())
    touched = pipeline.touched()
    policy = timeout(sources=[service("edge", port="one")], destinations=["backend"], request="3s")
    await put(pipeline, policy)
    assert pipeline.touched() - touched == 2
    limits = {}
    for resource in pipeline.snapshot("edge-1").resources(ROUTE).values():
        message = route_pb2.RouteConfiguration.FromString(resource.body)
        limits[message.name] = message.virtual_hosts[0].routes[0].route.timeout.seconds
    assert limits == {"edge:HTTP:8080:*": 3, "edge:HTTP:8081:*": 15}
