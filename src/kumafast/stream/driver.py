"""gRPC calls on an event loop: the compiled wire on one side, a coroutine for each call on the other.

In: the transport of a connection, handlers by path, one for what is no gRPC. Out: calls, each with its messages in and
out and its end.
Never: HTTP/2, which the compiled core speaks; xDS; more in memory for a client that does not read than one message.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from kumafast._core import END, HALF_CLOSE, HTTP_REQUEST, MESSAGE, REQUEST, RESET, Connection, Payload

_LOG = logging.getLogger(__name__)

REQUESTS_BYTES_MAX = 1 << 20
"""What a connection's handlers have not taken; beyond it nothing more is read from its socket."""


class Status(enum.IntEnum):
    """The statuses of gRPC that a server of streams has a use for."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class CallError(Exception):
    """Raised by a handler: the call ends with this status, and other calls go on."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class Call:
    """One call: iterate over it for what the client sends; `write` what it is to be sent.

    `headers` are the request's that a server is asked about: `authorization`, `user-agent`, `:authority` and what
    belongs to gRPC itself.
    """

    def __init__(self, wire: GrpcProtocol, stream: int, *, path: str, headers: Mapping[str, str]) -> None:
        self.path = path
        self.headers = headers
        self.stream = stream
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._wire = wire
        self._messages: deque[bytes] = deque()
        self._is_half_closed = False
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> bytes:
        while not self._messages:
            if self._is_half_closed:
                raise StopAsyncIteration
            self._reading = asyncio.get_running_loop().create_future()
            await self._reading
        message = self._messages.popleft()
        self._wire.note_taken(len(message))
        return message

    async def write(self, data: bytes) -> None:
        """Send one message; returns when it has gone out as far as the client's windows and its socket let it."""
        await self.send(Payload(data))

    async def send(self, payload: Payload) -> None:
        """As `write`, for a payload that other calls send too."""
        if not self._wire.send(self, payload):
            self._writing = asyncio.get_running_loop().create_future()
            await self._writing

    # For plain requests, whose messages are what has come of the body.

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin the answer to a plain request; it goes out with what follows. ValueError as the wire's."""
        self._wire.respond(self, status, headers)

    def write_nowait(self, data: bytes) -> None:
        """As `write`, for the last that is written: nobody waits for it."""
        self._wire.send(self, Payload(data))

    def get_extra_info(self, name: str) -> Any:
        """As asyncio's transports; None where it is gone."""
        return self._wire.get_extra_info(name)

    def retire_connection_after(self, seconds: float) -> None:
        """Close the connection if it has no call in `seconds`."""
        self._wire.retire_after(seconds)

    def feed(self, message: bytes) -> None:
        """Take in a message of the client."""
        self._messages.append(message)
        _wake(self._reading)

    def feed_end(self) -> None:
        """Take in that no more will come."""
        self._is_half_closed = True
        _wake(self._reading)

    def note_written(self) -> None:
        """Let the handler go on that waits for its message to go out."""
        _wake(self._writing)

    @property
    def untaken(self) -> int:
        """Bytes of messages that the handler has not taken."""
        return sum(map(len, self._messages))


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


Handler = Callable[[Call], Awaitable[None]]
# With method, path and headers.
HttpHandler = Callable[[Call, str, bytes, Sequence[tuple[bytes, bytes]]], Awaitable[None]]


class GrpcProtocol(asyncio.Protocol):
    """One HTTP/2 connection. It is in `connections` from its beginning to its end."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        connections: set[GrpcProtocol],
        message_bytes_max: int,
        http_handler: HttpHandler | None = None,
    ) -> None:
        self._handlers = handlers
        self._http_handler = http_handler
        self._retiring: asyncio.TimerHandle | None = None
        self._connections = connections
        self._wire = Connection(message_bytes_max=message_bytes_max)
        self._calls: dict[int, Call] = {}
        # Those whose last message has not gone out.
        self._blocked: set[Call] = set()
        self._untaken = 0
        self._is_reading = True
        self._transport: asyncio.Transport | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._wire.attach(self._transport)
        self._wire.flush()

    def data_received(self, data: bytes) -> None:
        for event in self._wire.receive(data, time.monotonic()):
            self._take(event)
        if self._untaken > REQUESTS_BYTES_MAX and self._is_reading and self._transport is not None:
            self._is_reading = False
            self._transport.pause_reading()
        self._flush()

    def pause_writing(self) -> None:
        self._wire.pause_writing()

    def resume_writing(self) -> None:
        self._wire.resume_writing()
        self._note_written()

    def eof_received(self) -> bool:
        # HTTP/2 has no use for half a connection.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.attach(None)
        self._transport = None
        self._connections.discard(self)
        if self._retiring is not None:
            self._retiring.cancel()
        for stream in tuple(self._calls):
            self._drop(stream)

    # The calls' side.

    def send(self, call: Call, payload: Payload) -> bool:
        """Send a call's message; False where it waits for the client, and then `Call.note_written` follows."""
        if call.stream not in self._calls or not self._wire.send(call.stream, payload):
            # The call is over, which its handler learns by being cancelled.
            return False
        self._wire.flush()
        if self._wire.queued(call.stream) == 0:
            return True
        self._blocked.add(call)
        return False

    def respond(self, call: Call, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin the answer to a plain request."""
        if call.stream in self._calls:
            self._wire.respond(call.stream, status, headers)

    def get_extra_info(self, name: str) -> Any:
        """What the transport knows of the connection; None where it is gone."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    def retire_after(self, seconds: float) -> None:
        """Drain the connection if it has no call in `seconds`."""
        if self._retiring is not None:
            self._retiring.cancel()
        self._retiring = asyncio.get_running_loop().call_later(seconds, self._retire)

    def _retire(self) -> None:
        if not self._calls:
            self._wire.drain()
            self._flush()

    def note_taken(self, count: int) -> None:
        """A handler has taken a message of `count` bytes."""
        self._untaken -= count
        if not self._is_reading and self._untaken <= REQUESTS_BYTES_MAX and self._transport is not None:
            self._is_reading = True
            self._transport.resume_reading()

    def drain(self) -> None:
        """Take no more calls; the connection ends with the last that there is."""
        self._wire.drain()
        self._wire.drain()
        self._flush()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, event: tuple[Any, ...]) -> None:
        kind, stream = event[0], event[1]
        # None where it was refused just before, by an event of the same bytes.
        call = self._calls.get(stream)
        if kind == MESSAGE:
            if call is not None:
                self._untaken += len(event[2])
                call.feed(event[2])
        elif kind == REQUEST:
            self._open(stream, path=event[2], headers=event[3], timeout_s=event[4])
        elif kind == HTTP_REQUEST:
            self._open_http(stream, method=event[2], path=event[3], headers=event[4])
        elif kind == HALF_CLOSE:
            if call is not None:
                call.feed_end()
        elif kind == RESET:
            self._drop(stream)
        elif kind == END:
            _LOG.info("a connection ends: %s (error %d of HTTP/2)", event[3], event[2])
            for each in tuple(self._calls):
                self._drop(each)

    def _open(self, stream: int, *, path: str, headers: Mapping[str, str], timeout_s: float | None) -> None:
        handler = self._handlers.get(path)
        if handler is None:
            self._wire.finish(stream, Status.UNIMPLEMENTED, f"unknown method {path}")
            return
        call = self._calls[stream] = Call(self, stream, path=path, headers=headers)
        loop = asyncio.get_running_loop()
        call.task = loop.create_task(self._serve(call, handler))
        if timeout_s is not None:
            call.timer = loop.call_later(timeout_s, self._expire, call)

    def _open_http(self, stream: int, *, method: str, path: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if self._http_handler is None:
            self._wire.respond(stream, 404, [(b"content-length", b"0")])
            self._wire.finish(stream, Status.OK)
            return
        call = self._calls[stream] = Call(self, stream, path=path.decode("latin-1"), headers={})
        handler = self._http_handler
        call.task = asyncio.get_running_loop().create_task(
            self._serve(call, lambda call: handler(call, method, path, headers))
        )

    async def _serve(self, call: Call, handler: Handler) -> None:
        status, message = Status.OK, ""
        try:
            await handler(call)
        except CallError as error:
            status, message = error.status, str(error)
        except Exception:
            _LOG.exception("the handler of %s failed", call.path)
            status, message = Status.INTERNAL, "the server failed"
        self._finish(call, status, message)

    def _expire(self, call: Call) -> None:
        self._finish(call, Status.DEADLINE_EXCEEDED, "the client's deadline has passed")
        if call.task is not None:
            call.task.cancel()

    def _finish(self, call: Call, status: Status, message: str) -> None:
        if self._calls.pop(call.stream, None) is None:
            return
        self._close(call)
        self._wire.finish(call.stream, status, message)
        self._flush()

    def _drop(self, stream: int) -> None:
        """Forget a call that the wire has forgotten."""
        call = self._calls.pop(stream, None)
        if call is None:
            return
        self._close(call)
        if call.task is not None:
            call.task.cancel()

    def _close(self, call: Call) -> None:
        if call.timer is not None:
            call.timer.cancel()
        self._blocked.discard(call)
        self.note_taken(call.untaken)

    def _flush(self) -> None:
        self._wire.flush()
        self._note_written()

    def _note_written(self) -> None:
        for call in tuple(self._blocked):
            if self._wire.queued(call.stream) == 0:
                self._blocked.discard(call)
                call.note_written()
