"""What one connection brings in one turn of the loop: events, or octets of header lists; others come first then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests._core.http2_bytes import (
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    OPENING,
    Peer,
    frame,
    message,
)
from tests.stream.memory_client import MemoryClient

from kumafast._core import Protocol
from kumafast.snapshot import SnapshotCache
from kumafast.stream import XdsServer

COUNT = 100
# Requests in a turn, and how each is made.
KINDS: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "32 events": (32, lambda at: Peer(opening=b"").request(3 + 2 * at, path="/no/where")),
    # More than 100 KB each, once decoded: it is refused in the core, and no event.
    "1 MiB of header lists": (11, lambda at: frame(HEADERS, END_HEADERS, 3 + 2 * at, b"\x83\x86\x84" + b"\xbf" * 2000)),
}


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_for_many_turns_is_not_done_in_one(kind: str) -> None:
    most, make = KINDS[kind]

    async def main() -> None:
        wire = MemoryClient(XdsServer(SnapshotCache()))

        def answers() -> int:
            count, said = 0, bytes(wire.transport.said)
            wire.transport.said.clear()
            while said:
                count += said[3] == HEADERS
                said = said[9 + int.from_bytes(said[:3], "big") :]
            return count

        answers()
        wire.say(b"".join(make(at) for at in range(COUNT)))
        counts = [answers()]
        while wire.protocol.is_behind:
            await asyncio.sleep(0)
            counts.append(answers())
        assert sum(counts) == COUNT
        assert max(counts) <= most
        assert len(counts) >= COUNT // most

    run(main)


class Receiver:
    """Notes what a stream is given."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.ends: list[str] = []

    def message_received(self, message: bytes, is_followed: bool) -> None:
        self.messages.append(message)

    def end_received(self) -> None:
        self.ends.append("half close")

    def stream_lost(self) -> None:
        self.ends.append("lost")


class Taker(Protocol):
    """A connection without a socket, which somebody else reads on."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.failures: list[int] = []
        self.times_behind = 0

    def request_received(self, stream: int, *_: object) -> None:
        self.serve(stream, self.receiver)

    def connection_failed(self, code: int, why: str) -> None:
        self.failures.append(code)

    def fell_behind(self) -> None:
        self.times_behind += 1


def opening() -> bytes:
    return OPENING + Peer(opening=b"").request(1)


def small_messages(count: int) -> bytes:
    return b"".join(message(bytes((at % 256,))) for at in range(count))


def test_one_frame_may_bring_messages_for_many_turns() -> None:
    taker = Taker()
    receiver = taker.receiver
    taker.data_received(opening() + frame(DATA, END_STREAM, 1, small_messages(100)))
    counts = [len(receiver.messages)]
    while taker.is_behind:
        assert receiver.ends == []
        taker.data_received(b"")
        counts.append(len(receiver.messages) - sum(counts))
    assert counts == [31, 32, 32, 5], "the request is an event too"
    assert receiver.messages == [bytes((at,)) for at in range(100)]
    assert (receiver.ends, taker.times_behind) == (["half close"], 3)


def test_what_comes_while_messages_are_left_comes_after_them() -> None:
    taker = Taker()
    taker.data_received(opening() + frame(DATA, 0, 1, small_messages(40)))
    taker.data_received(frame(DATA, END_STREAM, 1, message(b"last")))
    while taker.is_behind:
        taker.data_received(b"")
    assert taker.receiver.messages == [bytes((at,)) for at in range(40)] + [b"last"]
    assert taker.receiver.ends == ["half close"]


def test_a_connection_that_ends_keeps_nothing_for_later() -> None:
    taker, count = Taker(), 40_000
    taker.data_received(opening() + frame(DATA, 0, 1, small_messages(2_000)) * (count // 2_000))
    while taker.is_behind:
        taker.data_received(b"")
    # Their budget is 8,000, and some more for the time that this takes.
    assert 4_000 < len(taker.receiver.messages) < count
    assert (taker.receiver.ends, taker.failures) == (["lost"], [ENHANCE_YOUR_CALM])
