"""The dp-server's one port: gRPC and HTTP/1.1, told apart by their first bytes, with TLS or without.

In: connections. Out: HTTP/2 connections spliced to a private unix socket, all others handed to an HTTP protocol.
Never: a look into what is spliced; a byte buffered for a side that does not read, beyond the transports' marks.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

_LOG = logging.getLogger(__name__)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SILENCE_MAX_S = 10.0
"""A client that has not said by then what it speaks is dropped; also the limit for a TLS handshake."""
_BACKLOG = 4096
_NO_HTTP = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

HttpProtocol = Callable[[], asyncio.Protocol]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where the server's certificate (with its chain) and private key are, as PEM."""

    certificate: Path
    key: Path

    def create_context(self) -> ssl.SSLContext:
        """A server's context for TLS 1.2 or newer. Raises OSError (ssl.SSLError is one) for files of no use."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Envoy names no protocol; grpcio insists on h2. The first bytes decide in any case.
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.load_cert_chain(self.certificate, self.key)
        return context


class Port:
    """A listening port in front of a gRPC server's unix socket and an HTTP protocol."""

    def __init__(self, *, grpc_socket: Path, http_protocol: HttpProtocol | None) -> None:
        self.grpc_socket = grpc_socket
        self.http_protocol = http_protocol
        self.entrances: set[_Entrance] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int, *, tls: TlsFiles | None) -> int:
        """Listen; returns the port, which matters where 0 was asked for. Raises OSError where that cannot be."""
        loop = asyncio.get_running_loop()
        context = tls.create_context() if tls is not None else None
        self._server = await loop.create_server(
            lambda: _Entrance(self),
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=SILENCE_MAX_S if context is not None else None,
            backlog=_BACKLOG,
        )
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Take no more connections; those that there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def abort(self) -> None:
        """End all connections that are spliced or have not said what they speak."""
        for entrance in tuple(self.entrances):
            entrance.close()


class _Entrance(asyncio.Protocol):
    """The client's side of a connection: listens to the first bytes, then steps aside or splices."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._opening = b""
        self._inner: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._port.entrances.add(self)
        self._timer = asyncio.get_running_loop().call_later(SILENCE_MAX_S, self.close)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.write(data)
            return
        self._opening += data
        if self._connecting is not None:
            return
        if self._opening.startswith(PREFACE):
            self._stop_timer()
            assert self.transport is not None
            self.transport.pause_reading()
            self._connecting = asyncio.get_running_loop().create_task(self._splice())
        elif not PREFACE.startswith(self._opening):
            self._hand_over()

    def _hand_over(self) -> None:
        """Let the HTTP protocol have the connection, from its first byte on."""
        self._stop_timer()
        self._port.entrances.discard(self)
        transport = self.transport
        assert transport is not None
        if self._port.http_protocol is None:
            transport.write(_NO_HTTP)
            transport.close()
            return
        protocol = self._port.http_protocol()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(self._opening)
        self._opening = b""

    async def _splice(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            inner, _ = await loop.create_unix_connection(lambda: _Inner(self), str(self._port.grpc_socket))
        except OSError as error:
            _LOG.warning("cannot reach the gRPC server behind the port: %s", error)
            self.close()
            return
        if self.transport is None or self.transport.is_closing():
            inner.abort()
            return
        self._inner = inner
        inner.write(self._opening)
        self._opening = b""
        self.transport.resume_reading()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_reading()

    def resume_writing(self) -> None:
        if self._inner is not None and not self._inner.is_closing():
            self._inner.resume_reading()

    def eof_received(self) -> bool:
        # HTTP/2 has no use for half a connection, and TLS has none to offer.
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._port.entrances.discard(self)
        self.transport = None
        if self._inner is not None:
            self._inner.close()

    def close(self) -> None:
        """End the connection, after what has been written."""
        if self.transport is not None:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Inner(asyncio.Protocol):
    """The gRPC server's side of a spliced connection."""

    def __init__(self, entrance: _Entrance) -> None:
        self._entrance = entrance

    def data_received(self, data: bytes) -> None:
        outer = self._entrance.transport
        if outer is not None:
            outer.write(data)

    def pause_writing(self) -> None:
        outer = self._entrance.transport
        if outer is not None:
            outer.pause_reading()

    def resume_writing(self) -> None:
        outer = self._entrance.transport
        if outer is not None and not outer.is_closing():
            outer.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._entrance.close()
