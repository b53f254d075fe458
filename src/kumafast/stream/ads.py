"""One stream, from its first request to its end: the session on one side, the cache and the observer on the other.

In: the bytes of requests, a way to write, a `SnapshotCache`. Out: the bytes of responses, calls of a `NodeObserver`.
Never: gRPC, sockets, rules of the protocol; nor a queue: what a client has not read yet is not even encoded.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from kumafast.snapshot.cache import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.snapshot import Snapshot
from kumafast.stream import wire
from kumafast.stream.messages import Acknowledged, Event, Variant
from kumafast.stream.observer import NodeObserver
from kumafast.stream.session import Session
from kumafast.stream.turns import Turns

_LOG = logging.getLogger(__name__)

NodeKey = Callable[[Node], str]
Write = Callable[[bytes], Awaitable[None]]

PATIENCE_S = 0.25
"""How long what must come later waits for a client that does not answer as Envoy does."""


def key_of(node: Node) -> str:
    """The cache's key for a node: its id, else its cluster, else `*`."""
    return node.id or node.cluster or "*"


class AdsStream:
    """One stream of either variant, aggregated (`type_url` None) or of one type.

    Two coroutines: one takes in requests, however slowly the client reads; the other sends what is then the difference
    to the newest snapshot, one response at a time.
    """

    def __init__(
        self,
        requests: AsyncIterator[bytes],
        write: Write,
        *,
        variant: Variant,
        type_url: str | None,
        cache: SnapshotCache,
        observer: NodeObserver | None,
        instance_id: str,
        node_key: NodeKey = key_of,
        turns: Turns | None = None,
    ) -> None:
        """`turns`, shared by all streams of a server, slices the work that one change makes for many of them."""
        self.id = str(uuid.uuid4())
        self._requests = requests
        self._write = write
        self._variant = variant
        self._cache = cache
        self._observer = observer
        self._instance_id = instance_id
        self._node_key = node_key
        self._turns = turns
        self._session = Session(variant, type_url, epoch=self.id[:8])
        self._key: str | None = None
        self._wake = asyncio.Event()
        self.is_ended = False
        self._is_patient = True
        self._timer: asyncio.TimerHandle | None = None
        # The snapshot that was last reported as synced; None while the client lacks something.
        self._synced: Snapshot | None = None

    async def run(self) -> None:
        """Serve until the client ends or `end` is called. Raises `ProtocolError` for a bad request."""
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(lambda _: self._wake.set())
        unwatch: Callable[[], None] | None = None
        try:
            while not self.is_ended:
                await self._wake.wait()
                self._wake.clear()
                is_over = reader.done()
                if is_over:
                    reader.result()
                if self._key is not None:
                    unwatch = unwatch or self._cache.watch(self._key, self._wake_in_turn)
                    # A client that ends its side after asking is still answered.
                    await self._flush(self._key)
                if is_over:
                    return
        finally:
            if unwatch is not None:
                unwatch()
            if self._timer is not None:
                self._timer.cancel()
            reader.cancel()
            if self._key is not None and self._observer is not None:
                self._tell(self._observer.stream_closed)
            await asyncio.gather(reader, return_exceptions=True)

    def _wake_in_turn(self) -> None:
        if self._turns is None:
            self._wake.set()
        else:
            self._turns.ask(self._wake.set)

    def end(self) -> None:
        """Make `run` return as soon as nothing is being written."""
        self.is_ended = True
        self._wake.set()

    async def _read(self) -> None:
        async for data in self._requests:
            # Only the first request's node counts, and later ones may repeat it (rule 2).
            request = wire.decode(data, self._variant, with_node=self._key is None)
            if self._key is None:
                node = request.node or Node(id="")
                self._key = self._node_key(node)
                if self._observer is not None:
                    self._tell(self._observer.stream_opened, node)
            for event in self._session.receive(request):
                self._report(event)
            self._wake.set()

    async def _flush(self, key: str) -> None:
        """Send all that is due by now."""
        is_patient, self._is_patient = self._is_patient, True
        while not self.is_ended:
            response = self._session.respond(self._cache.get(key), is_patient=is_patient)
            if response is None:
                break
            data = wire.encode(response, self._variant, instance_id=self._instance_id)
            if self._observer is not None:
                self._tell(self._observer.response_sent, response.type_url, response.version, len(data))
            await self._write(data)
        self._set_timer()
        self._report_synced(self._cache.get(key))

    def _set_timer(self) -> None:
        """Have patience while something is held back; there is no timer otherwise."""
        if not self._session.is_holding:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._lose_patience)

    def _lose_patience(self) -> None:
        self._timer = None
        self._is_patient = False
        self._wake.set()

    def _report(self, event: Event) -> None:
        if isinstance(event, Acknowledged):
            if self._observer is not None:
                self._tell(self._observer.response_acknowledged, event.type_url, event.version)
            return
        _LOG.warning("%s refused %s %s: %s", self._key, event.type_url.rpartition(".")[2], event.version, event.message)
        if self._observer is not None:
            self._tell(self._observer.response_rejected, event.type_url, event.version, event.message)

    def _report_synced(self, snapshot: Snapshot | None) -> None:
        if self._observer is None:
            return
        if snapshot is None or not self._session.is_synced(snapshot):
            self._synced = None
        elif snapshot is not self._synced:
            self._synced = snapshot
            self._tell(self._observer.stream_synced, snapshot)

    def _tell(self, report: Callable[..., None], *what: Any) -> None:
        try:
            report(self.id, *what)
        except Exception:
            # What is sent does not depend on who follows it.
            _LOG.exception("an observer of streams failed")
