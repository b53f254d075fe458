"""What a mesh's TLS makes of the snapshots of its proxies, and which of them a change of it moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from tests.pipeline import Pipeline, dataplane, put_mesh, secured, service

from kumafast.resources import DataplaneInsight, Mesh, Secret
from kumafast.snapshot.resource import CLUSTER, LISTENER, SECRET
from kumafast.store import MemoryStore, Store

_Said: TypeAlias = Callable[[Pipeline], Awaitable[None]]


def play(part: _Said, *, mesh: Mesh) -> None:
    """A mesh with two clients of `backend`, one of `other`, and another mesh; all are connected."""

    async def main() -> None:
        store = MemoryStore()
        await put_mesh(store, mesh)
        await put_mesh(store, Mesh(name="second"))
        for name in ("backend-1", "backend-2"):
            await store.put(dataplane(name, tags=service("backend")))
        await store.put(dataplane("other-1", tags=service("other")))
        for name in ("web-1", "web-2"):
            await store.put(dataplane(name, tags=service("web"), port=8081, reaches=[service("backend")]))
        await store.put(dataplane("web-3", tags=service("web"), port=8081, reaches=[service("other")]))
        await store.put(dataplane("far", mesh="second", tags=service("backend")))
        async with Pipeline(store) as pipeline:
            pipeline.connect("backend-1", "backend-2", "other-1", "web-1", "web-2", "web-3")
            pipeline.connect("far", mesh="second")
            await part(pipeline)

    asyncio.run(main())


async def secure(store: Store, name: str, *, is_secured: bool = True) -> None:
    """What `Insights` writes of an Envoy that runs with a certificate."""
    await store.put(DataplaneInsight(name=name, mesh="default", mTLS={"issuedBackend": "ca-1"} if is_secured else None))


def uses_tls(pipeline: Pipeline, client: str, cluster: str) -> bool:
    body = pipeline.snapshot(client).resources(CLUSTER)[cluster].body
    return bool(cluster_pb2.Cluster.FromString(body).HasField("transport_socket"))


def chains(pipeline: Pipeline, name: str, listener: str) -> int:
    body = pipeline.snapshot(name).resources(LISTENER)[listener].body
    return len(listener_pb2.Listener.FromString(body).filter_chains)


def test_another_identity_resolves_the_connected_proxies_of_its_mesh_once() -> None:
    async def part(pipeline: Pipeline) -> None:
        before = pipeline.reconciler.work.resolved
        await put_mesh(pipeline.store, secured())
        await pipeline.settle()
        assert pipeline.reconciler.work.resolved - before == 6
        assert set(pipeline.snapshot("web-1").resources(SECRET)) == {
            "identity_cert:secret:default",
            "mesh_ca:secret:default",
        }
        assert not pipeline.snapshot("far", mesh="second").resources(SECRET)
        for change in (secured().model_copy(update={"labels": {"a": "b"}}), Mesh(name="second", labels={"a": "b"})):
            await pipeline.store.put(change)
        await pipeline.store.put(Secret(mesh="default", name="of-another-purpose", data="eA=="))
        await pipeline.settle()
        assert pipeline.reconciler.work.resolved - before == 6

    play(part, mesh=Mesh(name="default"))


def test_without_tls_there_is_no_certificate_left() -> None:
    async def part(pipeline: Pipeline) -> None:
        assert pipeline.reconciler.certificates.get("default.web-1") is not None
        await pipeline.store.put(Mesh(name="default"))
        await pipeline.settle()
        assert pipeline.reconciler.certificates.get("default.web-1") is None
        assert not pipeline.snapshot("web-1").resources(SECRET)
        assert not uses_tls(pipeline, "web-1", "backend")

    play(part, mesh=secured())


def test_a_certificate_is_let_go_with_its_node() -> None:
    async def part(pipeline: Pipeline) -> None:
        pipeline.reconciler.disconnect("stream of default.web-1", "default.web-1")
        assert pipeline.reconciler.certificates.get("default.web-1") is None
        assert pipeline.reconciler.certificates.get("default.web-2") is not None

    play(part, mesh=secured())


def test_strict_clients_use_tls_whatever_servers_have_said() -> None:
    async def part(pipeline: Pipeline) -> None:
        assert uses_tls(pipeline, "web-1", "backend")
        assert chains(pipeline, "backend-1", "inbound:10.0.0.1:8080") == 1
        before = (pipeline.reconciler.work.resolved, pipeline.reconciler.work.spliced)
        await secure(pipeline.store, "backend-1")
        await secure(pipeline.store, "backend-2")
        await secure(pipeline.store, "backend-2", is_secured=False)
        await pipeline.settle()
        assert (pipeline.reconciler.work.resolved, pipeline.reconciler.work.spliced) == before

    play(part, mesh=secured())


def test_permissive_clients_use_tls_once_all_servers_can() -> None:
    async def part(pipeline: Pipeline) -> None:
        assert chains(pipeline, "backend-1", "inbound:10.0.0.1:8080") == 3
        resolved = []
        for name, is_secured in (
            ("backend-1", True),
            ("backend-2", True),
            ("web-1", True),
            ("backend-1", False),
            ("backend-2", False),
        ):
            before = pipeline.reconciler.work.resolved
            await secure(pipeline.store, name, is_secured=is_secured)
            await pipeline.settle()
            resolved.append((pipeline.reconciler.work.resolved - before, uses_tls(pipeline, "web-1", "backend")))
            assert not uses_tls(pipeline, "web-3", "other")
        # Exactly the two clients, when the last one can and when the first one cannot any more.
        assert resolved == [(0, False), (2, True), (0, True), (2, False), (0, False)]

    play(part, mesh=secured(mode="PERMISSIVE"))


def test_an_instance_without_a_certificate_that_comes_takes_tls_from_its_clients() -> None:
    async def part(pipeline: Pipeline) -> None:
        for name in ("backend-1", "backend-2"):
            await secure(pipeline.store, name)
        await pipeline.settle()
        assert uses_tls(pipeline, "web-2", "backend")
        await pipeline.store.put(dataplane("backend-3", address="10.0.0.3", tags=service("backend")))
        await pipeline.settle()
        assert not uses_tls(pipeline, "web-2", "backend")
        await pipeline.store.put(dataplane("backend-3", address="10.0.0.3", tags=service("backend"), state="NotReady"))
        await pipeline.settle()
        # Nobody is sent there, so it takes TLS from nobody.
        assert uses_tls(pipeline, "web-2", "backend")

    play(part, mesh=secured(mode="PERMISSIVE"))


def test_other_tags_are_another_certificate_for_that_proxy_alone() -> None:
    async def part(pipeline: Pipeline) -> None:
        def versions() -> dict[str, str]:
            names = ("backend-1", "backend-2", "web-1")
            identity = "identity_cert:secret:default"
            return {name: pipeline.snapshot(name).resource_versions(SECRET)[identity] for name in names}

        before = versions()
        await pipeline.store.put(dataplane("backend-1", tags=service("backend", version="v2")))
        await pipeline.settle()
        after = versions()
        assert {name for name in before if before[name] != after[name]} == {"backend-1"}

    play(part, mesh=secured())
