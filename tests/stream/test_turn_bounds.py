"""What one connection brings in one turn of the loop: some events, or refusals of so much; others come first then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests._core.http2_bytes import END_HEADERS, HEADERS, PING, Peer, frame
from tests.stream.memory_client import MemoryClient

from kumafast.snapshot import SnapshotCache
from kumafast.stream import XdsServer

COUNT = 150
# What `ext/limits.hpp` lets a turn cost, and what each of these costs.
BUDGET_EACH_TURN = 400
KINDS: dict[str, tuple[float, Callable[[int], bytes]]] = {
    "pings": (4, lambda at: frame(PING, 0, 0, bytes(8))),
    "requests of nothing": (4, lambda at: Peer(opening=b"").request(3 + 2 * at, path="/no/where")),
    # Some 120 KB each, once decoded: twice what may be.
    "header lists": (22, lambda at: frame(HEADERS, END_HEADERS, 3 + 2 * at, b"\x83\x86\x84" + b"\xbf" * 2000)),
}


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("kind", KINDS)
def test_refusals_of_many_turns_are_not_said_in_one(kind: str) -> None:
    cost, make = KINDS[kind]

    async def main() -> None:
        wire = MemoryClient(XdsServer(SnapshotCache()))
        answered = 0

        def count() -> int:
            nonlocal answered
            frames, said = 0, bytes(wire.transport.said)
            wire.transport.said.clear()
            while said:
                frames += said[3] in (HEADERS, PING)
                said = said[9 + int.from_bytes(said[:3], "big") :]
            answered += frames
            return frames

        count()
        answered = 0
        wire.say(b"".join(make(at) for at in range(COUNT)))
        most = [count()]
        while wire.protocol.is_behind:
            await asyncio.sleep(0)
            most.append(count())
        assert len(most) > 1
        assert answered == COUNT
        assert max(most) <= BUDGET_EACH_TURN / cost + 1

    run(main)
