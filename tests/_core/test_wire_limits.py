"""Limits: each flood ends its own connection, honest clients never, and an idle connection costs next to nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest
from tests._core.http2_bytes import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    OPENING,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    frame,
    message,
    number,
    settings,
)

from kumafast._core import END, MESSAGE, Connection, Payload

Flood = Callable[[Peer, int], bytes]

FLOODS: dict[str, Flood] = {
    "SETTINGS": lambda _, at: settings((4, 65535 + at % 2)),
    "acknowledgements of SETTINGS": lambda _, at: frame(SETTINGS, ACK),
    "PING": lambda _, at: frame(PING, 0, 0, bytes(8)),
    "answers to PING": lambda _, at: frame(PING, ACK, 0, bytes(8)),
    "rapid reset": lambda peer, at: peer.request(3 + 2 * at) + frame(RST_STREAM, 0, 3 + 2 * at, number(8)),
    "resets of closed streams": lambda _, at: frame(RST_STREAM, 0, 1, number(8)),
    "empty DATA": lambda _, at: frame(DATA, 0, 1),
    "WINDOW_UPDATE of the connection": lambda _, at: frame(WINDOW_UPDATE, 0, 0, number(1)),
    "WINDOW_UPDATE of a stream": lambda _, at: frame(WINDOW_UPDATE, 0, 1, number(1)),
    "PRIORITY": lambda _, at: frame(PRIORITY, 0, 1, number(5) + b"\x01"),
    "GOAWAY": lambda _, at: frame(GOAWAY, 0, 0, bytes(8)),
    "unknown frames": lambda _, at: frame(0x77, 0, 0, b"x"),
    "requests that are malformed": lambda _, at: frame(HEADERS, END_HEADERS, 3 + 2 * at, b"\x82"),
    "empty messages": lambda _, at: frame(DATA, 0, 1, message(b"")),
    "header lists that are too large": lambda _, at: frame(
        HEADERS, END_HEADERS, 3 + 2 * at, b"\x83\x86\x84" + b"\xbf" * 2000
    ),
    "empty CONTINUATION": lambda _, at: frame(CONTINUATION, 0, 3) if at else frame(HEADERS, 0, 3),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood_ends_its_connection(name: str) -> None:
    peer = Peer()
    peer.send(peer.request())
    answered = 0
    for at in range(10_000):
        events = peer.send(FLOODS[name](peer, at))
        if events and events[-1][0] == END:
            break
        answered += sum(len(buffer) for buffer in peer.connection.collect())
    assert peer.events[-1][:3] == (END, 0, ENHANCE_YOUR_CALM), name
    assert at >= 16, "less is no flood"
    assert answered < 300_000
    assert peer.read()[-1].code == ENHANCE_YOUR_CALM
    assert peer.connection.want_close


def test_long_settings_end_the_connection_before_they_are_applied() -> None:
    """Each entry may concern every stream: thousands of entries for a thousand streams would be millions of steps."""
    peer = Peer()
    assert not peer.send(settings(*((4, 65535 + at % 2) for at in range(32))))
    ((kind, _, code, why),) = peer.send(settings(*((4, 65535 + at % 2) for at in range(33))))
    assert (kind, code, why) == (END, ENHANCE_YOUR_CALM, "too long SETTINGS")


def test_list_that_unfolds_to_megabytes_is_paid_for_by_its_size() -> None:
    peer = Peer()
    entry = b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000
    assert peer.send(frame(HEADERS, END_HEADERS, 1, b"\x83\x86\x84" + entry))[-1][0] != END
    assert peer.send(frame(HEADERS, END_HEADERS, 3, b"\xbe" * 16384))[-1][2] == ENHANCE_YOUR_CALM


@pytest.mark.parametrize("is_answered", [False, True])
def test_requests_without_an_answer_are_a_flood(is_answered: bool) -> None:
    """Methods that are not there cost work too; a request that is answered is paid for by the answer."""
    peer = Peer()
    answer = Payload(b"an answer")
    for at in range(4000):
        if peer.send(peer.request(1 + 2 * at, END_HEADERS | END_STREAM))[0][0] == END:
            break
        if is_answered:
            peer.connection.send(1 + 2 * at, answer)
        peer.connection.finish(1 + 2 * at, 0)
        peer.read()
    # The opening's SETTINGS were paid for too.
    assert at == (3999 if is_answered else (8000 - 20) // 4)


def test_half_messages_of_all_connections_together_are_bounded() -> None:
    """Each may hold two of the largest messages, yet all together no more than a few; a little is always let in."""
    part = bytes(1) + number(60 << 20) + bytes((16 << 20) - 5)
    frames = [frame(DATA, 0, 1, part[at : at + 16384]) for at in range(0, len(part), 16384)]

    def pour(peer: Peer) -> bool:
        for turn in range(0, len(frames), 16):
            peer.send(*frames[turn : turn + 16])
            if any(each.headers.get("grpc-status") == "8" for each in peer.read()):
                return False
        return True

    peers = [Peer(message_bytes_max=64 << 20) for _ in range(18)]
    for peer in peers:
        peer.send(peer.request())
    assert [pour(peer) for peer in peers] == [True] * 16 + [False] * 2
    small = Peer()
    small.send(small.request(), frame(DATA, 0, 1, bytes(1) + number(60_000) + bytes(10_000)))
    assert small.send(*(frame(DATA, 0, 1, bytes(10_000)) for _ in range(5)))[0][0] == MESSAGE
    del peers[0], peer
    last = Peer(message_bytes_max=64 << 20)
    last.send(last.request())
    assert pour(last), "what a connection held is free when it has gone"


def test_answers_that_nobody_reads_are_bounded() -> None:
    peer = Peer()
    count = 0
    while not peer.send(frame(PING, 0, 0, bytes(8))):
        peer.now += 1.0
        count += 1
    assert peer.events[-1][3] == "answers are not being read"
    assert count == 65536 // 17
    assert peer.connection.__sizeof__() < 2000


@pytest.mark.parametrize("name", ["SETTINGS", "PING", "rapid reset", "WINDOW_UPDATE of a stream"])
def test_same_frames_at_a_human_pace_are_served(name: str) -> None:
    """A keepalive every second for an hour, or a stream opened and cancelled: nobody is told to calm down."""
    peer = Peer()
    peer.send(peer.request())
    for at in range(3600):
        peer.now += 1.0
        assert all(event[0] != END for event in peer.send(FLOODS[name](peer, at)))
        peer.connection.collect()


def test_window_updates_for_what_was_sent_are_no_flood() -> None:
    peer = Peer()
    peer.send(peer.request())
    payload = Payload(bytes(1000))
    for _ in range(20_000):
        peer.connection.send(1, payload)
        assert peer.connection.collect()
        assert not peer.send(frame(WINDOW_UPDATE, 0, 0, number(1005)), frame(WINDOW_UPDATE, 0, 1, number(1005)))


def test_header_list_that_unfolds_is_refused_alone() -> None:
    """A few bytes may name a long entry a thousand times: the request is refused, the connection stays in step."""
    peer = Peer()
    entry = b"\x40\x01x\x7f\x81\x17" + b"v" * 3072
    grpc = b"\x0f\x10\x10application/grpc"
    assert peer.send(frame(HEADERS, END_HEADERS, 1, b"\x83\x86\x84" + grpc + entry + b"\xbe" * 1000)) == []
    assert peer.read()[0].headers["grpc-status"] == "8"
    assert peer.send(frame(HEADERS, END_HEADERS, 3, b"\x83\x86\x84" + grpc + b"\xbe"))[0][2] == "/"
    assert peer.send(frame(HEADERS, END_HEADERS, 5, b"\x83\x86\x84" + b"\xbe" * 1000)) == []
    assert peer.read_only().headers == {":status": "431", "content-length": "0"}


def test_slow_reader_is_bounded_for_each_stream() -> None:
    peer = Peer()
    peer.send(peer.request(1), peer.request(3))
    payload = Payload(bytes(30 << 20))
    assert peer.connection.send(1, payload)
    assert peer.connection.send(1, payload)
    with pytest.raises(BufferError, match="waits"):
        peer.connection.send(1, payload)
    assert peer.connection.send(3, payload)
    assert peer.connection.queued(1) == 2 * (len(payload) + 5)
    # References, no copies.
    assert peer.connection.__sizeof__() < 3000


@pytest.mark.gate
@pytest.mark.alone
def test_idle_connection_holds_two_kilobytes() -> None:
    """As Envoy leaves it: one stream, a request of 3 kB taken in, answered, its headers in the table."""
    peer = Peer()
    peer.send(peer.request(authorization="Bearer " + "t" * 300), frame(DATA, 0, 1, message(bytes(3000))))
    peer.connection.send(1, Payload(bytes(2000)))
    peer.read()
    for _ in range(100):
        peer.connection.send(1, Payload(bytes(2000)))
        peer.connection.collect()
        peer.send(frame(DATA, 0, 1, message(bytes(100))))
        peer.send(*(frame(WINDOW_UPDATE, 0, stream, number(2005)) for stream in (0, 1)))
        peer.connection.collect()
    assert sys.getsizeof(peer.connection) <= 2048


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.gate
@pytest.mark.alone
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's allocator holds more")
def test_five_thousand_connections_hold_what_they_say() -> None:
    """The resident memory of all, with the objects of Python and the overhead of the allocator."""
    peer = Peer()
    said = peer.request() + frame(DATA, 0, 1, message(bytes(200)))

    def connect() -> Connection:
        connection = Connection()
        connection.receive(OPENING + said, 0.0)
        connection.send(1, Payload(b"x" * 2000))
        connection.collect()
        return connection

    held = [connect() for _ in range(500)]
    before = _resident()
    held += [connect() for _ in range(5000)]
    assert (_resident() - before) / 5000 < 2048
    assert len(held) == 5500
