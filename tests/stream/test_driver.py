"""The driver of calls: ends of all kinds, deadlines, writers that wait, handlers that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import grpc.aio
import pytest
import uvloop
from tests._core.http2_bytes import DATA, END_STREAM, OPENING, WINDOW_UPDATE, Peer, frame, message, number
from tests.stream.memory_client import MemoryTransport

from kumafast._core import Payload
from kumafast.stream import driver
from kumafast.stream.driver import Call, CallError, GrpcProtocol, Handler, Status


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    uvloop.run(bounded())


@asynccontextmanager
async def serve(**handlers: Handler) -> AsyncIterator[tuple[grpc.aio.Channel, set[GrpcProtocol], int]]:
    connections: set[GrpcProtocol] = set()
    by_path = {f"/test/{name}": handler for name, handler in handlers.items()}
    server = await asyncio.get_running_loop().create_server(
        lambda: GrpcProtocol(by_path, connections=connections, message_bytes_max=4 << 20), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield channel, connections, port
    finally:
        server.close()
        for connection in tuple(connections):
            connection.abort()
        while connections:
            await asyncio.sleep(0)


def open_call(channel: grpc.aio.Channel, name: str, **options: Any) -> Any:
    return channel.stream_stream(f"/test/{name}", request_serializer=None, response_deserializer=None)(**options)


async def echo(call: Call) -> None:
    async for data in call:
        await call.write(data)


def test_calls_end_as_their_handlers_do(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(call: Call) -> None:
        raise CallError(Status.INVALID_ARGUMENT, "not like this")

    async def fail(call: Call) -> None:
        raise RuntimeError("a defect")

    async def main() -> None:
        async with serve(echo=echo, refuse=refuse, fail=fail) as (channel, _, _):
            for name, code, details in (
                ("refuse", grpc.StatusCode.INVALID_ARGUMENT, "not like this"),
                ("fail", grpc.StatusCode.INTERNAL, "the server failed"),
                ("absent", grpc.StatusCode.UNIMPLEMENTED, "unknown method /test/absent"),
            ):
                call = open_call(channel, name)
                assert (await call.code(), await call.details()) == (code, details)
            call = open_call(channel, "echo")
            await call.write(b"a")
            assert await call.read() == b"a"
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK

    with caplog.at_level(logging.ERROR):
        run(main())
    assert "the handler of /test/fail failed" in caplog.text


def test_cancels_and_lost_connections_cancel_their_handlers() -> None:
    ended: list[str] = []

    async def wait(call: Call) -> None:
        try:
            await echo(call)
        finally:
            ended.append(call.headers[":authority"])

    async def main() -> None:
        async with serve(wait=wait) as (channel, connections, _):
            calls = [open_call(channel, "wait") for _ in range(3)]
            for call in calls:
                await call.write(b"x")
                await call.read()
            calls[0].cancel()
            while len(ended) < 1:
                await asyncio.sleep(0.01)
            next(iter(connections)).abort()
            while len(ended) < 3:
                await asyncio.sleep(0.01)
            assert await calls[1].code() is grpc.StatusCode.UNAVAILABLE

    run(main())


def test_deadline_ends_the_handler() -> None:
    ended = asyncio.Event()

    async def wait(call: Call) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    async def main() -> None:
        async with serve(wait=wait) as (channel, _, _):
            call = open_call(channel, "wait", timeout=0.2)
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await ended.wait()

    run(main())


def test_write_waits_for_a_client_that_does_not_read() -> None:
    """One message is held for it, and the next only when that is gone."""
    written = 0

    async def pour(call: Call) -> None:
        nonlocal written
        for _ in range(20):
            await call.send(Payload(bytes(1_000_000)))
            written += 1

    async def main() -> None:
        async with serve(pour=pour) as (_, _, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            peer = Peer(opening=b"")
            writer.write(OPENING + peer.request(path="/test/pour"))
            await asyncio.sleep(0.3)
            assert written == 0, "65,535 bytes are what it may be sent unasked"
            writer.close()

    run(main())


def test_large_message_is_written_over_many_turns() -> None:
    """Others on the loop do not wait for the whole of it; it comes whole, and its writer is told at its end."""
    size, each_max = 5_000_000, (256 << 10) + (1 << 16) + 1000
    done = False

    async def pour(call: Call) -> None:
        nonlocal done
        await call.send(Payload(bytes(size)))
        done = True

    async def main() -> None:
        transport = MemoryTransport()
        connections: set[GrpcProtocol] = set()
        connection = GrpcProtocol({"/test/pour": pour}, connections=connections, message_bytes_max=1000)
        connection.connection_made(cast(asyncio.Transport, transport))
        opening = OPENING + Peer(opening=b"").request(path="/test/pour")
        connection.data_received(opening + b"".join(frame(WINDOW_UPDATE, 0, at, number(1 << 30)) for at in (0, 1)))
        before, turns = len(transport.said), 0
        while not done:
            await asyncio.sleep(0)
            assert len(transport.said) - before <= each_max
            before, turns = len(transport.said), turns + 1
        assert len(transport.said) >= size
        assert turns >= size // each_max
        connection.connection_lost(None)

    run(main())


def test_reading_pauses_while_handlers_do_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "REQUESTS_BYTES_MAX", 10_000)
    release = asyncio.Event()
    taken = 0

    async def slow(call: Call) -> None:
        nonlocal taken
        await release.wait()
        async for data in call:
            taken += len(data)

    async def main() -> None:
        async with serve(slow=slow) as (_, connections, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            peer = Peer(opening=b"")
            chunk = frame(DATA, 0, 1, message(bytes(1000)))
            writer.write(OPENING + peer.request(path="/test/slow") + chunk * 200)
            await asyncio.sleep(0.2)
            (connection,) = connections
            assert connection._transport is not None
            assert not connection._transport.is_reading()
            release.set()
            while taken < 200_000:
                await asyncio.sleep(0.01)
            assert connection._transport.is_reading()
            writer.close()

    run(main())


def test_drain_ends_the_connection_with_its_last_call() -> None:
    async def main() -> None:
        async with serve(echo=echo) as (channel, connections, _):
            call = open_call(channel, "echo")
            await call.write(b"a")
            assert await call.read() == b"a"
            (connection,) = connections
            connection.drain()
            await call.write(b"b")
            assert await call.read() == b"b"
            assert connections
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            while connection in connections:
                await asyncio.sleep(0.01)

    run(main())


def test_request_that_is_refused_may_come_with_all_its_messages() -> None:
    async def main() -> None:
        async with serve(echo=echo) as (_, _, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            peer = Peer(opening=b"")
            absent = peer.request(path="/test/absent") + frame(DATA, END_STREAM, 1, message(b"a") + message(b"b"))
            present = peer.request(3, path="/test/echo") + frame(DATA, END_STREAM, 3, message(b"there"))
            writer.write(OPENING + absent + present)
            said = b""
            while said.count(b"grpc-status") < 2:
                said += await asyncio.wait_for(reader.read(65536), 5)
            assert b"unknown method" in said
            assert message(b"there") in said
            writer.close()

    run(main())
