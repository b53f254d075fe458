"""What the wire costs: a push and its acknowledgement through a session alone, and on sockets against plain ones.

Informational: microseconds of this machine. The ratio to the floor, plain send and recv on as many sockets in the same
run, is what to compare.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any, cast

import pytest
import uvloop
from bench.conftest import Record
from pytest_benchmark.fixture import BenchmarkFixture
from tests._core.http2_bytes import DATA, OPENING, WINDOW_UPDATE, Peer, frame, message, number

from kumafast._core import MESSAGE, REQUEST, Connection, Payload, push

CONNECTIONS = 1000
ROUNDS = 10
PUSH = bytes(2000)
ACK = message(bytes(100))
SLICE = 256


def _client_frames() -> tuple[bytes, bytes]:
    peer = Peer()
    opening = OPENING + peer.request()
    opening += b"".join(frame(WINDOW_UPDATE, 0, stream, number(1 << 28)) for stream in (0, 1))
    return opening, frame(DATA, 0, 1, ACK)


@pytest.mark.informational
def test_push_and_acknowledgement_through_a_session(benchmark: BenchmarkFixture) -> None:
    opening, acknowledgement = _client_frames()
    connection = Connection()
    connection.receive(opening, 0.0)
    connection.collect()
    payload = Payload(PUSH)
    window = b"".join(frame(WINDOW_UPDATE, 0, stream, number(2005)) for stream in (0, 1))
    now = 0.0

    def turn() -> None:
        nonlocal now
        now += 1.0
        connection.send(1, payload)
        (written,) = connection.collect()
        assert len(written) > 2000
        (event,) = connection.receive(acknowledgement + window, now)
        assert event[0] == MESSAGE

    turn()
    benchmark(turn)


def _answer_each_push(port: int, opening: bytes, acknowledgement: bytes, push_size: int, pipe: Pipe) -> None:
    """A client of its own process: all connections; each push of `push_size` bytes is answered."""
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(opening)
        # What the server says first is no push: it is read before the first of those is asked for.
        selector.register(client, selectors.EVENT_READ, [0])
    pipe.send("connected")
    pipe.recv()
    for key in selector.get_map().values():
        sock = cast(socket.socket, key.fileobj)
        sock.setblocking(False)
        while True:
            try:
                if not sock.recv(65536):
                    break
            except BlockingIOError:
                break
    pipe.send("quiet")
    while True:
        for key, _ in selector.select():
            sock = cast(socket.socket, key.fileobj)
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                return
            key.data[0] += len(data)
            while key.data[0] >= push_size:
                key.data[0] -= push_size
                sock.send(acknowledgement)


@contextmanager
def _clients(port: int, opening: bytes, acknowledgement: bytes, push_size: int) -> Iterator[Pipe]:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_answer_each_push, args=(port, opening, acknowledgement, push_size, there), daemon=True
    )
    process.start()
    try:
        yield here
    finally:
        process.kill()
        process.join()


def _cpu_us() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


def _measure_floor() -> float:
    """Microseconds of this process for one plain send and one plain recv, over as many sockets."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        data = b"x" * 2014
        with _clients(listening.getsockname()[1], b"", b"a" * 114, len(data)) as pipe:
            sockets = [listening.accept()[0] for _ in range(CONNECTIONS)]
            assert pipe.recv() == "connected"
            pipe.send("go")
            assert pipe.recv() == "quiet"
            selector = selectors.EpollSelector()
            for each in sockets:
                each.setblocking(False)
                selector.register(each, selectors.EVENT_READ)
            began = _cpu_us()
            for _ in range(ROUNDS):
                for each in sockets:
                    each.send(data)
                missing = CONNECTIONS
                while missing:
                    for key, _ in selector.select():
                        cast(socket.socket, key.fileobj).recv(65536)
                        missing -= 1
            spent = _cpu_us() - began
            for each in sockets:
                each.close()
            return spent / (ROUNDS * CONNECTIONS)


class _Server(asyncio.Protocol):
    """A connection that counts what it is sent."""

    def __init__(self, streams: list[tuple[Connection, int]], note: Callable[[], None]) -> None:
        self.connection = Connection()
        self._streams = streams
        self._note = note

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.attach(cast(asyncio.Transport, transport))
        self.connection.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.connection.receive(data, time.monotonic()):
            if event[0] == REQUEST:
                self._streams.append((self.connection, event[1]))
            elif event[0] == MESSAGE:
                self._note()
        self.connection.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.attach(None)


async def _measure_wire() -> float:
    loop = asyncio.get_running_loop()
    streams: list[tuple[Connection, int]] = []
    acknowledged = 0
    # Set with the last acknowledgement of a round: to wait in a loop would be measured too.
    is_complete = asyncio.Event()

    def note() -> None:
        nonlocal acknowledged
        acknowledged += 1
        if acknowledged % CONNECTIONS == 0:
            is_complete.set()

    opening, acknowledgement = _client_frames()
    server = await loop.create_server(lambda: _Server(streams, note), "127.0.0.1", 0, backlog=4096)
    with _clients(server.sockets[0].getsockname()[1], opening, acknowledgement, 2014) as pipe:
        while len(streams) < CONNECTIONS or not pipe.poll():
            await asyncio.sleep(0.01)
        # The headers of the response are no push either.
        push(streams, Payload(b""))
        await asyncio.sleep(0.2)
        pipe.recv()
        pipe.send("go")
        while not pipe.poll():
            await asyncio.sleep(0.01)
        began, slowest = _cpu_us(), 0.0
        for _ in range(ROUNDS):
            payload = Payload(PUSH)
            for at in range(0, CONNECTIONS, SLICE):
                before = time.perf_counter()
                push(streams[at : at + SLICE], payload)
                slowest = max(slowest, time.perf_counter() - before)
                await asyncio.sleep(0)
            await is_complete.wait()
            is_complete.clear()
        spent = _cpu_us() - began
    server.close()
    await asyncio.sleep(0.2)
    assert slowest < 0.05
    return spent / (ROUNDS * CONNECTIONS)


@pytest.mark.informational
def test_push_over_sockets_against_the_floor(
    benchmark: BenchmarkFixture, capsys: pytest.CaptureFixture[str], record: Record
) -> None:
    figures: list[tuple[float, float]] = []

    def measure() -> Any:
        figures.append((_measure_floor(), uvloop.run(_measure_wire())))

    cast(Any, benchmark).pedantic(measure, rounds=3)
    floor, wire = (sorted(column)[1] for column in zip(*figures, strict=True))
    record(push_cpu_us=wire, floor_cpu_us=floor)
    with capsys.disabled():
        sys.stdout.write(
            f"\n2 KB push and acknowledgement, {CONNECTIONS} connections: {wire:.1f} µs, floor {floor:.1f} µs, "
            f"{wire / floor:.2f} times\n"
        )
