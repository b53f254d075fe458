"""The feed of raw xDS, with real gRPC streams behind it: what the contract says of it, a sentence at a time."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
import pytest
from tests.rest.fakes import error
from tests.stream.grpc_client import ADS, Stream, connect, open_stream, serve
from tests.stream.test_server import run

from kumafast.insights import Clients
from kumafast.rest.feed import VIOLATIONS_MAX, create_feed
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER

SOTW, DELTA = ADS + "StreamAggregatedResources", ADS + "DeltaAggregatedResources"
SINGLE = {
    "sotw": "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
    "delta": "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
}
METHODS = [SOTW, DELTA, *SINGLE.values()]


@dataclass
class World:
    feed: httpx.AsyncClient
    channel: grpc.aio.Channel

    async def put(self, key: str, *resources: tuple[str, str, bytes], **over: Any) -> None:
        response = await self.feed.put(f"/v1/snapshots/{key}", json=document(*resources, **over))
        assert (response.status_code, response.json()) == (200, {})

    async def open(self, method: str = DELTA, node_id: str = "n", **fields: Any) -> Stream:
        stream = open_stream(self.channel, method, node_id)
        await stream.write(**fields)
        return stream

    async def node(self, key: str) -> Any:
        return (await self.feed.get("/v1/status")).json()["nodes"][key]


def document(*resources: tuple[str, str, bytes], **over: Any) -> dict[str, Any]:
    listed = [
        {"type_url": type_url, "name": name, "value": base64.b64encode(body).decode()}
        for type_url, name, body in resources
    ]
    return {"version": "1", "resources": listed, **over}


def bodies(response: Any) -> list[str]:
    """The bodies of a response, for a resource is opaque here."""
    return [getattr(item, "resource", item).value.decode() for item in response.resources]


def version_of(response: Any) -> str:
    return str(response.system_version_info if hasattr(response, "system_version_info") else response.version_info)


async def take(stream: Stream, **fields: Any) -> Any:
    response = await stream.read()
    await stream.write(response.type_url, response_nonce=response.nonce, **fields)
    return response


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    cache, clients = SnapshotCache(), Clients()
    transport = httpx.ASGITransport(app=create_feed(cache, clients, **options))
    async with (
        serve(cache, observer=clients) as (_, port),
        connect(port) as channel,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as feed,
    ):
        yield World(feed, channel)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_put_is_streamed_in_every_variant(method: str) -> None:
    async def main() -> None:
        async with world() as w:
            await w.put("n", (CLUSTER, "a", b"one"), (LISTENER, "l", b"other"))
            stream = await w.open(method)
            first = await take(stream)
            assert (bodies(first), version_of(first), first.type_url) == (["one"], "1", CLUSTER)
            # In force when PUT returns: the next one is the newest, and atomic.
            await w.put("n", (CLUSTER, "a", b"two"), (CLUSTER, "b", b"new"), version="2")
            second = await take(stream)
            assert (sorted(bodies(second)), version_of(second)) == (["new", "two"], "2")

    run(main())


@pytest.mark.parametrize("method", [SOTW, DELTA])
def test_a_type_left_out_of_a_put_is_empty(method: str) -> None:
    async def main() -> None:
        async with world() as w:
            await w.put("n", (CLUSTER, "a", b"one"), (LISTENER, "l", b"l"))
            stream = await w.open(method)
            await take(stream)
            await w.put("n", (LISTENER, "l", b"l"), version="2")
            response = await stream.read()
            assert bodies(response) == []
            if stream.is_delta:
                assert list(response.removed_resources) == ["a"]

    run(main())


def test_the_key_is_the_id_else_the_cluster_else_a_star() -> None:
    async def main() -> None:
        async with world() as w:
            for key in ("the-id", "the-cluster", "*", "with/slashes and blanks?"):
                response = await w.feed.put(
                    f"/v1/snapshots/{key.replace('?', '%3F').replace(' ', '%20')}",
                    json=document((CLUSTER, "a", key.encode())),
                )
                assert response.status_code == 200
            for node_id, cluster, expected in (
                ("the-id", "the-cluster", "the-id"),
                ("", "the-cluster", "the-cluster"),
                ("", "", "*"),
                ("with/slashes and blanks?", "", "with/slashes and blanks?"),
            ):
                stream = open_stream(w.channel)
                request = stream._request(type_url=CLUSTER)
                request.node.id, request.node.cluster = node_id, cluster
                await stream.write_bytes(request.SerializeToString())
                assert bodies(await stream.read()) == [expected]

    run(main())


@pytest.mark.parametrize("method", METHODS)
def test_a_node_without_a_snapshot_waits_for_one(method: str) -> None:
    async def main() -> None:
        async with world() as w:
            stream = await w.open(method)
            reading = asyncio.ensure_future(stream.read())
            await asyncio.sleep(0.1)
            assert not reading.done()
            await w.put("n", (CLUSTER, "a", b"one"))
            assert bodies(await reading) == ["one"]

    run(main())


def test_versions_are_named_for_each_type_else_for_all_else_digests() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put("n", (CLUSTER, "a", b"a"), (LISTENER, "l", b"l"), version="7", versions={LISTENER: "9"})
            for method in (SOTW, DELTA):
                stream = await w.open(method)
                response = await take(stream)
                assert version_of(response) == "7"
                await stream.write(LISTENER)
                assert version_of(await stream.read()) == "9"
                if stream.is_delta:
                    # A resource's own version is its content's, whatever the type's is called.
                    digest = response.resources[0].version
                    assert len(digest) == 32
            response = await w.feed.put(
                "/v1/snapshots/m", json={"resources": document((CLUSTER, "a", b"a"))["resources"]}
            )
            assert response.status_code == 200
            unnamed = await (await w.open(SOTW, "m")).read()
            assert len(unnamed.version_info) == 32

    run(main())


@pytest.mark.parametrize("method", METHODS)
def test_equal_content_again_is_silence_whatever_it_is_called(method: str) -> None:
    async def main() -> None:
        async with world() as w:
            await w.put("n", (CLUSTER, "a", b"one"), (CLUSTER, "b", b"two"))
            stream = await w.open(method)
            await take(stream)
            await w.put("n", (CLUSTER, "a", b"one"), (CLUSTER, "b", b"two"))
            await w.put("n", (CLUSTER, "b", b"two"), (CLUSTER, "a", b"one"), version="2")
            assert await stream.is_silent(0.2)
            # Who comes now is told the newer name.
            assert version_of(await (await w.open(method)).read()) == "2"

    run(main())


@pytest.mark.parametrize("method", METHODS)
def test_the_same_version_with_other_content_is_sent(method: str) -> None:
    async def main() -> None:
        async with world() as w:
            await w.put("n", (CLUSTER, "a", b"one"), (CLUSTER, "b", b"same"))
            stream = await w.open(method)
            first = await take(stream)
            await w.put("n", (CLUSTER, "a", b"two"), (CLUSTER, "b", b"same"))
            second = await stream.read()
            assert version_of(second) == version_of(first) == "1"
            # Only what changed in delta; the whole set in SotW.
            assert bodies(second) == (["two"] if stream.is_delta else ["two", "same"])

    run(main())


def test_types_that_nobody_knows_and_bytes_that_are_no_message_pass_unchanged() -> None:
    async def main() -> None:
        opaque = "type.example.com/nobody.knows.v1.This"
        body = bytes(range(256)) * 3
        async with world() as w:
            await w.put("n", (opaque, "x", body), (opaque, "empty", b""), (ENDPOINT, " ü", b"\xff"))
            for method in (SOTW, DELTA):
                stream = await w.open(method, type_url=opaque)
                response = await stream.read()
                assert response.type_url == opaque
                packed = [getattr(item, "resource", item) for item in response.resources]
                assert sorted((item.type_url, item.value) for item in packed) == [(opaque, b""), (opaque, body)]
                field = "resource_names_subscribe" if stream.is_delta else "resource_names"
                await stream.write(ENDPOINT, **{field: [" ü"]})
                named = (await stream.read()).resources[0]
                assert getattr(named, "resource", named).value == b"\xff"

    run(main())


def test_a_snapshot_is_shown_as_it_was_put_and_forgotten_for_newcomers_only() -> None:
    async def main() -> None:
        async with world() as w:
            stated = document((CLUSTER, "a", b"one"), (LISTENER, "l", b""), versions={CLUSTER: "9"})
            assert (await w.feed.put("/v1/snapshots/n", json=stated)).status_code == 200
            assert (await w.feed.get("/v1/snapshots/n")).json() == stated
            unnamed: dict[str, Any] = {"versions": {}, "resources": []}
            assert (await w.feed.put("/v1/snapshots/none", json=unnamed)).status_code == 200
            assert (await w.feed.get("/v1/snapshots/none")).json() == unnamed
            stream = await w.open()
            await take(stream)
            assert (await w.feed.delete("/v1/snapshots/n")).status_code == 200
            missing = error(404, "Could not retrieve a resource", "Not found")
            found = await w.feed.get("/v1/snapshots/n")
            assert (found.status_code, found.json()) == (404, missing)
            assert (await w.feed.delete("/v1/snapshots/n")).status_code == 404
            # Those who have it keep it and hear nothing; those who come wait.
            newcomer = await w.open()
            reading, coming = asyncio.ensure_future(stream.read()), asyncio.ensure_future(newcomer.read())
            await asyncio.sleep(0.2)
            assert not reading.done()
            assert not coming.done()
            await w.put("n", (CLUSTER, "a", b"one"), (CLUSTER, "b", b"two"), version="2")
            # To the first one the other is all that is new.
            assert bodies(await reading) == ["two"]
            assert bodies(await coming) == ["one", "two"]

    run(main())


@pytest.mark.parametrize(
    ("change", "violations"),
    [
        ({"resources": None}, [("resources", "must be a list; an empty one empties every type")]),
        ({"version": 7}, [("version", "must be a text that is not empty")]),
        (
            {"resources": [{"type_url": "t", "name": "a\0", "value": ""}]},
            [("resources[0].name", "must not contain NUL")],
        ),
        ({"version": ""}, [("version", "must be a text that is not empty")]),
        ({"versions": ["1"]}, [("versions", "must be an object of texts by type URL")]),
        ({"versions": {"t": 1}}, [('versions["t"]', "must be a text that is not empty")]),
        ({"resources": ["a"]}, [("resources[0]", "must be an object with type_url, name and value")]),
        (
            {"resources": [{"type_url": "", "name": 1}]},
            [
                ("resources[0].type_url", "must be a text that is not empty"),
                ("resources[0].name", "must be a text that is not empty"),
                ("resources[0].value", "must be a text, the message's bytes in base64"),
            ],
        ),
        (
            {"resources": [{"type_url": "t", "name": "a", "value": "AA"}]},
            [("resources[0].value", "is not base64: Incorrect padding")],
        ),
        (
            {"resources": [{"type_url": "t", "name": "a", "value": "é"}]},
            [("resources[0].value", "is not base64: string argument should contain only ASCII characters")],
        ),
        (
            {"resources": [{"type_url": "t", "name": "a", "value": ""}] * 2},
            [("resources[1]", "has the type and the name of resources[0]")],
        ),
    ],
)
def test_what_cannot_be_put_changes_nothing(change: dict[str, Any], violations: list[tuple[str, str]]) -> None:
    async def main() -> None:
        async with world() as w:
            stated = document((CLUSTER, "a", b"one"))
            await w.put("n", (CLUSTER, "a", b"one"))
            response = await w.feed.put("/v1/snapshots/n", json={**stated, "version": "2", **change})
            expected = error(400, "Could not process a resource", "Resource is not valid", *violations)
            assert (response.status_code, response.json()) == (400, expected)
            assert (await w.feed.get("/v1/snapshots/n")).json() == {**stated, "versions": {}}

    run(main())


def test_of_very_many_mistakes_some_are_named() -> None:
    async def main() -> None:
        async with world() as w:
            response = await w.feed.put("/v1/snapshots/n", json={"resources": [1] * 1000})
            parameters = response.json()["invalid_parameters"]
            assert len(parameters) == VIOLATIONS_MAX + 1
            assert parameters[-1]["reason"] == f"and {1000 - VIOLATIONS_MAX} more mistakes"

    run(main())


def test_bodies_paths_and_methods_that_are_not_served() -> None:
    async def main() -> None:
        async with world(body_bytes_max=1000) as w:
            for content, status, detail in (
                (b"{", 400, "the body is not JSON"),
                (b"[]", 400, "the body must be a JSON object, not an array"),
                (b'{"resources":[],"version":"\xff"}', 400, "the body is not JSON"),
                (b" " * 2000, 413, "the body must not be longer than 1000 bytes"),
            ):
                response = await w.feed.put("/v1/snapshots/n", content=content)
                assert response.status_code == status
                assert response.json()["detail"].startswith(detail)
            assert (await w.feed.get("/v1/snapshots/n")).status_code == 404
            assert (await w.feed.put("/v1/snapshots/", json=document())).status_code == 400
            assert (await w.feed.get("/v2")).status_code == 404
            refused = await w.feed.post("/v1/snapshots/n", json=document())
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, PUT, DELETE, HEAD, OPTIONS")
            assert (await w.feed.get("/ready")).text == "ready\n"

    run(main())


def test_fields_that_mean_nothing_are_ignored_with_a_warning() -> None:
    async def main() -> None:
        async with world() as w:
            stated = document((CLUSTER, "a", b"one"), verison="2")
            stated["resources"][0]["ttl"] = "1s"
            response = await w.feed.put("/v1/snapshots/n", json=stated)
            assert response.status_code == 200
            assert response.json()["warnings"] == [
                "resources[].ttl is not known and was ignored",
                "verison is not known and was ignored",
            ]

    run(main())


def test_the_status_of_each_node_and_type() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put("n", (CLUSTER, "a", b"one"), (LISTENER, "l", b"l"), version="1")
            assert await w.node("n") == {
                "connected": False,
                "connected_since": None,
                "disconnected_at": None,
                "streams": 0,
                "types": {},
            }
            stream = await w.open()
            first = await stream.read()
            node = await w.node("n")
            assert (node["connected"], node["streams"]) == (True, 1)
            assert node["connected_since"].endswith("Z")
            assert node["types"] == {
                CLUSTER: {
                    "sent": "1",
                    "acked": None,
                    "nacked": None,
                    "error": None,
                    "error_time": None,
                    "answer": "awaited",
                    "responses": 1,
                    "acks": 0,
                    "nacks": 0,
                    "bytes": first.ByteSize(),
                    "resources": 1,
                }
            }
            await stream.write(response_nonce=first.nonce)
            await w.put("n", (CLUSTER, "a", b"two"), (CLUSTER, "b", b"b"), version="2")
            await take(stream, error="not that")
            while (status := (await w.node("n"))["types"][CLUSTER])["nacks"] == 0:
                await asyncio.sleep(0.01)
            assert (status["sent"], status["acked"], status["nacked"]) == ("2", "1", "2")
            assert (status["error"], status["answer"], status["resources"]) == ("not that", "rejected", 2)
            assert status["error_time"].endswith("Z")
            stream.call.cancel()
            while (node := await w.node("n"))["connected"]:
                await asyncio.sleep(0.01)
            assert (node["connected_since"], node["streams"]) == (None, 0)
            assert node["types"][CLUSTER]["error"] == "not that"

    run(main())


def test_the_status_of_many_nodes_is_one_document_in_slices() -> None:
    async def main() -> None:
        cache, clients = SnapshotCache(), Clients()
        for number in range(1000):
            clients.stream_opened(str(number), _node(f'n"{number}'))
            clients.response_sent(str(number), CLUSTER, "1", 1)
        transport = httpx.ASGITransport(app=create_feed(cache, clients))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as feed:
            nodes = (await feed.get("/v1/status")).json()["nodes"]
        assert list(nodes) == [f'n"{number}' for number in range(1000)]

    run(main())


def _node(node_id: str) -> Any:
    from kumafast.stream import Node

    return Node(node_id)


def test_a_put_reaches_all_who_share_a_key_and_costs_others_nothing() -> None:
    async def main() -> None:
        async with world() as w:
            await w.put("n", (CLUSTER, "a", b"one"))
            await w.put("other", (CLUSTER, "a", b"one"))
            streams = [await w.open(node_id="n") for _ in range(10)]
            other = await w.open(node_id="other")
            for stream in (*streams, other):
                await take(stream)
            began = time.monotonic()
            await w.put("n", (CLUSTER, "a", b"two"), version="2")
            assert [bodies(await stream.read()) for stream in streams] == [["two"]] * 10
            assert time.monotonic() - began < 5
            assert await other.is_silent(0.1)

    run(main())
