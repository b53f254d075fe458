"""The wire on real sockets, with grpcio as the client: echo, stalled windows, many streams, cancels, deadlines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import uvloop
from tests._core.echo_server import METHOD, SLOW_METHOD, EchoProtocol
from tests._core.http2_bytes import OPENING, PING, frame

from kumafast._core import END, REQUEST, RESET


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main

    uvloop.run(bounded())


@asynccontextmanager
async def serve(**options: int) -> AsyncIterator[tuple[int, list[tuple[Any, ...]]]]:
    seen: list[tuple[Any, ...]] = []
    protocols: list[EchoProtocol] = []

    def create() -> EchoProtocol:
        protocols.append(EchoProtocol(seen, **options))
        return protocols[-1]

    server = await asyncio.get_running_loop().create_server(create, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        for protocol in protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        while any(protocol.transport is not None for protocol in protocols):
            await asyncio.sleep(0)


def connect(port: int, **options: int) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}",
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            *((f"grpc.{name}", value) for name, value in options.items()),
        ],
    )


def open_call(channel: grpc.aio.Channel, method: str = METHOD, **options: Any) -> Any:
    return channel.stream_stream(method, request_serializer=None, response_deserializer=None)(**options)


def test_echo_in_both_directions() -> None:
    async def main() -> None:
        async with serve() as (port, seen), connect(port) as channel:
            call = open_call(channel, metadata=(("authorization", "Bearer of news"),))
            for size in (0, 1, 100, 20_000, 3_000_000, 5):
                body = bytes(range(256)) * (size // 256) + bytes(size % 256)
                await call.write(body)
                assert await call.read() == body
            await call.done_writing()
            assert not isinstance(await call.read(), bytes)
            assert await call.code() is grpc.StatusCode.OK
            headers = seen[0][3]
            assert headers["authorization"] == "Bearer of news"
            assert headers["user-agent"].startswith("grpc-python-asyncio/")

    run(main())


def test_large_messages_through_stalled_windows() -> None:
    """The client's window is smaller than one message, and its reader slow."""

    async def main() -> None:
        async with (
            serve() as (port, _),
            connect(port, **{"http2.lookahead_bytes": 65535, "http2.bdp_probe": 0}) as channel,
        ):
            call = open_call(channel)
            body = bytes(1_000_000)
            for _ in range(10):
                await call.write(body)
            for _ in range(10):
                await asyncio.sleep(0.02)
                assert await call.read() == body
            call.cancel()

    run(main())


def test_hundred_streams_on_one_connection() -> None:
    async def main() -> None:
        async with serve() as (port, seen), connect(port) as channel:

            async def talk(number: int) -> None:
                call = open_call(channel)
                for turn in range(20):
                    body = b"%d %d" % (number, turn) * (1 + turn * 20)
                    await call.write(body)
                    assert await call.read() == body
                await call.done_writing()
                assert await call.code() is grpc.StatusCode.OK

            await asyncio.gather(*(talk(number) for number in range(100)))
            assert len([event for event in seen if event[0] == REQUEST]) == 100

    run(main())


def test_cancel_reaches_the_server() -> None:
    async def main() -> None:
        async with serve() as (port, seen), connect(port) as channel:
            calls = [open_call(channel) for _ in range(3)]
            for call in calls:
                await call.write(b"x")
                await call.read()
            calls[1].cancel()
            while not [event for event in seen if event[0] == RESET]:
                await asyncio.sleep(0.01)
            (reset,) = [event for event in seen if event[0] == RESET]
            assert reset[2] == 8
            await calls[2].write(b"others go on")
            assert await calls[2].read() == b"others go on"

    run(main())


def test_deadline_reaches_the_server_and_its_answer_the_client() -> None:
    async def main() -> None:
        async with serve() as (port, seen), connect(port) as channel:
            call = open_call(channel, SLOW_METHOD, timeout=0.3)
            await call.write(b"x")
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert 0.2 < seen[0][4] < 0.35

    run(main())


def test_errors_come_in_words() -> None:
    async def main() -> None:
        async with serve(message_bytes_max=1000) as (port, _), connect(port) as channel:
            unknown = open_call(channel, "/nobody/knows")
            assert await unknown.code() is grpc.StatusCode.UNIMPLEMENTED
            assert await unknown.details() == "unknown method /nobody/knows"
            large = open_call(channel)
            await large.write(bytes(1001))
            assert await large.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            packed = open_call(channel, compression=grpc.Compression.Gzip)
            await packed.write(bytes(500))
            assert await packed.code() is grpc.StatusCode.UNIMPLEMENTED

    run(main())


def test_flood_on_a_socket_harms_nobody_else() -> None:
    async def main() -> None:
        async with serve() as (port, seen), connect(port) as channel:
            call = open_call(channel)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(OPENING + frame(PING, 0, 0, bytes(8)) * 5000)
            await call.write(b"a")
            assert await call.read() == b"a"
            said = await asyncio.wait_for(reader.read(-1), 5)
            assert b"too many PINGs" in said
            writer.close()
            assert [event[0] for event in seen] in ([REQUEST, END], [END, REQUEST])
            await call.write(b"b")
            assert await call.read() == b"b"

    run(main())


def test_client_that_reads_nothing_is_cut_off_when_it_asks_too_much() -> None:
    """Its answers pile up in the kernel's buffers first, then in the session up to its limit."""

    async def main() -> None:
        async with serve() as (port, seen):
            loop = asyncio.get_running_loop()
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setblocking(False)
                await loop.sock_sendall(client, OPENING)
                while not seen:
                    try:
                        await loop.sock_sendall(client, frame(PING, 0, 0, bytes(8)) * 100)
                    except ConnectionError:
                        break
            while not seen:
                await asyncio.sleep(0.01)
            assert seen[0][2] == 11

    run(main())
