"""Plain requests over HTTP/2, answered by the same ASGI application as those over HTTP/1.1.

In: a request's head and a `Call` with its body. Out: the application's answer, or one that says why there is none.
Never: gRPC; a request that lasts for ever; the end of anything but its own stream.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from kumafast.stream.driver import Call, CallError, Status

_LOG = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any
]
Headers = Sequence[tuple[bytes, bytes]]

EXCHANGE_MAX_S: Final = 60.0
"""From a request's head to the last byte of its answer; what lasts longer is ended."""
KEEP_ALIVE_S: Final = 75.0
"""A connection is closed that has brought plain requests and then nothing for as long, as it is over HTTP/1.1."""

_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_PATH: Final = re.compile(rb"/[!-~]*")
# HTTP/2 says by frames what these say in HTTP/1.1, and forbids them (RFC 9113 8.2.2).
_OF_CONNECTION: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


class AsgiRequests:
    """Serves plain requests of HTTP/2 connections by an ASGI application."""

    def __init__(
        self, app: AsgiApp, *, exchange_max_s: float = EXCHANGE_MAX_S, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self._app = app
        self._exchange_max_s = exchange_max_s
        self._keep_alive_s = keep_alive_s

    async def serve(self, call: Call, method: str, path: bytes, headers: Headers) -> None:
        """Answer one request; its body is what `call` brings. Cancelled where the client has gone."""
        exchange = _Exchange(call, is_head=method == "HEAD")
        try:
            if method == "CONNECT" or path == b"*":
                await exchange.refuse(404, "no such path")
            elif not _METHOD.fullmatch(method) or not _PATH.fullmatch(path):
                await exchange.refuse(400, "no valid request of HTTP")
            else:
                await self._run(exchange, _scope(call, method, path, headers))
        finally:
            call.retire_connection_after(self._keep_alive_s)

    async def _run(self, exchange: _Exchange, scope: MutableMapping[str, Any]) -> None:
        limit = asyncio.timeout(self._exchange_max_s)
        try:
            async with limit:
                await self._app(scope, exchange.receive, exchange.send)
        except Exception:
            if not limit.expired():
                _LOG.exception("the application failed at %s", scope["path"])
                await exchange.refuse(500, "Internal Server Error")
            elif exchange.is_body_complete:
                await exchange.refuse(503, "the answer took too long")
            else:
                await exchange.refuse(408, "the request took too long")
            return
        if not exchange.is_complete:
            _LOG.error("the application left %s without a complete answer", scope["path"])
            await exchange.refuse(500, "Internal Server Error")


class _Exchange:
    """One request and its answer, as ASGI sees them."""

    def __init__(self, call: Call, *, is_head: bool) -> None:
        self.is_body_complete = False
        self.is_complete = False
        self._call = call
        self._is_head = is_head
        # What the answer begins with, until its first part is there to go with it.
        self._head: tuple[int, Headers] | None = None
        self._has_begun = False

    async def receive(self) -> Message:
        if self.is_body_complete:
            # A client that goes is told of by being cancelled.
            await asyncio.get_running_loop().create_future()
        async for piece in self._call:
            return {"type": "http.request", "body": piece, "more_body": True}
        self.is_body_complete = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message["status"], message.get("headers", ())
            return
        if message["type"] != "http.response.body" or self.is_complete:
            raise RuntimeError(f"{message['type']} is not expected here")
        self._begin()
        if body := message.get("body", b""):
            await self._write(body)
        self.is_complete = not message.get("more_body", False)

    async def refuse(self, status: int, text: str) -> None:
        """Answer in words of our own; where the application's answer has begun, CallError breaks it off."""
        if self._has_begun:
            raise CallError(Status.INTERNAL, text)
        content = text.encode()
        self._head = (
            status,
            [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(content)),
            ],
        )
        self._begin()
        # Not waited for: a client that does not read must not be waited for once more.
        if not self._is_head:
            self._call.write_nowait(content)

    def _begin(self) -> None:
        if self._head is None:
            if not self._has_begun:
                raise RuntimeError("the answer has no beginning")
            return
        (status, headers), self._head = self._head, None
        named = [(name.lower(), value) for name, value in headers]
        self._call.respond(status, [field for field in named if field[0] not in _OF_CONNECTION])
        self._has_begun = True

    async def _write(self, body: bytes) -> None:
        # The answer to HEAD has none (RFC 9110 9.3.2), whatever the application says.
        if not self._is_head:
            await self._call.write(body)


def _scope(call: Call, method: str, target: bytes, headers: Headers) -> MutableMapping[str, Any]:
    path, _, query = target.partition(b"?")
    host = [(b"host", value) for name, value in headers if name == b":authority"]
    # What :authority says, Host may only repeat (RFC 9113 8.3.1).
    dropped = {b":authority", b"host"} if host else {b":authority"}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "scheme": "https" if call.get_extra_info("sslcontext") is not None else "http",
        "server": _address(call.get_extra_info("sockname")),
        "client": _address(call.get_extra_info("peername")),
        "root_path": "",
        "method": method,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "headers": host + [field for field in headers if field[0] not in dropped],
        "state": {},
    }


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
