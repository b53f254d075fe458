"""Statuses of proxies on their way to the store.

In: events of streams (it is the stream's `NodeObserver`). Out: `DataplaneInsight` resources, written in batches when
something has happened and at most once an interval. Never: a write for each event, or a tick while nothing happens.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from kumafast.errors import KumafastError, StoreUnavailableError
from kumafast.insights import edits
from kumafast.insights.arrivals import Arrivals
from kumafast.insights.clients import Clients, StreamStatus
from kumafast.insights.convergence import Convergence
from kumafast.insights.edits import COMMIT_MAX
from kumafast.insights.following import follow_changes
from kumafast.insights.status import CertificateFacts, certified, failed, insight, is_elsewhere
from kumafast.metrics import Metrics
from kumafast.resources import DataplaneInsight, Resource, ResourceKey
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node, dataplane_of
from kumafast.snapshot.resource import LISTENER, SECRET
from kumafast.store import Change, Store
from kumafast.templates import Failure

_LOG = logging.getLogger(__name__)

CertificateOf = Callable[[str], CertificateFacts | None]
FailureOf = Callable[[str], Failure | None]

RETRY_S_MAX = 5.0
"""The longest pause between attempts while the store cannot be written."""

COUNTS_S = 5.0
"""How long an insight may lack what only counts or dates it, which moves with each response, where not many have moved.
Who is connected and what was refused does not wait for it."""
COUNTS_MAX, COUNTS_AGAIN_S = 500, 1.0
"""Of how many that is then written at once, and after how many seconds of so many more: a push to ten thousand proxies
counts for all of them, and each write of it is work for this instance, for PostgreSQL and for all others."""

LOOKED_AT_MAX = 500
"""How many insights are looked at before everything else has its turn."""


class Insights:
    """Follows all streams of this instance, counts them in `clients` and writes the status of what has changed."""

    def __init__(
        self,
        *,
        store: Store,
        convergence: Convergence,
        metrics: Metrics,
        instance_id: str,
        flush_ms: float,
        clients: Clients | None = None,
        certificate_of: CertificateOf = lambda _: None,
        failure_of: FailureOf = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`certificate_of` says which certificate a node is to have, `failure_of` what cannot be made for it."""
        self.clients = Clients(clock=clock) if clients is None else clients
        self._clock = clock
        self._store = store
        self._convergence = convergence
        self._arrivals = Arrivals(store)
        self._metrics = metrics
        self._instance_id = instance_id
        self._flush_s = flush_ms / 1000
        self._certificate_of = certificate_of
        self._failure_of = failure_of
        # What each proxy is known to run with: noted when it has all of a snapshot.
        self._certificates: dict[ResourceKey, CertificateFacts | None] = {}
        self._by_proxy: dict[ResourceKey, dict[str, StreamStatus]] = {}
        # Whose each open stream of a dataplane is, so that none of its events need look at the name of its node.
        self._keys: dict[str, ResourceKey] = {}
        # The streams whose Envoy has taken listeners.
        self._listening: set[str] = set()
        self._dirty: set[ResourceKey] = set()
        # Those of which only counts have moved, until it is time for them.
        # In the order in which they are written.
        self._counted: dict[ResourceKey, None] = {}
        self._counting: asyncio.TimerHandle | None = None
        self._arrived = asyncio.Event()

    # The stream's NodeObserver.

    def stream_opened(self, stream_id: str, node: Node) -> None:
        """A stream has named its node."""
        self.clients.stream_opened(stream_id, node)
        key = _key(node.id)
        status = self.clients.stream(stream_id)
        if key is not None and status is not None:
            self._by_proxy.setdefault(key, {})[stream_id] = status
            self._keys[stream_id] = key
            self._mark(key)
        self._convergence.stream_opened(stream_id, node)

    def response_sent(self, stream_id: str, type_url: str, version: str, size: int) -> None:
        """A response went out."""
        counted = self._metrics.xds(type_url)
        counted.pushes += 1
        counted.bytes += size
        self.clients.response_sent(stream_id, type_url, version, size)
        self._mark_counted(stream_id)

    def response_acknowledged(self, stream_id: str, type_url: str, version: str) -> None:
        """The client took a response."""
        self.clients.response_acknowledged(stream_id, type_url, version)
        self._mark_counted(stream_id)
        if type_url == LISTENER and stream_id not in self._listening:
            self._note_arrival(stream_id)
        self._convergence.response_acknowledged(stream_id, type_url)

    def response_rejected(self, stream_id: str, type_url: str, version: str, message: str) -> None:
        """The client refused a response."""
        self._metrics.xds(type_url).rejects += 1
        self.clients.response_rejected(stream_id, type_url, version, message)
        self._mark_stream(stream_id)
        self._convergence.response_rejected(stream_id, type_url, version, message)

    def stream_synced(self, stream_id: str, snapshot: Snapshot) -> None:
        """The client has acknowledged all of a snapshot."""
        self.clients.stream_synced(stream_id, snapshot)
        self._note_certificate(stream_id, snapshot)
        self._convergence.stream_synced(stream_id, snapshot)

    def stream_closed(self, stream_id: str) -> None:
        """A stream has ended."""
        self._convergence.stream_closed(stream_id)
        self._mark_stream(stream_id)
        self._keys.pop(stream_id, None)
        self._listening.discard(stream_id)
        self.clients.stream_closed(stream_id)

    # The pipeline's side.

    def failed(self, node_id: str) -> None:
        """What cannot be made for a node is something else than before, or nothing any more."""
        if (key := _key(node_id)) in self._by_proxy and key is not None:
            self._mark(key)

    def _note_arrival(self, stream_id: str) -> None:
        key = self._keys.get(stream_id)
        if key is not None:
            self._listening.add(stream_id)
            self._arrivals.listeners_taken(key.mesh, key.name)

    def _note_certificate(self, stream_id: str, snapshot: Snapshot) -> None:
        key = self._keys.get(stream_id)
        if key is None:
            return
        runs_with = self._certificate_of(_node_id(key)) if snapshot.resources(SECRET) else None
        if key not in self._certificates or self._certificates[key] is not runs_with:
            self._certificates[key] = runs_with
            self._mark(key)

    def _mark_stream(self, stream_id: str) -> None:
        key = self._keys.get(stream_id)
        if key is not None:
            self._mark(key)

    def _mark(self, key: ResourceKey) -> None:
        self._dirty.add(key)
        self._arrived.set()

    def _mark_counted(self, stream_id: str) -> None:
        key = self._keys.get(stream_id)
        if key is None or key in self._counted or key in self._dirty:
            return
        self._counted[key] = None
        if self._counting is None:
            self._counting = asyncio.get_running_loop().call_later(COUNTS_S, self._count_now)

    def _count_now(self, *, most: int = COUNTS_MAX) -> None:
        self._counting = None
        due = list(itertools.islice(self._counted, most))
        for key in due:
            del self._counted[key]
        if self._counted:
            self._counting = asyncio.get_running_loop().call_later(COUNTS_AGAIN_S, self._count_now)
        self._dirty.update(due)
        self._arrived.set()

    # The store's side.

    async def take_over(self) -> None:
        """Set right what instances that died have left: open subscriptions, dataplanes that wait for their Envoy."""
        members = self._store.members
        if members.is_alone:
            await self._arrivals.admit_all()
        now = datetime.fromtimestamp(self._clock(), UTC)
        left: list[ResourceKey] = []
        for number, stored in enumerate((await self._store.list(DataplaneInsight.type.name)).items, start=1):
            if _is_left(stored.resource, members.is_dead):
                left.append(stored.resource.key)
            if not number % LOOKED_AT_MAX:
                # At this moment the proxies of the dead come, and those that are here are served as ever.
                await asyncio.sleep(0)
        for start in range(0, len(left), COMMIT_MAX):
            keys = left[start : start + COMMIT_MAX]
            await edits.change(self._store, keys, lambda _, held: _ended(held, members.is_dead, now=now))
        for key in left:
            # It may have listened, and the instance have died before it could say so.
            self._arrivals.listeners_taken(key.mesh, key.name)

    async def follow_members(self) -> None:
        """As leader, set right what others leave when they die, until cancelled."""
        members = self._store.members
        while True:
            seen = members.changes
            try:
                await self.take_over()
            except StoreUnavailableError as error:
                _LOG.debug("cannot say who went with another instance, will try again: %s", error)
                await asyncio.sleep(RETRY_S_MAX)
                continue
            while members.changes == seen:
                await members.change()

    async def keep_true(self) -> None:
        """Say again what is true of our own streams wherever somebody who took us for dead says otherwise."""
        await follow_changes(self._store, changed=self._check_own, missed=self._write_all)

    def _write_all(self) -> None:
        self._dirty.update(self._by_proxy)
        self._arrived.set()

    def _check_own(self, change: Change) -> None:
        key, stored = change.key, None if change.stored is None else change.stored.resource
        streams = self._by_proxy.get(key)
        if not streams or not isinstance(stored, DataplaneInsight):
            return
        said = {subscription.id for subscription in stored.subscriptions if subscription.is_online}
        if any(status.disconnected_at is None and id_ not in said for id_, status in streams.items()):
            self._dirty.add(key)
            self._arrived.set()

    async def follow(self) -> None:
        """Write what has changed, until cancelled: at once after a quiet time, then at most once an interval."""
        retry_s = self._flush_s
        while True:
            await self._arrived.wait()
            try:
                await self._flush()
                retry_s = self._flush_s
            except StoreUnavailableError as error:
                # The store has said why, once.
                _LOG.debug("cannot write the status of %d proxies, will try again: %s", len(self._dirty), error)
                retry_s = min(2 * max(retry_s, 0.1), RETRY_S_MAX)
            await asyncio.sleep(retry_s)

    async def flush(self) -> None:
        """Write all statuses that have changed since the last time, a slice in each commit."""
        if self._counting is not None:
            self._counting.cancel()
            self._count_now(most=len(self._counted))
        await self._flush()

    async def _flush(self) -> None:
        self._arrived.clear()
        dirty, self._dirty = list(self._dirty), set()
        for key in dirty:
            self._counted.pop(key, None)
        for start in range(0, len(dirty), COMMIT_MAX):
            keys = dirty[start : start + COMMIT_MAX]
            try:
                await edits.change(self._store, keys, self._insight)
            except KumafastError:
                self._dirty.update(dirty[start:])
                self._arrived.set()
                raise
            for key in keys:
                if key not in self._dirty:
                    self._forget_ended(key)

    def _insight(self, key: ResourceKey, held: Resource | None) -> DataplaneInsight:
        before = held if isinstance(held, DataplaneInsight) else None
        streams = list(self._by_proxy.get(key, {}).values())
        found = insight(mesh=key.mesh, name=key.name, streams=streams, instance_id=self._instance_id, before=before)
        mtls = None if before is None else before.mtls
        is_here = any(status.disconnected_at is None for status in streams)
        has_left = (
            any(is_elsewhere(each, instance_id=self._instance_id) for each in found.subscriptions) and not is_here
        )
        if key in self._certificates and not has_left:
            mtls = certified(self._certificates[key], mtls)
        failure = failed(self._failure_of(_node_id(key))) if is_here else None
        if has_left and before is not None:
            # It is for whoever it has gone to to say.
            failure = before.failure
        return found.model_copy(update={"mtls": mtls, "failure": failure}).lean()

    def _forget_ended(self, key: ResourceKey) -> None:
        streams = self._by_proxy.get(key, {})
        for stream_id in [stream_id for stream_id, status in streams.items() if status.disconnected_at is not None]:
            del streams[stream_id]
        if not streams:
            self._by_proxy.pop(key, None)
            self._certificates.pop(key, None)


def _key(node_id: str) -> ResourceKey | None:
    named = dataplane_of(node_id)
    return None if named is None else ResourceKey(DataplaneInsight.type.name, *named)


def _node_id(key: ResourceKey) -> str:
    return f"{key.mesh}.{key.name}"


def _is_left(held: Resource | None, is_dead: Callable[[str], bool]) -> bool:
    """Whether an insight has an open stream of an instance that is dead."""
    return isinstance(held, DataplaneInsight) and any(
        each.is_online and is_dead(each.control_plane_instance_id) for each in held.subscriptions
    )


def _ended(held: Resource | None, is_dead: Callable[[str], bool], *, now: datetime) -> DataplaneInsight | None:
    """An insight in which the streams of dead instances have ended; None where there are none."""
    if not isinstance(held, DataplaneInsight):
        return None
    left = [each for each in held.subscriptions if each.is_online and is_dead(each.control_plane_instance_id)]
    if not left:
        return None
    subscriptions = tuple(
        each.model_copy(update={"disconnect_time": now}) if each in left else each for each in held.subscriptions
    )
    failure = held.failure if any(each.is_online for each in subscriptions) else None
    return held.model_copy(update={"subscriptions": subscriptions, "failure": failure})
