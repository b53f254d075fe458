"""Delegated gateways: what another process sends into the mesh goes as a sidecar's workload sends it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.pipeline import (
    HTTP,
    Pipeline,
    dataplane,
    mesh_timeout,
    names,
    request_timeout,
    service,
    timeout,
    to_everything,
    with_new_mesh,
)

from kumafast.resources import Resource, parse, with_defaults
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import MemoryStore

EDGE = service("edge")


def gateway(name: str = "edge-1", **networking: Any) -> Resource:
    """A gateway with an outbound to `backend`, as the API stores it."""
    outbound = [{"port": 10_000, "tags": service("backend")}]
    fields = {"address": "10.0.0.9", "gateway": {"type": "DELEGATED", "tags": EDGE}, "outbound": outbound}
    document = {"type": "Dataplane", "name": name, "mesh": "default", "networking": {**fields, **networking}}
    return with_defaults(parse(document), zone="default")


async def world() -> MemoryStore:
    store = await with_new_mesh()
    await store.put(dataplane("backend", tags=service("backend", **HTTP)))
    await store.put(gateway())
    return store


def test_a_gateway_has_the_outbounds_of_a_sidecar_and_nothing_comes_in() -> None:
    async def main() -> None:
        async with Pipeline(await world()) as pipeline:
            pipeline.connect("edge-1")
            snapshot = pipeline.snapshot("edge-1")
            assert names(snapshot, LISTENER) == {"outbound:127.0.0.1:10000"}
            assert names(snapshot, CLUSTER) == names(snapshot, ENDPOINT) == {"backend"}

    asyncio.run(main())


def test_a_gateway_is_no_instance_of_the_service_that_it_is_known_by() -> None:
    async def main() -> None:
        store = await world()
        await store.put(dataplane("web", tags=service("web"), reaches=[EDGE]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            assert b"10.0.0.9" not in pipeline.snapshot("web").resources(ENDPOINT)["edge"].body

    asyncio.run(main())


@pytest.mark.parametrize(
    ("policy", "holds"),
    [
        (mesh_timeout("a", to=to_everything("3s")), True),
        (mesh_timeout("a", targetRef={"kind": "Mesh", "proxyTypes": ["Gateway"]}, to=to_everything("3s")), True),
        (mesh_timeout("a", targetRef={"kind": "Mesh", "proxyTypes": ["Sidecar"]}, to=to_everything("3s")), False),
        (mesh_timeout("a", targetRef={"kind": "MeshSubset", "tags": EDGE}, to=to_everything("3s")), True),
        (mesh_timeout("a", targetRef={"kind": "MeshService", "name": "edge"}, to=to_everything("3s")), True),
        (mesh_timeout("a", targetRef={"kind": "Dataplane", "name": "edge-1"}, to=to_everything("3s")), True),
        (mesh_timeout("a", targetRef={"kind": "Dataplane", "name": "backend"}, to=to_everything("3s")), False),
        (timeout(sources=[EDGE], destinations=["backend"], request="3s"), True),
        (timeout(sources=[service("web")], destinations=["backend"], request="3s"), False),
    ],
    ids=["Mesh", "Gateway", "Sidecar", "MeshSubset", "MeshService", "Dataplane", "another", "sources", "others"],
)
def test_policies_select_a_gateway_by_its_own_tags(policy: Resource, holds: bool) -> None:
    async def main() -> None:
        store = await world()
        async with Pipeline(store) as pipeline:
            pipeline.connect("edge-1")
            before = request_timeout(pipeline.snapshot("edge-1"))
            await store.put(policy)
            await pipeline.settle()
            found = request_timeout(pipeline.snapshot("edge-1"))
            assert found == (timedelta(seconds=3) if holds else before)
            await store.delete(policy.key)
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("edge-1")) == before

    asyncio.run(main())


def test_names_are_for_gateways_too() -> None:
    """With redirected traffic what is reachable is narrowed as a sidecar's is."""

    async def main() -> None:
        store = await world()
        await store.put(dataplane("other", tags=service("other", **HTTP)))
        proxying = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001, "reachableServices": ["backend"]}
        await store.put(gateway("edge-2", outbound=[], transparentProxying=proxying))
        async with Pipeline(store) as pipeline:
            pipeline.connect("edge-2")
            for mesh, book in pipeline.reconciler.registry.unsettled_addresses():
                assert (mesh, [holder.name for holder in book.lacking]) == ("default", ["backend", "other"])
            assert "outbound:passthrough:ipv4" in names(pipeline.snapshot("edge-2"), LISTENER)

    asyncio.run(main())
