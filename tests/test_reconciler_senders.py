"""Clients that are told apart: those of whom a policy asks say who they are, and share with those that say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tests.pipeline import (
    HTTP,
    Pipeline,
    connection_policy,
    dataplane,
    external_service,
    service,
    split,
    traffic_route,
    with_new_mesh,
)

from kumafast.resources import Resource
from kumafast.snapshot.resource import LISTENER
from kumafast.store import MemoryStore, Put


def limit(*sources: dict[str, str], name: str = "limit", to: str = "backend", requests: int = 10) -> Resource:
    conf = {"http": {"requests": requests, "interval": "1s"}}
    return connection_policy("RateLimit", name, sources=sources, destinations=[service(to)], conf=conf)


def said(pipeline: Pipeline, name: str, port: int = 10_000) -> str | None:
    """What a proxy says of itself in requests through an outbound, read from what is sent to its Envoy."""
    body = pipeline.snapshot(name).resources(LISTENER)[f"outbound:127.0.0.1:{port}"].body
    message = listener_pb2.Listener.FromString(body)
    manager = http_connection_manager_pb2.HttpConnectionManager()
    message.filter_chains[0].filters[0].typed_config.Unpack(manager)
    headers = {each.header.key: each.header.value for each in manager.route_config.request_headers_to_add}
    return headers.get("x-kuma-tags")


async def served(*clients: Resource, services: Iterable[str] = ("backend", "other")) -> MemoryStore:
    store = await with_new_mesh()
    servers = [dataplane(each, tags=service(each, **HTTP)) for each in services]
    await store.write([Put(each) for each in (*servers, *clients)])
    return store


@pytest.mark.parametrize("count", [5, 200])
def test_those_who_are_asked_say_who_they_are_and_share_with_those_like_them(count: int) -> None:
    kinds = [service("web"), service("web", version="2"), service("job")]
    reaches = [service("backend"), service("other")]
    names = {f"{kind}-{n}": kinds[kind] for kind in range(3) for n in range(count)}

    async def main() -> None:
        store = await served(*(dataplane(name, tags=tags, reaches=reaches) for name, tags in names.items()))
        async with Pipeline(store) as pipeline:
            pipeline.connect("backend", "other", *names)
            # The server, and a listener for each two of the three ways to be a client of it that are asked.
            assert await pipeline.work_of(limit(service("web"))) == (1 + 2, 1 + 2 * count)
            assert said(pipeline, "0-0") == "&kuma.io/service=web&"
            assert said(pipeline, "1-0") == "&kuma.io/service=web&&version=2&"
            assert said(pipeline, "2-0") is said(pipeline, "0-0", 10_001) is None
            # Another limit for them: only the server is told.
            assert await pipeline.work_of(limit(service("web"), requests=20)) == (1, 1)
            before = pipeline.snapshot("0-0")
            fault = {"abort": {"percentage": 1, "httpStatus": 503}}
            # Another kind that asks the same of them is looked at for them, and nothing comes of it.
            web, backend = [service("web")], [service("backend", **HTTP)]
            other = connection_policy("FaultInjection", "fault", sources=web, destinations=backend, conf=fault)
            assert await pipeline.work_of(other) == (1, 1 + 2 * count)
            assert pipeline.snapshot("0-0").has_content_of(before)
            # A limit for a service that nobody serves is met by nobody.
            assert await pipeline.work_of(limit(service("web"), name="nowhere", to="nobody")) == (0, 0)
            # Everybody: those who said it already stay as they are.
            assert await pipeline.work_of(limit(service("*"), name="all")) == (1 + 1, 1 + count)
            assert said(pipeline, "2-0") == "&kuma.io/service=job&"

    asyncio.run(main())


def test_who_changes_says_another_thing() -> None:
    async def main() -> None:
        reaches = [service("backend")]
        store = await served(dataplane("web", tags=service("web"), reaches=reaches))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            before = pipeline.snapshot("web")
            policy = limit(service("web"))
            await store.put(policy)
            await store.put(dataplane("web", tags=service("web", version="1"), reaches=reaches))
            await pipeline.settle()
            assert said(pipeline, "web") == "&kuma.io/service=web&&version=1&"
            await store.put(dataplane("web", tags=service("web"), reaches=reaches))
            await store.delete(policy.key)
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(before)

    asyncio.run(main())


def test_a_client_whose_route_leads_to_a_service_is_asked_too() -> None:
    async def main() -> None:
        store = await served(dataplane("web", tags=service("web"), reaches=[service("other")]))
        await store.put(limit(service("web")))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            assert said(pipeline, "web") is None
            halves = split((1, service("other")), (1, service("backend")))
            await store.put(traffic_route("r", sources=[service("*")], destinations=["other"], split=halves))
            await pipeline.settle()
            assert said(pipeline, "web") == "&kuma.io/service=web&"
            await store.put(limit(service("job")))
            await pipeline.settle()
            assert said(pipeline, "web") is None

    asyncio.run(main())


def test_what_is_outside_of_the_mesh_is_told_nothing() -> None:
    async def main() -> None:
        store = await served(dataplane("web", tags=service("web"), reaches=[service("shop"), service("backend")]))
        await store.put(external_service("shop", "10.0.0.9:80", service("shop", **HTTP)))
        await store.put(limit(service("web"), to="*"))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            assert said(pipeline, "web") is None
            assert said(pipeline, "web", 10_001) == "&kuma.io/service=web&"

    asyncio.run(main())
