"""Who hears of what happens on the streams.

In: the events of streams. Out: calls of the reconciler and the insights, in the order in which they need them.
Never: a decision.
"""

from __future__ import annotations

from kumafast.insights import Insights
from kumafast.reconciler import Reconciler
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node


class Observers:
    """Tells the reconciler who is connected, and the insights everything."""

    def __init__(self, reconciler: Reconciler, insights: Insights) -> None:
        self._reconciler = reconciler
        self._insights = insights
        self._nodes: dict[str, str] = {}

    def stream_opened(self, stream_id: str, node: Node) -> None:
        self._nodes[stream_id] = node.id
        self._insights.stream_opened(stream_id, node)
        self._reconciler.connect(stream_id, node)

    def response_sent(self, stream_id: str, type_url: str, version: str, size: int) -> None:
        self._insights.response_sent(stream_id, type_url, version, size)

    def response_acknowledged(self, stream_id: str, type_url: str, version: str) -> None:
        self._insights.response_acknowledged(stream_id, type_url, version)

    def response_rejected(self, stream_id: str, type_url: str, version: str, message: str) -> None:
        self._insights.response_rejected(stream_id, type_url, version, message)

    def stream_synced(self, stream_id: str, snapshot: Snapshot) -> None:
        self._insights.stream_synced(stream_id, snapshot)

    def stream_closed(self, stream_id: str) -> None:
        node_id = self._nodes.pop(stream_id, None)
        self._insights.stream_closed(stream_id)
        if node_id is not None:
            self._reconciler.disconnect(stream_id, node_id)
