"""Addresses and host names of services: which proxies get listeners and names for them, and what a change costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline import Pipeline, with_new_mesh
from tests.test_reconciler_names import Named, listeners, table
from tests.test_reconciler_services import BACKEND, endpoints, instance, mesh_service, outside, written

from kumafast.resources import Dataplane, HostnameGenerator, Mesh, Resource, parse
from kumafast.resources.hostname_generator import initial_generators
from kumafast.snapshot.resource import CLUSTER
from kumafast.store import MemoryStore, Put, Store, open_store

OWN = "outbound:241."


def redirected(name: str, *refs: dict[str, Any], services: tuple[str, ...] = (), sees_all: bool = False) -> Dataplane:
    """A dataplane whose outbound traffic is redirected, and which says what it reaches."""
    proxying: dict[str, Any] = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001}
    if services:
        proxying["reachableServices"] = list(services)
    if not sees_all and (refs or not services):
        proxying["reachableBackends"] = {"refs": list(refs)}
    inbound = [{"port": 9000, "tags": {"kuma.io/service": name}}]
    networking = {"address": "10.0.0.1", "inbound": inbound, "transparentProxying": proxying}
    resource = parse({"type": "Dataplane", "mesh": "default", "name": name, "networking": networking})
    assert isinstance(resource, Dataplane)
    return resource


def ref(name: str = "backend", port: int = 0, kind: str = "MeshService") -> dict[str, Any]:
    return {"kind": kind, "name": name, **({"port": port} if port else {})}


def generator(name: str, template: str, kind: str = "meshService", **labels: str) -> HostnameGenerator:
    selector = {kind: {"matchLabels": labels} if labels else {}}
    return HostnameGenerator.model_validate({"name": name, "spec": {"selector": selector, "template": template}})


def run(story: Callable[[Named, MemoryStore], Coroutine[Any, Any, None]], *resources: Resource) -> None:
    """Play a story in a mesh with these resources, and the generators that are there from the start."""

    async def main() -> None:
        store = await with_new_mesh()
        for resource in (*initial_generators(), *resources):
            await store.put(resource)
        pipeline = Named(store)
        async with pipeline:
            await story(pipeline, store)

    asyncio.run(main())


def test_who_sees_everything_has_a_listener_and_a_name_for_each_service() -> None:
    async def story(pipeline: Named, store: MemoryStore) -> None:
        pipeline.connect("web")
        await pipeline.settle()
        found = table(pipeline.snapshot("web"))
        assert {name for name in found if not name.endswith(".mesh")} == {
            "backend.svc.mesh.local",
            "example.extsvc.mesh.local",
        }
        assert found["backend.svc.mesh.local"][0].startswith("241.")
        assert found["example.extsvc.mesh.local"][0].startswith("242.")
        assert f"outbound:{found['backend.svc.mesh.local'][0]}:80" in listeners(pipeline.snapshot("web"))
        assert f"outbound:{found['example.extsvc.mesh.local'][0]}:443" in listeners(pipeline.snapshot("web"))
        assert endpoints(pipeline.snapshot("web")) == ["10.0.1.1:8080"]
        await store.put(instance("b-2"))
        await pipeline.settle()
        assert endpoints(pipeline.snapshot("web")) == ["10.0.1.1:8080", "10.0.1.2:8080"]
        await store.put(mesh_service("backend", {"port": 81, "targetPort": 8080}))
        await pipeline.settle()
        assert f"outbound:{found['backend.svc.mesh.local'][0]}:81" in listeners(pipeline.snapshot("web"))
        assert BACKEND not in pipeline.snapshot("web").resources(CLUSTER)
        await store.delete(mesh_service().key)
        await pipeline.settle()
        assert "backend.svc.mesh.local" not in table(pipeline.snapshot("web"))

    run(story, mesh_service(), outside(), instance("b-1"), redirected("web", sees_all=True))


def test_who_says_what_it_reaches_sees_that_alone() -> None:
    several = {"selector": {"meshService": {"matchLabels": {"app": "x"}}}, "ports": [{"port": 80}]}

    def seen(pipeline: Named, name: str) -> set[str]:
        return set(table(pipeline.snapshot(name)))

    async def story(pipeline: Named, store: MemoryStore) -> None:
        pipeline.connect("all", "none", "one", "port", "labelled", "tags", "both")
        await pipeline.settle()
        assert seen(pipeline, "none") == set()
        assert seen(pipeline, "one") == {"one.svc.mesh.local", "several.mzsvc"}
        assert seen(pipeline, "labelled") == {"two.svc.mesh.local"}
        assert seen(pipeline, "tags") == {"legacy.mesh"}
        assert seen(pipeline, "both") == {"legacy.mesh", "one.svc.mesh.local"}
        ports = {name.rpartition(":")[2] for name in listeners(pipeline.snapshot("port"))}
        assert ports == {"81"}
        await store.put(mesh_service("one", *PORTS, labels={"app": "x", "team": "x"}))
        await store.put(mesh_service("two", labels={"app": "x"}))
        await pipeline.settle()
        assert seen(pipeline, "labelled") == {"one.svc.mesh.local"}

    PORTS = ({"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": 8080})
    run(
        story,
        generator("several", "{{ .Name }}.mzsvc", "meshMultiZoneService"),
        mesh_service("one", *PORTS, labels={"app": "x"}),
        mesh_service("two", labels={"team": "x"}),
        written("MeshMultiZoneService", "several", **several),
        instance("b-1"),
        redirected("all", sees_all=True),
        redirected("none"),
        redirected("one", ref("one"), ref("several", kind="MeshMultiZoneService")),
        redirected("port", ref("one", 81)),
        redirected("labelled", {"kind": "MeshService", "labels": {"team": "x"}}),
        redirected("tags", services=("legacy",)),
        redirected("both", ref("one"), services=("legacy",)),
    )


@pytest.mark.parametrize(
    ("mode", "sees_tags", "sees_resources"),
    [
        ("Disabled", True, True),
        ("Everywhere", True, True),
        ("ReachableBackends", True, False),
        ("Exclusive", False, True),
    ],
)
def test_what_all_see_is_a_matter_of_the_mesh(mode: str, sees_tags: bool, sees_resources: bool) -> None:
    async def story(pipeline: Named, store: MemoryStore) -> None:
        pipeline.connect("web", "asking")
        await store.put(Mesh.model_validate({"name": "default", "meshServices": {"mode": mode}}))
        await pipeline.settle()
        found = table(pipeline.snapshot("web"))
        assert ("legacy.mesh" in found, "backend.svc.mesh.local" in found) == (sees_tags, sees_resources)
        assert set(table(pipeline.snapshot("asking"))) == {"backend.svc.mesh.local"}

    run(story, mesh_service(), instance("b-1"), redirected("web", sees_all=True), redirected("asking", ref()))


def test_a_name_is_of_the_first_generator_and_the_first_service() -> None:
    async def story(pipeline: Named, store: MemoryStore) -> None:
        def names(service: str) -> set[str]:
            state = pipeline.reconciler.registry.state("default")
            assert state is not None
            (holder,) = (each for each in state.hostnames._services if each.name == service)
            return set(state.hostnames.names(holder))

        await store.put(generator("team", '{{ label "team" }}.local'))
        await store.put(mesh_service("a", labels={"team": "x"}))
        await store.put(mesh_service("b", labels={"team": "x"}))
        await store.put(mesh_service("c", labels={"none": "x"}))
        await pipeline.settle()
        assert names("a") == {"a.svc.mesh.local", "x.local"}
        assert names("b") == {"b.svc.mesh.local"}
        assert names("c") == {"c.svc.mesh.local"}
        await store.delete(mesh_service("a").key)
        await pipeline.settle()
        assert names("b") == {"b.svc.mesh.local", "x.local"}
        await store.put(generator("team", "{{ .Name }}.{{ .Mesh }}.{{ .Zone }}", team="x"))
        await pipeline.settle()
        assert names("b") == {"b.svc.mesh.local", "b.default.default"}
        await store.delete(generator("team", "").key)
        await pipeline.settle()
        assert names("b") == {"b.svc.mesh.local"}

    run(story)


def test_addresses_and_names_are_the_same_after_a_restart(tmp_path: Path) -> None:
    def written_services() -> list[Resource]:
        return [mesh_service(f"s-{number}") for number in range(50)]

    async def seen(store: Store) -> dict[str, list[str]]:
        pipeline = Named(store)
        async with pipeline:
            pipeline.connect("web")
            await pipeline.settle()
            return table(pipeline.snapshot("web"))

    async def main() -> None:
        url = f"sqlite:{tmp_path / 'kumafast.db'}"
        store = await open_store(url)
        await store.put(Mesh(name="default"))
        for resource in (*initial_generators(), redirected("web", sees_all=True), *written_services()):
            await store.put(resource)
        before = await seen(store)
        await store.close()
        store = await open_store(url)
        # What comes meanwhile takes nobody's address.
        await store.write([Put(mesh_service(f"t-{number}")) for number in range(50)])
        after = await seen(store)
        await store.close()
        assert len({address for address, *_ in after.values()}) == len(after)
        assert {name: after[name] for name in before} == before
        assert len(before) >= 50

    asyncio.run(main())


def test_one_more_service_touches_those_who_see_it_alone() -> None:
    """A sidecar with five `reachableBackends` among 2,000 services has five, and no work for one more."""

    async def main() -> None:
        store = await with_new_mesh()
        services = [mesh_service(f"s-{number}", dataplaneRef={"name": f"b-{number}"}) for number in range(2_000)]
        refs = [ref(f"s-{number}") for number in range(5)]
        for resource in (*initial_generators(), instance("b-1"), redirected("web", *refs)):
            await store.put(resource)
        await store.write([Put(each) for each in services])
        async with Named(store) as pipeline:
            pipeline.connect("web")
            await pipeline.settle()
            assert len(listeners(pipeline.snapshot("web"))) == len(table(pipeline.snapshot("web"))) == 5
            work = pipeline.reconciler.work
            before = (work.resolved, work.rebound, work.spliced, work.generated)
            await store.put(mesh_service("one-more", dataplaneRef={"name": "b-1"}))
            await pipeline.settle()
            assert (work.resolved, work.rebound, work.spliced, work.generated) == before

    asyncio.run(main())


def test_one_more_service_is_made_once_for_all_who_see_everything() -> None:
    async def main() -> None:
        store = await with_new_mesh()
        proxies = [redirected(f"web-{number}", sees_all=True) for number in range(20)]
        for resource in (*initial_generators(), instance("b-1"), *proxies, mesh_service("s-1"), mesh_service("s-2")):
            await store.put(resource)
        async with Named(store) as pipeline:
            pipeline.connect(*(each.name for each in proxies))
            await pipeline.settle()
            work = pipeline.reconciler.work
            generated = work.generated
            await store.put(mesh_service("one-more", dataplaneRef={"name": "b-1"}))
            await Pipeline.settle(pipeline)
            await pipeline.settle()
            # A cluster, its endpoints, a listener and the table of names, whatever the number of proxies.
            assert work.generated - generated <= 4

    asyncio.run(main())
