"""The newest snapshot of each node, and who wants to know of the next.

In: snapshots by node. Out: the newest one, and a call for each watcher when its content has moved.
Never: a queue of snapshots; a watcher that comes late sees the newest only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kumafast.snapshot.snapshot import Snapshot

Wake = Callable[[], None]


class SnapshotCache:
    """Node id to newest snapshot. Single-threaded: one event loop writes, reads and is woken.

    >>> from kumafast.snapshot import Snapshot, SnapshotCache
    >>> cache = SnapshotCache()
    >>> cache.set("default.web-1", Snapshot())
    True
    >>> cache.set("default.web-1", Snapshot())  # equal content: nobody is woken
    False
    """

    def __init__(self) -> None:
        self._snapshots: dict[str, Snapshot] = {}
        self._watchers: dict[str, list[Wake]] = {}

    def get(self, node_id: str) -> Snapshot | None:
        """The newest snapshot of a node; None where nothing is known of it, and then it must get no answer."""
        return self._snapshots.get(node_id)

    def set(self, node_id: str, snapshot: Snapshot) -> bool:
        """Make a snapshot the newest of its node; True where its content differs from the one before."""
        held = self._snapshots.get(node_id)
        if held is not None and snapshot.has_content_of(held):
            # Other names for the versions of equal content reach those who ask from now on, and wake nobody.
            if not snapshot.has_version_names_of(held):
                self._snapshots[node_id] = snapshot
            return False
        self._snapshots[node_id] = snapshot
        for wake in tuple(self._watchers.get(node_id, ())):
            wake()
        return True

    def clear(self, node_id: str) -> None:
        """Forget a node. Its clients keep what they hold and are told nothing."""
        self._snapshots.pop(node_id, None)

    def watch(self, node_id: str, wake: Wake) -> Wake:
        """Call `wake` whenever the node's snapshot moves; the returned function ends that."""
        self._watchers.setdefault(node_id, []).append(wake)

        def unwatch() -> None:
            watchers = self._watchers.get(node_id)
            if watchers is not None and wake in watchers:
                watchers.remove(wake)
                if not watchers:
                    del self._watchers[node_id]

        return unwatch

    def __len__(self) -> int:
        return len(self._snapshots)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._snapshots))
