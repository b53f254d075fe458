"""An ASGI application on sockets of the running loop: uvicorn's protocol without uvicorn's process.

In: an application. Out: a listening server, or a factory of protocols for a port that somebody else listens on.
Never: signals, workers, logging set-up; the control plane owns those.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

_FAREWELL_S = 0.1


class HttpServer:
    """Serves one application over HTTP/1.1."""

    def __init__(self, app: Any, *, keep_alive_s: int = 75, tls: ssl.SSLContext | None = None) -> None:
        """With `tls` the socket that it opens itself speaks TLS."""
        self._tls = tls
        # The Date header would need a tick each second; nothing here wakes without a reason.
        self._config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            date_header=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=keep_alive_s,
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    @property
    def app(self) -> Any:
        """The application with what goes before it here, for a port that speaks more than HTTP/1.1."""
        return self._config.loaded_app

    def protocol(self) -> asyncio.Protocol:
        """A protocol for one connection that has been accepted already."""
        return HttpToolsProtocol(config=self._config, server_state=self._state, app_state={})

    async def start(self, host: str, port: int, *, is_shared: bool = False) -> int:
        """Listen; the port that was taken, which matters where 0 was asked for. Raises `OSError` if it cannot.

        A port that is shared may be listened on by other processes of this user, which the kernel deals connections to.
        """
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self.protocol, host, port, ssl=self._tls, reuse_port=is_shared or None)
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    async def start_at(self, path: Path) -> None:
        """Listen on a Unix socket, which is made. Raises `OSError` if it cannot."""
        self._server = await asyncio.get_running_loop().create_unix_server(self.protocol, str(path))

    def close(self) -> None:
        """Accept no more connections."""
        if self._server is not None:
            self._server.close()

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let requests under way end within the grace, close what is left."""
        self.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self._state.connections:
                    await asyncio.sleep(0.01)
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        # A request whose client is gone learns of it and ends by itself; what does not is cut off.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                while self._state.tasks:
                    await asyncio.sleep(0)
        for task in list(self._state.tasks):
            task.cancel()
