"""The least of HTTP/2 and gRPC that a client of one stream needs: frames in, messages out, no library.

In: the bytes of a socket. Out: whole gRPC messages, an end. Never: HPACK decoding (what a server's headers say is not
needed), retries, xDS. It costs a few microseconds a message, so that one process can be thousands of Envoys.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Protocol, cast

DELTA_ADS = b"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS = 4
_STREAM = 1
_WINDOW = 1 << 24
_REFILL = 1 << 20


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that is not indexed, with a new name; both shorter than 127 bytes."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


def _opening() -> bytes:
    """What a client says first: the preface, its settings, windows, and the headers of its call."""
    # Of HPACK's static table: 0x83 is `:method: POST`, 0x86 `:scheme: http`, 4 `:path`, 1 `:authority`.
    headers = b"\x83\x86" + bytes((4, len(DELTA_ADS))) + DELTA_ADS + b"\x01\x09127.0.0.1"
    headers += _literal(b"content-type", b"application/grpc") + _literal(b"te", b"trailers")
    settings = struct.pack(">HIHI", 4, _WINDOW, 2, 0)
    window = struct.pack(">I", _WINDOW)
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, 0, 0, settings)
        + _frame(_WINDOW_UPDATE, 0, 0, window)
        + _frame(_HEADERS, _END_HEADERS, _STREAM, headers)
    )


_OPENING = _opening()


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
        self._bytes = b""
        self._messages = bytearray()
        self._unrefilled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(_OPENING)
        self._owner.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.closed()

    def send(self, message: bytes) -> None:
        """Send one message of at most a frame's length."""
        if self._transport is not None:
            self._transport.write(_frame(_DATA, 0, _STREAM, b"\0" + len(message).to_bytes(4, "big") + message))

    def pause(self) -> None:
        """Read no more: what is sent from now on stays in the sockets."""
        if self._transport is not None:
            self._transport.pause_reading()

    def abort(self) -> None:
        """Close without a word."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        buffer = self._bytes + data if self._bytes else data
        at, end = 0, len(buffer)
        while end - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if end - at - 9 < length:
                break
            self._take(buffer[at + 3], buffer[at + 4], buffer[at + 9 : at + 9 + length])
            at += 9 + length
        self._bytes = buffer[at:]

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        if kind in (_RST_STREAM, _GOAWAY) or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            self.abort()

    def _take_data(self, payload: bytes) -> None:
        self._unrefilled += len(payload)
        if self._unrefilled >= _REFILL:
            refill = struct.pack(">I", self._unrefilled)
            self._write(_frame(_WINDOW_UPDATE, 0, 0, refill) + _frame(_WINDOW_UPDATE, 0, _STREAM, refill))
            self._unrefilled = 0
        buffer = self._messages
        # In place: what has come of a long message is not copied with each of its frames.
        buffer += payload
        at, end = 0, len(buffer)
        while end - at >= 5:
            length = int.from_bytes(buffer[at + 1 : at + 5], "big")
            if end - at - 5 < length:
                break
            self._owner.received(bytes(buffer[at + 5 : at + 5 + length]))
            at += 5 + length
        del buffer[:at]

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
