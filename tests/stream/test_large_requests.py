"""Requests of a hundred thousand versions: read in pieces, in order, while everybody else goes on; none is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from tests._core.http2_bytes import CANCEL, DATA, RST_STREAM, frame, number
from tests.stream.memory_client import MemoryClient

from kumafast._core import VersionReader
from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.resource import CLUSTER, LISTENER
from kumafast.stream import XdsServer, large_requests
from kumafast.stream.driver import Status

COUNT = 30_000
HELD = {f"gone-{at}": "1" for at in range(COUNT)}


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def serve(version: bytes = b"1") -> tuple[SnapshotCache, XdsServer]:
    cache = SnapshotCache()
    cache.set("n", Snapshot.of(XdsResource(CLUSTER, "c", version), XdsResource(LISTENER, "l", version)))
    return cache, XdsServer(cache)


def say_large(wire: MemoryClient, data: bytes) -> None:
    """One message in frames that a server takes."""
    whole = b"\0" + number(len(data)) + data
    for at in range(0, len(whole), 16384):
        wire.say(frame(DATA, 0, 1, whole[at : at + 16384]))


def delta(node: str = "n", /, **fields: Any) -> bytes:
    request = discovery_pb2.DeltaDiscoveryRequest(**fields)
    if node:
        request.node.id = node
    return bytes(request.SerializeToString())


def waiting(server: XdsServer) -> tuple[int, int]:
    """How many streams have large requests, and of how many bytes."""
    large = server._fleet._large_requests
    return len(large), large.bytes


async def turn_until(is_done: Callable[[], bool]) -> int:
    """How many turns of the loop it takes."""
    for turns in range(10_000):
        if is_done():
            return turns
        await asyncio.sleep(0)
    raise AssertionError("it never comes")


def test_it_is_read_in_pieces_between_which_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_requests, "FIELDS_EACH_PIECE", 1000)
    monkeypatch.setattr(large_requests, "PIECES_EACH_TURN", 1)

    async def main() -> None:
        cache, server = serve()
        large, neighbour = MemoryClient(server), MemoryClient(server)
        neighbour.ask(CLUSTER)
        neighbour.ask(CLUSTER, response_nonce=(await neighbour.hear()).nonce)
        say_large(large, delta(type_url=CLUSTER, initial_resource_versions=HELD))
        assert large.stream.is_deferred
        heard_at: list[int] = []

        def is_done() -> bool:
            if not neighbour.is_silent and not heard_at:
                heard_at.append(waiting(server)[0])
            return not large.is_silent

        cache.set("n", Snapshot.of(XdsResource(CLUSTER, "c", b"2"), XdsResource(LISTENER, "l", b"1")))
        turns = await turn_until(is_done)
        # One for each piece, one for what is due; the neighbour was served before the last of them.
        assert turns >= COUNT // 1000
        assert heard_at == [1]
        response = large.received.popleft()
        assert sorted(response.removed_resources) == sorted(HELD)
        assert [resource.resource.value for resource in response.resources] == [b"2"]
        assert waiting(server) == (0, 0)
        assert not large.stream.is_deferred

    run(main)


@pytest.mark.parametrize("node", ["before", "behind", "none"])
def test_node_is_found_wherever_it_stands(node: str) -> None:
    async def main() -> None:
        cache, server = serve()
        cache.set("*", Snapshot.of(XdsResource(CLUSTER, "of nobody", b"")))
        wire = MemoryClient(server)
        data, rest = delta("n"), delta("", type_url=CLUSTER, initial_resource_versions=HELD)
        say_large(wire, {"before": data + rest, "behind": rest + data, "none": rest}[node])
        response = await wire.hear()
        assert [resource.name for resource in response.resources] == ["of nobody" if node == "none" else "c"]
        assert len(response.removed_resources) == COUNT

    run(main)


def test_what_follows_on_the_stream_comes_after_it() -> None:
    """A request that was overtaken would be the first of its stream, and the versions held would count for nothing."""

    async def main() -> None:
        _, server = serve()
        wire = MemoryClient(server)
        say_large(wire, delta(type_url=CLUSTER, initial_resource_versions=HELD))
        wire.ask(CLUSTER, resource_names_unsubscribe=["*"])
        wire.ask(LISTENER)
        wire.end()
        response = await wire.hear()
        # Nothing is asked for any more, so nothing is taken away.
        assert response.type_url == LISTENER
        await turn_until(lambda: wire.status == str(int(Status.OK)))
        assert wire.is_silent
        assert waiting(server) == (0, 0)

    run(main)


def test_many_names_of_sotw() -> None:
    async def main() -> None:
        _, server = serve()
        wire = MemoryClient(server, method="StreamAggregatedResources")
        names = [f"no-such-cluster-{at}" for at in range(10_000)]
        message = discovery_pb2.DiscoveryRequest(type_url=CLUSTER, resource_names=[*names, "c"])
        message.node.id = "n"
        say_large(wire, message.SerializeToString())
        assert wire.is_silent, "what is due has a turn of its own"
        assert len((await wire.hear()).resources) == 1

    run(main)


@pytest.mark.parametrize("ending", ["lost", "reset", "broken", "too much"])
def test_every_end_gives_back_what_waits(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        _, server = serve()
        wire = MemoryClient(server)
        data = delta(type_url=CLUSTER, initial_resource_versions=HELD)
        if ending == "too much":
            monkeypatch.setattr(large_requests, "BYTES_MAX", len(data) + 10)
        say_large(wire, data[:-1] + b"\xff" if ending == "broken" else data)
        assert waiting(server) == (1, len(data))
        assert wire.protocol._untaken == len(data)
        if ending == "lost":
            wire.lose()
        elif ending == "reset":
            wire.say(frame(RST_STREAM, 0, 1, number(CANCEL)))
        elif ending == "too much":
            wire.ask(LISTENER)
            assert wire.status == str(int(Status.RESOURCE_EXHAUSTED))
        else:
            await turn_until(lambda: wire.status == str(int(Status.INVALID_ARGUMENT)))
        assert waiting(server) == (0, 0)
        assert wire.protocol._untaken == 0
        assert server.stream_count == 0
        await asyncio.sleep(0.01)
        assert waiting(server) == (0, 0)

    run(main)


def test_large_node_with_each_request_is_no_large_request() -> None:
    """An Envoy's node is 61 kB, and some send it each time: that is cut off, and what is left is small."""

    async def main() -> None:
        _, server = serve()
        wire = MemoryClient(server)
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
        request.node.id = "n"
        request.node.cluster = "x" * 200_000
        say_large(wire, request.SerializeToString())
        assert not wire.stream.is_deferred
        assert not wire.is_silent

    run(main)


def test_reader_takes_as_many_fields_as_it_is_told() -> None:
    """Counted work: what one piece costs does not depend on how much there is."""
    reader = VersionReader(delta(initial_resource_versions=HELD), 5)
    for read in range(1, 4):
        assert not reader.read(1000)
        assert len(reader.versions) in (read * 1000, read * 1000 - 1)
