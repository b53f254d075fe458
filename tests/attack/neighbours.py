"""Well-behaved clients, each on a connection of its own, in a process of their own: how long a push takes to them."""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import cast

from bench import ending
from envoy.service.discovery.v3 import discovery_pb2
from tests._core.http2_bytes import DATA, OPENING, WINDOW_UPDATE, Peer, frame, message, number
from tests.attack.victim import STAMP

from kumafast.snapshot.resource import CLUSTER

ADS_DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


@dataclass(frozen=True, kw_only=True)
class Delays:
    """Milliseconds from `SnapshotCache.set` in the server to the bytes in a client; `silent` clients saw none."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    silent: int
    lost: int
    """Connections that the server ended, which it must not do to any of these."""


def opening_of(node: str) -> bytes:
    """What a client says first: its windows are wide, and it subscribes to all clusters."""
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
    request.node.id = node
    wide = b"".join(frame(WINDOW_UPDATE, 0, stream, number(1 << 30)) for stream in (0, 1))
    head = OPENING + Peer(opening=b"").request(path=ADS_DELTA)
    return head + wide + frame(DATA, 0, 1, message(request.SerializeToString()))


def acknowledgement(nonce: str) -> bytes:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=nonce)
    return frame(DATA, 0, 1, message(request.SerializeToString()))


class Neighbour:
    """One client. It reads whole frames and acknowledges each response."""

    def __init__(self, port: int, index: int, context: ssl.SSLContext | None) -> None:
        plain = socket.create_connection(("127.0.0.1", port), 30, (f"127.0.0.{2 + index % 250}", 0))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = plain if context is None else context.wrap_socket(plain, server_hostname="localhost")
        self.sock.sendall(opening_of(f"n-{index}"))
        self.sock.setblocking(False)
        self._heard = b""
        self._grpc = b""
        self.is_over = False

    def read(self) -> list[int]:
        """Take in what is there; the time stamps of pushes in it."""
        try:
            data = self.sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return []
        except OSError:
            data = b""
        if not data:
            self.is_over = True
        self._heard += data
        if isinstance(self.sock, ssl.SSLSocket) and (pending := self.sock.pending()):
            # Decrypted already, so that the poller knows nothing of it.
            self._heard += self.sock.recv(pending)
        while len(self._heard) >= 9 and len(self._heard) >= (size := 9 + int.from_bytes(self._heard[:3], "big")):
            if self._heard[3] == DATA:
                self._grpc += self._heard[9:size]
            self._heard = self._heard[size:]
        return [self._take(body) for body in self._messages()]

    def _messages(self) -> Iterator[bytes]:
        while len(self._grpc) >= 5 and len(self._grpc) >= (size := 5 + int.from_bytes(self._grpc[1:5], "big")):
            yield self._grpc[5:size]
            self._grpc = self._grpc[size:]

    def _take(self, body: bytes) -> int:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(body)
        self.sock.send(acknowledgement(response.nonce))
        value = response.resources[0].resource.value
        assert value.startswith(STAMP)
        return int.from_bytes(value[len(STAMP) : len(STAMP) + 8], "big")


def _delays(samples: list[float], *, silent: int, lost: int) -> Delays:
    ordered = sorted(samples) or [float("nan")]
    return Delays(
        count=len(samples),
        p50_ms=ordered[len(ordered) // 2],
        p99_ms=ordered[int(len(ordered) * 0.99)],
        max_ms=ordered[-1],
        silent=silent,
        lost=lost,
    )


def live(port: int, count: int, ca: Path | None, pipe: Pipe) -> None:
    """The main function of the clients' process: asked for a report, it says what there was since the last."""
    ending.by_its_parent()
    context = ssl.create_default_context(cafile=str(ca)) if ca is not None else None
    poller = select.epoll()
    poller.register(pipe.fileno(), select.EPOLLIN)
    neighbours: dict[int, Neighbour] = {}
    for index in range(count):
        neighbour = Neighbour(port, index, context)
        neighbours[neighbour.sock.fileno()] = neighbour
        poller.register(neighbour.sock.fileno(), select.EPOLLIN)
    pipe.send("connected")
    samples: list[float] = []
    heard: set[int] = set()
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == pipe.fileno():
                if pipe.recv() == "stop":
                    return
                lost = sum(each.is_over for each in neighbours.values())
                pipe.send(_delays(samples, silent=count - len(heard), lost=lost))
                samples, heard = [], set()
                continue
            neighbour = neighbours[descriptor]
            for stamp in neighbour.read():
                samples.append((time.monotonic_ns() - stamp) / 1e6)
                heard.add(descriptor)
            if neighbour.is_over:
                poller.unregister(descriptor)


class Neighbours:
    """The process from outside."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._receive()

    def _receive(self) -> object:
        if not self._pipe.poll(60):
            raise TimeoutError("the neighbours do not answer")
        return self._pipe.recv()

    def report(self) -> Delays:
        """What they saw since the last report."""
        self._pipe.send("report")
        return cast(Delays, self._receive())


@contextmanager
def neighbours(port: int, count: int, *, ca: Path | None = None) -> Iterator[Neighbours]:
    """So many clients, connected; gone with the block."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=live, args=(port, count, ca, there), daemon=True)
    process.start()
    there.close()
    try:
        yield Neighbours(here)
        here.send("stop")
        process.join(10)
    finally:
        process.kill()
        process.join()


def be_polite() -> None:
    """Leave the processor to those that are measured."""
    os.nice(10)
