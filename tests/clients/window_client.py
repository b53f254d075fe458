"""A client made of bytes on a real socket that opens its windows as little as it is told to."""

from __future__ import annotations

import socket
import time
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from hpack import Encoder
from tests._core.http2_bytes import (
    ACK,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    REQUEST_HEADERS,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    message,
    number,
    settings,
)

_INITIAL_WINDOW_SIZE = 4
_WINDOW_AT_FIRST = 65_535
_FRAME_HEAD = 9
_MESSAGE_HEAD = 5
DEADLINE_S = 10.0
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"


class WindowClient:
    """One connection. The window of each stream begins with `window`; the connection's is widened by `widen` alone."""

    def __init__(self, port: int, *, window: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encoder = Encoder()
        self._buffer = b""
        self._streams = 0
        self.data: dict[int, bytearray] = {}
        self._deltas: dict[int, bool] = {}
        self._socket.sendall(PREFACE + settings((_INITIAL_WINDOW_SIZE, window)))

    def close(self) -> None:
        """Break the connection off."""
        self._socket.close()

    def open_stream(self, node: str, type_url: str, name: str, *, is_delta: bool) -> int:
        """A stream on which a first request asks for one resource by its name; its number."""
        stream, self._streams = self._streams * 2 + 1, self._streams + 1
        path = ADS + ("DeltaAggregatedResources" if is_delta else "StreamAggregatedResources")
        headers = [(key, path if key == ":path" else value) for key, value in REQUEST_HEADERS]
        self.data[stream], self._deltas[stream] = bytearray(), is_delta
        self._socket.sendall(frame(HEADERS, END_HEADERS, stream, self._encoder.encode(headers)))
        names = "resource_names_subscribe" if is_delta else "resource_names"
        self.say(stream, type_url=type_url, node={"id": node}, **{names: [name]})
        return stream

    def say(self, stream: int, **fields: Any) -> None:
        """One request on a stream."""
        delta, sotw = discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DiscoveryRequest
        request = (delta if self._deltas[stream] else sotw)(**fields)
        self._socket.sendall(frame(DATA, 0, stream, message(request.SerializeToString())))

    def widen(self, stream: int, by: int) -> None:
        """Let the server send so many bytes more; stream 0 is the connection."""
        self._socket.sendall(frame(WINDOW_UPDATE, 0, stream, number(by)))

    def read(self, stream: int, count: int) -> None:
        """Read until a stream has had so many bytes in all."""
        deadline = time.monotonic() + DEADLINE_S
        while len(self.data[stream]) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(self.data[stream])} of {count} bytes came"
            self._receive(left)

    def read_for(self, seconds: float) -> None:
        """Read whatever comes for a while."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._receive(left)

    def read_message(self, stream: int) -> Any:
        """Read one whole response of a stream, and take it from `data`."""
        self.read(stream, _MESSAGE_HEAD)
        size = _MESSAGE_HEAD + int.from_bytes(self.data[stream][1:_MESSAGE_HEAD], "big")
        self.read(stream, size)
        body = bytes(self.data[stream][_MESSAGE_HEAD:size])
        del self.data[stream][:size]
        kind = discovery_pb2.DeltaDiscoveryResponse if self._deltas[stream] else discovery_pb2.DiscoveryResponse
        return kind.FromString(body)

    def _receive(self, timeout_s: float) -> None:
        self._socket.settimeout(timeout_s)
        try:
            received = self._socket.recv(1 << 18)
        except TimeoutError:
            return
        finally:
            self._socket.settimeout(DEADLINE_S)
        assert received, "the server closed the connection"
        self._buffer += received
        while len(self._buffer) >= _FRAME_HEAD:
            end = _FRAME_HEAD + int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < end:
                return
            kind, flags = self._buffer[3], self._buffer[4]
            stream, content = int.from_bytes(self._buffer[5:9], "big"), self._buffer[_FRAME_HEAD:end]
            self._buffer = self._buffer[end:]
            self._take(kind, flags, stream, content)

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        assert kind not in (RST_STREAM, GOAWAY), f"the server ended it: {content!r}"
        if kind == DATA:
            self.data[stream] += content
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._socket.sendall(frame(kind, ACK, 0, content if kind == PING else b""))
