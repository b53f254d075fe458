"""The least of HTTP/2 and gRPC that a client of one stream needs: bytes in, messages out, and what to answer.

In: the bytes of a socket, messages to send. Out: whole gRPC messages, bytes for the socket, an end. Never: sockets,
HPACK decoding (what a server's headers say is not needed), retries, xDS. It costs a few microseconds a message, so that
one process can be thousands of Envoys, whatever moves its bytes.
"""

from __future__ import annotations

import struct

DELTA_ADS = b"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS = 4
_INITIAL_WINDOW_SIZE, _ENABLE_PUSH = 4, 2
_STREAM = 1
_FRAME_MAX = 16_384
"""What every server takes (RFC 9113, 6.5.2), whatever more it allows."""
_FIRST_WINDOW = 65_535
_WINDOW = 1 << 24
_REFILL = 1 << 20
_ENDS = {_RST_STREAM: "reset", _GOAWAY: "goaway", _DATA: "end of stream", _HEADERS: "trailers"}


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that is not indexed, with a new name; both shorter than 127 bytes."""
    return bytes((0, len(name))) + name + bytes((len(value),)) + value


def _opening(scheme: int) -> bytes:
    """What a client says first: the preface, its settings, windows, and the headers of its call."""
    # Of HPACK's static table: 0x83 is `:method: POST`, 4 `:path`, 1 `:authority`.
    headers = bytes((0x83, scheme, 4, len(DELTA_ADS))) + DELTA_ADS + b"\x01\x09127.0.0.1"
    headers += _literal(b"content-type", b"application/grpc") + _literal(b"te", b"trailers")
    settings = struct.pack(">HIHI", _INITIAL_WINDOW_SIZE, _WINDOW, _ENABLE_PUSH, 0)
    window = struct.pack(">I", _WINDOW)
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, 0, 0, settings)
        + _frame(_WINDOW_UPDATE, 0, 0, window)
        + _frame(_HEADERS, _END_HEADERS, _STREAM, headers)
    )


# `:scheme: http` and `:scheme: https` of the static table.
_OPENING, _OPENING_TLS = _opening(0x86), _opening(0x87)


class ClientFrames:
    """One connection with one call of delta ADS. `output` is to be written after each other method."""

    __slots__ = (
        "_bytes",
        "_connection_window",
        "_first_window",
        "_messages",
        "_out",
        "_stream_window",
        "_unrefilled",
        "_unsent",
        "end",
    )

    def __init__(self, *, is_tls: bool = False) -> None:
        self.end = ""
        """Why the call is over; empty while it is not."""
        self._out = bytearray(_OPENING_TLS if is_tls else _OPENING)
        self._bytes = b""
        self._messages = bytearray()
        self._unrefilled = 0
        self._unsent = bytearray()
        self._connection_window = self._stream_window = self._first_window = _FIRST_WINDOW

    def send(self, message: bytes) -> None:
        """Send one message, in frames, as far as the server's windows allow; the rest when they open."""
        self._unsent += b"\0" + len(message).to_bytes(4, "big") + message
        self._flush()

    def output(self) -> bytes:
        """What is to be written to the socket now; it is handed out once."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes) -> list[bytes]:
        """Take what the socket has read; the whole messages in it, in order."""
        buffer = self._bytes + data if self._bytes else data
        messages: list[bytes] = []
        at, end = 0, len(buffer)
        while end - at >= 9 and not self.end:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if end - at - 9 < length:
                break
            # The highest bit of a stream's number is reserved.
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
            self._take(buffer[at + 3], buffer[at + 4], stream, buffer[at + 9 : at + 9 + length], messages)
            at += 9 + length
        self._bytes = buffer[at:]
        return messages

    def _take(self, kind: int, flags: int, stream: int, payload: bytes, messages: list[bytes]) -> None:
        if kind == _DATA:
            self._take_data(payload, messages)
        elif kind == _WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big"))
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, payload)
        if kind in (_RST_STREAM, _GOAWAY) or (kind in (_DATA, _HEADERS) and flags & _END_STREAM):
            self.end = _ENDS[kind]

    def _take_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW_SIZE:
                # It moves the windows of streams that are open already (RFC 9113, 6.9.2), not the connection's.
                self._stream_window += value - self._first_window
                self._first_window = value
        self._out += _frame(_SETTINGS, _ACK, 0, b"")
        self._flush()

    def _widen(self, stream: int, by: int) -> None:
        if stream:
            self._stream_window += by
        else:
            self._connection_window += by
        self._flush()

    def _flush(self) -> None:
        while self._unsent:
            size = min(len(self._unsent), _FRAME_MAX, self._connection_window, self._stream_window)
            if size <= 0:
                return
            self._out += _frame(_DATA, 0, _STREAM, bytes(self._unsent[:size]))
            del self._unsent[:size]
            self._connection_window -= size
            self._stream_window -= size

    def _take_data(self, payload: bytes, messages: list[bytes]) -> None:
        self._unrefilled += len(payload)
        if self._unrefilled >= _REFILL:
            refill = struct.pack(">I", self._unrefilled)
            self._out += _frame(_WINDOW_UPDATE, 0, 0, refill) + _frame(_WINDOW_UPDATE, 0, _STREAM, refill)
            self._unrefilled = 0
        buffer = self._messages
        # In place: what has come of a long message is not copied with each of its frames.
        buffer += payload
        at, end = 0, len(buffer)
        while end - at >= 5:
            length = int.from_bytes(buffer[at + 1 : at + 5], "big")
            if end - at - 5 < length:
                break
            messages.append(bytes(buffer[at + 5 : at + 5 + length]))
            at += 5 + length
        del buffer[:at]
