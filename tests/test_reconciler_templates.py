"""Templates in the pipeline: what they change, for whom, what that costs, and what if they cannot be applied."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from tests.pipeline import Pipeline, dataplane, names, of_dataplanes, service, with_default_mesh

from kumafast.resources import Resource
from kumafast.snapshot import Snapshot
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.store import Put

HTTP = {"kuma.io/protocol": "http"}
ROUTER = "{name: a, typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"


def template(*steps: dict[str, Any], imports: tuple[str, ...] = ("default-proxy",), of: str = "") -> Resource:
    selectors = [service(of)] if of else []
    return of_dataplanes("ProxyTemplate", "t", selectors=selectors, imports=list(imports), modifications=list(steps))


def patch(value: str = "connectTimeout: 3s", **match: str) -> dict[str, Any]:
    return {"cluster": {"operation": "patch", "match": match, "value": value}}


def broken() -> dict[str, Any]:
    """A patch that is fine by itself, and is of another type than what it matches."""
    match = {"name": "envoy.filters.network.tcp_proxy"}
    return {"networkFilter": {"operation": "patch", "match": match, "value": ROUTER}}


def connect_timeout(snapshot: Snapshot, name: str) -> int:
    message = cluster_pb2.Cluster.FromString(snapshot.resources(CLUSTER)[name].body)
    milliseconds: int = message.connect_timeout.ToMilliseconds()
    return milliseconds


async def pipeline() -> Pipeline:
    store = await with_default_mesh()
    for number in (1, 2, 3):
        reaches = [service("echo"), service("other")]
        await store.put(
            dataplane(f"web-{number}", address=f"10.0.0.{number}", tags=service("web", **HTTP), reaches=reaches)
        )
    await store.put(dataplane("api-1", address="10.0.1.1", tags=service("api"), reaches=[service("echo")]))
    await store.put(dataplane("echo-1", address="10.0.2.1", tags=service("echo")))
    return Pipeline(store)


def test_a_template_changes_its_proxies_and_none_else_and_leaves_no_trace() -> None:
    async def main() -> None:
        async with await pipeline() as it:
            it.connect("web-1", "web-2", "api-1")
            await it.settle()
            before = {name: it.snapshot(name) for name in ("web-1", "web-2", "api-1")}
            calls = it.generator_calls()
            await it.store.put(template(patch(name="echo"), of="web"))
            await it.settle()
            # Both proxies have the same outbounds: one layer is modified, once.
            assert it.generator_calls() - calls == 1
            assert connect_timeout(it.snapshot("web-1"), "echo") == 3_000
            assert connect_timeout(it.snapshot("web-1"), "other") == 5_000
            assert it.snapshot("api-1") is before["api-1"]
            one, two = it.snapshot("web-1"), it.snapshot("web-2")
            differing = [place for place, layer in enumerate(one.layers) if layer is not before["web-1"].layers[place]]
            assert len(differing) == 1
            assert one.layers[differing[0]] is two.layers[differing[0]]
            # What was not matched are the same bytes as before.
            held = before["web-1"].resources(CLUSTER)["other"]
            assert one.resources(CLUSTER)["other"] is held
            it.connect("web-3")
            await it.settle()
            assert it.snapshot("web-3").layers[differing[0]] is one.layers[differing[0]]
            await it.store.delete(template().key)
            await it.settle()
            for name, snapshot in before.items():
                now = it.snapshot(name)
                for type_url in (CLUSTER, LISTENER, ENDPOINT):
                    assert now.version(type_url) == snapshot.version(type_url)
                assert all(one is other for one, other in zip(now.layers, snapshot.layers, strict=True))

    asyncio.run(main())


def test_modified_layers_go_with_the_last_who_has_them() -> None:
    async def main() -> None:
        async with await pipeline() as it:
            it.connect("web-1")
            await it.settle()
            made = it.reconciler._resolution.layers.templated._made
            for seconds in range(1, 4):
                await it.store.put(template(patch(f"connectTimeout: {seconds}s")))
                await it.settle()
            gc.collect()
            # Inbound and outbound, of the newest and of what it was compared with.
            assert len(made) == 4
            await it.store.delete(template().key)
            await it.settle()
            # The cache keeps the last two snapshots that it compared.
            await it.store.put(dataplane("web-1", address="10.0.0.1", tags=service("web")))
            await it.settle()
            gc.collect()
            assert len(made) == 0

    asyncio.run(main())


def test_a_template_adds_resources_and_drops_profiles() -> None:
    async def main() -> None:
        async with await pipeline() as it:
            it.connect("web-1")
            await it.settle()
            before = it.snapshot("web-1")
            await it.store.put(template({"cluster": {"operation": "add", "value": "{name: mine, type: STATIC}"}}))
            await it.settle()
            assert names(it.snapshot("web-1"), CLUSTER) == names(before, CLUSTER) | {"mine"}
            await it.store.put(
                template({"cluster": {"operation": "add", "value": "{name: mine, type: STATIC}"}}, imports=())
            )
            await it.settle()
            assert names(it.snapshot("web-1"), CLUSTER) == {"mine"}
            assert names(it.snapshot("web-1"), LISTENER) == set()

    asyncio.run(main())


def test_what_cannot_be_applied_leaves_a_proxy_what_it_has(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with await pipeline() as it:
            it.connect("web-1", "api-1")
            await it.store.put(template(patch(name="echo"), of="web"))
            await it.settle()
            good = it.snapshot("web-1")
            with caplog.at_level(logging.WARNING):
                await it.store.put(template(patch(name="echo"), broken(), of="web"))
                await it.settle()
            assert it.snapshot("web-1") is good
            assert [record.message.split(":")[0] for record in caplog.records] == [
                "default.web-1 keeps its configuration"
            ]
            failure = it.reconciler.failure("default.web-1")
            assert failure is not None
            assert failure.message.startswith("modifications[1].networkFilter: envoy.filters.network.tcp_proxy is")
            # The first of its listeners that has such a filter.
            assert (failure.type_url, failure.resource) == (LISTENER, "outbound:127.0.0.1:10000")
            assert failure.policies == (template().key,)
            assert it.reconciler.failure("default.api-1") is None

            # Endpoints go on to follow, and nobody else notices.
            await it.store.put(dataplane("echo-2", address="10.0.2.2", tags=service("echo")))
            await it.settle()
            assert it.snapshot("web-1").version(ENDPOINT) != good.version(ENDPOINT)
            assert it.snapshot("web-1").version(CLUSTER) == good.version(CLUSTER)
            assert it.snapshot("web-1").version(ENDPOINT) != it.snapshot("api-1").version(ENDPOINT)

            # A change of the dataplane has to wait as well; both come with a template that can be applied.
            reaches = [service("echo"), service("third")]
            await it.store.put(dataplane("web-1", address="10.0.0.1", tags=service("web", **HTTP), reaches=reaches))
            await it.settle()
            assert "third" not in names(it.snapshot("web-1"), CLUSTER)
            await it.store.put(template(patch(name="third"), of="web"))
            await it.settle()
            assert it.reconciler.failure("default.web-1") is None
            assert connect_timeout(it.snapshot("web-1"), "third") == 3_000
            assert connect_timeout(it.snapshot("web-1"), "echo") == 5_000

    asyncio.run(main())


def test_who_comes_to_a_template_that_cannot_be_applied_waits_for_a_better_one() -> None:
    async def main() -> None:
        async with await pipeline() as it:
            await it.store.put(template(broken()))
            await it.settle()
            it.connect("api-1")
            await it.settle()
            assert it.cache.get("default.api-1") is None
            assert it.reconciler.failure("default.api-1")
            # What it would reach is known while it is connected, and no longer.
            assert {key for _, key in it.reconciler._destinations._reached} == {(("kuma.io/service", "echo"),)}
            it.reconciler.disconnect("stream of default.api-1", "default.api-1")
            assert not it.reconciler._destinations._reached
            it.connect("api-1")
            await it.store.delete(template().key)
            await it.settle()
            assert "echo" in names(it.snapshot("api-1"), CLUSTER)
            assert it.reconciler.failure("default.api-1") is None

    asyncio.run(main())


def test_endpoints_that_move_together_with_what_fails_are_followed() -> None:
    async def main() -> None:
        async with await pipeline() as it:
            it.connect("web-1", "api-1")
            await it.settle()
            before = it.snapshot("web-1")
            # In one commit, so that they are one task of the proxy's.
            moved = dataplane("echo-1", address="10.0.2.9", tags=service("echo"))
            await it.store.write([Put(template(broken(), of="web")), Put(moved)])
            await it.settle()
            now = it.snapshot("web-1")
            assert it.reconciler.failure("default.web-1") is not None
            assert now.version(ENDPOINT) != before.version(ENDPOINT)
            assert now.resources(ENDPOINT)["echo"].version == it.snapshot("api-1").resources(ENDPOINT)["echo"].version
            assert (now.version(CLUSTER), now.version(LISTENER)) == (before.version(CLUSTER), before.version(LISTENER))
            # And with a change of the proxy itself, which has to wait.
            reaches = [service("echo"), service("third")]
            alone = dataplane("web-1", address="10.0.0.1", tags=service("web", **HTTP), reaches=reaches)
            await it.store.write([Put(alone), Put(dataplane("echo-1", address="10.0.2.8", tags=service("echo")))])
            await it.settle()
            later = it.snapshot("web-1")
            assert later.version(ENDPOINT) not in (before.version(ENDPOINT), now.version(ENDPOINT))
            assert later.version(CLUSTER) == before.version(CLUSTER)

    asyncio.run(main())


def test_whoever_fails_is_told_of_once_and_when_it_is_over() -> None:
    async def main() -> None:
        async with await pipeline() as it:
            it.connect("web-1", "web-2")
            await it.store.put(template(broken(), of="web"))
            await it.settle()
            assert it.failed == ["default.web-1", "default.web-2"]
            # Tried again, it is the same.
            reaches = [service("echo")]
            await it.store.put(dataplane("web-1", address="10.0.0.7", tags=service("web", **HTTP), reaches=reaches))
            await it.settle()
            assert it.failed == ["default.web-1", "default.web-2"]
            await it.store.delete(template().key)
            await it.settle()
            assert it.failed[2:] == ["default.web-1", "default.web-2"]
            assert it.reconciler.failure("default.web-1") is None

    asyncio.run(main())


def test_another_protocol_of_a_destination_is_worth_another_attempt() -> None:
    async def main() -> None:
        async with await pipeline() as it:
            await it.store.put(template(broken(), of="web"))
            await it.settle()
            # A newcomer, which has nothing of before, and whose way to echo is the one with a filter of TCP.
            reaches = [service("echo")]
            await it.store.put(dataplane("web-1", address="10.0.0.1", tags=service("web", **HTTP), reaches=reaches))
            it.connect("web-1")
            await it.settle()
            assert it.cache.get("default.web-1") is None
            assert it.reconciler.failure("default.web-1") is not None
            await it.store.put(dataplane("echo-1", address="10.0.2.1", tags=service("echo", **HTTP)))
            await it.settle()
            assert it.reconciler.failure("default.web-1") is None
            assert "echo" in names(it.snapshot("web-1"), CLUSTER)

    asyncio.run(main())
