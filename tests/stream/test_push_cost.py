"""What a push to many streams costs, in counted work: moves worked out, functions called, objects held, turns taken."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Sequence
from types import FrameType
from typing import Any

import pytest
from tests.stream.memory_client import MemoryClient
from tests.stream.test_shared_standings import METHODS
from tests.stream.test_stream_model import snapshot_of

from kumafast._core import Standing
from kumafast.snapshot import Layer, Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.stream import XdsServer, wire
from kumafast.stream.ads import SLICE
from kumafast.stream.delta import DeltaSubstream
from kumafast.stream.messages import Variant
from kumafast.stream.session import Session

STREAMS = 1000


def content(version: str) -> Snapshot:
    return snapshot_of({CLUSTER: {"a": version}, ENDPOINT: {"a": version}, LISTENER: {"l": version}})


async def settle(server: XdsServer, clients: list[MemoryClient]) -> int:
    """Answer everything until nothing more comes; returns how many responses came."""
    count = 0
    while True:
        for _ in range(2 + len(clients) // SLICE):
            await asyncio.sleep(0)
        before = count
        for client in clients:
            client.take()
            while client.received:
                response = client.received.popleft()
                names = {"resource_names": ["a"] if response.type_url == ENDPOINT else []}
                fields: dict[str, Any] = {} if client.is_delta else names
                client.ask(response.type_url, node=False, response_nonce=response.nonce, **fields)
                count += 1
        if count == before:
            return count


def answer_all(client: MemoryClient) -> bytes:
    """The bytes that acknowledge all that has come."""
    client.take()
    said = b""
    while client.received:
        response = client.received.popleft()
        said += client.request(response.type_url, node=False, response_nonce=response.nonce)
    return said


async def connect(server: XdsServer, variant: Variant, streams: int, *, first: int = 0) -> list[MemoryClient]:
    clients = [MemoryClient(server, method=METHODS[variant], node_id=f"n{first + at}") for at in range(streams)]
    names = "resource_names_subscribe" if variant is Variant.DELTA else "resource_names"
    for client in clients:
        client.ask(CLUSTER)
        client.ask(ENDPOINT, **{names: ["a"]})
        client.ask(LISTENER)
    await settle(server, clients)
    return clients


def set_all(cache: SnapshotCache, snapshot: Snapshot, streams: int) -> None:
    for at in range(streams):
        cache.set(f"n{at}", snapshot)


@pytest.mark.parametrize("variant", Variant)
def test_push_is_worked_out_once_for_all_that_hold_the_same(variant: Variant) -> None:
    """A thousand streams cost as many moves as ten, and their messages are one payload."""
    computed = {}

    async def push(streams: int) -> None:
        cache = SnapshotCache()
        set_all(cache, content("1"), streams)
        server = XdsServer(cache)
        clients = await connect(server, variant, streams)
        before = server.tally.computed
        set_all(cache, content("2"), streams)
        assert await settle(server, clients) == 3 * streams
        computed[streams] = server.tally.computed - before
        assert server.tally.acknowledged == server.tally.sent
        assert len({client.stream.standing for client in clients}) == 1
        assert server._fleet.turns.longest <= SLICE
        for client in clients:
            client.lose()
        assert server.tally.bytes_kept < 1_000_000

    asyncio.run(push(10))
    asyncio.run(push(STREAMS))
    assert computed[STREAMS] == computed[10] <= 12


def test_push_and_acknowledgement_call_no_function_for_each_stream() -> None:
    """Beyond the transport's own: what runs for each stream is compiled."""

    async def push() -> None:
        cache = SnapshotCache()
        set_all(cache, content("1"), STREAMS)
        server = XdsServer(cache)
        clients = await connect(server, Variant.DELTA, STREAMS)
        moved = content("2")
        for client in clients:
            # What transports of uvloop are: compiled.
            client.transport.write = client.transport.said.extend  # type: ignore[method-assign, assignment]
        calls: Counter[str] = Counter()

        def note(frame: FrameType, event: str, argument: object) -> None:
            if event == "call" and "/kumafast/" in frame.f_code.co_filename:
                calls[frame.f_code.co_qualname] += 1

        async def push_and_answer() -> None:
            for _ in range(2 + STREAMS // SLICE):
                await asyncio.sleep(0)
            sys.setprofile(None)
            answers = [answer_all(client) for client in clients]
            sys.setprofile(note)
            for client, answer in zip(clients, answers, strict=True):
                client.protocol.data_received(answer)

        sys.setprofile(note)
        try:
            set_all(cache, moved, STREAMS)
            for _ in range(3):
                await push_and_answer()
        finally:
            sys.setprofile(None)
        assert server.tally.acknowledged == server.tally.sent == 6 * STREAMS
        of_cache = {"SnapshotCache.set", "SnapshotCache._is_same", "SnapshotCache._tell"}
        of_nodes = {"Fleet._take_snapshot", "Fleet._retarget", "SnapshotCache.get"}
        each = {name for name, count in calls.items() if count >= STREAMS}
        assert each <= of_cache | of_nodes, "for each node that is given a snapshot, and none for each stream"
        for client in clients:
            client.lose()

    asyncio.run(push())


class Class:
    """Proxies that have clusters, endpoints and a listener in common, and each a listener of its own."""

    def __init__(self, size: int) -> None:
        own = [XdsResource(LISTENER, f"own-{at}", b"") for at in range(size)]
        self._common = _common("1")
        self._snapshots = [Snapshot([*self._common, Layer([listener])]) for listener in own]

    def set_all(self, cache: SnapshotCache) -> None:
        for at, snapshot in enumerate(self._snapshots):
            cache.set(f"n{at}", snapshot)

    def move(self, cache: SnapshotCache, places: Sequence[int], version: str) -> None:
        """Have other clusters (0), endpoints (1) or listeners (2) for all."""
        moved = _common(version)
        layers = {place: moved[place] for place in places}
        self._snapshots = [snapshot.replaced(layers) for snapshot in self._snapshots]
        self.set_all(cache)


def _common(version: str) -> list[Layer]:
    return [
        Layer([XdsResource(type_url, name, f"{name} {version}".encode()) for name in "abcde"])
        for type_url in (CLUSTER, ENDPOINT, LISTENER)
    ]


@pytest.mark.parametrize(
    ("places", "messages", "moves", "encoded"),
    [
        pytest.param([0, 2], 3, 5, 2, id="a policy: clusters, listeners"),
        pytest.param([1], 1, 2, 1, id="an endpoint"),
    ],
)
def test_push_to_many_of_a_class_copies_no_session_and_looks_through_no_content(
    monkeypatch: pytest.MonkeyPatch, places: list[int], messages: int, moves: int, encoded: int
) -> None:
    """Each has a snapshot of its own, so each moves alone; what is the same for all is encoded once."""
    size = 100
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counted(*what: Any, **named: Any) -> Any:
            counts[name] += 1
            return function(*what, **named)

        monkeypatch.setattr(owner, name, counted)

    async def push() -> None:
        cache, proxies = SnapshotCache(), Class(size)
        proxies.set_all(cache)
        server = XdsServer(cache)
        clients = await connect(server, Variant.DELTA, size)
        for client in clients:
            client.ask(ENDPOINT, resource_names_subscribe=list("bcde"))
        await settle(server, clients)
        # The first proxies may stand where others have stood.
        proxies.move(cache, [0, 1, 2], "2")
        await settle(server, clients)
        computed = server.tally.computed
        for owner, name in ((Session, "copy"), (Session, "rest_key"), (DeltaSubstream, "_draft_all"), (wire, "encode")):
            count(owner, name)
        proxies.move(cache, places, "3")
        assert await settle(server, clients) == messages * size
        assert server.tally.acknowledged == server.tally.sent
        assert server.tally.computed - computed == moves * size
        # Listeners go out under the digest of all that a proxy has of them.
        own = size if 2 in places else 0
        assert counts == {"encode": encoded + own}
        for client in clients:
            client.lose()

    asyncio.run(push())


def test_parked_stream_holds_few_objects() -> None:
    async def park() -> None:
        cache = SnapshotCache()
        set_all(cache, content("1"), 2 * STREAMS)
        server = XdsServer(cache)
        first = await connect(server, Variant.DELTA, STREAMS)

        def held() -> Counter[str]:
            gc.collect()
            kinds = [type(item) for item in gc.get_objects()]
            return Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("kumafast"))

        before = held()
        await connect(server, Variant.DELTA, STREAMS, first=STREAMS)
        grown = {name: count / STREAMS for name, count in (held() - before).items()}
        assert set(grown) == {"GrpcProtocol", "Stream", "Target"}
        assert sum(grown.values()) <= 3
        assert len(asyncio.all_tasks()) == 1
        stream = first[0].stream
        assert sys.getsizeof(stream) + sys.getsizeof(stream.target) < 320
        assert sys.getsizeof(first[0].protocol) < 2048, "with the session of HTTP/2 and its one stream"

    asyncio.run(park())


def test_what_is_remembered_does_not_grow_with_pushes() -> None:
    async def push() -> None:
        cache = SnapshotCache()
        set_all(cache, content("0"), 20)
        server = XdsServer(cache)
        clients = await connect(server, Variant.DELTA, 20)
        # One never answers, so that it is always in the middle of something.
        clients.pop()
        kept, standings = [], []
        for version in range(40):
            set_all(cache, content(f"{version}"), 20)
            await settle(server, clients)
            kept.append(server.tally.bytes_kept)
            standings.append(sum(isinstance(item, Standing) for item in gc.get_objects()))
        assert max(kept[10:]) <= max(kept[:10])
        assert max(standings[10:]) <= max(standings[:10]) < 40

    asyncio.run(push())


def test_nonce_comes_never_twice_where_content_comes_and_goes() -> None:
    """A move that is remembered for others may be one that this stream has made before (rule 8)."""

    async def swing() -> None:
        cache, one, other = SnapshotCache(), content("1"), content("2")
        set_all(cache, one, 2)
        server = XdsServer(cache)
        client, _ = await connect(server, Variant.DELTA, 2)
        nonces: list[str] = []
        for goal in [other, one] * 4:
            cache.set("n0", goal)
            for _ in range(4):
                await asyncio.sleep(0)
                client.take()
                nonces += [response.nonce for response in client.received]
                client.say(answer_all(client))
        assert len(nonces) == 24
        assert len(set(nonces)) == len(nonces)

    asyncio.run(swing())
