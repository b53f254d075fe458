"""Policies in the pipeline: they apply, touch those for whom they make a difference, and go without a trace."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from tests.pipeline import (
    HERE,
    HTTP,
    Pipeline,
    dataplane,
    mesh_timeout,
    request_timeout,
    service,
    timeout,
    to_everything,
    with_new_mesh,
)

from kumafast.resources import ResourceKey
from kumafast.store import Put


def test_a_policy_applies_and_its_deletion_restores_what_was() -> None:
    async def main() -> None:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        await store.put(dataplane("web", tags=service("web"), reaches=[service("backend")]))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            before = pipeline.snapshot("web")
            assert request_timeout(before) == timedelta(seconds=15)
            policy = mesh_timeout("a", to=to_everything("300ms", "MeshService", name="backend"))
            await store.put(policy)
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(milliseconds=300)
            await store.delete(policy.key)
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(before)

    asyncio.run(main())


def test_what_a_user_wrote_outweighs_what_came_with_the_mesh() -> None:
    async def main() -> None:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        await store.put(dataplane("web", tags=service("web"), reaches=[service("backend")]))
        legacy = timeout(sources=[service("*")], destinations=["*"], request="2s")
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            await store.put(legacy)
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=2)
            # One of the newer family that a user wrote wins, also over a more specific one of the older.
            await store.put(mesh_timeout("a", to=to_everything("3s")))
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=3)
            await store.delete(ResourceKey("MeshTimeout", "default", "a"))
            await store.delete(legacy.key)
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=15)

    asyncio.run(main())


def test_an_initial_policy_that_a_user_edits_is_a_user_s() -> None:
    async def main() -> None:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        await store.put(dataplane("web", tags=service("web"), reaches=[service("backend")]))
        await store.put(timeout(sources=[service("*")], destinations=["*"], request="2s"))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=2)
            await store.put(mesh_timeout("mesh-timeout-all-default", to=to_everything("4s")))
            await pipeline.settle()
            assert request_timeout(pipeline.snapshot("web")) == timedelta(seconds=4)

    asyncio.run(main())


@pytest.mark.parametrize("bystanders", [100, 2000])
def test_a_policy_touches_those_for_whom_it_makes_a_difference(bystanders: int) -> None:
    async def main() -> None:
        store = await with_new_mesh()
        await store.put(dataplane("backend", tags=service("backend", **HTTP)))
        operations = [
            Put(dataplane(f"other-{n}", tags=service(f"other-{n}", **HTTP), reaches=[service("shared")]))
            for n in range(bystanders)
        ]
        await store.write([*operations, Put(dataplane("shared", tags=service("shared", **HTTP)))])
        for n in range(5):
            await store.put(dataplane(f"web-{n}", tags=service("web"), reaches=[service("backend")], labels=HERE))
        async with Pipeline(store) as pipeline:
            pipeline.connect(*(f"other-{n}" for n in range(bystanders)), *(f"web-{n}" for n in range(5)))
            # One listener for all five, as they are equal; the cluster has no request timeout.
            to_backend = to_everything("300ms", "MeshService", name="backend")
            assert await pipeline.work_of(mesh_timeout("a", to=to_backend)) == (1, 5)
            # The same said again in other words, to the same end; about others only; in a place that nobody looks at.
            assert await pipeline.work_of(mesh_timeout("b", to=to_backend)) == (0, 0)
            assert await pipeline.work_of(mesh_timeout("a", to=to_backend, targetRef={"kind": "Mesh"})) == (0, 0)
            assert await pipeline.work_of(mesh_timeout("a", to=to_backend, labels={"team": "x"})) == (0, 0)
            assert await pipeline.work_of(mesh_timeout("c", to=to_everything("1s", "MeshService", name="nobody"))) == (
                0,
                0,
            )
            one = {"kind": "Dataplane", "name": "web-3"}
            assert await pipeline.work_of(mesh_timeout("0", targetRef=one, to=to_backend)) == (0, 0)
            assert await pipeline.work_of(mesh_timeout("0", targetRef=one, to=to_everything("7s"))) == (1, 1)
            # From one to another: those who lose it and those who gain it. The listener is taken over from the one, or
            # made anew where the one was first to let go of it.
            other = {"kind": "Dataplane", "name": "web-4"}
            assert (await pipeline.work_of(mesh_timeout("0", targetRef=other, to=to_everything("7s"))))[1] == 2
            legacy = timeout(sources=[service("web")], destinations=["backend"], request="9s")
            assert await pipeline.work_of(legacy) == (0, 0), "what a user wrote in the newer family outweighs it"

    asyncio.run(main())
