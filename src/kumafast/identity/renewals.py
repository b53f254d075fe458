"""When which node needs another certificate: one heap for all of them.

In: nodes, each with the second at which its certificate is to be replaced. Out: those whose time has come.
Never: a timer for each node, a clock.
"""

from __future__ import annotations

import heapq


class Renewals:
    """O(log nodes) for each change. A node has one time at most, the last that was set."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        # May hold times that were replaced since; they are passed over when they come up.
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._due)

    def set(self, node_id: str, at: float) -> None:
        """Replace a node's certificate at that second."""
        if self._due.get(node_id) == at:
            return
        self._due[node_id] = at
        heapq.heappush(self._heap, (at, node_id))
        if len(self._heap) > 2 * len(self._due) + 16:
            self._heap = [(each, node) for node, each in self._due.items()]
            heapq.heapify(self._heap)

    def forget(self, node_id: str) -> None:
        """The node is gone, or needs no certificate any more."""
        self._due.pop(node_id, None)

    @property
    def next(self) -> float | None:
        """When the next one is due; None where there is none."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> list[str]:
        """The nodes whose time has come, in its order; they are forgotten until they are set again."""
        taken: list[str] = []
        while (at := self.next) is not None and at <= now:
            _, node_id = heapq.heappop(self._heap)
            del self._due[node_id]
            taken.append(node_id)
        return taken
