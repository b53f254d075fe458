"""A megabyte through windows that are hardly open: it comes whole, nobody else waits for it, and nothing piles up."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from tests.clients.authority import Authority
from tests.clients.window_client import WindowClient
from tests.clients.xds_server import ServerProcess

TYPE = "type.googleapis.com/google.protobuf.BytesValue"
SIZE = 1_000_000
STEPS = (1, 4, 1, 60, 1_000, 9, 16_384, 16_385, 60_000, 3, 300_000)
QUIET_S = 0.05


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("stalled")
    server = ServerProcess(Authority(directory), directory / "server.log")
    server.start()
    yield server
    server.close()


def large(seed: int, *, size: int = SIZE) -> list[tuple[str, BytesValue]]:
    return [("large", BytesValue(value=random.Random(seed).randbytes(size)))]


def small(number: int) -> list[tuple[str, BytesValue]]:
    return [("small", BytesValue(value=b"%d" % number))]


def body(response: object, *, is_delta: bool) -> bytes:
    (resource,) = response.resources  # type: ignore[attr-defined]
    packed = resource.resource if is_delta else resource
    return bytes(BytesValue.FromString(packed.value).value)


@pytest.mark.parametrize("is_delta", [True, False], ids=["delta", "sotw"])
@pytest.mark.parametrize("is_connection_stalled", [False, True], ids=["stream", "connection"])
def test_megabyte_comes_whole_through_windows_that_widen_in_steps(
    server: ServerProcess, is_delta: bool, is_connection_stalled: bool
) -> None:
    """Neither window is ever passed, and every byte arrives (rules 6, 54)."""
    server.set("stalled", large(1))
    window = SIZE * 2 if is_connection_stalled else 0
    with closing(WindowClient(server.plain_port, window=window)) as client:
        stream = client.open_stream("stalled", TYPE, "large", is_delta=is_delta)
        if is_connection_stalled:
            # A connection's window begins with this much, whatever the settings say.
            granted, widened = 65_535, 0
        else:
            client.widen(0, SIZE * 2)
            granted, widened = 0, stream
        for step in itertools.cycle(STEPS):
            client.read(stream, min(granted, SIZE))
            if granted >= SIZE + 1000:
                break
            client.read_for(0.0 if step > 100 else 0.01)
            assert len(client.data[stream]) <= granted, "more came than the window allows"
            client.widen(widened, step)
            granted += step
        response = client.read_message(stream)
        assert body(response, is_delta=is_delta) == large(1)[0][1].value
        assert response.type_url == TYPE
        assert response.nonce
        assert not client.data[stream]


def test_others_are_not_held_up_by_a_stalled_stream(server: ServerProcess) -> None:
    """Neither a stream of the same connection nor one of another waits for the one that does not read (rule 54)."""
    server.set("stalled", large(2))
    server.set("n", small(0))
    with (
        closing(WindowClient(server.plain_port, window=100)) as client,
        closing(WindowClient(server.plain_port, window=1 << 20)) as other,
    ):
        client.widen(0, SIZE * 2)
        stalled = client.open_stream("stalled", TYPE, "large", is_delta=True)
        beside = client.open_stream("n", TYPE, "small", is_delta=True)
        client.widen(beside, 1 << 20)
        elsewhere = other.open_stream("n", TYPE, "small", is_delta=True)
        client.read(stalled, 100)
        for number in range(20):
            if number:
                server.set("n", small(number))
            for who, stream in ((client, beside), (other, elsewhere)):
                response = who.read_message(stream)
                assert body(response, is_delta=True) == b"%d" % number
                who.say(stream, type_url=TYPE, response_nonce=response.nonce)
        assert len(client.data[stalled]) == 100
        client.widen(stalled, SIZE * 2)
        assert body(client.read_message(stalled), is_delta=True) == large(2)[0][1].value


@pytest.mark.parametrize("is_delta", [True, False], ids=["delta", "sotw"])
def test_what_is_under_way_comes_whole_and_then_the_newest(server: ServerProcess, is_delta: bool) -> None:
    """Changes meanwhile neither mix into the message that is on its way nor queue behind it (rules 42, 54)."""
    server.set("stalled", large(3))
    with closing(WindowClient(server.plain_port, window=1000)) as client:
        client.widen(0, SIZE * 4)
        stream = client.open_stream("stalled", TYPE, "large", is_delta=is_delta)
        client.read(stream, 1000)
        for seed in range(4, 10):
            server.set("stalled", large(seed))
        client.widen(stream, SIZE * 3)
        first = client.read_message(stream)
        assert body(first, is_delta=is_delta) == large(3)[0][1].value
        client.read_for(QUIET_S)
        assert not client.data[stream], "only one response may be in flight"
        names = {} if is_delta else {"resource_names": ["large"]}
        client.say(stream, type_url=TYPE, response_nonce=first.nonce, **names)
        newest = client.read_message(stream)
        assert body(newest, is_delta=is_delta) == large(9)[0][1].value
        client.say(stream, type_url=TYPE, response_nonce=newest.nonce, **names)
        client.read_for(QUIET_S)
        assert not client.data[stream]


def test_memory_is_bounded_whatever_stalled_clients_miss(server: ServerProcess) -> None:
    """Forty that do not read cost no more than a message each, of twenty that they are offered (rule 54)."""
    clients, rounds = 40, 20
    server.set("crowd", large(0))
    opened = [WindowClient(server.plain_port, window=50) for _ in range(clients)]
    try:
        before = server.memory_bytes()
        for client in opened:
            stream = client.open_stream("crowd", TYPE, "large", is_delta=True)
            client.read(stream, 50)
        for seed in range(1, rounds):
            server.set("crowd", large(seed))
        grown = server.memory_bytes() - before
        assert grown < clients * SIZE * 2, f"{grown} bytes for {clients * rounds * SIZE} that were offered"
        # And each is served as soon as it reads.
        for client in opened:
            client.widen(0, SIZE * 2)
            client.widen(1, SIZE * 2)
            assert body(client.read_message(1), is_delta=True) == large(0)[0][1].value
    finally:
        for client in opened:
            client.close()
