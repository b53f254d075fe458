"""The driver of one stream, without a network: patience, reports, ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from tests.stream.grpc_client import Recorder

from kumafast.snapshot import Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, LISTENER
from kumafast.stream.ads import PATIENCE_S, AdsStream
from kumafast.stream.messages import ProtocolError, Variant


class Wire:
    """Both ends of a stream's pipe; `write` waits while the client does not read."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.responses: asyncio.Queue[discovery_pb2.DeltaDiscoveryResponse] = asyncio.Queue()
        self.is_reading = asyncio.Event()
        self.is_reading.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (request := await self.requests.get()) is not None:
            yield request

    async def write(self, data: bytes) -> None:
        await self.is_reading.wait()
        self.responses.put_nowait(discovery_pb2.DeltaDiscoveryResponse.FromString(data))

    def say(self, type_url: str, nonce: str = "", node: str = "n") -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
        request.node.id = node
        self.requests.put_nowait(request.SerializeToString())

    async def hear(self) -> discovery_pb2.DeltaDiscoveryResponse:
        return await asyncio.wait_for(self.responses.get(), 5)


def open_stream(wire: Wire, cache: SnapshotCache, observer: Any = None) -> tuple[AdsStream, asyncio.Task[None]]:
    stream = AdsStream(
        aiter(wire), wire.write, variant=Variant.DELTA, type_url=None, cache=cache, observer=observer, instance_id="i"
    )
    return stream, asyncio.create_task(stream.run())


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


def snapshot_of(version: int, *, clusters: int = 2) -> Snapshot:
    resources = [XdsResource(CLUSTER, f"{i}", b"") for i in range(clusters)]
    return Snapshot.of(*resources, XdsResource(LISTENER, "l", b"%d" % version))


def has_timer(stream: AdsStream) -> bool:
    return stream._timer is not None


def test_patience_ends_for_clients_that_do_not_answer_as_envoy_does() -> None:
    """What is held back goes out after a quarter of a second, and there is a timer only until then (rule 49)."""

    async def main() -> None:
        wire, cache = Wire(), SnapshotCache()
        cache.set("n", snapshot_of(1))
        stream, task = open_stream(wire, cache)
        wire.say(CLUSTER)
        wire.say(LISTENER)
        first, second = await wire.hear(), await wire.hear()
        assert (first.type_url, second.type_url) == (CLUSTER, LISTENER)
        wire.say(LISTENER, second.nonce)
        await asyncio.sleep(0.01)
        assert not has_timer(stream)
        began = time.monotonic()
        cache.set("n", snapshot_of(2))  # The clusters have never been acknowledged.
        listener = await wire.hear()
        assert listener.type_url == LISTENER
        assert PATIENCE_S * 0.9 < time.monotonic() - began < PATIENCE_S * 4
        await asyncio.sleep(0.01)
        assert not has_timer(stream)
        wire.say(CLUSTER, first.nonce)
        cache.set("n", snapshot_of(2, clusters=1))
        await asyncio.sleep(0.01)
        assert has_timer(stream)
        # The acknowledgement frees at once what was waiting for it.
        wire.say(LISTENER, listener.nonce)
        began = time.monotonic()
        assert list((await wire.hear()).removed_resources) == ["1"]
        assert time.monotonic() - began < PATIENCE_S / 2
        assert not has_timer(stream)
        stream.end()
        await task

    run(main)


def test_slow_reader_gets_the_newest_and_nothing_between() -> None:
    async def main() -> None:
        wire, cache = Wire(), SnapshotCache()
        cache.set("n", Snapshot())
        stream, task = open_stream(wire, cache)
        wire.is_reading.clear()
        wire.say(LISTENER)
        await asyncio.sleep(0.01)
        for version in range(100):
            cache.set("n", snapshot_of(version))
            await asyncio.sleep(0)
        # Requests are taken in while a response waits to be read.
        wire.say(CLUSTER)
        await asyncio.sleep(0.01)
        assert wire.requests.empty()
        wire.is_reading.set()
        assert not (await wire.hear()).resources
        assert (await wire.hear()).type_url == CLUSTER
        wire.say(LISTENER, "1")
        assert (await wire.hear()).resources[0].resource.value == b"99"
        stream.end()
        await task

    run(main)


@pytest.mark.parametrize("ending", ["client", "server", "cancelled", "broken"])
def test_every_end_frees_what_was_held_and_is_told_once(ending: str) -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        wire, cache, recorder = Wire(), SnapshotCache(), Recorder()
        cache.set("n", snapshot_of(1))
        stream, task = open_stream(wire, cache, recorder)
        wire.say(LISTENER)
        await wire.hear()
        assert cache._watchers
        if ending == "client":
            wire.requests.put_nowait(None)
            await task
        elif ending == "server":
            stream.end()
            await task
        elif ending == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            wire.requests.put_nowait(b"\xff")
            with pytest.raises(ProtocolError):
                await task
        assert not cache._watchers
        assert [event[0] for event in recorder.events] == ["opened", "sent", "closed"]
        assert asyncio.all_tasks() == before

    run(main)


def test_client_that_asks_and_ends_its_side_is_answered() -> None:
    async def main() -> None:
        wire, cache = Wire(), SnapshotCache()
        cache.set("n", snapshot_of(1))
        wire.say(LISTENER)
        wire.requests.put_nowait(None)
        _, task = open_stream(wire, cache)
        await task
        assert (await wire.hear()).type_url == LISTENER

    run(main)


def test_synced_is_told_once_for_each_snapshot() -> None:
    async def main() -> None:
        wire, cache, recorder = Wire(), SnapshotCache(), Recorder()
        first, second = snapshot_of(1), snapshot_of(2)
        cache.set("n", first)
        stream, task = open_stream(wire, cache, recorder)
        wire.say(LISTENER)
        await wire.hear()
        wire.say(LISTENER, "1")
        await asyncio.sleep(0.01)
        wire.say(LISTENER)
        cache.set("n", second)
        await wire.hear()
        wire.say(LISTENER, "2")
        await asyncio.sleep(0.01)
        assert [event for event in recorder.events if event[0] == "synced"] == [("synced", first), ("synced", second)]
        cache.clear("n")
        wire.say(LISTENER)
        await asyncio.sleep(0.01)
        assert wire.responses.empty()
        stream.end()
        await task

    run(main)


def test_observer_that_fails_does_not_change_what_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Recorder):
        def stream_opened(self, stream_id: str, node: Node) -> None:
            raise RuntimeError("a fault of the observer")

    async def main() -> None:
        wire, cache = Wire(), SnapshotCache()
        cache.set("n", snapshot_of(1))
        stream, task = open_stream(wire, cache, Failing())
        wire.say(LISTENER)
        assert (await wire.hear()).type_url == LISTENER
        stream.end()
        await task

    run(main)
    assert "a fault of the observer" in caplog.text


def test_snapshot_that_comes_later_is_sent_when_it_comes() -> None:
    """A node that is not known yet waits for its first snapshot (rule 47)."""

    async def main() -> None:
        wire, cache = Wire(), SnapshotCache()
        stream, task = open_stream(wire, cache)
        wire.say(LISTENER)
        await asyncio.sleep(0.05)
        assert wire.responses.empty()
        cache.set("n", snapshot_of(1))
        assert (await wire.hear()).type_url == LISTENER
        stream.end()
        await task

    run(main)
