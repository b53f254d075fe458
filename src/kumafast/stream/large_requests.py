"""Requests of hundreds of kilobytes, read in pieces between which everybody else has a turn.

In: streams with such a request, and what follows it. Out: each request, once it is read, taken in by its stream.
Never: an answer, which has a turn of its own; more of one client than its connection may leave unread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

from kumafast._core import Stream, Turns
from kumafast.stream.messages import ExhaustedError, ProtocolError, Request, Variant
from kumafast.stream.wire import RequestReader

FIELDS_EACH_PIECE = 8192
"""Of one request: some 2 ms."""
PIECES_EACH_TURN = 64
SLICE_S = 0.002
"""No piece is begun after so long."""
BYTES_MAX = 256 << 20
"""Of all requests that wait; as much may be unfinished in the core."""

# Within it, those bytes are that request to whoever is asked what they mean.
HasRead = Callable[[bytes, Request], AbstractContextManager[None]]
Fail = Callable[[Stream, Exception], None]


class LargeRequests:
    """Those of all streams of a server."""

    def __init__(self, *, has_read: HasRead, fail: Fail) -> None:
        """`fail` ends a stream whose request cannot be read, or for which there is no room."""
        self.has_read = has_read
        self.fail = fail
        self.turns = Turns(PIECES_EACH_TURN, SLICE_S)
        self.bytes = 0
        """Of what waits."""
        self._queues: dict[Stream, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def add(self, stream: Stream, request: bytes) -> None:
        """Take in a request soon, after those of its stream that came before. The stream is deferred until then."""
        if self.bytes + len(request) > BYTES_MAX:
            self.fail(stream, ExhaustedError("too many large requests at a time"))
            return
        queue = self._queues.get(stream)
        if queue is None:
            queue = self._queues[stream] = _Queue(self, stream)
        queue.add(request)

    def discard(self, stream: Stream) -> None:
        """Forget a stream that is no more, or has been taken in."""
        queue = self._queues.pop(stream, None)
        if queue is not None:
            queue.close()


class _Queue:
    """The requests of one stream that were not taken in, and how far the first of them was read."""

    __slots__ = ("_connection", "_owner", "_reader", "_requests", "_stream")

    def __init__(self, owner: LargeRequests, stream: Stream) -> None:
        self._owner = owner
        self._stream = stream
        # The stream has none any more when it has ended.
        self._connection = stream.connection
        self._requests: deque[bytes] = deque()
        self._reader: RequestReader | None = None

    def add(self, request: bytes) -> None:
        self._requests.append(request)
        self._note(len(request))
        self._owner.turns.ask(self)

    def close(self) -> None:
        self._note(-sum(map(len, self._requests)))
        self._requests.clear()

    def _note(self, count: int) -> None:
        self._owner.bytes += count
        self._connection.note_untaken(count)

    def __call__(self) -> None:
        """Read a piece; have what was read taken in."""
        if not self._requests:
            return
        stream = self._stream
        data = self._requests[0]
        variant: Variant = stream.standing.session.variant
        try:
            if self._reader is None:
                self._reader = RequestReader(data, variant)
            request = self._reader.read(FIELDS_EACH_PIECE)
            if request is None:
                self._owner.turns.ask(self)
                return
            node_bytes = self._reader.find_node() if stream.target is None else None
        except ProtocolError as error:
            self._owner.fail(stream, error)
            return
        self._reader = None
        self._requests.popleft()
        self._note(-len(data))
        with self._owner.has_read(data, request):
            # What is due is found out in a turn to come.
            stream.take(node_bytes, data, True)
        if self._requests:
            self._owner.turns.ask(self)
        elif stream.is_open:
            self._owner.discard(stream)
            stream.is_deferred = False
            stream.fleet.turns.ask(stream)
