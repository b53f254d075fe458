"""Thousands of connections of each kind leave nothing: descriptors, tasks, objects, bytes as before."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests._core.http2_bytes import DATA, OPENING, PING, PREFACE, frame, number
from tests.attack.foe import DELTA, SOTW, Foe, Target, data, delta, sotw, windows
from tests.attack.victim import Setup, VictimProcess, victim
from tests.stream.grpc_client import create_certificate

from kumafast.stream import TlsFiles

COUNT = int(os.environ.get("KUMAFAST_LEAK_CONNECTIONS", "300"))
AT_A_TIME = 20
# The loop and the allocator keep a few things of their own, whatever the number of connections.
MALLOC_BYTES_MAX = 65536 + 16 * COUNT

Kind = Callable[[list[Foe]], None]


def _each(*parts: bytes, path: str = DELTA) -> Kind:
    def speak(foes: list[Foe]) -> None:
        for foe in foes:
            foe.send(foe.request(path), *parts)

    return speak


def _served(foes: list[Foe]) -> None:
    _each(windows((0, 1)), data(delta()))(foes)
    for foe in foes:
        assert foe.wait_for("response")


def _flooded(foes: list[Foe]) -> None:
    for foe in foes:
        foe.send(frame(PING, 0, 0, bytes(8)) * 2100)
        assert foe.wait_for("GOAWAY 11")


def _refused(foes: list[Foe]) -> None:
    _each(data(b"\xff\xff\xff"))(foes)
    for foe in foes:
        assert foe.wait_for("status 3")


# What is said before the connection is cut off; the last two are served in full.
KINDS: dict[str, tuple[bytes, Kind]] = {
    "nothing": (b"", lambda foes: None),
    "half a preface": (PREFACE[:9], lambda foes: None),
    "settings": (OPENING, lambda foes: None),
    "HTTP/1.1": (b"GET / HTTP/1.1\r\n\r\n", lambda foes: None),
    "a request": (OPENING, _each()),
    "half a message": (OPENING, _each(frame(DATA, 0, 1, b"\0" + number(100_000) + bytes(9000)))),
    "a big push": (OPENING, _each(windows((0, 1)), data(delta("big")))),
    "a flood": (OPENING, _flooded),
    "a bad request": (OPENING, _refused),
    "SotW": (OPENING, _each(data(sotw()), path=SOTW)),
    "all is well": (OPENING, _served),
}


def connect(port: int, kind: str, count: int, context: ssl.SSLContext | None) -> None:
    """So many connections of a kind; half of them leave with a reset, half with a farewell."""
    opening, speak = KINDS[kind]
    for at in range(0, count, AT_A_TIME):
        target = Target(port, time.monotonic() + 30, context)
        foes = [Foe(target, opening) for _ in range(min(AT_A_TIME, count - at))]
        try:
            speak(foes)
        finally:
            for index, foe in enumerate(foes):
                foe.abort() if index % 2 else foe.sock.close()


@pytest.fixture(scope="module", params=[False, True], ids=["plaintext", "TLS"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[VictimProcess, ssl.SSLContext | None]]:
    tls: TlsFiles | None = None
    context: ssl.SSLContext | None = None
    if request.param:
        tls = create_certificate(Path(tmp_path_factory.mktemp("tls")))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with victim(Setup(nodes=0, big_bytes=1 << 20, big_each_s=1e9, tls=tls)) as process:
        # What the server opens for its first connection it keeps.
        connect(process.port, "settings", AT_A_TIME, context)
        most = process.idle_descriptors + 1
        process.idle_descriptors = process.settle(
            lambda usage: usage.connections == 0 and usage.descriptors <= most
        ).descriptors
        yield process, context


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_connections_leave_nothing(server: tuple[VictimProcess, ssl.SSLContext | None], kind: str) -> None:
    process, context = server
    connect(process.port, kind, 100, context)
    before = process.settle(lambda usage: usage.descriptors == process.idle_descriptors and usage.streams == 0)
    connect(process.port, kind, COUNT, context)
    after = process.settle(lambda usage: usage.descriptors == before.descriptors and usage.tasks == before.tasks)
    assert (after.connections, after.streams) == (0, 0)
    assert after.descriptors == before.descriptors
    assert after.tasks == before.tasks
    assert after.objects - before.objects < COUNT / 3, (before, after)
    assert after.blocks - before.blocks < COUNT, (before, after)
    assert after.malloc_bytes - before.malloc_bytes < MALLOC_BYTES_MAX, (before, after)


@pytest.mark.slow
def test_tls_that_never_becomes_one_leaves_nothing(tmp_path: Path) -> None:
    """Garbage, half a greeting, an alert in the middle."""
    tls = create_certificate(tmp_path)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)
    openings = (
        b"garbage" * 100,
        hello,
        hello + b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x40\x00" + bytes(16384),
    )

    def storm(port: int, count: int) -> None:
        for at in range(count):
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.sendall(openings[at % len(openings)])
                if at % 3 == 0:
                    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with victim(Setup(nodes=0, tls=tls, big_bytes=1, big_each_s=1e9)) as process:
        storm(process.port, 200)
        # The half greetings are dropped after a while.
        time.sleep(1.2)
        before = process.usage()
        storm(process.port, COUNT)
        after = process.settle(lambda usage: usage.descriptors == before.descriptors)
        assert (after.descriptors, after.tasks, after.connections) == (before.descriptors, before.tasks, 0)
        assert after.objects - before.objects < COUNT / 3
        assert after.malloc_bytes - before.malloc_bytes < MALLOC_BYTES_MAX
