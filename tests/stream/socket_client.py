"""A client of an xDS server on a socket of the same loop, plain or with TLS, that is made of bytes.

In: a port. Out: a connection with one delta stream. Never: an answer that its test does not send.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections import deque
from typing import Any, Self, cast

from hpack import Decoder
from tests._core.http2_bytes import OPENING, WINDOW_UPDATE, Peer, frame, number
from tests.stream.memory_client import ADS, WINDOW, MemoryClient, MemoryTransport


class SocketClient(MemoryClient, asyncio.Protocol):
    """One connection with one stream; what has come is in `transport.said` until it is taken."""

    def __init__(self, node_id: str) -> None:
        self.is_delta = True
        self.node_id = node_id
        self.headers: list[dict[str, str]] = []
        self.received: deque[Any] = deque()
        self.transport = MemoryTransport()
        self.is_lost = False
        self._partial = b""
        self._decoder = Decoder()

    @classmethod
    async def connect(cls, port: int, node_id: str = "n", *, context: ssl.SSLContext | None = None) -> Self:
        """Open a connection, but nothing on it."""
        name = None if context is None else "localhost"
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            lambda: cls(node_id), "127.0.0.1", port, ssl=context, server_hostname=name
        )
        return client

    def open(self, path: str = f"{ADS}DeltaAggregatedResources", *, opening: bytes = OPENING) -> None:
        """Begin with HTTP/2, or go on after part of its opening; then with the stream."""
        self.say(opening + frame(WINDOW_UPDATE, 0, 0, number(WINDOW)))
        self.say(Peer(opening=b"").request(path=path) + frame(WINDOW_UPDATE, 0, 1, number(WINDOW)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.lower = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.said += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def say(self, data: bytes) -> None:
        self.lower.write(data)

    def end_connection(self) -> None:
        """Close it in order."""
        self.lower.close()

    def reset_connection(self) -> None:
        """Have the kernel tell the server that it is gone."""
        sock = self.lower.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.lower.abort()
