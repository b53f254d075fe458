"""gRPC calls on an event loop: the compiled wire on one side, a coroutine for each call on the other.

In: the transport of a connection, handlers by path. Out: calls, each with its messages in and out and its end.
Never: HTTP/2, which the compiled core speaks; xDS; more in memory for a client that does not read than one message.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self, cast

from kumafast._core import Payload, Poller, Protocol, Turns, plain_socket
from kumafast.stream.silence import Silence

_LOG = logging.getLogger(__name__)

# What `Protocol.write` answers.
_WRITTEN = 1

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
        self._wire.note_untaken(-len(message))
        return message

    def newest(self, message: bytes) -> bytes:
        """The last of what has come, `message` where nothing has since; the rest is dropped.

        For messages of which each says all that there is to say.
        """
        if not self._messages:
            return message
        newest = self._messages[-1]
        self._wire.note_untaken(-self.untaken)
        self._messages.clear()
        return newest

    async def write(self, data: bytes) -> None:
        """Send one message; returns when it has gone out as far as the client's windows and its socket let it."""
        await self.send(Payload(data))

    async def send(self, payload: Payload) -> None:
        """As `write`, for a payload that other calls send too."""
        if self._wire.write(self.stream, payload) != _WRITTEN:
            # It waits for its client; or it is over, which its handler learns by being cancelled.
            self._writing = asyncio.get_running_loop().create_future()
            await self._writing

    # For plain requests, whose messages are what has come of the body.

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Begin the answer to a plain request; it goes out with what follows. ValueError as the wire's."""
        self._wire.respond(self.stream, status, headers)

    def write_nowait(self, data: bytes) -> None:
        """As `write`, for the last that is written: nobody waits for it."""
        self._wire.write(self.stream, Payload(data))

    def get_extra_info(self, name: str) -> Any:
        """As asyncio's transports; None where it is gone."""
        return self._wire.get_extra_info(name)

    def retire_connection_after(self, seconds: float) -> None:
        """Close the connection if it has no call in `seconds`."""
        self._wire.retire_after(seconds)

    # As the receiver of what comes on its stream.

    def message_received(self, message: bytes, _: bool = False) -> None:
        """Take in a message of the client."""
        self._messages.append(message)
        self._wire.note_untaken(len(message))
        _wake(self._reading)

    def end_received(self) -> None:
        """Take in that no more will come."""
        self._is_half_closed = True
        _wake(self._reading)

    def written(self) -> None:
        """Let the handler go on that waits for its message to go out."""
        _wake(self._writing)

    def stream_lost(self) -> None:
        """Cancel the handler of a call that is gone."""
        self.close()
        if self.task is not None:
            self.task.cancel()

    def close(self) -> None:
        """Give back what the call holds of its connection."""
        if self.timer is not None:
            self.timer.cancel()
        self._wire.note_untaken(-self.untaken)
        self._messages.clear()

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
Opener = Callable[["GrpcProtocol", int, Mapping[str, str], "float | None"], object]
"""Makes the receiver of a stream, given its connection, number and headers, and the seconds until its deadline."""


class GrpcProtocol(Protocol, asyncio.Protocol):
    """One HTTP/2 connection. It is in `connections` from its beginning to its end.

    A method is served by a handler, a coroutine for each call, or by an opener, which makes a receiver of its own.
    """

    __slots__ = (
        "_connections",
        "_handlers",
        "_http_handler",
        "_is_reading",
        "_openers",
        "_poller",
        "_retiring",
        "_silence",
        "_transport",
        "_turns",
        "_untaken",
    )

    def __new__(cls, handlers: Mapping[str, Handler], *, message_bytes_max: int, **_: Any) -> Self:
        return super().__new__(cls, message_bytes_max=message_bytes_max)

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        connections: set[GrpcProtocol],
        message_bytes_max: int,
        openers: Mapping[str, Opener] | None = None,
        http_handler: HttpHandler | None = None,
        turns: Turns | None = None,
        silence: Silence | None = None,
        poller: Poller | None = None,
    ) -> None:
        """`turns`, `silence` and `poller` are shared by all connections.

        In turns those wait that bring, or are sent, more than one turn has room for; silence ends those that leave off;
        the poller reads plain sockets, which else their transports do.
        """
        self._poller = poller
        self._silence = silence
        self._turns = Turns(1, 0.0) if turns is None else turns
        self._handlers = handlers
        self._http_handler = http_handler
        self._retiring: asyncio.TimerHandle | None = None
        self._openers: Mapping[str, Opener] = openers or {}
        self._connections = connections
        self._untaken = 0
        self._is_reading = True
        self._transport: asyncio.Transport | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self.attach(self._transport, plain_socket(self._transport), self._poller)
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        if self._silence is not None:
            self._silence.forget(self)
        if self._retiring is not None:
            self._retiring.cancel()
        super().connection_lost(error)

    def connection_failed(self, code: int, why: str) -> None:
        """What the client did made the connection useless."""
        _LOG.info("a connection ends: %s (error %d of HTTP/2)", why, code)

    # The calls' side.

    def note_untaken(self, count: int) -> None:
        """So many bytes of messages more, or fewer, wait for their handlers."""
        self._untaken += count
        self._set_reading()

    def fell_behind(self) -> None:
        """There is more than one turn has room for: others come first, and nothing more is read until then."""
        self._set_reading()
        self._turns.ask(self._catch_up)

    def _catch_up(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.data_received(b"")
            self._set_reading()

    def put_off(self) -> bool:
        """There is more to write than one turn has room for."""
        self._turns.ask(self._go_on)
        return True

    def _go_on(self) -> None:
        if self._transport is not None:
            self.go_on()

    def rest_changed(self, rest: int) -> None:
        """The client has begun to owe something or to have no call, or has ended that."""
        if self._silence is not None:
            self._silence.note(self, rest)

    def end_silence(self, seconds: float) -> bool:
        """End what the client owes for so long; whether it still owes anything."""
        # What is not read is not silence.
        return super().end_silence(seconds) if self._is_reading else True

    def leave(self) -> None:
        """Close a connection without a call, at once where that was tried before."""
        if self._transport is not None and self._transport.is_closing():
            self._transport.abort()
        else:
            self.drain()

    def _set_reading(self) -> None:
        is_reading = self._untaken <= REQUESTS_BYTES_MAX and not self.is_behind
        if is_reading == self._is_reading or self._transport is None:
            return
        self._is_reading = is_reading
        self.set_reading(is_reading)

    def get_extra_info(self, name: str) -> Any:
        """What the transport knows of the connection; None where it is gone."""
        return None if self._transport is None else self._transport.get_extra_info(name)

    def retire_after(self, seconds: float) -> None:
        """Drain the connection if it has no call in `seconds`."""
        if self._retiring is not None:
            self._retiring.cancel()
        self._retiring = asyncio.get_running_loop().call_later(seconds, self._retire)

    def _retire(self) -> None:
        if not self.served:
            super().drain()
            self.flush()

    def end(self, stream: int, status: Status, message: str = "") -> None:
        """End a call with a status, after what it has written."""
        self.forget(stream)
        self.finish(stream, status, message)
        self.flush()

    def drain(self) -> None:
        """Take no more calls; the connection ends with the last that there is."""
        super().drain()
        super().drain()
        self.flush()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def request_received(self, stream: int, path: str, headers: Mapping[str, str], timeout_s: float | None) -> None:
        """A client has begun a call."""
        opener = self._openers.get(path)
        if opener is not None:
            self.serve(stream, opener(self, stream, headers, timeout_s))
            return
        handler = self._handlers.get(path)
        if handler is None:
            self.finish(stream, Status.UNIMPLEMENTED, f"unknown method {path}")
            return
        call = Call(self, stream, path=path, headers=headers)
        self.serve(stream, call)
        loop = asyncio.get_running_loop()
        call.task = loop.create_task(self._serve(call, handler))
        if timeout_s is not None:
            call.timer = loop.call_later(timeout_s, self._expire, call)

    def http_request_received(
        self, stream: int, method: str, path: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        """A client has begun a plain request."""
        if self._http_handler is None:
            self.respond(stream, 404, [(b"content-length", b"0")])
            self.finish(stream, Status.OK)
            return
        call = Call(self, stream, path=path.decode("latin-1"), headers={})
        self.serve(stream, call)
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
        self._end_call(call, status, message)

    def _expire(self, call: Call) -> None:
        self._end_call(call, Status.DEADLINE_EXCEEDED, "the client's deadline has passed")
        if call.task is not None:
            call.task.cancel()

    def _end_call(self, call: Call, status: Status, message: str) -> None:
        call.close()
        self.end(call.stream, status, message)
