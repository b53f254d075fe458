"""Names of the unified scheme: for those who ask for them, and nothing changes for others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests import builders
from tests.pipeline import Pipeline, names, with_new_mesh
from tests.test_reconciler_services import by_name, client, endpoints, instance, mesh_service

from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import MemoryStore

UNIFIED = {"features": ["feature-unified-resource-naming"], "dataplane.admin.port": "9901"}
BACKEND = "kri_msvc_default_default__backend_80"
OLD_BACKEND = "default_backend__default_msvc_80"


def run(story: Callable[[Pipeline, MemoryStore], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        store = await with_new_mesh()
        clients = client("web", by_name()), client("old", by_name())
        for resource in (mesh_service(), instance("b-1"), *clients):
            await store.put(resource)
        async with Pipeline(store) as pipeline:
            pipeline.reconciler.connect("a stream", Node("default.web", metadata=UNIFIED))
            pipeline.connect("old")
            await story(pipeline, store)

    asyncio.run(main())


def all_names(snapshot: Snapshot) -> dict[str, set[str]]:
    return {kind.rpartition(".")[2]: names(snapshot, kind) for kind in (CLUSTER, LISTENER, ENDPOINT)}


def test_who_asks_has_them_and_who_does_not_has_the_older_ones() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        assert all_names(pipeline.snapshot("web")) == {
            "Cluster": {"system_envoy_admin", "self_inbound_dp_9000", BACKEND},
            "Listener": {"self_inbound_dp_9000", BACKEND},
            "ClusterLoadAssignment": {BACKEND},
        }
        assert all_names(pipeline.snapshot("old")) == {
            "Cluster": {"localhost:9000", OLD_BACKEND},
            "Listener": {"inbound:10.0.0.1:9000", "outbound:127.0.0.1:10000"},
            "ClusterLoadAssignment": {OLD_BACKEND},
        }
        before = pipeline.snapshot("old")
        await store.put(instance("b-2"))
        await pipeline.settle()
        # An endpoint that comes is there for both, and the endpoints are all that moves.
        for name, cluster in (("web", BACKEND), ("old", OLD_BACKEND)):
            assert endpoints(pipeline.snapshot(name), cluster) == ["10.0.1.1:8080", "10.0.1.2:8080"]
        assert before.digest(CLUSTER) == pipeline.snapshot("old").digest(CLUSTER)

    run(story)


def test_what_has_no_identifier_goes_by_its_tags() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        outbound = [{"port": 10_000, "tags": {"kuma.io/service": "legacy"}}]
        await store.put(builders.dataplane("web", inbound=[], outbound=outbound))
        await pipeline.settle()
        assert names(pipeline.snapshot("web"), LISTENER) == {"outbound:127.0.0.1:10000"}
        assert names(pipeline.snapshot("web"), CLUSTER) == {"system_envoy_admin", "legacy"}

    run(story)


def test_of_listeners_that_lead_to_the_same_the_first_has_the_name() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        await store.put(client("web", by_name(), by_name()))
        await pipeline.settle()
        assert names(pipeline.snapshot("web"), LISTENER) == {
            "self_inbound_dp_9000",
            BACKEND,
            "outbound:127.0.0.1:10001",
        }

    run(story)


def test_the_port_of_a_service_is_named_by_its_name() -> None:
    async def story(pipeline: Pipeline, store: MemoryStore) -> None:
        port = {"port": 80, "targetPort": 8080, "appProtocol": "http", "name": "main"}
        await store.put(mesh_service("backend", port))
        await pipeline.settle()
        assert "kri_msvc_default_default__backend_main" in names(pipeline.snapshot("web"), CLUSTER)

    run(story)
