"""What one connection brings in one turn of the loop: events, or octets of header lists; others come first then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests._core.http2_bytes import END_HEADERS, HEADERS, Peer, frame
from tests.stream.memory_client import MemoryClient

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
