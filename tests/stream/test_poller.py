"""Sockets that are read past their transports: what that saves in counted work, ends of connections, pauses, slices."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import uvloop
from tests._core.http2_bytes import DATA, PREFACE, frame, message, settings
from tests.stream.grpc_client import create_certificate, serve
from tests.stream.socket_client import SocketClient
from tests.stream.test_push_cost import answer_all, content

from kumafast._core import HAS_TLS, Protocol, TlsTransport
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.stream import TlsFiles, XdsServer, driver
from kumafast.stream import server as server_module
from kumafast.stream.driver import Call

STREAMS = 40


@pytest.fixture(params=["plain", "tls"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> TlsFiles | None:
    """Each test runs over both."""
    if request.param == "plain":
        return None
    if not HAS_TLS:
        pytest.skip("built without OpenSSL; Python's ssl serves, and reads as it does")
    return create_certificate(tmp_path)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Runs a test on both loops."""

    def run_on_loop(main: Awaitable[None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await main

        (asyncio if request.param == "asyncio" else uvloop).run(bounded())

    return run_on_loop


def trusting(files: TlsFiles | None) -> ssl.SSLContext | None:
    return None if files is None else ssl.create_default_context(cafile=str(files.certificate))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def connect(server: XdsServer, port: int, files: TlsFiles | None, count: int) -> list[SocketClient]:
    """Clients that hold what there is."""
    clients = [await SocketClient.connect(port, f"n{at}", context=trusting(files)) for at in range(count)]
    for client in clients:
        client.open()
        client.ask(CLUSTER)
        client.ask(ENDPOINT, resource_names_subscribe=["a"])
        client.ask(LISTENER)
    await answer_until(clients, lambda: server.tally.acknowledged == 3 * count)
    return clients


async def answer_until(clients: list[SocketClient], condition: Callable[[], object]) -> None:
    while not condition():
        for client in clients:
            answer = answer_all(client)
            if answer:
                client.say(answer)
        await asyncio.sleep(0.001)


def end_all(clients: list[SocketClient]) -> None:
    for client in clients:
        client.end_connection()


def one_for_all(node: object) -> str:
    return "all"


def test_push_and_acknowledgement_call_nothing_of_transports(files: TlsFiles | None) -> None:
    """Neither a transport nor anything else in Python runs for each: only what is done once for all."""

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("all", content("1"))
        async with serve(cache, tls=files, node_key=one_for_all) as (server, port):
            clients = await connect(server, port, files, STREAMS)
            calls: Counter[str] = Counter()

            def note(frame: FrameType, event: str, argument: object) -> None:
                if event != "call":
                    return
                owner = frame.f_locals.get("self")
                if isinstance(getattr(owner, "_protocol", None), Protocol | TlsTransport):
                    calls[f"transport.{frame.f_code.co_name}"] += 1
                elif "/kumafast/" in frame.f_code.co_filename:
                    calls[frame.f_code.co_qualname] += 1

            sys.setprofile(note)
            try:
                cache.set("all", content("2"))
                await answer_until(clients, lambda: server.tally.acknowledged == 6 * STREAMS)
            finally:
                sys.setprofile(None)
            assert server.tally.sent == 6 * STREAMS
            assert not [name for name in calls if name.startswith("transport.")]
            assert not {name: count for name, count in calls.items() if count >= STREAMS}
            end_all(clients)

    asyncio.run(main())


def test_turn_reads_no_more_sockets_than_its_slice_has(
    files: TlsFiles | None, monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], None]
) -> None:
    monkeypatch.setattr(server_module, "_READ_EACH_TURN", 4)

    async def main() -> None:
        cache = SnapshotCache()
        cache.set("all", content("1"))
        async with serve(cache, tls=files, node_key=one_for_all) as (server, port):
            clients = await connect(server, port, files, STREAMS)
            cache.set("all", content("2"))
            await answer_until(clients, lambda: server.tally.acknowledged == 6 * STREAMS)
            assert 1 < server._poller.longest <= 4
            end_all(clients)

    run(main())


@pytest.mark.parametrize("end", [SocketClient.end_connection, SocketClient.reset_connection])
def test_connection_ends_with_its_socket(
    files: TlsFiles | None, run: Callable[[Any], None], end: Callable[[SocketClient], None]
) -> None:
    async def main() -> None:
        cache = SnapshotCache()
        cache.set("all", content("1"))
        async with serve(cache, tls=files, node_key=one_for_all) as (server, port):
            first, *others = await connect(server, port, files, 3)
            end(first)
            await until(lambda: server.stream_count == 2 == len(server._connections))
            cache.set("all", content("2"))
            await answer_until(others, lambda: server.tally.acknowledged == 9 + 6)
            for each in others:
                end(each)
            await until(lambda: server.stream_count == 0 == len(server._connections))

    run(main())


def test_server_that_stops_ends_connections_that_are_polled(files: TlsFiles | None, run: Callable[[Any], None]) -> None:
    async def main() -> None:
        cache = SnapshotCache()
        cache.set("all", content("1"))
        async with serve(cache, tls=files, node_key=one_for_all) as (server, port):
            clients = await connect(server, port, files, 3)
            await server.stop(5)
            await until(lambda: all(client.is_lost for client in clients))
            assert {client.status for client in clients} == {"14"}

    run(main())


def test_nothing_is_read_while_handlers_do_not_take(
    files: TlsFiles | None, monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], None]
) -> None:
    monkeypatch.setattr(driver, "REQUESTS_BYTES_MAX", 10_000)

    async def main() -> None:
        release = asyncio.Event()
        taken = 0

        async def slow(call: Call) -> None:
            nonlocal taken
            await release.wait()
            async for data in call:
                taken += len(data)

        async with serve(SnapshotCache(), tls=files, handlers={"/test/slow": slow}) as (server, port):
            client = await SocketClient.connect(port, context=trusting(files))
            client.open("/test/slow")
            await until(lambda: server._connections)
            (connection,) = server._connections
            for _ in range(200):
                client.say(frame(DATA, 0, 1, message(bytes(1000))))
            await until(lambda: not connection._is_reading)
            await asyncio.sleep(0.05)
            assert connection._untaken < 150_000, "what is left in the socket, nobody has read"
            release.set()
            await until(lambda: taken == 200_000)
            assert connection._is_reading
            client.end_connection()

    run(main())


def test_what_cannot_be_taken_in_ends_its_connection_alone(
    files: TlsFiles | None, run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        cache = SnapshotCache()
        cache.set("all", content("1"))
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        async with serve(cache, tls=files, node_key=one_for_all) as (server, port):
            others = await connect(server, port, files, 2)

            def fail(*what: object, **named: object) -> None:
                raise RuntimeError("no stream today")

            with monkeypatch.context() as patch:
                patch.setattr(server._fleet, "open", fail)
                client = await SocketClient.connect(port, context=trusting(files))
                client.say(PREFACE)
                # From here on it is the poller that reads.
                await until(lambda: len(server._connections) == 3)
                client.open(opening=settings())
                await until(lambda: client.is_lost)
            assert "no stream today" in str(told[0]["exception"])
            assert len(server._connections) == 2
            cache.set("all", content("2"))
            await answer_until(others, lambda: server.tally.acknowledged == 12)
            end_all(others)

    run(main())


def test_nobody_is_passed_by_where_turns_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """More sockets than one look finds, of which each turn reads a few: they are read in the order of their coming."""
    monkeypatch.setattr(server_module, "_READ_S", 0.0)
    count = server_module._READ_EACH_TURN + 64

    async def main() -> None:
        order: list[bytes] = []

        async def note(call: Call) -> None:
            async for data in call:
                order.append(data)

        async with serve(SnapshotCache(), handlers={"/test/note": note}) as (_, port):
            clients = [await SocketClient.connect(port) for _ in range(count)]
            for client in clients:
                client.open("/test/note")
            # All calls are there before any of them says something.
            await until(lambda: all(client.transport.said for client in clients))
            for at, client in enumerate(clients):
                client.say(frame(DATA, 0, 1, message(b"%04d" % at)))
            await until(lambda: len(order) == count)
            assert order == sorted(order)
            end_all(clients)

    uvloop.run(asyncio.wait_for(main(), 60))
