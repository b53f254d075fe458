"""What proxies would get: shadow policies, proxies that are not connected, and how much is generated for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from tests.pipeline import (
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

from kumafast.registry import DataplaneId
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node
from kumafast.store import Change, MemoryStore, StoredResource

WEB = Node("default.web")
LATER = datetime(2100, 1, 1, tzinfo=UTC)


async def a_mesh() -> MemoryStore:
    store = await with_new_mesh()
    await store.put(dataplane("backend", tags=service("backend", **HTTP)))
    await store.put(dataplane("web", tags=service("web"), reaches=[service("backend")]))
    return store


def test_shadow_policies_count_where_they_are_asked_for_alone() -> None:
    async def main() -> None:
        store = await a_mesh()
        await store.put(mesh_timeout("a", to=to_everything("3s"), labels={"kuma.io/effect": "shadow"}))
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            fork = pipeline.reconciler.fork()
            fork.take_in_shadows("default")
            before, after = fork.before(WEB), fork.after(WEB)
            assert before is not None
            assert isinstance(after, Snapshot)
            assert request_timeout(before) == timedelta(seconds=15)
            assert request_timeout(after) == timedelta(seconds=3)
            assert set(fork.concerned()) == {DataplaneId("default", "web")}
            assert pipeline.snapshot("web").has_content_of(before)

    asyncio.run(main())


def test_a_proxy_that_is_not_connected_is_computed_too_and_leaves_nothing() -> None:
    async def main() -> None:
        store = await a_mesh()
        policy = timeout(sources=[service("web")], destinations=["backend"], request="1s")
        async with Pipeline(store) as pipeline:
            fork = pipeline.reconciler.fork()
            fork.take_in([Change(policy.key, StoredResource(policy, 9, LATER, LATER))])
            assert list(fork.concerned()) == [DataplaneId("default", "web")]
            after = fork.after(WEB)
            assert isinstance(after, Snapshot)
            assert request_timeout(after) == timedelta(seconds=1)
            assert len(pipeline.reconciler._destinations) == 0
            assert pipeline.generator_calls() == 0

    asyncio.run(main())


def test_only_what_is_looked_at_is_generated_and_once_for_both_states() -> None:
    async def main() -> None:
        store = await a_mesh()
        await store.put(mesh_timeout("a", to=to_everything("3s"), labels={"kuma.io/effect": "shadow"}))
        async with Pipeline(store) as pipeline:
            fork = pipeline.reconciler.fork()
            fork.take_in_shadows("default")
            before, after = fork.before(WEB), fork.after(WEB)
            assert before is not None
            assert isinstance(after, Snapshot)
            assert fork.generated == 0
            assert before.content_key() != after.content_key()
            # The admin interface, the inbound and the outbound's cluster; and of each state the outbound's listener.
            assert fork.generated == 3 + 2

    asyncio.run(main())


def test_a_fork_is_good_until_something_is_stored_that_counts() -> None:
    async def main() -> None:
        store = await a_mesh()
        async with Pipeline(store) as pipeline:
            fork = pipeline.reconciler.fork()
            assert fork.is_good
            await store.put(dataplane("other", tags=service("other")))
            await pipeline.settle()
            assert not fork.is_good

    asyncio.run(main())
