"""All xDS streams of a server, from their first requests to their ends: sessions on one side, the cache on the other.

In: streams of connections, a `SnapshotCache`. Out: moves of the streams, calls of a `NodeObserver`.
Never: gRPC, sockets, rules of the protocol; nor a queue: what a client has not read yet is not even encoded.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from kumafast._core import Move, Protocol, Standing, Stream, Streams, Target, Turns
from kumafast.snapshot.cache import SnapshotCache
from kumafast.snapshot.node import Node, key_of
from kumafast.snapshot.snapshot import Snapshot
from kumafast.stream import wire
from kumafast.stream.admission import Authenticate, UnauthenticatedError
from kumafast.stream.large_requests import LargeRequests
from kumafast.stream.messages import Acknowledged, Event, Rejected, Sent, Variant
from kumafast.stream.observer import NodeObserver
from kumafast.stream.session import Session
from kumafast.stream.standings import Standings
from kumafast.stream.unfinished import Unfinished

_LOG = logging.getLogger(__name__)

NodeKey = Callable[[Node], str]

PATIENCE_S = 0.25
"""How long what must come later waits for a client that does not answer as Envoy does."""
SLICE = 128
"""Streams in one turn of the loop: where a move is known, one takes some 4 µs."""
SLICE_S = 0.001
"""No more are begun after so long: a move that nobody has made before takes some 50 µs, or more."""
# The number of the node's field in envoy/service/discovery/v3/discovery.proto.
_NODE_FIELD = {Variant.SOTW: 2, Variant.DELTA: 1}


class Fleet(Streams):
    """The streams of one server.

    A `Stream` is a few words in compiled memory: its connection, where it stands, what it aims at. What it does next
    is looked up where it stands, and worked out here by a `Session` only where nobody has done the same before.
    """

    def __init__(
        self,
        cache: SnapshotCache,
        *,
        observer: NodeObserver | None,
        instance_id: str,
        finish: Callable[[Protocol, int, Exception | None], None],
        node_key: NodeKey = key_of,
        authenticate: Authenticate | None = None,
    ) -> None:
        """`finish(connection, stream, error)` ends a stream on its connection, in order where there is no error.

        `authenticate` judges a client before anybody else knows of it; without it all are let in.
        """
        self.begin(Turns(SLICE, SLICE_S), PATIENCE_S)
        self._cache = cache
        self._observer = observer
        self._finish = finish
        self._node_key = node_key
        self._standings = Standings(instance_id=instance_id)
        self._large_requests = LargeRequests(has_read=self._standings.has_read, fail=self.fail)
        self._targets: dict[str, Target] = {}
        self._unfollow: Callable[[], None] | None = None
        self._unfinished = Unfinished()
        self._count = 0
        self._authenticate = authenticate
        # Of streams whose first request has not come: what is to be judged then.
        self._authorizations: dict[Stream, str] = {}
        # Of streams that were let in: whom to tell when they have gone.
        self._leaves: dict[Stream, Callable[[], None]] = {}
        # The newest goal, for the many nodes that are given one snapshot.
        self._last: tuple[Snapshot | None, Snapshot | None] = (None, None)

    def __len__(self) -> int:
        return self._count

    def open(
        self,
        connection: Protocol,
        stream_id: int,
        *,
        variant: Variant,
        type_url: str | None,
        authorization: str = "",
    ) -> Stream:
        """Have a stream of a connection served: aggregated (`type_url` None) or of one type.

        `authorization` is that header of its request.
        """
        if self._unfollow is None:
            self._unfollow = self._cache.follow(self._take_snapshot)
        stream = Stream(
            self,
            connection,
            stream_id,
            self._standings.origin(variant, type_url),
            node_field=_NODE_FIELD[variant],
            is_observed=self._observer is not None,
        )
        self._count += 1
        if self._authenticate is not None:
            self._authorizations[stream] = authorization
        return stream

    # What a stream asks for.

    def admit(self, stream: Stream, node_bytes: bytes | None, request: bytes) -> None:
        """Find out whose stream it is, from its first request (rule 2).

        Raises `ProtocolError`, and `UnauthenticatedError` for a client that is not let in.
        """
        session: Session = stream.standing.session
        variant = session.variant
        if node_bytes is not None:
            node: Node | None = wire.decode_node(node_bytes)
            # What cannot be read opens nothing.
            self._standings.decode(request, variant)
        else:
            node = wire.find_node(request, variant)
        node = node or Node(id="")
        if self._authenticate is not None:
            refuse = partial(self._refuse, stream)
            self._leaves[stream] = self._authenticate(self._authorizations.pop(stream, ""), node, refuse)
        key = self._node_key(node)
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = Target(key)
            self._retarget(target, self._cache.get(key))
        elif target.goal is not None:
            self._standings.share(target.goal)
        stream.aim(target)
        if self._unfinished and session.is_told_once and (unfinished := self._unfinished.take(key)):
            stream.stand(self._standings.comeback(unfinished))
        if self._observer is not None:
            stream.name = str(uuid.uuid4())
            self._tell(stream, self._observer.stream_opened, node)

    def defer(self, stream: Stream, data: bytes) -> None:
        """Have a request taken in by pieces, and what follows it on its stream after it."""
        self._large_requests.add(stream, data)

    def _refuse(self, stream: Stream, why: str) -> None:
        """End a stream that may not stay."""
        self._end(stream, UnauthenticatedError(why))

    def compute(self, standing: Standing, request: bytes | None, goal: Snapshot | None, is_patient: bool) -> Move:
        """A move that is not known. Raises `ProtocolError` where the stream cannot go on."""
        return self._standings.compute(standing, request, goal, is_patient)

    def finish(self, stream: Stream) -> None:
        """End a stream in order: its client has asked for nothing more, and got what it asked for."""
        self._end(stream, None)

    def fail(self, stream: Stream, error: Exception) -> None:
        """End a stream that cannot go on; others do."""
        self._end(stream, error)

    def _end(self, stream: Stream, error: Exception | None) -> None:
        connection = stream.connection
        if stream.close():
            self._finish(connection, stream.id, error)

    def closed(self, stream: Stream) -> None:
        """A stream is no more."""
        self._count -= 1
        if stream.is_deferred:
            self._large_requests.discard(stream)
        if stream.timer is not None:
            stream.timer.cancel()
        if self._authenticate is not None:
            self._authorizations.pop(stream, None)
            leave = self._leaves.pop(stream, None)
            if leave is not None:
                leave()
        target = stream.target
        if target is None:
            return
        session: Session | None = stream.standing.session
        # Of one that could not go on nothing is known.
        if session is not None and (unfinished := session.unfinished):
            self._unfinished.note(target.key, unfinished)
        if not target:
            self._targets.pop(target.key, None)
        if self._observer is not None:
            self._tell(stream, self._observer.stream_closed)

    # The cache's side.

    def _take_snapshot(self, key: str, snapshot: Snapshot | None, has_moved: bool) -> None:
        target = self._targets.get(key)
        if target is not None:
            self._retarget(target, snapshot)
            if has_moved:
                self.turns.ask_all(target)

    def _retarget(self, target: Target, snapshot: Snapshot | None) -> None:
        last, goal = self._last
        if snapshot is not last:
            goal = self._standings.goal(snapshot)
            self._last = (snapshot, goal)
            is_shared = len(target) > 1
        else:
            is_shared = True
        if is_shared and goal is not None:
            self._standings.share(goal)
        target.snapshot, target.goal = snapshot, goal

    def stop(self) -> None:
        """Follow the cache no more."""
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        self.stop_timer()

    # The observer's side.

    def report(self, stream: Stream, events: tuple[Event | Sent, ...]) -> None:
        """Tell what a move did."""
        observer = self._observer
        for event in events:
            if isinstance(event, Rejected):
                kind, key = event.type_url.rpartition(".")[2], stream.target.key if stream.target is not None else ""
                _LOG.warning("%s refused %s %s: %s", key, kind, event.version, event.message)
            if observer is None:
                continue
            if isinstance(event, Sent):
                report: Callable[..., None] = observer.response_sent
            elif isinstance(event, Acknowledged):
                report = observer.response_acknowledged
            else:
                report = observer.response_rejected
            self._tell(stream, report, *event)

    def settled(self, stream: Stream, is_synced: bool) -> None:
        """Tell once for each snapshot that a client has all of it."""
        snapshot = None if stream.target is None else stream.target.snapshot
        if not is_synced or snapshot is None:
            stream.synced = None
        elif snapshot is not stream.synced and self._observer is not None:
            stream.synced = snapshot
            self._tell(stream, self._observer.stream_synced, snapshot)

    def _tell(self, stream: Stream, report: Callable[..., None], *what: Any) -> None:
        try:
            report(stream.name, *what)
        except Exception:
            # What is sent does not depend on who follows it.
            _LOG.exception("an observer of streams failed")
