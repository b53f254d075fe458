"""Who is behind: the nodes whose snapshot is not what it should be, in the order in which they fell behind.

In: nodes with what has changed for them. Out: one task for each node, oldest first; up to which revision all is done.
Never: clocks, asyncio, or how a snapshot is made.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from kumafast.reached import Reached


@dataclass(slots=True)
class Task:
    """What a node has to catch up with. Its snapshot is made from what is true then, so that later changes fit in."""

    since: int
    """The revision at which it fell behind."""
    at: float
    """The monotonic second at which that revision was read."""
    is_whole: bool = False
    """Whether all of the proxy has to be resolved anew, not just its endpoints."""
    reached: set[Reached] = field(default_factory=set)
    """The destinations whose endpoints have moved."""


class Pending:
    """At most one task for each node: a later change widens it and leaves its place in the queue."""

    def __init__(self) -> None:
        # In order of `since`, as revisions only grow. A plain dict walks over what was taken from its front.
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tasks)

    def widen(self, node_id: str, *, since: int, at: float, reached: Reached | None = None) -> None:
        """Note that a node is behind: with the endpoints of one destination, or without one with everything."""
        task = self._tasks.get(node_id)
        if task is None:
            task = self._tasks[node_id] = Task(since, at)
        if reached is None:
            task.is_whole = True
            task.reached.clear()
        elif not task.is_whole:
            task.reached.add(reached)

    def take(self) -> tuple[str, Task] | None:
        """The node that has been behind for longest, and what it lacks; None where nobody is."""
        return self._tasks.popitem(last=False) if self._tasks else None

    def forget(self, node_id: str) -> None:
        """Strike a node out: it has gone, or has everything."""
        self._tasks.pop(node_id, None)

    def done(self, newest: int) -> int:
        """The revision up to which nobody is behind, where `newest` is the last that was taken in."""
        for task in self._tasks.values():
            return min(newest, task.since - 1)
        return newest
