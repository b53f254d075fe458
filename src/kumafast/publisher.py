"""When each connected node gets its snapshot: newcomers at once, the others in fair slices, one task for each.

In: nodes that connect and go, nodes that fall behind at a revision, a function that resolves a node. Out: the newest
`Snapshot` of each connected node in a `SnapshotCache`; up to which revision that is so.
Never: why a node is behind, or what its parts are.

What is promised: a snapshot is made from what is true when it is made, so no node gets a part of a commit that was
taken in as one, and while some have got a commit others may still have the state before it. When `revision` says so,
everybody has it. A later change of a node that waits widens its task and does not lengthen its wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kumafast import garbage
from kumafast.errors import ModificationError
from kumafast.metrics import Metrics
from kumafast.pending import Depth, Pending, Task
from kumafast.reached import Reached, Unready
from kumafast.resources import ResourceKey
from kumafast.snapshot import Layer, Snapshot, SnapshotCache
from kumafast.snapshot.node import TAKES_DELTA, Node
from kumafast.templates import Failure
from kumafast.viewed import Viewed

_LOG = logging.getLogger(__name__)

SLICE_S = 0.005
"""For how long the snapshots of many nodes are made before everything else on the event loop gets its turn."""

SLICE_NODES_MAX = 64
"""How many nodes' streams are woken at once: what each then sends costs several times what its snapshot did."""

# About how many objects stay when a node's stream opens, and when its snapshot moves, what its stream keeps included.
_OBJECTS_OF_STREAM = 100
_OBJECTS_OF_SNAPSHOT = 10
# By how many blocks memory grows with a node of its own outbounds, measured with 2,000: its plan, snapshot and session.
_BLOCKS_OF_NODE = 300

REFRESH_DELAY_MAX_S = 0.05
"""How long those who are connected wait for those who come, where many come."""


class Published(NamedTuple):
    """When a node's snapshot last moved: the revision that moved it, and the monotonic second at which it was read."""

    revision: int
    at: float


class Resolved(Protocol):
    """What a node gets, as it was when all of it was looked at."""

    @property
    def reached(self) -> tuple[Reached, ...]:
        """The destinations whose endpoints are the last layers."""

    @property
    def views(self) -> Mapping[Reached, Viewed]:
        """Those of the destinations whose endpoints it sees in a way of its own, as of the last call of `layers`."""

    def layers(self) -> tuple[Layer, ...]:
        """The layers that no endpoint is in, under the policies of now; always as many, each in its place.

        Raises `ModificationError` where they cannot be made.
        """

    def templates(self) -> tuple[ResourceKey, ...]:
        """The policies that are to blame where they cannot."""


Resolve = Callable[[str, Node], Resolved | None]
"""What the node with an id gets now; None where its dataplane is not known.

Raises `Unready` where to find that out takes more than one turn: it goes on with the next call.
"""


@dataclass(slots=True)
class _Connected:
    """A node with at least one stream."""

    node: Node
    streams: set[str]
    snapshot: Snapshot | None = None
    """What its dataplane gives. The cache may hold an older one that has the same content."""
    resolved: Resolved | None = None
    """What its dataplane gives, where it is known."""
    failure: Failure | None = None
    """Why it keeps what it had, where what its dataplane gives cannot be made."""
    hoped: tuple[Reached, ...] = ()
    """The destinations of what cannot be made: another protocol of one may be worth another attempt."""

    @property
    def reached(self) -> tuple[Reached, ...]:
        return () if self.resolved is None else self.resolved.reached


@dataclass(slots=True)
class Work:
    """What has been done since the start, as counts: the price of a change that no machine distorts."""

    resolved: int = 0
    """Proxies that were resolved as a whole."""
    rebound: int = 0
    """Proxies of which only what their policies come to was looked at anew."""
    spliced: int = 0
    """Snapshots that were made from the one before, by other endpoints in their place."""
    generated: int = 0
    """Calls of generators, one for each layer that was made."""
    encoded_bytes: int = 0
    """Bytes of those layers."""


class Publisher:
    """Keeps the snapshot of every connected node at what is true, or knows that it is behind."""

    def __init__(
        self,
        *,
        cache: SnapshotCache,
        metrics: Metrics,
        resolve: Resolve,
        rest: Callable[[], None] = lambda: None,
        failed: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rest` is called when nobody waits any more for whom `resolve` was not ready.

        `failed` is told of a node for which there is another failure than before, or none any more.
        """
        self.revision = 0
        """All commits up to this revision are in the published snapshots of all connected nodes."""
        self.work = Work()
        self._cache = cache
        self._metrics = metrics
        self._resolve = resolve
        self._rest = rest
        self._monotonic = monotonic
        self._failed = failed
        self._connected: dict[str, _Connected] = {}
        self._published: dict[str, Published] = {}
        # Those of one commit share one.
        self._last: Published | None = None
        # Bounded by the connected nodes.
        self._pending = Pending()
        # Nodes for which it takes several turns to find out what they get, each with the second at which it came or
        # fell behind; the revision of which they may lack something. They are looked at beside those who are behind.
        self._unready: dict[str, float] = {}
        self._unready_since = 0
        # The revision that snapshots are made of now; `revision` follows when nobody is behind.
        self._newest = 0
        # Since when somebody has been behind; counts only while somebody is.
        self._behind_since = 0.0
        self._newcomers = 0
        self._progress = asyncio.Event()

    # The nodes' side.

    def connect(self, stream_id: str, node: Node) -> bool:
        """A node has opened a stream: from now on its snapshot is kept. It gets it at once, whoever else waits.

        False where that takes more than one turn, and slices have to be published.
        """
        connected = self._connected.get(node.id)
        if connected is None:
            connected = self._connected[node.id] = _Connected(node, set())
            garbage.came(_BLOCKS_OF_NODE)
        connected.streams.add(stream_id)
        # A node that comes again may have restarted with other ports or features.
        connected.node = node
        self._metrics.connected_proxies.set(len(self._connected))
        self._newcomers += 1
        garbage.made(_OBJECTS_OF_STREAM)
        self._pending.forget(node.id)
        self._renew(node.id, connected, self._monotonic())
        self._advance()
        return node.id not in self._unready

    def disconnect(self, stream_id: str, node_id: str) -> bool:
        """A stream has ended; with the last one of a node its snapshot is let go, and True comes back."""
        connected = self._connected.get(node_id)
        if connected is None:
            return False
        connected.streams.discard(stream_id)
        if connected.streams:
            return False
        del self._connected[node_id]
        garbage.came(-_BLOCKS_OF_NODE)
        self._pending.forget(node_id)
        self._reach_only(node_id, connected, None)
        self._hope_for(node_id, connected)
        self._note_ready(node_id)
        self._published.pop(node_id, None)
        self._cache.clear(node_id)
        self._metrics.connected_proxies.set(len(self._connected))
        self._advance()
        return True

    def published(self, node_id: str) -> Published | None:
        """When the snapshot of a connected node last moved."""
        return self._published.get(node_id)

    def failure(self, node_id: str) -> Failure | None:
        """Why a connected node keeps what it has, though something else holds for it; None where it does not."""
        connected = self._connected.get(node_id)
        return None if connected is None else connected.failure

    def kept(self, node_id: str) -> Snapshot | None:
        """What a connected node keeps because of a failure; None where there is none, or nothing to keep."""
        connected = self._connected.get(node_id)
        return None if connected is None or connected.failure is None else connected.snapshot

    def node(self, node_id: str) -> Node | None:
        """A connected node as it named itself; None for one that is not connected."""
        connected = self._connected.get(node_id)
        return None if connected is None else connected.node

    def connected_nodes(self) -> list[str]:
        """The ids of the nodes with at least one stream."""
        return list(self._connected)

    # The changes' side.

    def fall_behind(
        self, nodes: Iterable[str], *, since: int, at: float, depth: Depth = Depth.WHOLE, reached: Reached | None = None
    ) -> list[str]:
        """Note that these nodes lack something of a revision: `depth` of all, or the endpoints of one destination.

        `at` is the monotonic second at which the revision was read. The ids of those that are connected come back.
        """
        behind = [node_id for node_id in nodes if node_id in self._connected]
        if behind and not self._pending:
            self._behind_since = at
        if reached is not None:
            self._pending.widen_endpoints(behind, reached, since=since, at=at)
        elif behind:
            self._pending.widen(behind, depth, since=since, at=at)
        return behind

    def stand_at(self, revision: int) -> None:
        """From now on snapshots are made of this revision; who lacks something of it has been said to be behind."""
        self._newest = max(self._newest, revision)
        self._advance()

    async def reach(self, revision: int) -> None:
        """Return when all commits up to a revision are in the published snapshots of all connected nodes."""
        while self.revision < revision:
            await self._progress.wait()

    def _advance(self) -> None:
        done = self._pending.done(self._newest)
        if self._unready:
            done = min(done, self._unready_since - 1)
        if done > self.revision:
            self.revision = done
            self._progress.set()
            self._progress = asyncio.Event()

    # In slices.

    @property
    def is_behind(self) -> bool:
        """Whether any node waits for its snapshot."""
        return bool(self._pending) or bool(self._unready)

    def publish_slice(self) -> None:
        """Bring those up to date who have been behind for longest, for `SLICE_S` and `SLICE_NODES_MAX` at the most."""
        started = now = self._monotonic()
        self._go_on_with_unready(started)
        for _ in range(SLICE_NODES_MAX):
            oldest = self._pending.take()
            if oldest is None:
                break
            self._catch_up(*oldest)
            now = self._monotonic()
            if not self._pending:
                self._metrics.reconcile_seconds.observe(now - self._behind_since)
            if now - started >= SLICE_S:
                break
        self._advance()

    def _go_on_with_unready(self, started: float) -> None:
        for node_id, at in list(self._unready.items()):
            self._renew(node_id, self._connected[node_id], at)
            if node_id in self._unready:
                # The piece of work was as much as a turn has room for.
                return
            self._pending.forget(node_id)
            if self._monotonic() - started >= SLICE_S:
                return

    async def publish_until(self, is_enough: Callable[[], bool]) -> None:
        """Publish slice by slice until nobody is behind, or `is_enough`; at least one slice where somebody is."""
        while self.is_behind:
            await self._give_way()
            self.publish_slice()
            if is_enough():
                return

    async def _give_way(self) -> None:
        """Let everything else have its turn, and nodes that connect more than one."""
        until = self._monotonic() + REFRESH_DELAY_MAX_S
        while True:
            self._newcomers = 0
            await asyncio.sleep(0)
            if not self._newcomers or self._monotonic() >= until:
                return

    # From a node to its snapshot.

    def _catch_up(self, node_id: str, task: Task) -> None:
        connected = self._connected[node_id]
        snapshot, resolved = connected.snapshot, connected.resolved
        if node_id in self._unready:
            # It gets what is true once that is known.
            return
        # What failed may have been more than policies.
        depth = Depth.WHOLE if connected.failure and task.depth is Depth.POLICIES else task.depth
        if depth is Depth.WHOLE or snapshot is None or resolved is None:
            self._renew(node_id, connected, task.at)
            return
        node = connected.node
        changed = list(task.reached)
        layers: dict[int, Layer] = {}
        if depth is Depth.ENDPOINTS:
            self.work.spliced += 1
        else:
            self.work.rebound += 1
            held, was = snapshot.layers, resolved.views
            for place, layer in enumerate(self._made(node_id, connected, resolved) or ()):
                if layer is not held[place]:
                    layers[place] = layer
            changed.extend(_seen_otherwise(was, resolved.views))
        for reached in changed:
            layers[reached.nodes[node_id]] = self._endpoints(reached, resolved, node)
        if not layers:
            return
        self._publish(node_id, connected, snapshot.replaced(layers), task.at)

    def _renew(self, node_id: str, connected: _Connected, at: float) -> None:
        try:
            resolved = self._resolve(node_id, connected.node)
        except Unready:
            self._note_unready(node_id, at)
            return
        if resolved is None:
            # A node that is not known gets no answer, and one whose dataplane was deleted keeps what it has: an empty
            # configuration would cut the traffic that still runs through it.
            connected.snapshot = None
            self._note_failure(node_id, connected, None)
            self._reach_only(node_id, connected, None)
            self._hope_for(node_id, connected)
            self._note_ready(node_id)
            return
        self.work.resolved += 1
        layers = self._made(node_id, connected, resolved)
        if layers is None:
            self._hope_for(node_id, connected, resolved.reached)
            self._follow_endpoints(node_id, connected, at)
            self._note_ready(node_id)
            return
        for place, reached in enumerate(resolved.reached, len(layers)):
            reached.nodes[node_id] = place
        self._reach_only(node_id, connected, resolved)
        self._hope_for(node_id, connected)
        self._publish(node_id, connected, Snapshot((*layers, *self._all_endpoints(resolved, connected.node))), at)
        self._note_ready(node_id)

    def _follow_endpoints(self, node_id: str, connected: _Connected, at: float) -> None:
        """Bring the endpoints of what a node keeps up to date: its task may have covered moves of some of them."""
        snapshot, resolved = connected.snapshot, connected.resolved
        if snapshot is None or resolved is None:
            return
        held = snapshot.layers
        layers: dict[int, Layer] = {}
        for reached in connected.reached:
            if reached.destination.external is not None:
                # It has moved out of the mesh, and the cluster that the node keeps asks for endpoints in it.
                continue
            place = reached.nodes[node_id]
            layer = self._endpoints(reached, resolved, connected.node)
            if layer is not held[place]:
                layers[place] = layer
        if layers:
            self.work.spliced += 1
            self._publish(node_id, connected, snapshot.replaced(layers), at)

    def _note_unready(self, node_id: str, at: float) -> None:
        if not self._unready:
            # All that is lacked is newer: of what is at or below `revision` nothing is.
            self._unready_since = self.revision + 1
        self._unready.setdefault(node_id, at)

    def _note_ready(self, node_id: str) -> None:
        if self._unready.pop(node_id, None) is not None and not self._unready:
            self._rest()

    def _made(self, node_id: str, connected: _Connected, resolved: Resolved) -> tuple[Layer, ...] | None:
        """What a node gets; None where that cannot be made. Then it keeps what it has, of which the endpoints go on to
        follow, until a change of its dataplane or policies is worth another attempt.
        """
        try:
            layers = resolved.layers()
        except ModificationError as error:
            self._note_failure(node_id, connected, Failure.of(error, resolved.templates(), revision=self._newest))
            return None
        self._note_failure(node_id, connected, None)
        return layers

    def _note_failure(self, node_id: str, connected: _Connected, failure: Failure | None) -> None:
        is_another = connected.failure != failure
        connected.failure = failure
        if is_another:
            if failure is not None:
                _LOG.warning("%s keeps its configuration: %s", node_id, failure.message)
            self._failed(node_id)

    def _publish(self, node_id: str, connected: _Connected, snapshot: Snapshot, at: float) -> None:
        connected.snapshot = snapshot
        if self._cache.set(node_id, snapshot):
            if self._last is None or self._last != (self._newest, at):
                self._last = Published(self._newest, at)
            self._published[node_id] = self._last
            garbage.made(_OBJECTS_OF_SNAPSHOT)

    def _reach_only(self, node_id: str, connected: _Connected, resolved: Resolved | None) -> None:
        """Take note of what a node gets now, and end those destinations that no connected node reaches any more."""
        now = () if resolved is None else resolved.reached
        if connected.reached is not now:
            for item in set(connected.reached).difference(now):
                item.leave(node_id)
        connected.resolved = resolved

    def _all_endpoints(self, resolved: Resolved, node: Node) -> Iterator[Layer]:
        has_views, one_by_one = bool(resolved.views), node.metadata.get(TAKES_DELTA) is True
        for reached in resolved.reached:
            # A transparent proxy may reach a thousand services, of which nearly all are there as all have them.
            held = None if has_views else reached.held(one_by_one=one_by_one)
            yield self._endpoints(reached, resolved, node) if held is None else held

    def _hope_for(self, node_id: str, connected: _Connected, hoped: tuple[Reached, ...] = ()) -> None:
        """Take note of what a node would get if that could be made, instead of what that was before."""
        for reached in hoped:
            reached.hopefuls.add(node_id)
        for reached in set(connected.hoped).difference(hoped):
            reached.give_up(node_id)
        connected.hoped = hoped

    def _endpoints(self, reached: Reached, resolved: Resolved, node: Node) -> Layer:
        viewed = resolved.views.get(reached)
        if viewed is None:
            layer, is_new = reached.layer(one_by_one=node.metadata.get(TAKES_DELTA) is True)
        else:
            layer, is_new = viewed.layer()
        if is_new:
            self.count("endpoints", layer)
        return layer

    def count(self, generator: str, layer: Layer) -> None:
        """Note that a generator made a layer."""
        self._metrics.generator_calls(generator).inc()
        work = self.work
        work.generated += 1
        for resource in layer.resources:
            work.encoded_bytes += len(resource.body)


def _seen_otherwise(was: Mapping[Reached, Viewed], now: Mapping[Reached, Viewed]) -> Iterator[Reached]:
    """The destinations that a node sees in another way than before."""
    if was or now:
        yield from (each for each in {**was, **now} if was.get(each) is not now.get(each))
