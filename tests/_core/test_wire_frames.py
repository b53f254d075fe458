"""What RFC 9113 asks of a server, frame by frame: first what must work, then what must be refused, and how."""

from __future__ import annotations

import pytest
from tests._core.http2_bytes import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    OPENING,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Peer,
    frame,
    message,
    number,
    settings,
)

from kumafast._core import END, HALF_CLOSE, MESSAGE, REQUEST, RESET, Payload

REQUEST_EVENT = (
    REQUEST,
    1,
    "/test.Echo/Stream",
    {
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "by-hand/1",
    },
    None,
)


def test_server_speaks_first_and_acknowledges() -> None:
    """3.4: SETTINGS come first, from both; 6.5.3: each is acknowledged."""
    peer = Peer(opening=b"")
    first, window = peer.read()
    assert (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
    assert (window.kind, window.stream, number(1048576 - 65535)) == (WINDOW_UPDATE, 0, window.content)
    assert peer.send(OPENING) == []
    acknowledgement = peer.read_only()
    assert (acknowledgement.kind, acknowledgement.flags, acknowledgement.content) == (SETTINGS, ACK, b"")
    assert peer.send(frame(SETTINGS, ACK)) == []
    assert peer.read() == []
    assert not peer.connection.want_close


def test_request_message_answer_and_end() -> None:
    """8.1: headers once, DATA, trailers that end the stream; a client's end is answered without RST_STREAM."""
    peer = Peer()
    assert peer.send(peer.request(), frame(DATA, 0, 1, message(b"hello"))) == [REQUEST_EVENT, (MESSAGE, 1, b"hello")]
    assert peer.connection.send(1, Payload(b"one"))
    assert peer.connection.send(1, Payload(b""))
    headers, one, empty = peer.read()
    assert (headers.kind, headers.flags, headers.headers) == (
        HEADERS,
        END_HEADERS,
        {":status": "200", "content-type": "application/grpc"},
    )
    assert (one.kind, one.flags, one.stream, one.content) == (DATA, 0, 1, message(b"one"))
    assert empty.content == message(b"")
    assert peer.send(frame(DATA, END_STREAM, 1)) == [(HALF_CLOSE, 1)]
    assert peer.connection.finish(1, 0)
    trailers = peer.read_only()
    assert (trailers.kind, trailers.flags) == (HEADERS, END_HEADERS | END_STREAM)
    assert trailers.headers == {"grpc-status": "0"}
    assert peer.connection.stream_count == 0
    assert not peer.connection.finish(1, 0)
    assert not peer.connection.send(1, Payload(b"late"))


def test_end_before_the_client_s_resets_in_peace() -> None:
    """8.1: a complete answer before the request's end is followed by RST_STREAM with NO_ERROR; late DATA is ignored."""
    peer = Peer()
    peer.send(peer.request())
    peer.connection.finish(1, 5, "no 100 % of ü")
    trailers, reset = peer.read()
    assert trailers.headers == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "no 100 %25 of %C3%BC",
    }
    assert (reset.kind, reset.stream, reset.code) == (RST_STREAM, 1, NO_ERROR)
    assert peer.send(frame(DATA, 0, 1, message(b"late"))) == []
    assert peer.send(peer.request(1, END_HEADERS | END_STREAM)) == []
    assert peer.read() == []
    # Once the client has reset it too, it must not go on (5.1).
    assert peer.send(frame(RST_STREAM, 0, 1, number(CANCEL)), frame(DATA, 0, 1, b"x")) == []
    assert peer.read_only().code == STREAM_CLOSED


def test_padding_priority_continuation_and_unknown_frames() -> None:
    """6.1, 6.2, 5.3, 6.10, 5.5: padding is taken off, priorities and what is unknown are passed over."""
    peer = Peer()
    block = peer.request()[9:]
    padded = bytes((3,)) + number(0x80000003) + b"\x10" + block[:7] + bytes(3)
    events = peer.send(
        frame(PRIORITY, 0, 1, number(3) + b"\x10"),
        frame(0xEE, 0xFF, 1, b"anything"),
        frame(HEADERS, PADDED | PRIORITIZED, 1, padded),
        frame(CONTINUATION, 0, 1, block[7:20]),
        frame(CONTINUATION, 0, 1),
        frame(CONTINUATION, END_HEADERS, 1, block[20:]),
        frame(DATA, PADDED, 1, b"\x04" + message(b"x") + bytes(4)),
        frame(SETTINGS, 0, 0, b"\x00\xff" + number(7)),
    )
    assert events == [REQUEST_EVENT, (MESSAGE, 1, b"x")]


def test_ping_is_answered_with_its_octets() -> None:
    peer = Peer()
    peer.send(frame(PING, 0, 0, b"12345678"), frame(PING, ACK, 0, b"12345678"))
    answer = peer.read_only()
    assert (answer.kind, answer.flags, answer.content) == (PING, ACK, b"12345678")


def test_windows_bound_what_is_sent() -> None:
    """5.2, 6.9: the smaller of both windows counts; SETTINGS move streams' windows, below nothing too."""
    peer = Peer(opening=PREFACE + settings((4, 10)))
    peer.send(peer.request())
    peer.connection.send(1, Payload(b"0123456789"))
    assert [item.content for item in peer.read()[1:]] == [message(b"0123456789")[:10]]
    assert peer.connection.queued(1) == 5
    peer.send(settings((4, 3)))
    assert [item.kind for item in peer.read()] == [SETTINGS]
    peer.send(frame(WINDOW_UPDATE, 0, 1, number(7)))
    assert peer.read() == []
    peer.send(frame(WINDOW_UPDATE, 0, 1, number(2)))
    assert peer.read_only().content == b"56"
    peer.send(settings((4, 100)))
    assert peer.read()[1].content == b"789"
    assert peer.connection.queued(1) == 0


def test_connection_window_bounds_all_streams_together() -> None:
    peer = Peer(opening=PREFACE + settings((4, 0x7FFFFFFF)))
    peer.send(peer.request(1), peer.request(3))
    big = Payload(bytes(60_000))
    for stream in (1, 3):
        peer.connection.send(stream, big)
    sent = [item for item in peer.read() if item.kind == DATA]
    assert sum(len(item.content) for item in sent) == 65535
    assert {item.stream for item in sent} == {1, 3}, "each stream has its turn"
    assert max(len(item.content) for item in sent) == 16384
    peer.send(frame(WINDOW_UPDATE, 0, 0, number(1_000_000)))
    sent += [item for item in peer.read() if item.kind == DATA]
    assert sum(len(item.content) for item in sent) == 2 * (60_000 + 5)


def test_larger_frames_are_used_where_the_client_takes_them() -> None:
    peer = Peer(opening=PREFACE + settings((4, 1 << 20), (5, 40_000)))
    peer.send(peer.request(), frame(WINDOW_UPDATE, 0, 0, number(1 << 20)))
    peer.connection.send(1, Payload(bytes(100_000)))
    assert [len(item.content) for item in peer.read() if item.kind == DATA] == [40_000, 40_000, 20_005]


def test_windows_are_given_back_in_bulk() -> None:
    """6.9.1: half a window used is given back, padding included, for the stream and the connection."""
    peer = Peer()
    peer.send(peer.request())
    chunk = frame(DATA, PADDED, 1, b"\xff" + bytes(16384 - 1))
    peer.send(frame(DATA, 0, 1, message(bytes(4_000_000))[:5]))
    given = []
    for _ in range(40):
        peer.send(chunk)
        given += peer.read()
    assert {(item.stream, item.kind) for item in given} == {(0, WINDOW_UPDATE), (1, WINDOW_UPDATE)}
    amounts = {id_: [item.code for item in given if item.stream == id_] for id_ in (0, 1)}
    assert amounts == {0: [5 + 32 * 16384], 1: [5 + 8 * 16384, *[8 * 16384] * 4]}


def test_table_size_that_shrinks_is_acknowledged_in_the_next_block() -> None:
    """RFC 7541 4.2: the next header block begins with a size update; one that does not shrink needs none."""
    for size, first in ((0, 0x20), (4096, 0x88), (100, 0x20), (65536, 0x88)):
        peer = Peer(opening=PREFACE + settings((1, size)))
        peer.send(peer.request(1), peer.request(3))
        for stream in (1, 3):
            peer.connection.finish(stream, 0)
        blocks = [item.content for item in peer.read() if item.kind == HEADERS]
        assert [block[0] for block in blocks] == [first, 0x88]


def test_cancel_ends_one_stream() -> None:
    peer = Peer()
    peer.send(peer.request(1), peer.request(3))
    assert peer.send(frame(RST_STREAM, 0, 1, number(CANCEL))) == [(RESET, 1, CANCEL, "")]
    assert peer.connection.stream_count == 1
    peer.connection.send(3, Payload(b"x"))
    assert [item.stream for item in peer.read()] == [3, 3]


def test_our_reset_drops_what_is_queued() -> None:
    peer = Peer()
    peer.send(peer.request())
    payload = Payload(b"x")
    peer.connection.send(1, payload)
    assert payload.references == 2
    assert peer.connection.reset(1, CANCEL)
    assert not peer.connection.reset(1, CANCEL)
    assert payload.references == 1
    assert (peer.read_only().kind, peer.connection.stream_count) == (RST_STREAM, 0)


def test_drain_goes_in_two_steps() -> None:
    """6.8: first no number is excluded, so that requests on their way are served; then those after the last are."""
    peer = Peer()
    peer.send(peer.request(1))
    peer.connection.drain()
    goaway, ping = peer.read()
    assert (goaway.kind, goaway.content) == (GOAWAY, number(0x7FFFFFFF) + number(NO_ERROR))
    assert ping.kind == PING
    assert peer.send(peer.request(3))[0][:2] == (REQUEST, 3)
    peer.send(frame(PING, ACK, 0, ping.content))
    assert peer.read_only().content == number(3) + number(NO_ERROR)
    assert peer.send(peer.request(5)) == []
    refused = peer.read_only()
    assert (refused.kind, refused.stream, refused.code) == (RST_STREAM, 5, REFUSED_STREAM)
    for stream in (1, 3):
        assert not peer.connection.want_close
        peer.connection.finish(stream, 14)
        peer.read()
    assert peer.connection.want_close


def test_drain_twice_waits_for_no_answer() -> None:
    peer = Peer()
    peer.connection.drain()
    peer.connection.drain()
    assert [item.kind for item in peer.read()] == [GOAWAY, PING, GOAWAY]
    assert peer.connection.want_close


HEADERS_OF_ONE = (END_HEADERS, 1)
CONNECTION_ERRORS: dict[str, tuple[bytes, int]] = {
    "3.4 another protocol": (b"", PROTOCOL_ERROR),
    "4.2 a frame too large": (frame(DATA, 0, 1, bytes(16385)), FRAME_SIZE_ERROR),
    "4.3 a block that is not HPACK": (frame(HEADERS, *HEADERS_OF_ONE, b"\xff\xff\xff\xff\xff"), COMPRESSION_ERROR),
    "4.3 a block interrupted by another frame": (frame(HEADERS, 0, 1) + frame(PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
    "4.3 a block of another stream": (frame(HEADERS, 0, 1) + frame(CONTINUATION, 4, 3), PROTOCOL_ERROR),
    "5.1 DATA for an idle stream": (frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    "5.1 RST_STREAM for an idle stream": (frame(RST_STREAM, 0, 1, number(0)), PROTOCOL_ERROR),
    "5.1 WINDOW_UPDATE for an idle stream": (frame(WINDOW_UPDATE, 0, 1, number(1)), PROTOCOL_ERROR),
    "5.1.1 an even number": (frame(HEADERS, END_HEADERS, 2), PROTOCOL_ERROR),
    "5.1.1 HEADERS for no stream": (frame(HEADERS, END_HEADERS, 0), PROTOCOL_ERROR),
    "6.1 DATA for no stream": (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "6.1 padding as long as DATA": (frame(DATA, PADDED, 1, b"\x01"), PROTOCOL_ERROR),
    "6.1 padded without a length": (frame(DATA, PADDED, 1), PROTOCOL_ERROR),
    "6.2 padding longer than HEADERS": (frame(HEADERS, PADDED | END_HEADERS, 1, b"\x09\x82"), PROTOCOL_ERROR),
    "6.2 HEADERS without room for priority": (frame(HEADERS, PRIORITIZED, 1, bytes(4)), FRAME_SIZE_ERROR),
    "6.3 PRIORITY for no stream": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    "6.3 PRIORITY of another size": (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "6.4 RST_STREAM for no stream": (frame(RST_STREAM, 0, 0, number(0)), PROTOCOL_ERROR),
    "6.4 RST_STREAM of another size": (frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "6.5 SETTINGS for a stream": (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "6.5 SETTINGS of another size": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "6.5 an acknowledgement with content": (frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    "6.5.2 push neither 0 nor 1": (settings((2, 2)), PROTOCOL_ERROR),
    "6.5.2 a window too large": (settings((4, 0x80000000)), FLOW_CONTROL_ERROR),
    "6.5.2 frames too small": (settings((5, 16383)), PROTOCOL_ERROR),
    "6.5.2 frames too large": (settings((5, 16777216)), PROTOCOL_ERROR),
    "6.6 a push by the client": (frame(PUSH_PROMISE, END_HEADERS, 1, number(2)), PROTOCOL_ERROR),
    "6.7 PING for a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "6.7 PING of another size": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "6.8 GOAWAY for a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "6.8 GOAWAY of another size": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "6.9 WINDOW_UPDATE of another size": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "6.9 a window update of nothing": (frame(WINDOW_UPDATE, 0, 0, number(0)), PROTOCOL_ERROR),
    "6.9.1 a window beyond 2**31 - 1": (frame(WINDOW_UPDATE, 0, 0, number(0x7FFFFFFF)), FLOW_CONTROL_ERROR),
    "6.10 CONTINUATION of nothing": (frame(CONTINUATION, END_HEADERS, 1), PROTOCOL_ERROR),
}


@pytest.mark.parametrize("rule", CONNECTION_ERRORS)
def test_connection_errors(rule: str) -> None:
    data, code = CONNECTION_ERRORS[rule]
    peer = Peer(opening=OPENING if data else b"PRI * HTTP/2.0\r\n\r\nSX")
    if data:
        assert not peer.send(data)[:-1]
    kind, stream, found, why = peer.events[-1]
    assert (kind, stream, found) == (END, 0, code)
    if data:
        goaway = peer.read()[-1]
        assert (goaway.kind, goaway.code, goaway.content[8:].decode()) == (GOAWAY, code, why)
    assert peer.connection.want_close
    # Nothing that comes later has any effect.
    assert peer.send(frame(PING, 0, 0, bytes(8))) == []
    assert peer.read() == []


def test_first_frame_must_be_settings() -> None:
    for first in (frame(PING, 0, 0, bytes(8)), frame(SETTINGS, ACK)):
        peer = Peer(opening=PREFACE)
        assert peer.send(first)[0][:3] == (END, 0, PROTOCOL_ERROR)


STREAM_ERRORS: dict[str, tuple[list[bytes], int]] = {
    "5.1 DATA after the client's end": ([frame(DATA, END_STREAM, 1), frame(DATA, 0, 1, b"x")], STREAM_CLOSED),
    "6.3 PRIORITY of another size": ([frame(PRIORITY, 0, 1, bytes(6))], FRAME_SIZE_ERROR),
    "6.9 a window update of nothing": ([frame(WINDOW_UPDATE, 0, 1, number(0))], PROTOCOL_ERROR),
    "6.9.1 a window beyond 2**31 - 1": ([frame(WINDOW_UPDATE, 0, 1, number(0x7FFFFFFF))], FLOW_CONTROL_ERROR),
}


@pytest.mark.parametrize("rule", STREAM_ERRORS)
def test_stream_errors(rule: str) -> None:
    parts, code = STREAM_ERRORS[rule]
    peer = Peer()
    peer.send(peer.request(1), peer.request(3))
    assert peer.send(*parts)[-1] == (RESET, 1, code, "")
    reset = peer.read_only()
    assert (reset.kind, reset.stream, reset.code) == (RST_STREAM, 1, code)
    peer.connection.send(3, Payload(b"others go on"))
    assert [item.stream for item in peer.read()] == [3, 3]


def test_frames_for_closed_streams() -> None:
    """5.1: DATA is answered by STREAM_CLOSED once and then passed over; HEADERS end the connection."""
    peer = Peer()
    peer.send(peer.request(), frame(RST_STREAM, 0, 1, number(CANCEL)))
    assert peer.send(frame(DATA, 0, 1, b"x"), frame(WINDOW_UPDATE, 0, 1, number(1)), frame(DATA, 0, 1, b"x")) == []
    answer = peer.read_only()
    assert (answer.kind, answer.code) == (RST_STREAM, STREAM_CLOSED)
    peer = Peer()
    peer.send(peer.request(), frame(RST_STREAM, 0, 1, number(CANCEL)))
    assert peer.send(peer.request(1))[-1][:3] == (END, 0, STREAM_CLOSED)


def test_more_than_the_windows_is_refused() -> None:
    """6.9.1: a client that sends more than it may; a stream of which nothing is read gets no more room."""
    peer = Peer()
    peer.send(peer.request())
    peer.connection.finish(1, 0)
    # Not collected: the stream is still there, and is given nothing back.
    chunk = frame(DATA, 0, 1, bytes(16384))
    assert peer.send(*[chunk] * 16) == []
    peer.send(chunk)
    assert [(item.kind, item.code) for item in peer.read() if item.stream == 1] == [(RST_STREAM, FLOW_CONTROL_ERROR)]


BAD_REQUESTS: dict[str, list[tuple[str, str]]] = {
    "8.2.1 an uppercase name": [("X-Upper", "x")],
    "8.2.1 an empty name": [("", "x")],
    "8.2.1 a blank in a name": [("a b", "x")],
    "8.2.1 a line's end in a value": [("a", "b\r\nc: d")],
    "8.2.1 NUL in a value": [("a", "b\0c")],
    "8.2.1 a blank at the end of a value": [("a", "b ")],
    "8.2.2 connection": [("connection", "keep-alive")],
    "8.2.2 transfer-encoding": [("transfer-encoding", "chunked")],
    "8.2.2 te of anything but trailers": [("te", "gzip")],
    "8.3 a pseudo-header after others": [("x", "y"), (":authority", "late")],
    "8.3 an unknown pseudo-header": [(":unknown", "x")],
    "8.3 a response's pseudo-header": [(":status", "200")],
    "8.3.1 a pseudo-header twice": [(":path", "/other")],
    "8.1.1 a length that is no number": [("content-length", "-1")],
    "8.1.1 two lengths": [("content-length", "1"), ("content-length", "2")],
}


@pytest.mark.parametrize("rule", BAD_REQUESTS)
def test_malformed_requests_are_stream_errors(rule: str) -> None:
    peer = Peer()
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/a"), *BAD_REQUESTS[rule]]
    assert peer.send(frame(HEADERS, END_HEADERS, 1, peer.block(pseudo))) == []
    reset = peer.read_only()
    assert (reset.kind, reset.stream, reset.code) == (RST_STREAM, 1, PROTOCOL_ERROR)
    assert peer.send(peer.request(3))[0][:2] == (REQUEST, 3)


@pytest.mark.parametrize("missing", ["method", "scheme", "path"])
def test_requests_need_their_pseudo_headers(missing: str) -> None:
    peer = Peer()
    assert peer.send(peer.request(**{missing: None})) == []
    assert peer.read_only().code == PROTOCOL_ERROR


def test_promised_length_must_come() -> None:
    """8.1.1: content-length against the DATA that comes, padding aside."""
    body = message(b"12345")
    for length, parts, is_good in (
        ("10", [frame(DATA, END_STREAM, 1, body)], True),
        ("10", [frame(DATA, PADDED, 1, b"\x02" + body + bytes(2)), frame(DATA, END_STREAM, 1)], True),
        ("11", [frame(DATA, END_STREAM, 1, body)], False),
        ("9", [frame(DATA, 0, 1, body)], False),
        ("10", [frame(DATA, 0, 1, body[:9]), frame(HEADERS, END_HEADERS | END_STREAM, 1)], False),
    ):
        peer = Peer()
        peer.send(peer.request(content_length=length), *parts)
        assert (peer.events[-1] == (HALF_CLOSE, 1)) is is_good, (length, peer.events)


def test_trailers_end_a_request() -> None:
    """8.1: trailers carry END_STREAM and no pseudo-headers."""
    for headers, flags, is_good in (
        ([("x", "y")], END_HEADERS | END_STREAM, True),
        ([("x", "y")], END_HEADERS, False),
        ([(":path", "/")], END_HEADERS | END_STREAM, False),
    ):
        peer = Peer()
        peer.send(peer.request())
        events = peer.send(frame(HEADERS, flags, 1, peer.block(headers)))
        assert events == ([(HALF_CLOSE, 1)] if is_good else [(RESET, 1, PROTOCOL_ERROR, "")])


def test_too_many_streams_are_refused() -> None:
    """5.1.2: those beyond SETTINGS_MAX_CONCURRENT_STREAMS, each alone; an end makes room."""
    peer = Peer(streams_max=2)
    peer.send(peer.request(1), peer.request(3))
    assert peer.send(peer.request(5)) == []
    assert peer.read_only().code == REFUSED_STREAM
    peer.send(frame(RST_STREAM, 0, 1, number(CANCEL)))
    assert peer.send(peer.request(7))[0][:2] == (REQUEST, 7)


def test_settings_that_overflow_a_window_end_the_connection() -> None:
    peer = Peer()
    peer.send(peer.request(), frame(WINDOW_UPDATE, 0, 1, number(0x7FFFFFFF - 65535)))
    assert peer.send(settings((4, 65536)))[-1][:3] == (END, 0, FLOW_CONTROL_ERROR)


def test_header_block_too_large_is_refused() -> None:
    peer = Peer()
    parts = [
        frame(HEADERS, 0, 1, bytes(16384)),
        frame(CONTINUATION, 0, 1, bytes(16384)),
        frame(CONTINUATION, 0, 1, b"1"),
    ]
    assert peer.send(*parts)[-1][:3] == (END, 0, ENHANCE_YOUR_CALM)
