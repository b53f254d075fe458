"""Ports that several processes are to listen on, held by one that does not.

In: settings, whose ports may be 0. Out: settings with the ports that were found free; nobody else gets them meanwhile.
Never: a connection: what is bound and does not listen is dealt none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import socket

from kumafast.settings import Settings


class SharedPorts:
    """The ports of workers. `close` gives them back."""

    def __init__(self, settings: Settings) -> None:
        """Raises `OSError` where somebody listens at one already, another kumafast with workers too."""
        self._sockets: list[socket.socket] = []
        host, api_tls_port = settings.host, settings.api_tls_port
        try:
            self.settings = dataclasses.replace(
                settings,
                api_port=self._take(host, settings.api_port),
                dp_port=self._take(host, settings.dp_port),
                api_tls_port=self._take(host, api_tls_port) if api_tls_port >= 0 else api_tls_port,
            )
        except BaseException:
            self.close()
            raise

    def _take(self, host: str, port: int) -> int:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            wanted = (address[0], port, *address[2:])
            # Alone first: who shares is let in beside any other that shares.
            with contextlib.closing(_bound(family, kind, protocol, wanted, is_shared=False)) as alone:
                port = alone.getsockname()[1]
            self._sockets.append(_bound(family, kind, protocol, (address[0], port, *address[2:]), is_shared=True))
        return port

    def close(self) -> None:
        """Let go of the ports."""
        while self._sockets:
            self._sockets.pop().close()


def _bound(family: int, kind: int, protocol: int, address: tuple[object, ...], *, is_shared: bool) -> socket.socket:
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(address)
        # What an earlier run left behind was no obstacle; whoever comes now and does not share is to meet one.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except BaseException:
        opened.close()
        raise
    return opened
