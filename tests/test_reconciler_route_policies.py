"""Policies about single routes: the requests that a MeshHTTPRoute rules are handled in another way than all others."""

from __future__ import annotations

import asyncio
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tests.mesh_policies import mesh_policy
from tests.pipeline import Pipeline, backend, dataplane, mesh_route, path, service, with_default_mesh

from kumafast.resources import Resource, validate
from kumafast.snapshot.encoding import decode
from kumafast.snapshot.resource import LISTENER

OUTBOUND = "outbound:127.0.0.1:10000"
MESH = {"kind": "Mesh"}
HTTP = {"kuma.io/protocol": "http"}


def about(kind: str, name: str, *items: tuple[dict[str, Any], dict[str, Any]]) -> Resource:
    """A policy for everybody, about these."""
    return mesh_policy(kind, name, targetRef=MESH, to=[{"targetRef": ref, "default": conf} for ref, conf in items])


def limit(seconds: int) -> dict[str, Any]:
    return {"http": {"requestTimeout": f"{seconds}s"}}


def route_ref(name: str) -> dict[str, Any]:
    return {"kind": "MeshHTTPRoute", "name": name}


def ruled(name: str, *paths: str) -> Resource:
    """A route of requests with these paths to the service, which leads them to another."""
    rules = [{"matches": [path(each)], "default": {"backendRefs": [backend("other")]}} for each in paths]
    return mesh_route(name=name, rules=rules)


def routes(pipeline: Pipeline, name: str = "client") -> dict[str, route_components_pb2.Route]:
    """The routes of an outbound by their paths."""
    listener = decode(pipeline.snapshot(name).resources(LISTENER)[OUTBOUND])
    assert isinstance(listener, listener_pb2.Listener)
    manager = http_connection_manager_pb2.HttpConnectionManager()
    listener.filter_chains[0].filters[0].typed_config.Unpack(manager)
    return {each.match.prefix or each.match.path: each for each in manager.route_config.virtual_hosts[0].routes}


def seconds(pipeline: Pipeline) -> dict[str, int]:
    """How long requests may take, by their paths."""
    return {path: each.route.timeout.seconds for path, each in routes(pipeline).items() if not path.endswith("a/")}


async def _begun() -> Pipeline:
    store = await with_default_mesh()
    for name in ("backend", "other"):
        await store.put(dataplane(name, address="10.0.0.2", tags=service(name, **HTTP)))
    await store.put(dataplane("client", tags=service("client"), reaches=[service("backend")]))
    await store.put(dataplane("bystander", address="10.0.0.3", tags=service("bystander"), reaches=[service("other")]))
    return Pipeline(store)


def test_a_timeout_for_a_route_is_for_its_requests_alone() -> None:
    async def scenario() -> None:
        async with await _begun() as pipeline:
            store = pipeline.store
            await store.put(ruled("one", "/a"))
            await store.put(about("MeshTimeout", "all", (MESH, limit(7))))
            pipeline.connect("client", "bystander")
            await pipeline.settle()
            assert seconds(pipeline) == {"/a": 7, "/": 7}
            before, calls = pipeline.snapshot("bystander").content_key(), pipeline.touched()
            await store.put(about("MeshTimeout", "of-route", (route_ref("one"), limit(3))))
            await pipeline.settle()
            assert seconds(pipeline) == {"/a": 3, "/": 7}
            # Nobody else is touched.
            assert pipeline.snapshot("bystander").content_key() == before
            assert pipeline.touched() == calls + 1
            # What holds where nothing is said is something that may be said too.
            await store.put(about("MeshTimeout", "of-route", (route_ref("one"), limit(15))))
            await pipeline.settle()
            assert seconds(pipeline) == {"/a": 15, "/": 7}
            await store.delete(about("MeshTimeout", "of-route", (route_ref("one"), limit(3))).key)
            await pipeline.settle()
            assert seconds(pipeline) == {"/a": 7, "/": 7}

    asyncio.run(scenario())


def test_it_counts_as_soon_as_there_is_such_a_route_and_no_longer() -> None:
    async def scenario() -> None:
        async with await _begun() as pipeline:
            pipeline.connect("client")
            await pipeline.store.put(about("MeshTimeout", "of-route", (route_ref("one"), limit(3))))
            await pipeline.settle()
            assert seconds(pipeline) == {"/": 15}
            await pipeline.store.put(ruled("one", "/a"))
            await pipeline.settle()
            assert seconds(pipeline) == {"/a": 3, "/": 15}
            await pipeline.store.delete(ruled("one").key)
            await pipeline.settle()
            assert seconds(pipeline) == {"/": 15}

    asyncio.run(scenario())


def test_a_policy_for_a_route_is_about_its_requests_wherever_there_are_some() -> None:
    async def scenario() -> None:
        async with await _begun() as pipeline:
            pipeline.connect("client", "bystander")
            await pipeline.store.put(ruled("one", "/a"))
            await pipeline.settle()
            before, touched = pipeline.snapshot("bystander").content_key(), pipeline.touched()
            for_route = mesh_policy(
                "MeshTimeout", "for-route", targetRef=route_ref("one"), to=[{"targetRef": MESH, "default": limit(3)}]
            )
            assert validate(for_route) == ()
            await pipeline.store.put(for_route)
            await pipeline.settle()
            assert seconds(pipeline) == {"/a": 3, "/": 15}
            assert (pipeline.snapshot("bystander").content_key(), pipeline.touched()) == (before, touched + 1)
            # It outweighs what is said of the route to whoever has it.
            await pipeline.store.put(about("MeshTimeout", "a", (route_ref("one"), limit(4))))
            await pipeline.settle()
            assert seconds(pipeline) == {"/a": 3, "/": 15}
            await pipeline.store.delete(for_route.key)
            await pipeline.settle()
            assert seconds(pipeline) == {"/a": 4, "/": 15}

    asyncio.run(scenario())


def test_of_rules_that_several_routes_have_the_last_word_decides() -> None:
    async def scenario() -> None:
        async with await _begun() as pipeline:
            pipeline.connect("client")
            # Of two names the first in the alphabet has the last word.
            for resource in (ruled("b", "/a", "/b"), ruled("a", "/a")):
                await pipeline.store.put(resource)
            both = [(route_ref("a"), limit(3)), (route_ref("b"), limit(4))]
            await pipeline.store.put(about("MeshTimeout", "of-routes", *both))
            await pipeline.settle()
            assert {path: each for path, each in seconds(pipeline).items() if not path.endswith("b/")} == {
                "/a": 3,
                "/b": 4,
                "/": 15,
            }

    asyncio.run(scenario())


def test_retries_and_hashes_of_a_route_stand_in_the_place_of_those_of_the_service() -> None:
    async def scenario() -> None:
        def hashing(name: str) -> dict[str, Any]:
            return {"hashPolicies": [{"type": "Header", "header": {"name": name}}]}

        async with await _begun() as pipeline:
            pipeline.connect("client")
            for resource in (
                ruled("one", "/a"),
                about("MeshRetry", "all", (MESH, {"http": {"numRetries": 1}})),
                about("MeshRetry", "of-route", (route_ref("one"), {"http": {"numRetries": 4}})),
                about("MeshLoadBalancingStrategy", "all", (MESH, hashing("x-all"))),
                about("MeshLoadBalancingStrategy", "of-route", (route_ref("one"), hashing("x-one"))),
            ):
                await pipeline.store.put(resource)
            await pipeline.settle()
            found = routes(pipeline)
            tries = {path: each.route.retry_policy.num_retries.value for path, each in found.items()}
            assert tries == {"/a": 4, "/a/": 4, "/": 1}
            hashes = {path: [by.header.header_name for by in each.route.hash_policy] for path, each in found.items()}
            assert hashes == {"/a": ["x-one"], "/a/": ["x-one"], "/": ["x-all"]}

    asyncio.run(scenario())
