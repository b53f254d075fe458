"""A client of an xDS server without sockets: HTTP/2 bytes by hand into its protocol, and out of what that writes.

In: an `XdsServer`. Out: connections with streams, read and answered when a test says so.
Never: an event loop of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, cast

from envoy.service.discovery.v3 import discovery_pb2
from hpack import Decoder
from tests._core.http2_bytes import (
    DATA,
    END_STREAM,
    HEADERS,
    OPENING,
    WINDOW_UPDATE,
    Peer,
    frame,
    message,
    number,
    parse,
)

from kumafast._core import Stream
from kumafast.stream import XdsServer

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
WINDOW = 1 << 30


class MemoryTransport:
    """What a protocol needs of an asyncio transport; what is written stays here."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.is_closed = False
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.said += data

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class MemoryClient:
    """One connection with one stream."""

    def __init__(self, server: XdsServer, *, method: str = "DeltaAggregatedResources", node_id: str = "n") -> None:
        self.is_delta = method.startswith("Delta")
        self.node_id = node_id
        self.headers: list[dict[str, str]] = []
        self.received: deque[Any] = deque()
        self.transport = MemoryTransport()
        self.protocol = server._create_protocol()
        self.protocol.connection_made(cast(asyncio.Transport, self.transport))
        self._partial = b""
        self._decoder = Decoder()
        opening = OPENING + Peer(opening=b"").request(path=ADS + method)
        self.say(opening + b"".join(frame(WINDOW_UPDATE, 0, stream, number(WINDOW)) for stream in (0, 1)))
        (self.stream,) = cast("tuple[Stream]", self.protocol.served)

    def say(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def request(self, type_url: str, *, node: bool = True, error: str | None = None, **fields: Any) -> bytes:
        """The bytes of one request; `error` is the message of its `error_detail`."""
        kind = discovery_pb2.DeltaDiscoveryRequest if self.is_delta else discovery_pb2.DiscoveryRequest
        request = kind(type_url=type_url, **fields)
        if node:
            request.node.id = self.node_id
        if error is not None:
            request.error_detail.message = error
            request.error_detail.SetInParent()
        return frame(DATA, 0, 1, message(request.SerializeToString()))

    def ask(self, type_url: str, **fields: Any) -> None:
        self.say(self.request(type_url, **fields))

    def say_message(self, data: bytes) -> None:
        self.say(frame(DATA, 0, 1, message(data)))

    def end(self) -> None:
        self.say(frame(DATA, END_STREAM, 1))

    def lose(self) -> None:
        """The connection breaks."""
        self.transport.close()
        self.protocol.connection_lost(None)

    def take(self) -> None:
        """Read what has been written until now."""
        said = bytes(self.transport.said)
        self.transport.said.clear()
        for one in parse(said, self._decoder):
            if one.kind == HEADERS:
                self.headers.append(one.headers)
            elif one.kind == DATA:
                self._partial += one.content
        while len(self._partial) >= 5:
            size = int.from_bytes(self._partial[1:5], "big")
            if len(self._partial) < 5 + size:
                break
            kind = discovery_pb2.DeltaDiscoveryResponse if self.is_delta else discovery_pb2.DiscoveryResponse
            self.received.append(kind.FromString(self._partial[5 : 5 + size]))
            self._partial = self._partial[5 + size :]

    async def hear(self) -> Any:
        """The next response."""
        async with asyncio.timeout(5):
            while True:
                self.take()
                if self.received:
                    return self.received.popleft()
                await asyncio.sleep(0)

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come that was not read."""
        self.take()
        return not self.received

    @property
    def status(self) -> str | None:
        """How the stream has ended, as gRPC's number; None while it has not."""
        self.take()
        return next((headers["grpc-status"] for headers in self.headers if "grpc-status" in headers), None)
