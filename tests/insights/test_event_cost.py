"""What an event of a stream costs, in counted calls: it comes with each message of each stream."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from types import FrameType

from tests.insights.test_insights import insights_on

from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import LISTENER
from kumafast.store import MemoryStore


def test_event_of_a_stream_costs_a_few_calls_and_no_look_at_its_node() -> None:
    """With each message of each stream comes a sending and an answer: together they may cost as much as the message."""
    streams = 20
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            calls[frame.f_code.co_name] += 1

    async def main() -> None:
        insights, snapshots = insights_on(MemoryStore()), [Snapshot(), Snapshot()]
        for at in range(streams):
            insights.stream_opened(f"s{at}", Node(f"default.dp-{at}"))
        for is_counted in (False, True):
            # The first listener that an Envoy takes is news.
            sys.setprofile(note if is_counted else None)
            for at in range(streams):
                insights.response_sent(f"s{at}", LISTENER, "v", 10)
                insights.response_acknowledged(f"s{at}", LISTENER, "v")
                insights.stream_synced(f"s{at}", snapshots[is_counted])
            sys.setprofile(None)

    asyncio.run(main())
    of_messages = {"response_sent", "response_acknowledged", "xds", "_mark_counted"}
    of_snapshots = {"stream_synced", "_note_certificate", "resources", "_by_type", "<dictcomp>", "published", "_wake"}
    assert set(calls) <= of_messages | of_snapshots, "no event is made for those who wait, for nobody does"
    assert calls["response_sent"] == 2 * streams, "in the insights and in the clients"
    assert calls["response_acknowledged"] == 3 * streams, "and in who has converged"
    assert calls["xds"] == streams
    assert calls["_mark_counted"] == 2 * streams
