"""The attacks, by name: each is carried out once on a connection (or on many) and says how the server ended it."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests._core.http2_bytes import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    number,
    settings,
)
from tests._core.test_wire_limits import FLOODS
from tests.attack.foe import (
    CLUSTERS_DELTA,
    DELTA,
    SERVICE,
    Foe,
    Target,
    data,
    delta,
    windows,
)

CALM = "GOAWAY 11"
_GRACE_S = 3.0


@dataclass(frozen=True)
class Attack:
    """`ends`: the outcomes that are right; `open` is one where no rule is broken, and the neighbours notice nothing."""

    carry_out: Callable[[Target], str]
    ends: frozenset[str]


ATTACKS: dict[str, Attack] = {}


def attack(name: str, *ends: str) -> Callable[[Callable[[Target], str]], Callable[[Target], str]]:
    def note(carry_out: Callable[[Target], str]) -> Callable[[Target], str]:
        ATTACKS[name] = Attack(carry_out, frozenset(ends))
        return carry_out

    return note


# ---- Floods of frames


def pour(foe: Foe, make: Callable[[int], bytes], *, batch: int = 200, count: int = 100_000) -> str:
    """Send what `make` gives for 0, 1, … in batches, until the server has had enough, or a while after the deadline."""
    at = 0
    while at < count and time.monotonic() < foe.target.deadline + _GRACE_S:
        if not foe.send(*(make(each) for each in range(at, at + batch))) or foe.is_told_off:
            break
        at += batch
        foe.look(0.001)
    return foe.outcome(0.5)


def _flood(name: str) -> None:
    def carry_out(target: Target) -> str:
        with Foe(target) as foe:
            foe.send(foe.request("/test.Echo/Stream" if name == "resets of closed streams" else DELTA))
            return pour(foe, lambda at: FLOODS[name](foe.peer, at))

    ATTACKS[f"flood: {name}"] = Attack(carry_out, frozenset({CALM}))


for _name in FLOODS:
    _flood(_name)


@attack("flood: long SETTINGS over 1,000 streams", CALM)
def long_settings(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(*(foe.request(DELTA, 1 + 2 * at) for at in range(1000)))
        many = settings(*((4, 65535 + at % 2) for at in range(2700)))
        return pour(foe, lambda _: many, batch=10)


@attack("flood: requests of methods that are not there", CALM)
def absent_methods(target: Target) -> str:
    with Foe(target) as foe:
        return pour(foe, lambda at: foe.request("/no/where", 1 + 2 * at), batch=900)


@attack("flood: requests whose deadline has passed", CALM)
def past_deadlines(target: Target) -> str:
    with Foe(target) as foe:
        return pour(foe, lambda at: foe.request(DELTA, 1 + 2 * at, grpc_timeout="1n"), batch=900)


@attack("flood: empty messages", CALM, "status 3")
def empty_messages(target: Target) -> str:
    with Foe(target) as foe:
        foe.ask(CLUSTERS_DELTA, delta())
        many = frame(DATA, 0, 1, bytes(16380))
        return pour(foe, lambda _: many, batch=10, count=1000)


# ---- Headers


@attack("headers: a long entry named again and again", CALM)
def hpack_bomb(target: Target) -> str:
    with Foe(target) as foe:
        name_it = b"\x40\x01x\x7f\xa1\x1e" + bytes(b"v" * 4000)
        foe.send(frame(HEADERS, END_HEADERS, 1, name_it))
        again = b"\xbe" * 16384
        return pour(foe, lambda at: frame(HEADERS, END_HEADERS, 3 + 2 * at, again), batch=16)


@attack("headers: 100,000 of them", CALM)
def many_headers(target: Target) -> str:
    with Foe(target) as foe:
        block = b"".join(b"\x00\x05h%04x\x01v" % (at % 65536) for at in range(100_000))
        parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        foe.send(frame(HEADERS, 0, 1, parts[0]), *(frame(CONTINUATION, 0, 1, part) for part in parts[1:]))
        return foe.outcome(0.5)


@attack("headers: one of 60 KB", CALM)
def long_header(target: Target) -> str:
    with Foe(target) as foe:
        block = foe.peer.block([("x", "v" * 60_000)])
        parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
        foe.send(frame(HEADERS, 0, 1, parts[0]), *(frame(CONTINUATION, 0, 1, part) for part in parts[1:]))
        return foe.outcome(0.5)


@attack("headers: a block that cannot be decoded", "GOAWAY 9")
def bad_block(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"))
        return foe.outcome(0.5)


# ---- Half of everything


def hold(foe: Foe) -> str:
    """Say nothing more, for as long as there is."""
    return foe.outcome(foe.target.left_s)


@attack("half: a connection and nothing", "closed", "open")
def silence(target: Target) -> str:
    with Foe(target, b"") as foe:
        return hold(foe)


@attack("half: the preface one octet at a time", "closed", "open")
def slow_preface(target: Target) -> str:
    with Foe(target, b"") as foe:
        for at in range(len(PREFACE) - 1):
            foe.look(0.2)
            if foe.target.left_s == 0 or not foe.send(PREFACE[at : at + 1]):
                break
        return foe.outcome(0.0)


@attack("half: the preface and nothing", "closed", "open")
def preface_only(target: Target) -> str:
    with Foe(target, PREFACE, is_mute=True) as foe:
        return hold(foe)


@attack("half: headers without an end", "closed", "open")
def half_headers(target: Target) -> str:
    with Foe(target, is_mute=True) as foe:
        foe.send(frame(HEADERS, 0, 1, b"\x83\x86"))
        return hold(foe)


@attack("half: a message without an end", "closed", "open")
def half_message(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), frame(DATA, 0, 1, b"\0" + number(1000) + b"\x0a"))
        return hold(foe)


@attack("half: 60 MB of a message, on 8 connections", "open", "status 8")
def huge_half_messages(target: Target) -> str:
    part = bytes(1) + number(60 << 20) + bytes(200_000)
    foes = [Foe(target) for _ in range(8)]
    for foe in foes:
        foe.send(foe.request())
        at = 0
        while at < 59 << 20 and foe.target.left_s > 0 and not foe.is_over:
            chunk = part if at == 0 else bytes(len(part))
            if not foe.send(*(frame(DATA, 0, 1, chunk[cut : cut + 16384]) for cut in range(0, len(chunk), 16384))):
                break
            at += len(part)
            foe.look(0.001)
            if any(said.startswith(("RST", "status")) for said in foe.said):
                break
    outcomes = {foe.outcome(0.1) for foe in foes}
    for foe in foes:
        foe.sock.close()
    return "status 8" if "status 8" in outcomes else outcomes.pop()


@attack("half: 1,000 streams that say nothing", "open", CALM)
def silent_streams(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(*(foe.request(DELTA, 1 + 2 * at) for at in range(1000)))
        return foe.outcome(min(1.0, target.left_s))


# ---- Windows


@attack("windows: overflow of the connection's", "GOAWAY 3")
def window_overflow(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(windows((0, 0), 0x7FFFFFFF))
        return foe.outcome(0.5)


@attack("windows: overflow of a stream's", "RST 3")
def stream_window_overflow(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), windows((1, 1), 0x7FFFFFFF))
        return foe.outcome(0.5)


@attack("windows: an increment of zero", "GOAWAY 1")
def window_of_zero(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), windows((0,), 0))
        return foe.outcome(0.5)


@attack("windows: one octet at a time", CALM, "open")
def tiny_windows(target: Target) -> str:
    with Foe(target, PREFACE + settings((4, 0))) as foe:
        foe.ask(DELTA, delta("big"))
        while foe.target.left_s > 0 and foe.send(windows((1,), 1)):
            foe.look(0.0005)
        return foe.outcome(0.0)


@attack("slow: reads nothing, big pushes wait", "open")
def reads_nothing(target: Target) -> str:
    foes = [Foe(target, receive_bytes=4096) for _ in range(20)]
    for foe in foes:
        foe.send(foe.request(), windows((0, 1)), data(delta("big")))
    time.sleep(target.left_s)
    for foe in foes:
        foe.abort()
    return "open"


@attack("slow: reads a little at a time", "open")
def reads_slowly(target: Target) -> str:
    foes = [Foe(target, receive_bytes=4096) for _ in range(20)]
    for foe in foes:
        foe.send(foe.request(), windows((0, 1)), data(delta("big")))
    while target.left_s > 0:
        for foe in foes:
            try:
                foe.sock.recv(1)
            except OSError:
                return "closed"
        time.sleep(0.05)
    for foe in foes:
        foe.abort()
    return "open"


# ---- gRPC


@attack("gRPC: a compressed message", "status 12")
def compressed(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), data(delta(), flag=1))
        return foe.outcome(0.5)


@attack("gRPC: a length of 4 GB", "status 8")
def giant_length(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(), frame(DATA, 0, 1, b"\0\xff\xff\xff\xffxxxx"))
        return foe.outcome(0.5)


@attack("gRPC: a content type that is not", "http 404")
def content_type(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.peer.request(1, END_HEADERS | END_STREAM, path=DELTA, content_type="text/html"))
        return foe.outcome(0.5)


@attack("gRPC: GET", "http 404")
def method(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.peer.request(1, END_HEADERS | END_STREAM, path=DELTA, method="GET"))
        return foe.outcome(0.5)


@attack("gRPC: a path that is not", "status 12")
def path(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(foe.request(SERVICE + "Stream\xff"))
        return foe.outcome(0.5)


@attack("gRPC: HTTP/1.1", "closed")
def http1(target: Target) -> str:
    with Foe(target, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 1000) as foe:
        return foe.outcome(0.5)


@attack("gRPC: GOAWAY and silence", "open", "closed")
def goaway(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(frame(GOAWAY, 0, 0, bytes(8)))
        return hold(foe)


@attack("settings: a frame size of one octet", "GOAWAY 1")
def bad_frame_size(target: Target) -> str:
    with Foe(target, PREFACE + frame(SETTINGS, 0, 0, b"\x00\x05" + number(1))) as foe:
        return foe.outcome(0.5)


# ---- Storms


@attack("storm: connections opened and closed", "let in")
def open_and_close(target: Target) -> str:
    while target.left_s > 0:
        foes = [Foe(target, b"") for _ in range(50)]
        for foe in foes:
            foe.abort() if random.random() < 0.5 else foe.sock.close()
    return "let in"


@attack("storm: streams cut off in the middle of a push", "let in")
def subscribe_and_abort(target: Target) -> str:
    while target.left_s > 0:
        foes = [Foe(target) for _ in range(20)]
        for foe in foes:
            foe.send(foe.request(), windows((0, 1)), data(delta("big")))
        for foe in foes:
            foe.abort()
    return "let in"


@attack("storm: requests reset at once", CALM)
def rapid_reset(target: Target) -> str:
    body = data(delta("big"))
    with Foe(target) as foe:

        def one(at: int) -> bytes:
            stream = 1 + 2 * at
            moved = body[:5] + stream.to_bytes(4, "big") + body[9:]
            return foe.request(DELTA, stream) + moved + frame(RST_STREAM, 0, stream, number(8))

        return pour(foe, one, batch=100)


@attack("storm: 2,000 streams on one connection", "RST 7", CALM)
def many_streams(target: Target) -> str:
    with Foe(target) as foe:
        foe.send(*(foe.request(DELTA, 1 + 2 * at) for at in range(2000)))
        return foe.outcome(0.5)


@attack("storm: half-open sockets", "open")
def half_open(target: Target) -> str:
    """The kernel's part of a connection and no more: their places are taken, and nobody speaks."""
    held = []
    for _ in range(300):
        plain = socket.socket()
        plain.setblocking(False)
        plain.connect_ex(("127.0.0.1", target.port))
        held.append(plain)
    time.sleep(min(0.5, target.left_s))
    for plain in held:
        plain.close()
    return "open"
