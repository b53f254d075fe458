"""gRPC's own rules on the wire: messages over any frames, refusals, deadlines; any cut gives the same events."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests._core.http2_bytes import (
    DATA,
    END_STREAM,
    OPENING,
    PING,
    RST_STREAM,
    Peer,
    frame,
    message,
    number,
)

from kumafast._core import HALF_CLOSE, MESSAGE, REQUEST, RESET, Connection, Payload

UNIMPLEMENTED, RESOURCE_EXHAUSTED, INTERNAL = "12", "8", "13"


@settings(max_examples=100, deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=300) | st.integers(1000, 70_000).map(bytes), max_size=6),
    frame_cuts=st.lists(st.integers(1, 16384), min_size=1, max_size=20),
    byte_cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=20),
)
def test_any_cut_of_the_bytes_gives_the_same_events(
    bodies: list[bytes], frame_cuts: list[int], byte_cuts: list[int]
) -> None:
    peer = Peer()
    stream = b"".join(map(message, bodies))
    said = peer.request() + frame(PING, 0, 0, bytes(8))
    at = turn = 0
    while at < len(stream):
        part = frame_cuts[turn % len(frame_cuts)]
        said += frame(DATA, 0, 1, stream[at : at + part])
        at, turn = at + part, turn + 1
    said = OPENING + said + frame(DATA, END_STREAM, 1) + peer.request(3) + frame(RST_STREAM, 0, 3, number(8))
    whole, cut = Connection(), Connection()
    expected = whole.receive(said, 0.0)
    found = []
    at = turn = 0
    while at < len(said):
        part = byte_cuts[turn % len(byte_cuts)]
        found += cut.receive(memoryview(said)[at : at + part], 0.0)
        at, turn = at + part, turn + 1
    assert found == expected
    assert [event[2] for event in expected if event[0] == MESSAGE] == bodies
    assert [event[:2] for event in expected if event[0] != MESSAGE] == [
        (REQUEST, 1),
        (HALF_CLOSE, 1),
        (REQUEST, 3),
        (RESET, 3),
    ]
    assert b"".join(whole.collect()) == b"".join(cut.collect())


def test_one_byte_at_a_time() -> None:
    peer = Peer(opening=b"")
    said = OPENING + peer.request() + frame(DATA, END_STREAM, 1, message(b"abc") + message(b"") + message(b"d"))
    for octet in said:
        peer.send(bytes((octet,)))
    assert [event[2] for event in peer.events if event[0] == MESSAGE] == [b"abc", b"", b"d"]
    assert peer.events[-1] == (HALF_CLOSE, 1)


@pytest.mark.parametrize(
    ("data", "status", "text"),
    [
        (message(b"x", flag=1), UNIMPLEMENTED, "compressed messages are not supported"),
        (message(b"x", flag=2), INTERNAL, "a message's first octet must be 0 or 1"),
        (b"\x00" + number(1001), RESOURCE_EXHAUSTED, "a message is larger than the server takes"),
    ],
)
def test_messages_that_are_refused(data: bytes, status: str, text: str) -> None:
    """The stream ends in words that its client understands; the application is told; other streams go on."""
    peer = Peer(message_bytes_max=1000)
    peer.send(peer.request(1), peer.request(3))
    assert peer.send(frame(DATA, 0, 1, message(b"good") + data)) == [(MESSAGE, 1, b"good"), (RESET, 1, 8, text)]
    trailers, reset = peer.read()
    assert (trailers.headers["grpc-status"], trailers.headers["grpc-message"]) == (status, text)
    assert (reset.kind, reset.stream, reset.code) == (RST_STREAM, 1, 0)
    assert peer.send(frame(DATA, 0, 3, message(bytes(1000)))) == [(MESSAGE, 3, bytes(1000))]


def test_end_within_a_message_is_an_error() -> None:
    peer = Peer()
    peer.send(peer.request())
    assert peer.send(frame(DATA, END_STREAM, 1, message(b"whole") + b"\x00\x00"))[-1][:2] == (RESET, 1)
    assert peer.read_only().headers["grpc-status"] == INTERNAL


def test_partial_messages_of_all_streams_are_bounded_together() -> None:
    peer = Peer(message_bytes_max=10_000)
    peer.send(*(peer.request(stream) for stream in (1, 3, 5)))
    partial = message(bytes(10_000))[:9005]
    assert peer.send(*(frame(DATA, 0, stream, partial) for stream in (1, 3))) == []
    assert peer.send(frame(DATA, 0, 5, partial)) == [(RESET, 5, 8, "too much of unfinished messages on one connection")]
    assert peer.send(frame(DATA, 0, 1, bytes(1000))) == [(MESSAGE, 1, bytes(10_000))]


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc; x=y"])
def test_grpc_has_several_content_types(content_type: str) -> None:
    peer = Peer()
    assert peer.send(peer.request(content_type=content_type))[0][0] == REQUEST


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4m", 0.004),
        ("5u", 5e-6),
        ("6n", 6e-9),
        ("0S", 0),
        ("99999999H", 2**63 / 1e9),
        (None, None),
    ],
)
def test_deadlines(value: str | None, seconds: float | None) -> None:
    peer = Peer()
    assert peer.send(peer.request(grpc_timeout=value))[0][4] == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["1", "S", "-1S", "123456789S", "1s", "1.5S", " 1S".strip() + "S"])
def test_malformed_deadlines_are_refused(value: str) -> None:
    peer = Peer()
    assert peer.send(peer.request(grpc_timeout=value)) == []
    assert peer.read()[0].headers["grpc-status"] == INTERNAL


def test_large_payloads_are_shared_not_copied() -> None:
    payload = Payload(bytes(1_000_000))
    peers = [Peer() for _ in range(3)]
    for peer in peers:
        peer.send(peer.request(), *(frame(8, 0, stream, number(1 << 24)) for stream in (0, 1)))
        assert peer.connection.send(1, payload)
        assert peer.connection.__sizeof__() < 5000
    assert payload.references == 4
    for peer in peers:
        buffers = peer.connection.collect(1 << 24)
        views = [buffer for buffer in buffers if isinstance(buffer, memoryview)]
        assert {view.obj is bytes(payload) for view in views} == {True}
        assert sum(map(len, views)) > 990_000
    assert payload.references == 1


def test_arguments_that_make_no_sense() -> None:
    peer = Peer()
    peer.send(peer.request())
    for bad in (-1, 17):
        with pytest.raises(ValueError, match="no status"):
            peer.connection.finish(1, bad)
    with pytest.raises(TypeError):
        peer.connection.send(1, b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        peer.connection.receive("text", 0.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Payload("text")  # type: ignore[arg-type]
    assert not peer.connection.send(99, Payload(b""))
    assert not peer.connection.reset(0, 8)
    assert peer.connection.queued(99) == 0
    assert bytes(Payload(bytearray(b"abc"))) == b"abc" == bytes(memoryview(Payload(b"abc")))
