"""MeshPassthrough in the pipeline: matches of all policies count, and a proxy without redirection has none of it."""

from __future__ import annotations

import asyncio
from typing import Any

from tests import builders
from tests.mesh_policies import mesh_policy
from tests.pipeline import Pipeline, dataplane, names, service, with_new_mesh

from kumafast.resources import Dataplane, Resource
from kumafast.resources.networking import TransparentProxying
from kumafast.snapshot.resource import CLUSTER
from kumafast.store import MemoryStore

SIDECARS = {"kind": "Mesh", "proxyTypes": ["Sidecar"]}
OPEN = {"outbound:passthrough:ipv4", "outbound:passthrough:ipv6"}


def redirected(name: str, address: str) -> Dataplane:
    plain = dataplane(name, tags=service("web"), address=address)
    proxying = TransparentProxying(redirect_port_inbound=15006, redirect_port_outbound=15001)
    assert plain.networking is not None
    return plain.model_copy(
        update={"networking": plain.networking.model_copy(update={"transparent_proxying": proxying})}
    )


def policy(name: str, top: dict[str, Any], *addresses: str, mode: str = "Matched") -> Resource:
    matches = [{"type": "IP", "value": address, "protocol": "tcp"} for address in addresses]
    return mesh_policy(
        "MeshPassthrough", name, targetRef=top, default={"passthroughMode": mode, "appendMatch": matches}
    )


def outside(pipeline: Pipeline, name: str) -> set[str]:
    """The clusters of what is not in the mesh."""
    found = names(pipeline.snapshot(name), CLUSTER)
    return {each for each in found if each.startswith(("outbound:", "meshpassthrough_"))}


async def mesh(proxies: int = 2) -> MemoryStore:
    store = await with_new_mesh()
    for number in range(proxies):
        await store.put(redirected(f"web-{number}", f"10.0.1.{number}"))
    await store.put(dataplane("plain", tags=service("plain"), address="10.0.2.1"))
    return store


def test_matches_add_up_and_the_mode_is_that_of_the_weightier() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web-0", "web-1", "plain")
            before = outside(pipeline, "web-0")
            assert before <= OPEN
            everybody = policy("everybody", SIDECARS, "192.0.2.1")
            one = policy("one", {"kind": "Dataplane", "name": "web-0"}, "192.0.2.2")
            for resource in (everybody, one):
                await pipeline.store.put(resource)
            await pipeline.settle()
            first, second = (f"meshpassthrough_tcp_192.0.2.{number}_*" for number in (1, 2))
            assert (outside(pipeline, "web-0"), outside(pipeline, "web-1")) == ({first, second}, {first})
            assert outside(pipeline, "plain") == set()
            await pipeline.store.put(policy("one", {"kind": "Dataplane", "name": "web-0"}, mode="None"))
            await pipeline.settle()
            assert (outside(pipeline, "web-0"), outside(pipeline, "web-1")) == (set(), {first})
            for resource in (everybody, one):
                await pipeline.store.delete(resource.key)
            await pipeline.settle()
            assert outside(pipeline, "web-0") == outside(pipeline, "web-1") == before

    asyncio.run(main())


def test_where_the_mesh_lets_nothing_through_a_policy_may() -> None:
    """A policy decides for those whom it selects, and the mesh for all others, whether their traffic goes out."""

    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web-0", "web-1", "plain")
            before = [pipeline.snapshot(name) for name in ("web-0", "web-1", "plain")]
            opened, one = outside(pipeline, "web-0"), {"kind": "Dataplane", "name": "web-0"}
            for is_open, decided, first, second in (
                (False, [], set(), set()),
                (False, [policy("p", one, mode="All")], opened, set()),
                (False, [policy("p", one, "192.0.2.1")], {"meshpassthrough_tcp_192.0.2.1_*"}, set()),
                (True, [policy("p", one, mode="None")], set(), opened),
            ):
                await pipeline.store.put(builders.mesh(networking={"outbound": {"passthrough": is_open}}))
                for each in decided:
                    await pipeline.store.put(each)
                await pipeline.settle()
                assert (outside(pipeline, "web-0"), outside(pipeline, "web-1")) == (first, second)
                for each in decided:
                    await pipeline.store.delete(each.key)
            await pipeline.store.put(builders.mesh())
            await pipeline.settle()
            after = [pipeline.snapshot(name) for name in ("web-0", "web-1", "plain")]
            assert all(is_now.has_content_of(was) for is_now, was in zip(after, before, strict=True))

    asyncio.run(main())


def test_what_goes_out_is_made_once_for_all_that_are_alike() -> None:
    async def made(proxies: int) -> float:
        async with Pipeline(await mesh(proxies)) as pipeline:
            pipeline.connect(*(f"web-{number}" for number in range(proxies)))
            before = pipeline.generator_calls()
            await pipeline.store.put(policy("everybody", SIDECARS, "192.0.2.1"))
            await pipeline.settle()
            return pipeline.generator_calls() - before

    assert asyncio.run(made(2)) == asyncio.run(made(40)) > 0
