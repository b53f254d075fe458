"""The smallest server on the compiled wire: each stream of `/test.Echo/Stream` is sent what it sends.

What is no gRPC is answered 200 with a few words, once its request has ended.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, cast

import uvloop

from kumafast._core import END, HALF_CLOSE, HTTP_REQUEST, MESSAGE, REQUEST, RESET, Connection, Payload

METHOD = "/test.Echo/Stream"
SLOW_METHOD = "/test.Echo/Never"


class EchoProtocol(asyncio.Protocol):
    """One connection; what happened to all of them is in `seen`, for tests to look at."""

    def __init__(self, seen: list[tuple[Any, ...]], **options: int) -> None:
        self.connection = Connection(**options)
        self.seen = seen
        self.silent: set[int] = set()
        self.plain: set[int] = set()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.connection.attach(self.transport)
        self.connection.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.connection.receive(data, time.monotonic()):
            self.take(event)
        self.connection.flush()

    def take(self, event: tuple[Any, ...]) -> None:
        kind, stream = event[:2]
        if kind == REQUEST:
            self.seen.append(event)
            if event[2] == SLOW_METHOD:
                self.silent.add(stream)
                if event[4] is not None:
                    asyncio.get_running_loop().call_later(event[4], self.expire, stream)
            elif event[2] != METHOD:
                self.connection.finish(stream, 12, f"unknown method {event[2]}")
        elif kind == HTTP_REQUEST:
            self.seen.append(event)
            self.plain.add(stream)
        elif kind == HALF_CLOSE and stream in self.plain:
            self.plain.remove(stream)
            self.connection.respond(stream, 200, [(b"content-type", b"text/plain")])
            self.connection.send(stream, Payload(b"no gRPC, but served"))
            self.connection.finish(stream, 0)
        elif kind == MESSAGE and stream not in self.silent | self.plain:
            self.connection.send(stream, Payload(event[2]))
        elif kind == HALF_CLOSE and stream not in self.silent:
            self.connection.finish(stream, 0)
        elif kind in (RESET, END):
            self.seen.append(event)

    def expire(self, stream: int) -> None:
        self.connection.finish(stream, 4, "too late")
        self.connection.flush()

    def pause_writing(self) -> None:
        self.connection.pause_writing()

    def resume_writing(self) -> None:
        self.connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.attach(None)
        self.transport = None


async def main() -> None:
    seen: list[tuple[Any, ...]] = []
    server = await asyncio.get_running_loop().create_server(lambda: EchoProtocol(seen), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
