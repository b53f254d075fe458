"""MeshTLS in the pipeline: what it is for, what it is heard at, and what a change of it costs."""

from __future__ import annotations

import asyncio
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from tests.mesh_policies import mesh_policy
from tests.pipeline import HTTP, Pipeline, dataplane, put_mesh, secured, service, with_new_mesh

from kumafast.resources import Resource
from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import CLUSTER, LISTENER
from kumafast.store import MemoryStore

EVERYBODY = {"kind": "Mesh"}


def mesh_tls(name: str, top: dict[str, Any], **conf: Any) -> Resource:
    return mesh_policy("MeshTLS", name, targetRef=top, from_=[{"targetRef": EVERYBODY, "default": conf}])


def chains(snapshot: Snapshot) -> int:
    """How many ways to come in an inbound has: one, or one more for plaintext and one for the workload's own TLS."""
    (name,) = (name for name in snapshot.resources(LISTENER) if name.startswith("inbound:"))
    return len(listener_pb2.Listener.FromString(snapshot.resources(LISTENER)[name].body).filter_chains)


def sent(snapshot: Snapshot) -> common_pb2.TlsParameters:
    cluster = cluster_pb2.Cluster.FromString(snapshot.resources(CLUSTER)["backend"].body)
    context = tls_pb2.UpstreamTlsContext()
    assert cluster.transport_socket.typed_config.Unpack(context)
    return context.common_tls_context.tls_params


async def mesh(clients: int = 1) -> MemoryStore:
    store = await with_new_mesh()
    await put_mesh(store, secured())
    for name, address in (("backend-0", "10.0.0.1"), ("backend-1", "10.0.0.2")):
        await store.put(dataplane(name, tags={**service("backend"), **HTTP}, address=address))
    for number in range(clients):
        await store.put(
            dataplane(f"web-{number}", tags=service("web"), reaches=[service("backend")], address=f"10.0.1.{number}")
        )
    return store


def test_the_mode_is_each_workloads_own_and_goes_with_the_policy() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("backend-0", "backend-1")
            everybody = mesh_tls("everybody", EVERYBODY, mode="Permissive")
            one = mesh_tls("one", {"kind": "Dataplane", "name": "backend-0"}, mode="Strict")
            for written, expected in ((everybody, [3, 3]), (one, [1, 3])):
                await pipeline.store.put(written)
                await pipeline.settle()
                assert [chains(pipeline.snapshot(f"backend-{each}")) for each in range(2)] == expected
            await put_mesh(pipeline.store, secured(mode="PERMISSIVE"))
            await pipeline.store.delete(everybody.key)
            await pipeline.settle()
            assert [chains(pipeline.snapshot(f"backend-{each}")) for each in range(2)] == [1, 3]
            await pipeline.store.delete(one.key)
            await pipeline.settle()
            assert [chains(pipeline.snapshot(f"backend-{each}")) for each in range(2)] == [3, 3]

    asyncio.run(main())


def test_versions_hold_for_what_is_sent_and_a_mode_does_not() -> None:
    async def main() -> None:
        async with Pipeline(await mesh()) as pipeline:
            pipeline.connect("web-0")
            before = pipeline.snapshot("web-0").resources(CLUSTER)["backend"].body
            await pipeline.store.put(mesh_tls("mode", EVERYBODY, mode="Permissive"))
            await pipeline.settle()
            assert pipeline.snapshot("web-0").resources(CLUSTER)["backend"].body == before
            await pipeline.store.put(mesh_tls("versions", EVERYBODY, tlsVersion={"min": "TLS13"}))
            await pipeline.settle()
            assert sent(pipeline.snapshot("web-0")).tls_minimum_protocol_version == common_pb2.TlsParameters.TLSv1_3
            assert chains(pipeline.snapshot("web-0")) == 3
            await pipeline.store.put(mesh_tls("versions", EVERYBODY))
            await pipeline.settle()
            assert pipeline.snapshot("web-0").resources(CLUSTER)["backend"].body == before

    asyncio.run(main())


def test_a_version_is_put_into_one_cluster_however_many_send_to_it() -> None:
    async def made(clients: int) -> float:
        async with Pipeline(await mesh(clients)) as pipeline:
            pipeline.connect(*(f"web-{number}" for number in range(clients)))
            before = pipeline.generator_calls()
            await pipeline.store.put(mesh_tls("versions", EVERYBODY, tlsVersion={"min": "TLS13"}))
            await pipeline.settle()
            # Each has an inbound at an address of its own, and that listener changes as well.
            return pipeline.generator_calls() - before - clients

    assert asyncio.run(made(3)) == asyncio.run(made(30)) == 1
