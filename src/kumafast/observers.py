"""Who hears of what happens on the streams.

In: the events of streams. Out: calls of the reconciler and the insights, in the order in which they need them.
Never: a decision.
"""

from __future__ import annotations

from kumafast.insights import Insights
from kumafast.reconciler import Reconciler
from kumafast.snapshot.node import Node


class Observers:
    """Tells the reconciler who is connected, and the insights everything."""

    def __init__(self, reconciler: Reconciler, insights: Insights) -> None:
        self._reconciler = reconciler
        self._insights = insights
        self._nodes: dict[str, str] = {}
        # What comes with each message of each stream goes to the insights without a stop here.
        self.response_sent = insights.response_sent
        self.response_acknowledged = insights.response_acknowledged
        self.response_rejected = insights.response_rejected
        self.stream_synced = insights.stream_synced

    def stream_opened(self, stream_id: str, node: Node) -> None:
        self._nodes[stream_id] = node.id
        self._insights.stream_opened(stream_id, node)
        self._reconciler.connect(stream_id, node)

    def stream_closed(self, stream_id: str) -> None:
        node_id = self._nodes.pop(stream_id, None)
        self._insights.stream_closed(stream_id)
        if node_id is not None:
            self._reconciler.disconnect(stream_id, node_id)
