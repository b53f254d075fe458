"""Who is behind: the nodes whose snapshot is not what it should be, in the order in which they fell behind.

In: nodes with what has changed for them. Out: one task for each node, oldest first; up to which revision all is done.
Never: clocks, asyncio, or how a snapshot is made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from kumafast.reached import Reached


class Depth(IntEnum):
    """How much of a node's snapshot has to be looked at; each covers those before it."""

    ENDPOINTS = 0
    """The endpoints of some destinations."""
    POLICIES = 1
    """What its policies come to, and the endpoints of some destinations."""
    WHOLE = 2
    """Everything."""


@dataclass(slots=True)
class Task:
    """What a node has to catch up with. Its snapshot is made from what is true then, so that later changes fit in."""

    since: int
    """The revision at which it fell behind."""
    at: float
    """The monotonic second at which that revision was read."""
    depth: Depth
    reached: set[Reached] = field(default_factory=set)
    """The destinations whose endpoints have moved, below the depth of `WHOLE`: then the task is one node's."""


class Pending:
    """At most one task for each node: a later change widens it and leaves its place in the queue."""

    def __init__(self) -> None:
        # In order of `since`, as revisions only grow. A plain dict walks over what was taken from its front.
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tasks)

    def widen(self, node_ids: Iterable[str], depth: Depth, *, since: int, at: float) -> None:
        """Note that nodes are behind with their policies or everything. They share one task, where they had none."""
        task = Task(since, at, depth)
        for node_id in node_ids:
            held = self._tasks.setdefault(node_id, task)
            if held.depth < depth:
                self._tasks[node_id] = Task(held.since, held.at, depth, held.reached)

    def widen_endpoints(self, node_ids: Iterable[str], reached: Reached, *, since: int, at: float) -> None:
        """Note that nodes are behind with the endpoints of a destination."""
        for node_id in node_ids:
            task = self._tasks.get(node_id)
            if task is None:
                self._tasks[node_id] = Task(since, at, Depth.ENDPOINTS, {reached})
            elif task.reached:
                task.reached.add(reached)
            elif task.depth is not Depth.WHOLE:
                self._tasks[node_id] = Task(task.since, task.at, task.depth, {reached})

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
