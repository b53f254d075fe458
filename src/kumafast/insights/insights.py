"""Statuses of proxies on their way to the store.

In: events of streams (it is the stream's `NodeObserver`). Out: `DataplaneInsight` resources, written in batches when
something has happened and at most once an interval. Never: a write for each event, or a tick while nothing happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from kumafast.errors import KumafastError, NotFoundError, StoreUnavailableError
from kumafast.insights.arrivals import Arrivals
from kumafast.insights.clients import Clients, StreamStatus
from kumafast.insights.convergence import Convergence
from kumafast.insights.status import CertificateFacts, certified, failed, insight
from kumafast.metrics import Metrics
from kumafast.resources import DataplaneInsight, ResourceKey
from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node, dataplane_of
from kumafast.snapshot.resource import LISTENER, SECRET
from kumafast.store import Put, Store
from kumafast.templates import Failure

_LOG = logging.getLogger(__name__)

CertificateOf = Callable[[str], CertificateFacts | None]
FailureOf = Callable[[str], Failure | None]

RETRY_S_MAX = 5.0
"""The longest pause between attempts while the store cannot be written."""

COUNTS_S = 5.0
"""How long an insight may lack what only counts or dates it, which moves with each response. Who is connected and what
was refused does not wait for it."""

COMMIT_MAX = 64
"""How many statuses go into one commit: whoever writes meanwhile waits for one commit, and the loop for as many."""


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
    ) -> None:
        """`certificate_of` says which certificate a node is to have, `failure_of` what cannot be made for it."""
        self.clients = Clients() if clients is None else clients
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
        # The streams whose Envoy has taken listeners.
        self._listening: set[str] = set()
        self._dirty: set[ResourceKey] = set()
        # Those of which only counts have moved, until it is time for them.
        self._counted: set[ResourceKey] = set()
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
        self._mark(node.id)
        self._convergence.stream_opened(stream_id, node)

    def response_sent(self, stream_id: str, type_url: str, version: str, size: int) -> None:
        """A response went out."""
        xds = self._metrics.xds(type_url)
        xds.pushes.inc()
        xds.bytes.inc(size)
        self.clients.response_sent(stream_id, type_url, version, size)
        self._mark_counted(stream_id)

    def response_acknowledged(self, stream_id: str, type_url: str, version: str) -> None:
        """The client took a response."""
        self.clients.response_acknowledged(stream_id, type_url, version)
        self._mark_counted(stream_id)
        if type_url == LISTENER:
            self._note_arrival(stream_id)
        self._convergence.response_acknowledged(stream_id, type_url)

    def response_rejected(self, stream_id: str, type_url: str, version: str, message: str) -> None:
        """The client refused a response."""
        self._metrics.xds(type_url).rejects.inc()
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
        self._listening.discard(stream_id)
        self.clients.stream_closed(stream_id)

    # The pipeline's side.

    def failed(self, node_id: str) -> None:
        """What cannot be made for a node is something else than before, or nothing any more."""
        if (key := _key(node_id)) in self._by_proxy and key is not None:
            self._mark(node_id)

    def _note_arrival(self, stream_id: str) -> None:
        status = self.clients.stream(stream_id)
        key = None if status is None else _key(status.node.id)
        if key is not None and stream_id not in self._listening:
            self._listening.add(stream_id)
            self._arrivals.listeners_taken(key.mesh, key.name)

    def _note_certificate(self, stream_id: str, snapshot: Snapshot) -> None:
        status = self.clients.stream(stream_id)
        key = None if status is None else _key(status.node.id)
        if status is None or key is None:
            return
        runs_with = self._certificate_of(status.node.id) if snapshot.resources(SECRET) else None
        if key not in self._certificates or self._certificates[key] is not runs_with:
            self._certificates[key] = runs_with
            self._mark(status.node.id)

    def _mark_stream(self, stream_id: str) -> None:
        status = self.clients.stream(stream_id)
        if status is not None:
            self._mark(status.node.id)

    def _mark(self, node_id: str) -> None:
        key = _key(node_id)
        if key is not None:
            self._dirty.add(key)
            self._arrived.set()

    def _mark_counted(self, stream_id: str) -> None:
        status = self.clients.stream(stream_id)
        key = None if status is None else _key(status.node.id)
        if key is None or key in self._dirty:
            return
        self._counted.add(key)
        if self._counting is None:
            self._counting = asyncio.get_running_loop().call_later(COUNTS_S, self._count_now)

    def _count_now(self) -> None:
        self._counting = None
        self._dirty |= self._counted
        self._counted.clear()
        self._arrived.set()

    # The store's side.

    async def take_over(self) -> None:
        """Set right what an instance that died left: open subscriptions, failures, dataplanes that await an Envoy."""
        await self._arrivals.admit_all()
        ended = datetime.now(UTC)
        writes = []
        for stored in (await self._store.list(DataplaneInsight.type.name)).items:
            assert isinstance(stored.resource, DataplaneInsight)
            is_open = any(subscription.disconnect_time is None for subscription in stored.resource.subscriptions)
            if is_open or stored.resource.failure is not None:
                closed = tuple(
                    subscription.model_copy(update={"disconnect_time": subscription.disconnect_time or ended})
                    for subscription in stored.resource.subscriptions
                )
                writes.append(Put(stored.resource.model_copy(update={"subscriptions": closed, "failure": None})))
        if writes:
            await self._store.write(writes)

    async def follow(self) -> None:
        """Write what has changed, until cancelled: at once after a quiet time, then at most once an interval."""
        retry_s = self._flush_s
        while True:
            await self._arrived.wait()
            try:
                await self._flush()
                retry_s = self._flush_s
            except StoreUnavailableError as error:
                _LOG.warning("cannot write the status of %d proxies, will try again: %s", len(self._dirty), error)
                retry_s = min(2 * max(retry_s, 0.1), RETRY_S_MAX)
            await asyncio.sleep(retry_s)

    async def flush(self) -> None:
        """Write all statuses that have changed since the last time, a slice in each commit."""
        if self._counting is not None:
            self._counting.cancel()
            self._count_now()
        await self._flush()

    async def _flush(self) -> None:
        self._arrived.clear()
        dirty, self._dirty = list(self._dirty), set()
        self._counted.difference_update(dirty)
        for start in range(0, len(dirty), COMMIT_MAX):
            keys = dirty[start : start + COMMIT_MAX]
            try:
                await self._write(keys)
            except KumafastError:
                self._dirty.update(dirty[start:])
                self._arrived.set()
                raise
            for key in keys:
                if key not in self._dirty:
                    self._forget_ended(key)

    async def _write(self, keys: Iterable[ResourceKey]) -> None:
        writes = [await self._insight(key) for key in keys]
        try:
            await self._store.write([Put(value) for value in writes])
        except NotFoundError:
            # A dataplane among them was deleted, or was never put: the others must not suffer from it.
            for value in writes:
                await self._write_alone(value)

    async def _insight(self, key: ResourceKey) -> DataplaneInsight:
        before: DataplaneInsight | None = None
        try:
            resource = (await self._store.get(key)).resource
            before = resource if isinstance(resource, DataplaneInsight) else None
        except NotFoundError:
            pass
        streams = list(self._by_proxy.get(key, {}).values())
        found = insight(mesh=key.mesh, name=key.name, streams=streams, instance_id=self._instance_id, before=before)
        held = None if before is None else before.mtls
        mtls = certified(self._certificates[key], held) if key in self._certificates else held
        failure = failed(self._failure_of(f"{key.mesh}.{key.name}"))
        return found.model_copy(update={"mtls": mtls, "failure": failure})

    async def _write_alone(self, value: DataplaneInsight) -> None:
        try:
            await self._store.put(value)
        except NotFoundError:
            _LOG.debug("no dataplane %s in mesh %s to keep a status for", value.name, value.mesh)

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
