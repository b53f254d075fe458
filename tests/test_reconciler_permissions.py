"""Permissions in the pipeline: whoever changes one touches the proxies for which the outcome differs, and no other."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.pipeline import Pipeline, dataplane, service, with_new_mesh

from kumafast.registry import DataplaneId, Registry
from kumafast.resources import Dataplane, Resource, parse
from kumafast.store import MemoryStore, Put

NAMES = [f"{name}-{number}" for name in ("web", "cart") for number in range(3)]


def permission(name: str, source: str, destination: dict[str, str]) -> Resource:
    ends = {"sources": [{"match": service(source)}], "destinations": [{"match": destination}]}
    return parse({"type": "TrafficPermission", "mesh": "default", "name": name, **ends})


def mesh_permission(called: str, action: str, **target_ref: Any) -> Resource:
    spec = {"targetRef": target_ref, "from": [{"targetRef": {"kind": "Mesh"}, "default": {"action": action}}]}
    return parse({"type": "MeshTrafficPermission", "mesh": "default", "name": called, "spec": spec})


def old(name: str, *rules: tuple[str, str]) -> Resource:
    fields = [
        {"sources": [{"match": {"service": source}}], "destinations": [{"match": {"service": destination}}]}
        for source, destination in rules
    ]
    return parse({"type": "TrafficPermission", "mesh": "default", "name": name, "rules": fields})


class World:
    """A registry over a store, told of each change."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.registry = Registry()
        self.watch = store.watch(after=0)

    async def bound(self, *operations: Put) -> list[str]:
        """Write, and name the dataplanes for which what their policies come to is another."""
        revision = await self.store.write(list(operations))
        return sorted(each.name for each in await self._until(revision))

    async def without(self, policy: Resource) -> list[str]:
        return sorted(each.name for each in await self._until(await self.store.delete(policy.key)))

    async def _until(self, revision: int) -> set[DataplaneId]:
        bound: set[DataplaneId] = set()
        async for commit in self.watch:
            bound |= set(self.registry.apply(commit.changes).bound)
            if commit.revision >= revision:
                return bound
        raise AssertionError("the watch has ended")


def inbound_settings(registry: Registry, name: str) -> dict[str, Any]:
    settings = registry.bindings(DataplaneId("default", name)).inbound(0)
    return {each.kind: each.conf for each in settings if "Permission" in each.kind}


def test_only_those_whose_outcome_differs_are_touched() -> None:
    async def main() -> None:
        world = World(MemoryStore())
        await world.bound(Put(parse({"type": "Mesh", "name": "default"})))
        for name in NAMES:
            tags = service(name.split("-")[0], version=name[-1])
            await world.bound(Put(dataplane(name, tags=tags)))
        to_web = permission("a", "cart", service("web"))
        assert await world.bound(Put(to_web)) == ["web-0", "web-1", "web-2"]
        more_specific = permission("b", "x", service("web", version="1"))
        assert await world.bound(Put(more_specific)) == ["web-1"]
        outweighed = permission("c", "y", service("*"))
        assert await world.bound(Put(outweighed)) == ["cart-0", "cart-1", "cart-2"]
        # The other family silences this one where it is for an inbound, and there alone.
        silencing = mesh_permission("m", "Allow", kind="MeshService", name="cart")
        assert await world.bound(Put(silencing)) == ["cart-0", "cart-1", "cart-2"]
        assert list(inbound_settings(world.registry, "cart-0")) == ["MeshTrafficPermission"]
        assert await world.without(outweighed) == []
        assert await world.without(more_specific) == ["web-1"]
        assert await world.without(silencing) == ["cart-0", "cart-1", "cart-2"]
        assert inbound_settings(world.registry, "cart-0") == {}

    asyncio.run(main())


def test_rules_of_0_1_0_come_and_go_one_by_one() -> None:
    async def main() -> None:
        world = World(MemoryStore())
        await world.bound(Put(parse({"type": "Mesh", "name": "default"})))
        for name in NAMES:
            await world.bound(Put(dataplane(name, tags=service(name.split("-")[0]))))
        three = old("old", ("x", "web"), ("y", "cart"), ("z", "nobody"))
        assert await world.bound(Put(three)) == sorted(NAMES)
        assert [dict(each) for each in inbound_settings(world.registry, "cart-1")["TrafficPermission"]["sources"]] == [
            service("y")
        ]
        assert await world.bound(Put(old("old", ("x", "web"), ("u", "cart")))) == ["cart-0", "cart-1", "cart-2"]
        one = old("old", ("x", "web"))
        assert await world.bound(Put(one)) == ["cart-0", "cart-1", "cart-2"]
        assert await world.bound(Put(three)) == ["cart-0", "cart-1", "cart-2"]
        assert await world.without(three) == sorted(NAMES)
        assert all(inbound_settings(world.registry, name) == {} for name in NAMES)

    asyncio.run(main())


def test_without_tls_a_permission_changes_nothing_that_a_proxy_has() -> None:
    async def main() -> None:
        store = await with_new_mesh()
        web = dataplane("web", tags=service("web"))
        assert isinstance(web, Dataplane)
        await store.put(web)
        async with Pipeline(store) as pipeline:
            pipeline.connect("web")
            before = pipeline.snapshot("web")
            await store.put(permission("a", "x", service("web")))
            await pipeline.settle()
            assert pipeline.snapshot("web").has_content_of(before)

    asyncio.run(main())
