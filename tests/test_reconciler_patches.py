"""Patches of finished resources in the pipeline: all that are for a proxy count, in order, and go without a trace."""

from __future__ import annotations

import asyncio
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from tests.mesh_policies import mesh_policy
from tests.pipeline import HTTP, Pipeline, dataplane, of_dataplanes, service, with_new_mesh

from kumafast.resources import Resource
from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import CLUSTER
from kumafast.store import MemoryStore


def patch(name: str, top: dict[str, Any], **change: Any) -> Resource:
    modification = {"cluster": {"operation": "Patch", "match": {"name": "backend"}, **change}}
    return mesh_policy("MeshProxyPatch", name, targetRef=top, default={"appendModifications": [modification]})


def timeout(snapshot: Snapshot, name: str = "backend") -> int:
    cluster = cluster_pb2.Cluster.FromString(snapshot.resources(CLUSTER)[name].body)
    seconds: int = cluster.connect_timeout.seconds
    return seconds


async def mesh() -> MemoryStore:
    store = await with_new_mesh()
    await store.put(dataplane("backend-0", tags={**service("backend"), **HTTP}, address="10.0.0.1"))
    for name in ("web-1", "web-2"):
        await store.put(dataplane(name, tags=service("web"), reaches=[service("backend")], address="10.0.0.2"))
    return store


def test_patches_follow_each_other_and_their_deletion_restores_what_was() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web-1", "web-2")
            before = {name: pipeline.snapshot(name) for name in ("web-1", "web-2")}
            one = patch("one", {"kind": "Dataplane", "name": "web-1"}, value="connectTimeout: 7s")
            replaced = {"op": "replace", "path": "/connectTimeout", "value": "8s"}
            everybody = patch("everybody", {"kind": "Mesh"}, jsonPatches=[replaced])
            for resource in (one, everybody):
                await pipeline.store.put(resource)
            await pipeline.settle()
            # The patch for one proxy weighs more, so it comes last, whenever it was written.
            assert [timeout(pipeline.snapshot(name)) for name in before] == [7, 8]
            template = of_dataplanes(
                "ProxyTemplate",
                "t",
                imports=["default-proxy"],
                modifications=[{"cluster": {"operation": "patch", "value": "connectTimeout: 9s"}}],
            )
            await pipeline.store.put(template)
            await pipeline.settle()
            assert [timeout(pipeline.snapshot(name)) for name in before] == [9, 9]
            for resource in (everybody, template, one):
                await pipeline.store.delete(resource.key)
            await pipeline.settle()
            assert all(pipeline.snapshot(name).has_content_of(was) for name, was in before.items())

    asyncio.run(main())


def test_what_cannot_be_patched_leaves_a_proxy_as_it_was() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web-1")
            before = pipeline.snapshot("web-1")
            missing = {"op": "replace", "path": "/not/there", "value": 1}
            await pipeline.store.put(patch("bad", {"kind": "Mesh"}, jsonPatches=[missing]))
            await pipeline.settle()
            assert pipeline.snapshot("web-1").has_content_of(before)
            await pipeline.store.put(patch("bad", {"kind": "Mesh"}, value="connectTimeout: 6s"))
            await pipeline.settle()
            assert timeout(pipeline.snapshot("web-1")) == 6

    asyncio.run(main())
