"""One stream of delta ADS on an asyncio transport.

In: the bytes of a socket. Out: whole gRPC messages to an owner, an end. Never: frames; those are `client_frames`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from bench.real_wires.client_frames import ClientFrames


class Owner(Protocol):
    """Who is told what comes."""

    def opened(self) -> None:
        """The connection is there, and `send` may be called."""

    def received(self, message: bytes) -> None:
        """A message has come."""

    def closed(self) -> None:
        """The stream is over, and the connection with it."""


class ClientWire(asyncio.Protocol):
    """One connection with one call."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._frames = ClientFrames()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._owner.opened()
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.closed()

    def data_received(self, data: bytes) -> None:
        for message in self._frames.receive(data):
            self._owner.received(message)
        self._write()
        if self._frames.end:
            self.abort()

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._frames.send(message)
        self._write()

    def pause(self) -> None:
        """Read no more: what is sent from now on stays in the sockets."""
        if self._transport is not None:
            self._transport.pause_reading()

    def abort(self) -> None:
        """Close without a word."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self) -> None:
        output = self._frames.output()
        if output and self._transport is not None:
            self._transport.write(output)
