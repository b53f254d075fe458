"""The door of the streams, whoever judges: nobody gets a byte before, and who has to leave leaves at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from tests.stream.grpc_client import ADS, Recorder, Stream, cluster, connect, serve

from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER
from kumafast.stream.admission import End, UnauthenticatedError

METHODS = [
    ADS + "DeltaAggregatedResources",
    ADS + "StreamAggregatedResources",
    "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
    "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
]


class Judge:
    """Lets in whose header is its node's id; remembers who is in, and how to end them."""

    def __init__(self) -> None:
        self.judged: list[tuple[str, str]] = []
        self.inside: dict[str, End] = {}

    def __call__(self, authorization: str, node: Node, end: End) -> Callable[[], None]:
        self.judged.append((authorization, node.id))
        if authorization != node.id:
            raise UnauthenticatedError("not you")
        self.inside[node.id] = end
        return lambda: self.inside.pop(node.id, None) and None


def open_as(channel: Any, authorization: str, node: str, method: str) -> Stream:
    kind = discovery_pb2.DeltaDiscoveryRequest if "/Delta" in method else discovery_pb2.DiscoveryRequest
    call = channel.stream_stream(method, request_serializer=None, response_deserializer=None)
    return Stream(call(metadata=[("authorization", authorization)] if authorization else []), kind, node_id=node)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("method", METHODS)
def test_who_is_not_let_in_gets_nothing_and_nobody_hears_of_it(method: str) -> None:
    async def main() -> None:
        cache, judge, recorder = SnapshotCache(), Judge(), Recorder()
        cache.set("a", Snapshot.of(cluster("a")))
        cache.set("b", Snapshot.of(cluster("b")))
        async with serve(cache, authenticate=judge, observer=recorder) as (server, port), connect(port) as channel:
            for authorization, node in (("", "a"), ("b", "a"), ("a", "b"), ("a", "")):
                stream = open_as(channel, authorization, node, method)
                await stream.write()
                assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
                assert await stream.call.details() == "not you"
            assert judge.judged == [("", "a"), ("b", "a"), ("a", "b"), ("a", "")]
            assert (recorder.events, judge.inside, server.stream_count) == ([], {}, 0)

    run(main)


@pytest.mark.parametrize("method", METHODS)
def test_who_is_let_in_is_judged_once_and_stays_whom_it_was(method: str) -> None:
    async def main() -> None:
        cache, judge = SnapshotCache(), Judge()
        cache.set("a", Snapshot.of(cluster("a")))
        cache.set("b", Snapshot.of(cluster("b")))
        async with serve(cache, authenticate=judge) as (server, port), connect(port) as channel:
            stream = open_as(channel, "a", "a", method)
            await stream.write()
            response = await stream.read()
            request = stream._request(type_url=response.type_url, response_nonce=response.nonce)
            request.node.id = "b"
            await stream.write_bytes(request.SerializeToString())
            cache.set("b", Snapshot.of(XdsResource(CLUSTER, "it", b"of b")))
            cache.set("a", Snapshot.of(XdsResource(CLUSTER, "it", b"of a")))
            assert b"of a" in (await stream.read()).SerializeToString()
            assert judge.judged == [("a", "a")]
            stream.call.cancel()
            for _ in range(500):
                if not judge.inside:
                    break
                await asyncio.sleep(0.01)
            assert (judge.inside, server.stream_count) == ({}, 0)

    run(main)


@pytest.mark.parametrize("method", METHODS)
def test_who_has_to_leave_is_sent_nothing_more(method: str) -> None:
    async def main() -> None:
        cache, judge, recorder = SnapshotCache(), Judge(), Recorder()
        cache.set("a", Snapshot.of(cluster("a")))
        async with serve(cache, authenticate=judge, observer=recorder) as (server, port), connect(port) as channel:
            stream = open_as(channel, "a", "a", method)
            await stream.write()
            await stream.read()
            cache.set("a", Snapshot.of(cluster("later")))
            end = judge.inside["a"]
            end("your time is up")
            # Once is enough.
            end("your time is up")
            assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await stream.call.details() == "your time is up"
            assert (judge.inside, server.stream_count, recorder.open_count) == ({}, 0, 0)
            assert sum(event[0] == "sent" for event in recorder.events) == 1

    run(main)


def test_a_judge_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    def broken(authorization: str, node: Node, end: End) -> Callable[[], None]:
        raise RuntimeError("secret of the judge")

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("a", Snapshot.of(cluster("a")))
        async with serve(cache, authenticate=broken) as (server, port), connect(port) as channel:
            stream = open_as(channel, "a", "a", METHODS[0])
            await stream.write()
            assert await stream.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in await stream.call.details()
            assert server.stream_count == 0

    run(main)
    assert "secret of the judge" in caplog.text
