"""Requests at a steady rate, each accounted for; on one connection or on a new one each time.

In: a port of a sidecar, a rate. Out: how many requests were answered, and what became of every other.
Never: a second try.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

_TIMEOUT_S = 5.0
_HEAD = b"GET / HTTP/1.1\r\nhost: echo\r\n"


class Load:
    """One client in a thread. With `is_fresh` each request has a connection of its own, and so a TLS handshake."""

    def __init__(self, port: int, *, rate: float, is_fresh: bool = False) -> None:
        self.answered = 0
        self.failures: list[tuple[float, str]] = []
        """What was not answered with 200: the monotonic second at which it began, and why not."""
        self._port = port
        self._pause_s = 1 / rate
        self._is_fresh = is_fresh
        self._connection: socket.socket | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Send requests while in the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            self._thread.join(2 * _TIMEOUT_S)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            began = time.monotonic()
            problem = self._ask()
            if problem:
                self.failures.append((began, problem))
                self._close()
            else:
                self.answered += 1
            # One that took long is not made up for by a burst.
            due = max(due + self._pause_s, time.monotonic() - self._pause_s)
            self._stopping.wait(max(0.0, due - time.monotonic()))
        self._close()

    def _ask(self) -> str:
        """Send a request; why it failed, or nothing."""
        try:
            if self._connection is None:
                self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=_TIMEOUT_S)
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ending = b"connection: close\r\n\r\n" if self._is_fresh else b"\r\n"
            self._connection.sendall(_HEAD + ending)
            head = self._read_answer(self._connection)
        except OSError as error:
            return repr(error)
        status, _, fields = head.partition(b"\r\n")
        # A sidecar may ask for another connection, as when its listener has changed.
        if self._is_fresh or b"connection: close" in fields.lower():
            self._close()
        return "" if b" 200 " in status else status.decode("latin-1")

    def _read_answer(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._read(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        while len(body) < length:
            body += self._read(connection)
        return head

    def _read(self, connection: socket.socket) -> bytes:
        data = connection.recv(65_536)
        if not data:
            raise ConnectionResetError("closed before the answer was complete")
        return data

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
