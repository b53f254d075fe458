"""A client that means no good, over a blocking socket: it sends any bytes and sees what becomes of it."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from hpack import Decoder
from tests._core.http2_bytes import (
    ACK,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    OPENING,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    frame,
    message,
    number,
)

from kumafast.snapshot.resource import CLUSTER

SERVICE = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
DELTA = SERVICE + "DeltaAggregatedResources"
SOTW = SERVICE + "StreamAggregatedResources"
CLUSTERS_DELTA = "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
_PATIENCE_S = 3.0


@dataclass(frozen=True)
class Target:
    """Whom to attack, until when, in seconds of `time.monotonic`."""

    port: int
    deadline: float
    context: ssl.SSLContext | None = None

    @property
    def left_s(self) -> float:
        return max(0.0, self.deadline - time.monotonic())


class Foe:
    """One connection. `said` is what the server said of its end: GOAWAY and RST with their code, a status, `closed`."""

    def __init__(
        self, target: Target, opening: bytes = OPENING, *, receive_bytes: int = 0, is_mute: bool = False
    ) -> None:
        """`is_mute`: not even SETTINGS and PING are acknowledged."""
        self.target = target
        self._is_mute = is_mute
        self.said: list[str] = []
        self.is_over = False
        self.received = 0
        self._buffer = b""
        self._decoder = Decoder()
        self.peer = Peer(opening=b"")
        plain = socket.socket()
        if receive_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.settimeout(_PATIENCE_S)
        try:
            plain.connect(("127.0.0.1", target.port))
            self.sock = plain if target.context is None else target.context.wrap_socket(plain)
        except OSError:
            plain.close()
            self.sock, self.is_over = plain, True
            self.said.append("not let in")
            return
        self.send(opening)

    def __enter__(self) -> Foe:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *parts: bytes) -> bool:
        """False once the server has ended the connection, or takes no more for a while."""
        if self.is_over:
            return False
        try:
            self.sock.sendall(b"".join(parts))
        except TimeoutError:
            self.said.append("not read any more")
            return False
        except OSError:
            # What the server said before it closed may still be there to be read.
            self.look(0.2)
            self._end("closed")
            return False
        return True

    def request(self, path: str = DELTA, stream: int = 1, /, **changes: str | None) -> bytes:
        return self.peer.request(stream, END_HEADERS, path=path, **changes)

    def ask(self, path: str, body: bytes, stream: int = 1) -> bool:
        """Open a stream with one message on it."""
        return self.send(self.request(path, stream), data(body, stream))

    def look(self, seconds: float) -> None:
        """Take in what the server says for so long, or until it ends the connection."""
        deadline = time.monotonic() + seconds
        while not self.is_over and not self.is_told_off and (left := deadline - time.monotonic()) > 0:
            self.sock.settimeout(max(0.001, left))
            try:
                octets = self.sock.recv(262144)
            except TimeoutError:
                break
            except OSError:
                octets = b""
            if not octets:
                self._end("closed")
                break
            self._take(octets)
        self.sock.settimeout(_PATIENCE_S)

    def wait_for(self, pattern: str, seconds: float = _PATIENCE_S) -> bool:
        """Look until something that matches was said."""
        deadline = time.monotonic() + seconds
        while not (found := any(re.match(pattern, said) for said in self.said)) and not self.is_over:
            if time.monotonic() > deadline:
                break
            self.look(0.004)
        return found

    def outcome(self, seconds: float = 0.3) -> str:
        """How it ended, the most telling first; `open` where it did not."""
        self.look(seconds)
        for kind in ("GOAWAY", "status", "http", "RST", "not"):
            for said in self.said:
                if said.startswith(kind):
                    return said
        return "closed" if self.is_over else "open"

    @property
    def is_told_off(self) -> bool:
        """Whether the server has said that it has had enough of this connection."""
        return any(said.startswith("GOAWAY") for said in self.said)

    def _end(self, how: str) -> None:
        self.is_over = True
        self.said.append(how)

    def _take(self, octets: bytes) -> None:
        self.received += len(octets)
        self._buffer += octets
        at = 0
        while len(self._buffer) - at >= 9:
            size = 9 + int.from_bytes(self._buffer[at : at + 3], "big")
            if self._buffer[at : at + 5] == b"HTTP/" or len(self._buffer) - at < size:
                break
            self._note(self._buffer[at + 3], self._buffer[at + 4], self._buffer[at + 9 : at + size])
            at += size
        self._buffer = self._buffer[at:]

    def _note(self, kind: int, flags: int, content: bytes) -> None:
        if kind == GOAWAY:
            self.said.append(f"GOAWAY {int.from_bytes(content[4:8], 'big')}")
        elif kind == RST_STREAM:
            self.said.append(f"RST {int.from_bytes(content, 'big')}")
        elif kind == SETTINGS and not flags & ACK and not self._is_mute:
            self.send(frame(SETTINGS, ACK))
        elif kind == PING and not flags & ACK and not self._is_mute:
            self.send(frame(PING, ACK, 0, content))
        elif kind == DATA:
            self.said.append("response")
        elif kind == HEADERS:
            headers: dict[str, str] = {str(name): str(value) for name, value in self._decoder.decode(content)}
            if "grpc-status" in headers:
                self.said.append(f"status {headers['grpc-status']}")
            elif headers.get(":status") != "200":
                self.said.append(f"http {headers.get(':status')}")

    def abort(self) -> None:
        """Leave with a reset of TCP rather than a farewell."""
        if not isinstance(self.sock, ssl.SSLSocket):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def data(body: bytes, stream: int = 1, flag: int = 0) -> bytes:
    """A message in as many frames as it needs."""
    whole = message(body, flag)
    return b"".join(frame(DATA, 0, stream, whole[at : at + 16384]) for at in range(0, len(whole), 16384))


def delta(node: str = "*", /, **fields: Any) -> bytes:
    """A DeltaDiscoveryRequest for clusters."""
    error = fields.pop("error", None)
    request = discovery_pb2.DeltaDiscoveryRequest(**{"type_url": CLUSTER, **fields})
    request.node.id = node
    if error is not None:
        request.error_detail.message = error
    return bytes(request.SerializeToString())


def sotw(node: str = "*", /, **fields: Any) -> bytes:
    request = discovery_pb2.DiscoveryRequest(**{"type_url": CLUSTER, **fields})
    request.node.id = node
    return bytes(request.SerializeToString())


def field(tag: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf, whatever is in it."""
    size, head = len(content), bytearray([tag << 3 | 2])
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*head, size]) + content


def windows(streams: Iterable[int], increment: int = 1 << 30) -> bytes:
    return b"".join(frame(WINDOW_UPDATE, 0, stream, number(increment)) for stream in streams)
