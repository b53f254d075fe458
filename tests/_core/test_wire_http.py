"""Plain requests on the wire: heads, bodies as they come, answers through windows, and clients that say too much."""

from __future__ import annotations

import pytest
from tests._core.http2_bytes import (
    CANCEL,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INTERNAL_ERROR,
    NO_ERROR,
    OPENING,
    PING,
    PREFACE,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    Peer,
    frame,
    message,
    number,
    settings,
)

from kumafast._core import HALF_CLOSE, HTTP_REQUEST, MESSAGE, RESET, Payload

WHOLE = END_HEADERS | END_STREAM
BODY_BYTES_MAX = 8 << 20


def head(peer: Peer, stream: int = 1, flags: int = END_HEADERS, **changes: str | None) -> bytes:
    return peer.request(stream, flags, **{"method": "POST", "content_type": "application/json", **changes})


def body_of(frames: list[Frame]) -> bytes:
    return b"".join(each.content for each in frames if each.kind == DATA)


def test_request_is_told_with_all_its_headers() -> None:
    peer = Peer()
    assert peer.send(head(peer, accept="application/json", content_length="2"), frame(DATA, END_STREAM, 1, b"{}")) == [
        (
            HTTP_REQUEST,
            1,
            "POST",
            b"/test.Echo/Stream",
            [
                (b":authority", b"localhost"),
                (b"te", b"trailers"),
                (b"content-type", b"application/json"),
                (b"user-agent", b"by-hand/1"),
                (b"accept", b"application/json"),
                (b"content-length", b"2"),
            ],
        ),
        (MESSAGE, 1, b"{}"),
        (HALF_CLOSE, 1),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"method": "PUT", "content_type": "application/grpc"},
        {"content_type": "application/grpc-web"},
        {"content_type": None},
        {"method": "CONNECT", "path": None, "scheme": None},
    ],
)
def test_whatever_is_no_grpc_is_a_plain_request(changes: dict[str, str | None]) -> None:
    peer = Peer()
    events = peer.send(head(peer, 1, WHOLE, **changes))
    assert [event[:2] for event in events] == [(HTTP_REQUEST, 1), (HALF_CLOSE, 1)]
    assert events[0][2] == changes.get("method", "POST")


@pytest.mark.parametrize("changes", [{"path": "/"}, {"scheme": "http", "path": None}, {"authority": None}])
def test_connect_has_an_authority_alone(changes: dict[str, str | None]) -> None:
    peer = Peer()
    assert peer.send(head(peer, 1, WHOLE, **{"method": "CONNECT", "path": None, "scheme": None, **changes})) == []
    assert peer.read_only().kind == RST_STREAM


def test_answer_is_head_body_and_end() -> None:
    peer = Peer()
    peer.send(head(peer, 1, WHOLE))
    assert not peer.connection.send(1, Payload(b"a body before its head"))
    assert peer.connection.respond(1, 404, [(b"content-type", b"text/plain")])
    assert not peer.connection.respond(1, 200, [])
    assert peer.connection.send(1, Payload(b"no such "))
    assert peer.connection.send(1, Payload(b""))
    assert peer.connection.send(1, Payload(b"path"))
    assert peer.connection.queued(1) == 12
    assert peer.connection.finish(1, 0)
    frames = peer.read()
    assert (frames[0].kind, frames[0].flags) == (HEADERS, END_HEADERS)
    assert frames[0].headers == {":status": "404", "content-type": "text/plain"}
    assert body_of(frames) == b"no such path"
    assert (frames[-1].kind, frames[-1].flags, frames[-1].content) == (DATA, END_STREAM, b"")
    assert peer.connection.stream_count == 0


def test_answer_without_a_body_is_one_frame() -> None:
    peer = Peer()
    peer.send(head(peer, 1, WHOLE))
    peer.connection.respond(1, 204, [])
    peer.connection.finish(1, 0)
    assert (frame_ := peer.read_only()).flags == WHOLE
    assert frame_.headers == {":status": "204"}


def test_grpc_and_plain_requests_share_a_connection() -> None:
    peer = Peer()
    peer.send(peer.request(1), head(peer, 3, WHOLE), frame(DATA, 0, 1, message(b"to gRPC")))
    assert [event[:2] for event in peer.events] == [(0, 1), (HTTP_REQUEST, 3), (HALF_CLOSE, 3), (MESSAGE, 1)]
    assert not peer.connection.respond(1, 200, []), "gRPC is answered by its messages"
    shared = Payload(b"to both")
    peer.connection.respond(3, 200, [])
    for stream in (1, 3):
        assert peer.connection.send(stream, shared)
    frames = peer.read()
    assert body_of([each for each in frames if each.stream == 1]) == message(b"to both")
    assert body_of([each for each in frames if each.stream == 3]) == b"to both"


def test_answer_goes_through_narrow_windows() -> None:
    peer = Peer(opening=PREFACE + settings((4, 0)))
    peer.send(head(peer, 1, WHOLE))
    peer.connection.respond(1, 200, [])
    peer.connection.send(1, Payload(b"abcdef"))
    peer.connection.finish(1, 0)
    assert [each.kind for each in peer.read()] == [HEADERS], "a head needs no window"
    said = b""
    for _ in range(3):
        peer.send(frame(WINDOW_UPDATE, 0, 1, number(2)))
        said += body_of(peer.read())
    assert said == b"abcdef"
    assert peer.connection.stream_count == 0


def test_body_comes_in_few_pieces_and_without_the_empty_ones() -> None:
    peer = Peer()
    octets = bytes(range(200))
    peer.send(head(peer), *[frame(DATA, 0, 1, octets[at : at + 1]) for at in range(200)], frame(DATA, 0, 1, b""))
    assert [(event[0], event[-1]) for event in peer.events[1:]] == [(MESSAGE, octets)]


def test_windows_are_given_back_for_bodies() -> None:
    peer = Peer()
    peer.send(head(peer))
    for _ in range(64):
        peer.send(frame(DATA, 0, 1, bytes(16384)))
    given = [int.from_bytes(each.content, "big") for each in peer.read() if each.stream == 1]
    assert sum(given) == 64 * 16384


def test_body_that_is_too_large_is_refused() -> None:
    peer = Peer()
    peer.send(head(peer))
    while not any(event[0] == RESET for event in peer.events):
        peer.send(frame(DATA, 0, 1, bytes(16384)))
        frames = peer.read()
    assert sum(len(event[2]) for event in peer.events if event[0] == MESSAGE) == BODY_BYTES_MAX
    assert peer.events[-1] == (RESET, 1, CANCEL, "a body is larger than the server takes")
    assert frames[0].headers == {":status": "413", "content-length": "0"}
    assert not peer.connection.respond(1, 200, [])
    # One whose answer has begun cannot be told in words.
    peer.send(head(peer, 3))
    peer.connection.respond(3, 200, [])
    while not any(event[:2] == (RESET, 3) for event in peer.events):
        peer.send(frame(DATA, 0, 3, bytes(16384)))
        frames = peer.read()
    assert [each.code for each in frames if each.kind == RST_STREAM] == [CANCEL]


def test_bodies_without_answers_are_bounded_together() -> None:
    peer = Peer()
    body = [frame(DATA, 0, 1, bytes(16384)) for _ in range(BODY_BYTES_MAX // 16384)]
    for stream in (1, 3, 5, 7):
        peer.send(head(peer, stream))
        for part in body:
            peer.send(part[:5] + number(stream) + part[9:])
            peer.read()
    assert not any(event[0] == RESET for event in peer.events)
    peer.send(head(peer, 9), frame(DATA, 0, 9, b"one more"))
    assert peer.events[-1][:3] == (RESET, 9, CANCEL)
    assert peer.read_only().headers[":status"] == "503"
    # Answered, the others make room again; so does one that is thrown away.
    peer.connection.respond(1, 200, [])
    peer.connection.finish(1, 0)
    peer.send(frame(RST_STREAM, 0, 3, bytes(4)))
    for part in (head(peer, 11), *(part[:5] + number(11) + part[9:] for part in body), head(peer, 13)):
        peer.send(part)
        peer.read()
    peer.send(frame(DATA, 0, 13, b"one more"))
    assert peer.events[-1] == (MESSAGE, 13, b"one more")


def test_client_may_end_its_request_after_the_answer() -> None:
    peer = Peer()
    peer.send(head(peer))
    peer.connection.respond(1, 401, [])
    peer.connection.finish(1, 0)
    assert peer.read_only().flags == WHOLE
    assert peer.connection.stream_count == 1
    assert not peer.connection.finish(1, 0)
    assert peer.send(frame(DATA, 0, 1, b"late"), frame(DATA, END_STREAM, 1, b"end")) == []
    assert peer.read() == []
    assert peer.connection.stream_count == 0


def test_client_that_goes_on_after_the_answer_is_reset() -> None:
    peer = Peer()
    peer.send(head(peer))
    peer.connection.respond(1, 413, [])
    peer.connection.finish(1, 0)
    peer.read()
    resets: list[Frame] = []
    sent = 0
    while not resets:
        assert peer.send(frame(DATA, 0, 1, bytes(16384))) == []
        resets = [each for each in peer.read() if each.kind == RST_STREAM]
        sent += 16384
    assert [each.code for each in resets] == [NO_ERROR]
    assert sent == BODY_BYTES_MAX + 16384
    assert peer.connection.stream_count == 0


def test_drain_waits_for_no_request_that_is_answered() -> None:
    peer = Peer()
    peer.send(head(peer), head(peer, 3))
    peer.connection.respond(1, 200, [])
    peer.connection.finish(1, 0)
    peer.read()
    peer.connection.drain()
    peer.connection.drain()
    assert [each.kind for each in peer.read()] == [GOAWAY, PING, GOAWAY, RST_STREAM]
    assert not peer.connection.want_close
    peer.connection.respond(3, 200, [])
    peer.connection.finish(3, 0)
    assert [(each.kind, each.stream) for each in peer.read()] == [(HEADERS, 3), (RST_STREAM, 3)]
    assert peer.connection.want_close


@pytest.mark.parametrize("has_begun", [False, True])
def test_answer_that_fails(has_begun: bool) -> None:
    peer = Peer()
    peer.send(head(peer, 1, WHOLE))
    if has_begun:
        peer.connection.respond(1, 200, [(b"content-length", b"100")])
        peer.connection.send(1, Payload(b"a part"))
        peer.read()
    assert peer.connection.finish(1, 13)
    only = peer.read_only()
    assert only.code == INTERNAL_ERROR if has_begun else only.headers[":status"] == "500"
    assert peer.connection.stream_count == 0


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (100, []),
        (600, []),
        (-1, []),
        (200, [(b"", b"x")]),
        (200, [(b"Upper", b"x")]),
        (200, [(b":status", b"200")]),
        (200, [(b"connection", b"close")]),
        (200, [(b"transfer-encoding", b"chunked")]),
        (200, [(b"x", b"a\r\nb: c")]),
        (200, [(b"x", b" padded")]),
        (200, [(b"x", b"v" * 9000)]),
    ],
)
def test_heads_that_http2_forbids(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    peer = Peer()
    peer.send(head(peer, 1, WHOLE))
    with pytest.raises(ValueError, match="an answer cannot begin"):
        peer.connection.respond(1, status, headers)
    assert peer.connection.respond(1, 200, [])


def test_headers_of_another_kind() -> None:
    peer = Peer(opening=OPENING)
    for bad in ([("x", "y")], [(b"x",)], [b"xy"], None, 7):
        with pytest.raises((TypeError, ValueError)):
            peer.connection.respond(1, 200, bad)  # type: ignore[arg-type]
