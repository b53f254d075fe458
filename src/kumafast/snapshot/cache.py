"""The newest snapshot of each node, and who wants to know of the next.

In: snapshots by node. Out: the newest one, and a call for each watcher when its content has moved.
Never: a queue of snapshots; a watcher that comes late sees the newest only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kumafast.snapshot.snapshot import Snapshot

Wake = Callable[[], None]
Follow = Callable[[str, Snapshot | None, bool], None]


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
        self._followers: tuple[Follow, ...] = ()
        # The last two that were compared, and what came of it: many nodes may be given the same one after the other.
        self._compared: tuple[Snapshot | None, Snapshot | None, bool] = (None, None, False)

    def get(self, node_id: str) -> Snapshot | None:
        """The newest snapshot of a node; None where nothing is known of it, and then it must get no answer."""
        return self._snapshots.get(node_id)

    def set(self, node_id: str, snapshot: Snapshot) -> bool:
        """Make a snapshot the newest of its node; True where its content differs from the one before."""
        held = self._snapshots.get(node_id)
        if held is not None and self._is_same(held, snapshot):
            # Other names for the versions of equal content reach those who ask from now on, and wake nobody.
            if not snapshot.has_version_names_of(held):
                self._snapshots[node_id] = snapshot
                self._tell(node_id, snapshot, has_moved=False)
            return False
        self._snapshots[node_id] = snapshot
        if node_id in self._watchers:
            for wake in tuple(self._watchers[node_id]):
                wake()
        self._tell(node_id, snapshot, has_moved=True)
        return True

    def _tell(self, node_id: str, snapshot: Snapshot | None, *, has_moved: bool) -> None:
        for follow in self._followers:
            follow(node_id, snapshot, has_moved)

    def _is_same(self, held: Snapshot, snapshot: Snapshot) -> bool:
        if self._compared[0] is not held or self._compared[1] is not snapshot:
            self._compared = (held, snapshot, snapshot.has_content_of(held))
        return self._compared[2]

    def clear(self, node_id: str) -> None:
        """Forget a node. Its clients keep what they hold and are told nothing."""
        if self._snapshots.pop(node_id, None) is not None:
            self._tell(node_id, None, has_moved=False)

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

    def follow(self, take: Follow) -> Wake:
        """Call `take` with each node whose snapshot is another, and whether its content has moved.

        Where it has not, the snapshot was cleared or has other names for its versions, and nobody needs to be woken.
        The returned function ends that.
        """
        self._followers = (*self._followers, take)

        def unfollow() -> None:
            self._followers = tuple(each for each in self._followers if each is not take)

        return unfollow

    def __len__(self) -> int:
        return len(self._snapshots)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._snapshots))
