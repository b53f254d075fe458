"""HTTP/2 and gRPC, byte by byte: frames to send by hand, and a reader of what a server says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpack import Decoder, Encoder

from kumafast._core import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)

REQUEST_HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Echo/Stream"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "by-hand/1"),
)


def frame(kind: int, flags: int = 0, stream: int = 0, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, content=b"".join(key.to_bytes(2, "big") + number(value) for key, value in pairs))


def message(body: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + number(len(body)) + body


OPENING = PREFACE + settings()


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """The error code of RST_STREAM or GOAWAY."""
        return int.from_bytes(self.content[4:8] if self.kind == GOAWAY else self.content[:4], "big")


def parse(data: bytes, decoder: Decoder) -> list[Frame]:
    frames = []
    while data:
        length = int.from_bytes(data[:3], "big")
        assert len(data) >= 9 + length, "a piece of a frame"
        one = Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length])
        if one.kind == HEADERS:
            one.headers = {str(name): str(value) for name, value in decoder.decode(one.content)}
        frames.append(one)
        data = data[9 + length :]
    return frames


class Peer:
    """A client made of bytes, and the connection that it talks to."""

    def __init__(self, *, opening: bytes = OPENING, **options: int) -> None:
        self.connection = Connection(**options)
        self.now = 0.0
        self._encoder = Encoder()
        self._decoder = Decoder()
        self.events: list[tuple[Any, ...]] = []
        if opening:
            self.send(opening)
            self.read()

    def send(self, *parts: bytes) -> list[tuple[Any, ...]]:
        """Events of what is sent, also kept in `events`."""
        found = self.connection.receive(b"".join(parts), self.now)
        self.events += found
        return found

    def request(self, stream: int = 1, flags: int = END_HEADERS, /, **changes: str | None) -> bytes:
        """HEADERS of a request; a change names a header with _ for - and without its colon, None leaves it out."""
        named = {name.replace("_", "-"): value for name, value in changes.items()}
        headers = []
        for name, value in REQUEST_HEADERS:
            changed = named.pop(name.lstrip(":"), value)
            if changed is not None:
                headers.append((name, changed))
        headers += [(name, value) for name, value in named.items() if value is not None]
        return frame(HEADERS, flags, stream, self._encoder.encode(headers))

    def block(self, headers: list[tuple[str, str]]) -> bytes:
        return bytes(self._encoder.encode(headers))

    def decode(self, block: bytes) -> list[tuple[str, str]]:
        return [(str(name), str(value)) for name, value in self._decoder.decode(block)]

    def read(self) -> list[Frame]:
        """All that the connection has to say now."""
        said = b""
        while buffers := self.connection.collect():
            said += b"".join(buffers)
        return parse(said, self._decoder)

    def read_only(self) -> Frame:
        frames = self.read()
        assert len(frames) == 1, frames
        return frames[0]
