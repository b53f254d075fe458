"""Clients that begin something and leave it, or have no call: each ends in its time, and those beside it go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvloop
from tests._core.http2_bytes import DATA, GOAWAY, HEADERS, OPENING, PREFACE, Peer, frame, message

from kumafast._core import IDLE, OWING
from kumafast.stream.driver import Call, GrpcProtocol
from kumafast.stream.silence import Silence

OWING_S = 0.2
IDLE_S = 0.6
BOUND_S = 5.0


async def echo(call: Call) -> None:
    async for data in call:
        await call.write(data)


@asynccontextmanager
async def serve() -> AsyncIterator[tuple[int, set[GrpcProtocol], Silence]]:
    connections: set[GrpcProtocol] = set()
    silence = Silence(owing_max_s=OWING_S, idle_max_s=IDLE_S)
    server = await asyncio.get_running_loop().create_server(
        lambda: GrpcProtocol({"/test/echo": echo}, connections=connections, message_bytes_max=4 << 20, silence=silence),
        "127.0.0.1",
        0,
    )
    try:
        yield server.sockets[0].getsockname()[1], connections, silence
    finally:
        server.close()
        for connection in tuple(connections):
            connection.abort()
        while connections:
            await asyncio.sleep(0)
        assert len(silence) == 0


def request(stream: int = 1) -> bytes:
    return Peer(opening=b"").request(stream, path="/test/echo")


async def ends(port: int, *said: bytes) -> tuple[bytes, float]:
    """What the server says until it closes, and after how long it does."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = loop.time()
    try:
        writer.write(b"".join(said))
        async with asyncio.timeout(BOUND_S):
            return await reader.read(-1), loop.time() - began
    finally:
        writer.close()


BLOCK = request()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        pytest.param([PREFACE], 4, id="no SETTINGS"),
        pytest.param([OPENING, b"\0\0"], 11, id="half the head of a frame"),
        pytest.param([OPENING, BLOCK[:-3]], 11, id="half a frame of headers"),
        pytest.param([OPENING, frame(HEADERS, 0, 1, BLOCK[9:20])], 11, id="half a block of headers"),
        pytest.param([OPENING, BLOCK, frame(DATA, 0, 1, message(b"all of it"))[:-2]], 11, id="half a frame of data"),
    ],
)
def test_connection_that_leaves_off_is_ended(said: list[bytes], code: int) -> None:
    async def main() -> None:
        async with serve() as (port, connections, _):
            heard, after_s = await ends(port, *said)
            assert heard.find(frame(GOAWAY)[3:5]) >= 0
            assert code.to_bytes(4, "big") + b"what was begun has not gone on in time" in heard
            # Also a call that was open is no reason to stay.
            assert OWING_S * 0.9 < after_s < IDLE_S
            assert not connections

    uvloop.run(main())


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="no message"),
        pytest.param(frame(DATA, 0, 1, message(b"all of it")[:3]), id="half a prefix"),
        pytest.param(frame(DATA, 0, 1, message(b"all of it")[:-3]), id="half a message"),
        pytest.param(frame(DATA, 0, 1, message(b"one") + message(b"two")[:-1]), id="half a second message"),
    ],
)
def test_call_that_leaves_off_is_ended_and_others_go_on(said: bytes) -> None:
    async def main() -> None:
        async with serve() as (port, connections, silence):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            peer = Peer(opening=b"")
            writer.write(OPENING + peer.request(1, path="/test/echo") + said)
            writer.write(peer.request(3, path="/test/echo") + frame(DATA, 0, 3, message(b"whole")))
            heard = b""
            async with asyncio.timeout(BOUND_S):
                while b"grpc-status" not in heard:
                    heard += await reader.read(65536)
                assert heard.count(b"grpc-status") == 1
                assert b"a message has not come in time" in heard
                # The other has waited as long, and owes nothing.
                await asyncio.sleep(IDLE_S + OWING_S)
                writer.write(frame(DATA, 0, 3, message(b"still there")))
                while message(b"still there") not in heard:
                    heard += await reader.read(65536)
            (connection,) = connections
            assert [receiver.stream for receiver in connection.served] == [3]
            assert len(silence) == 0
            writer.close()

    uvloop.run(main())


def test_connection_without_a_call_is_asked_to_leave() -> None:
    async def main() -> None:
        async with serve() as (port, _, silence):
            never, after_s = await ends(port, OPENING)
            assert IDLE_S * 0.9 < after_s < BOUND_S
            # In order: no error.
            assert frame(GOAWAY, 0, 0, bytes(8)) in never
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(OPENING + BLOCK + frame(DATA, 0, 1, message(b"once")))
            heard = b""
            async with asyncio.timeout(BOUND_S):
                while message(b"once") not in heard:
                    heard += await reader.read(65536)
                await asyncio.sleep(IDLE_S * 1.5)
                assert len(silence) == 0
                writer.write(frame(DATA, 1, 1))
                heard += await reader.read(-1)
            assert frame(GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4)) in heard
            writer.close()

    uvloop.run(main())


def test_slow_is_not_silent() -> None:
    """What goes on, however slowly, is taken in."""

    async def main() -> None:
        async with serve() as (port, _, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(OPENING + BLOCK)
            body = message(b"slowly")
            for at in range(len(body)):
                writer.write(frame(DATA, 0, 1, body[at : at + 1]))
                await asyncio.sleep(OWING_S / 4)
            heard = b""
            async with asyncio.timeout(BOUND_S):
                while body not in heard:
                    heard += await reader.read(65536)
            assert b"grpc-status" not in heard
            writer.close()

    uvloop.run(main())


@dataclass(eq=False)
class Stubborn:
    """A client that never does what it should."""

    looks: int = 0
    exits: int = 0

    def end_silence(self, seconds: float, /) -> bool:
        self.looks += 1
        return seconds > 0

    def leave(self) -> None:
        self.exits += 1


def test_many_are_looked_at_in_slices_and_again() -> None:
    async def main() -> None:
        silence = Silence(owing_max_s=0.05, idle_max_s=0.05)
        clients = [Stubborn() for _ in range(500)]
        for client in clients:
            silence.note(client, OWING)
        for _ in range(5):
            await asyncio.sleep(0.05)
        assert all(client.looks >= 2 for client in clients)
        for client in clients:
            silence.note(client, IDLE)
        await asyncio.sleep(0.15)
        assert all(client.exits >= 1 for client in clients)
        for client in clients:
            silence.forget(client)
        assert len(silence) == 0
        # Without anybody to watch there is no timer either.
        await asyncio.sleep(0.15)
        assert [watch._timer for watch in (silence._owing, silence._idle)] == [None, None]

    uvloop.run(main())
