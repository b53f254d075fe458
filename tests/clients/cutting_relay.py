"""A relay between clients and a server that ends a connection between two of the server's messages.

In: the server's port. Out: a port of its own. Never: what the messages say; a frame of HTTP/2 that is not whole.
"""

from __future__ import annotations

import contextlib
import socket
import threading

_HEAD = 9
_DATA = 0
_READ = 65_536


class CuttingRelay:
    """Relays until `close`. Messages are small here: each is one frame."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = 0
        """How many connections were ended."""
        self._left: int | None = None
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    def cut_after(self, messages: int) -> None:
        """End the connection when the server has sent so many more; they still arrive, and nothing after them."""
        self._left = messages

    def close(self) -> None:
        """End everything."""
        self._listener.close()
        for each in self._sockets:
            each.close()

    def _start(self, target: object, *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()  # type: ignore[arg-type]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except OSError:
                    client.close()
                    continue
                self._sockets += [client, server]
                self._start(self._relay_all, client, server)
                self._start(self._relay_frames, server, client)

    def _relay_all(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_READ):
                target.sendall(data)
        _end(source, target)

    def _relay_frames(self, source: socket.socket, target: socket.socket) -> None:
        held = b""
        with contextlib.suppress(OSError):
            while data := source.recv(_READ):
                held += data
                while len(held) >= _HEAD and len(held) >= (size := _HEAD + int.from_bytes(held[:3], "big")):
                    frame, held = held[:size], held[size:]
                    target.sendall(frame)
                    if frame[3] == _DATA and self._left is not None:
                        self._left -= 1
                        if self._left == 0:
                            self._left = None
                            self.cuts += 1
                            _end(source, target)
                            return
        _end(source, target)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
