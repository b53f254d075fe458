"""The dp-server's one port: gRPC and HTTP/1.1, told apart by their first bytes, with TLS or without.

In: connections. Out: each with its first bytes to the protocol that it speaks.
Never: a look at more than the first bytes; a connection that stays without having said what it speaks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakSet

from kumafast._core import Poller, TlsTransport
from kumafast.stream.tls import ServerTls, TlsFiles

_LOG = logging.getLogger(__name__)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SILENCE_MAX_S = 10.0
"""A client that has not said by then what it speaks is dropped; also the limit for a TLS handshake."""
_BACKLOG = 4096
_NO_HTTP = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

# A peer that has vanished is noticed by the kernel, which needs no timer of ours: probes after half a minute of
# silence, and an end after three that nobody answers, or when what was sent is not acknowledged for as long.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)

HttpProtocol = Callable[[], asyncio.Protocol]


class Port:
    """A listening port in front of two protocols: one for HTTP/2, one for everything else."""

    def __init__(self, *, http2_protocol: HttpProtocol, http_protocol: HttpProtocol | None, poller: Poller) -> None:
        self._poller = poller
        self.http2_protocol = http2_protocol
        self.http_protocol = http_protocol
        self.entrances: set[_Entrance] = set()
        # Only to find those in the middle of their handshake.
        self._secured: WeakSet[TlsTransport] = WeakSet()
        self._server: asyncio.Server | None = None
        # From `open` on, where it serves TLS.
        self.tls: ServerTls | None = None

    async def open(self, host: str, port: int, *, tls: TlsFiles | None, is_shared: bool = False) -> int:
        """Listen; returns the port, which matters where 0 was asked for. Raises OSError where that cannot be.

        A port that is shared may be listened on by other processes of this user, which the kernel deals connections to.
        """
        loop = asyncio.get_running_loop()
        create: Callable[[], asyncio.BaseProtocol] = self._create_entrance
        options: dict[str, Any] = {}
        if tls is not None:
            self.tls = ServerTls(tls)
            create, options = self.tls.listen(
                self._create_entrance, handshake_s=SILENCE_MAX_S, note=self._secured.add, poller=self._poller
            )
            _LOG.info("%s", self.tls.describe())
        self._server = await loop.create_server(
            create, host, port, backlog=_BACKLOG, reuse_port=is_shared or None, **options
        )
        if self.tls is not None:
            self.tls.watch()
        for listening in self._server.sockets:
            _keep_alive(listening.fileno())
        return int(self._server.sockets[0].getsockname()[1])

    def _create_entrance(self) -> _Entrance:
        return _Entrance(self)

    def close(self) -> None:
        """Take no more connections; those that there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self.tls is not None:
            self.tls.close()

    def abort(self) -> None:
        """End all connections that have not said what they speak."""
        for transport in tuple(self._secured):
            if transport.get_protocol() is None and not transport.is_closing():
                transport.abort()
        for entrance in tuple(self.entrances):
            entrance.close()


def _keep_alive(descriptor: int) -> None:
    """Set what the sockets accepted on a listening one inherit."""
    # The loop's socket lends no setsockopt, but a duplicate is the same socket.
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        for level, option, value in _KEEPALIVE:
            listening.setsockopt(level, option, value)


class _Entrance(asyncio.Protocol):
    """A connection until it has said what it speaks."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._opening = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._port.entrances.add(self)
        self._timer = asyncio.get_running_loop().call_later(SILENCE_MAX_S, self.close)

    def data_received(self, data: bytes) -> None:
        self._opening += data
        if self._opening.startswith(PREFACE):
            self._hand_over(self._port.http2_protocol)
        elif not PREFACE.startswith(self._opening):
            if self._port.http_protocol is not None:
                self._hand_over(self._port.http_protocol)
            elif self._transport is not None:
                self._transport.write(_NO_HTTP)
                self.close()

    def _hand_over(self, create: HttpProtocol) -> None:
        """Let a protocol have the connection, from its first byte on."""
        self._forget()
        transport = self._transport
        assert transport is not None
        protocol = create()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(self._opening)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self._transport = None

    def close(self) -> None:
        """End the connection, after what has been written."""
        if self._transport is not None:
            self._transport.close()

    def _forget(self) -> None:
        self._port.entrances.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
