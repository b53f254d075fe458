"""The streams of a server, without a network: patience, reports, ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests._core.http2_bytes import CANCEL, RST_STREAM, frame, number
from tests.stream.grpc_client import Recorder
from tests.stream.memory_client import MemoryClient

from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, LISTENER
from kumafast.stream import XdsServer
from kumafast.stream.ads import PATIENCE_S
from kumafast.stream.driver import Status


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def snapshot_of(version: int, *, clusters: int = 2) -> Snapshot:
    resources = [XdsResource(CLUSTER, f"{i}", b"") for i in range(clusters)]
    return Snapshot.of(*resources, XdsResource(LISTENER, "l", b"%d" % version))


def has_timer(client: MemoryClient) -> bool:
    return client.stream.patient_until > 0


def test_patience_ends_for_clients_that_do_not_answer_as_envoy_does() -> None:
    """What is held back goes out after a quarter of a second, and there is a timer only until then (rule 49)."""

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", snapshot_of(1))
        wire = MemoryClient(XdsServer(cache))
        wire.ask(CLUSTER)
        wire.ask(LISTENER)
        first, second = await wire.hear(), await wire.hear()
        assert (first.type_url, second.type_url) == (CLUSTER, LISTENER)
        wire.ask(LISTENER, response_nonce=second.nonce)
        await asyncio.sleep(0.01)
        assert not has_timer(wire)
        began = time.monotonic()
        cache.set("n", snapshot_of(2))  # The clusters have never been acknowledged.
        listener = await wire.hear()
        assert listener.type_url == LISTENER
        assert PATIENCE_S * 0.9 < time.monotonic() - began < PATIENCE_S * 4
        await asyncio.sleep(0.01)
        assert not has_timer(wire)
        wire.ask(CLUSTER, response_nonce=first.nonce)
        cache.set("n", snapshot_of(2, clusters=1))
        await asyncio.sleep(0.01)
        assert has_timer(wire)
        # The acknowledgement frees at once what was waiting for it.
        wire.ask(LISTENER, response_nonce=listener.nonce)
        began = time.monotonic()
        assert list((await wire.hear()).removed_resources) == ["1"]
        assert time.monotonic() - began < PATIENCE_S / 2
        assert not has_timer(wire)
        wire.lose()

    run(main)


def test_slow_reader_gets_the_newest_and_nothing_between() -> None:
    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", Snapshot())
        wire = MemoryClient(XdsServer(cache))
        wire.protocol.pause_writing()
        wire.ask(LISTENER)
        await asyncio.sleep(0.01)
        for version in range(100):
            cache.set("n", snapshot_of(version))
            await asyncio.sleep(0)
        # Requests are taken in while a response waits to be read.
        wire.ask(CLUSTER)
        await asyncio.sleep(0.01)
        assert wire.is_silent
        assert wire.stream.is_waiting
        wire.protocol.resume_writing()
        first = await wire.hear()
        assert not first.resources
        assert (await wire.hear()).type_url == CLUSTER
        wire.ask(LISTENER, response_nonce=first.nonce)
        assert (await wire.hear()).resources[0].resource.value == b"99"
        wire.lose()

    run(main)


@pytest.mark.parametrize("ending", ["client", "server", "lost", "reset", "broken"])
def test_every_end_frees_what_was_held_and_is_told_once(ending: str) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        cache, recorder = SnapshotCache(), Recorder()
        cache.set("n", snapshot_of(1))
        server = XdsServer(cache, observer=recorder)
        wire = MemoryClient(server)
        wire.ask(LISTENER)
        await wire.hear()
        assert (server.stream_count, len(server._fleet._targets)) == (1, 1)
        standing = wire.stream.standing
        assert standing.members == 1
        if ending == "client":
            wire.end()
            assert wire.status == str(int(Status.OK))
        elif ending == "server":
            server._connections.add(wire.protocol)
            server._end_streams()
            assert wire.status == str(int(Status.UNAVAILABLE))
        elif ending == "lost":
            wire.lose()
        elif ending == "reset":
            wire.say(frame(RST_STREAM, 0, 1, number(CANCEL)))
        else:
            wire.say_message(b"\xff")
            assert wire.status == str(int(Status.INVALID_ARGUMENT))
        assert (server.stream_count, len(server._fleet._targets), wire.protocol.served) == (0, 0, ())
        assert standing.members == 0
        wire.lose()
        assert [event[0] for event in recorder.events] == ["opened", "sent", "closed"]
        assert asyncio.all_tasks() == before

    run(main)


def test_client_that_asks_and_ends_its_side_is_answered() -> None:
    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", snapshot_of(1))
        wire = MemoryClient(XdsServer(cache))
        wire.protocol.pause_writing()
        wire.ask(LISTENER)
        wire.end()
        wire.protocol.resume_writing()
        assert (await wire.hear()).type_url == LISTENER
        assert wire.status == str(int(Status.OK))

    run(main)


def test_synced_is_told_once_for_each_snapshot() -> None:
    async def main() -> None:
        cache, recorder = SnapshotCache(), Recorder()
        first, second = snapshot_of(1), snapshot_of(2)
        cache.set("n", first)
        wire = MemoryClient(XdsServer(cache, observer=recorder))
        wire.ask(LISTENER)
        wire.ask(LISTENER, response_nonce=(await wire.hear()).nonce)
        await asyncio.sleep(0.01)
        wire.ask(LISTENER)
        cache.set("n", second)
        wire.ask(LISTENER, response_nonce=(await wire.hear()).nonce)
        await asyncio.sleep(0.01)
        assert [event for event in recorder.events if event[0] == "synced"] == [("synced", first), ("synced", second)]
        cache.clear("n")
        wire.ask(LISTENER)
        await asyncio.sleep(0.01)
        assert wire.is_silent
        wire.lose()

    run(main)


def test_observer_that_fails_does_not_change_what_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        def stream_opened(self, stream_id: str, node: Node) -> None:
            raise RuntimeError("a fault of the observer")

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("n", snapshot_of(1))
        wire = MemoryClient(XdsServer(cache, observer=Failing()))
        wire.ask(LISTENER)
        assert (await wire.hear()).type_url == LISTENER
        wire.lose()

    run(main)
    assert "a fault of the observer" in caplog.text


def test_snapshot_that_comes_later_is_sent_when_it_comes() -> None:
    """A node that is not known yet waits for its first snapshot (rule 47)."""

    async def main() -> None:
        cache = SnapshotCache()
        wire = MemoryClient(XdsServer(cache))
        wire.ask(LISTENER)
        await asyncio.sleep(0.05)
        assert wire.is_silent
        cache.set("n", snapshot_of(1))
        assert (await wire.hear()).type_url == LISTENER
        wire.lose()

    run(main)
