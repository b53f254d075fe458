"""HDS with grpcio's own stub: told, believed, refused, ended; and nobody ends anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from envoy.service.health.v3 import hds_pb2, hds_pb2_grpc
from tests.attack.health_attacks import asking, report
from tests.stream.grpc_client import connect, serve
from tests.stream.test_server import run

from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.stream import Hds
from kumafast.stream.admission import Authenticate, End, UnauthenticatedError

Message = hds_pb2.HealthCheckRequestOrEndpointHealthResponse


@dataclass
class Watcher:
    """Writes down what it is told."""

    nodes: dict[str, Node] = field(default_factory=dict)
    sends: list[Callable[[bytes], None]] = field(default_factory=list)
    reports: list[Mapping[str, bool]] = field(default_factory=list)
    counts: bool = True
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self, stream_id: str, node: Node, send: Callable[[bytes], None]) -> None:
        self.nodes[stream_id] = node
        self.sends.append(send)
        self.moved.set()

    def reported(self, stream_id: str, health: Mapping[str, bool]) -> bool:
        assert stream_id in self.nodes
        self.reports.append(health)
        self.moved.set()
        return self.counts

    def closed(self, stream_id: str) -> None:
        del self.nodes[stream_id]
        self.moved.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.moved.clear()
            await self.moved.wait()


async def talk(
    conversation: Callable[[Watcher, Any, Callable[[], Any]], Any], *, authenticate: Authenticate | None = None
) -> None:
    watcher = Watcher()
    handlers = Hds(watcher, authenticate=authenticate).handlers()
    async with serve(SnapshotCache(), handlers=handlers) as (server, port), connect(port) as channel:
        stub: Any = hds_pb2_grpc.HealthDiscoveryServiceStub(channel)
        await conversation(watcher, server, lambda: stub.StreamHealthCheck(timeout=30))


def message(data: bytes) -> Any:
    return Message.FromString(data)


def specifier(*names: str) -> bytes:
    checks = [hds_pb2.ClusterHealthCheck(cluster_name=name) for name in names]
    return bytes(hds_pb2.HealthCheckSpecifier(cluster_health_checks=checks).SerializeToString())


def test_a_node_is_told_what_to_probe_and_what_it_finds_is_heard_once() -> None:
    async def conversation(watcher: Watcher, _: Any, open_stream: Callable[[], Any]) -> None:
        call = open_stream()
        await call.write(message(asking("default.web-1")))
        await watcher.until(lambda: bool(watcher.sends))
        assert [node.id for node in watcher.nodes.values()] == ["default.web-1"]
        watcher.sends[0](specifier("a"))
        assert [check.cluster_name for check in (await call.read()).cluster_health_checks] == ["a"]
        for is_well in (True, True, False, False, False, True):
            await call.write(message(report(["a", "b"], is_well=is_well)))
            # One after the other: of those that come together the last counts.
            await asyncio.sleep(0.02)
        await watcher.until(lambda: len(watcher.reports) == 3)
        assert watcher.reports == [{"a": said, "b": said} for said in (True, False, True)]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]
        assert await call.code() is grpc.StatusCode.OK
        assert watcher.nodes == {}

    run(talk(conversation))


def test_what_does_not_count_is_told_again() -> None:
    async def conversation(watcher: Watcher, _: Any, open_stream: Callable[[], Any]) -> None:
        call = open_stream()
        await call.write(message(asking()))
        watcher.counts = False
        for count in (1, 2, 3):
            await call.write(message(report(["a"])))
            await watcher.until(lambda count=count: len(watcher.reports) == count)  # type: ignore[misc]

    run(talk(conversation))


def test_of_what_waits_to_be_told_the_newest_counts() -> None:
    async def conversation(watcher: Watcher, _: Any, open_stream: Callable[[], Any]) -> None:
        call = open_stream()
        await call.write(message(asking()))
        await watcher.until(lambda: bool(watcher.sends))
        for number in range(1000):
            watcher.sends[0](specifier(f"{number}"))
        told: list[str] = []
        while not told or told[-1] != "999":
            told.append((await call.read()).cluster_health_checks[0].cluster_name)
        assert len(told) <= 2

    run(talk(conversation))


@pytest.mark.parametrize(
    ("bodies", "code"),
    [
        ([report(["a"])], grpc.StatusCode.INVALID_ARGUMENT),
        ([b""], grpc.StatusCode.INVALID_ARGUMENT),
        ([asking("n" * (300 << 10))], grpc.StatusCode.RESOURCE_EXHAUSTED),
        ([asking(), report(["a" * 100] * 3000)], grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["a report first", "nothing", "a long node", "a long report"],
)
def test_a_bad_peer_ends_its_own_stream_only(bodies: list[bytes], code: grpc.StatusCode) -> None:
    async def conversation(watcher: Watcher, _: Any, open_stream: Callable[[], Any]) -> None:
        neighbour = open_stream()
        await neighbour.write(message(asking("default.neighbour")))
        await watcher.until(lambda: len(watcher.nodes) == 1)
        call = open_stream()
        for body in bodies:
            await call.write(message(body))
        assert await call.code() is code
        await neighbour.write(message(report(["a"])))
        await watcher.until(lambda: watcher.reports == [{"a": False}])
        assert len(watcher.nodes) == 1

    run(talk(conversation))


def test_whoever_is_not_let_in_is_not_heard_and_whoever_has_to_leave_leaves() -> None:
    ends: list[End] = []
    gone: list[str] = []

    def authenticate(authorization: str, node: Node, end: End) -> Callable[[], None]:
        if authorization != "good":
            raise UnauthenticatedError("who is that")
        ends.append(end)
        return lambda: gone.append(node.id)

    async def main() -> None:
        watcher = Watcher()
        handlers = Hds(watcher, authenticate=authenticate).handlers()
        async with serve(SnapshotCache(), handlers=handlers) as (_, port), connect(port) as channel:
            stub: Any = hds_pb2_grpc.HealthDiscoveryServiceStub(channel)
            bad = stub.StreamHealthCheck(timeout=30, metadata=[("authorization", "bad")])
            await bad.write(message(asking()))
            assert await bad.code() is grpc.StatusCode.UNAUTHENTICATED
            assert watcher.nodes == {}
            good = stub.StreamHealthCheck(timeout=30, metadata=[("authorization", "good")])
            await good.write(message(asking()))
            await watcher.until(lambda: bool(watcher.nodes))
            ends[0]("your token has ended")
            assert await good.code() is grpc.StatusCode.UNAUTHENTICATED
            assert await good.details() == "your token has ended"
            assert (watcher.nodes, gone) == ({}, ["default.probed"])

    run(main())


def test_when_the_server_stops_so_do_the_streams() -> None:
    async def conversation(watcher: Watcher, server: Any, open_stream: Callable[[], Any]) -> None:
        call = open_stream()
        await call.write(message(asking()))
        await watcher.until(lambda: bool(watcher.nodes))
        await server.stop(5)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert watcher.nodes == {}

    run(talk(conversation))
