"""Ports for workers: held without being listened on, and never where somebody listens already."""

from __future__ import annotations

import errno
import socket

import pytest

from kumafast.cli.shared_ports import SharedPorts
from kumafast.settings import Settings

FREE = Settings(api_port=0, dp_port=0, diagnostics_port=0)


def _listen(port: int) -> socket.socket:
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind(("127.0.0.1", port))
    opened.listen()
    return opened


def test_workers_listen_on_what_is_held_and_all_connections_are_theirs() -> None:
    ports = SharedPorts(FREE)
    assert ports.settings.api_port != ports.settings.dp_port
    assert ports.settings.api_tls_port == -1
    first, second = _listen(ports.settings.dp_port), _listen(ports.settings.dp_port)
    for listening in (first, second):
        listening.setblocking(False)
    taken = 0
    clients = [socket.create_connection(("127.0.0.1", ports.settings.dp_port)) for _ in range(16)]
    for listening in (first, second):
        while True:
            try:
                listening.accept()[0].close()
            except BlockingIOError:
                break
            taken += 1
    assert taken == len(clients)
    for opened in (*clients, first, second):
        opened.close()
    ports.close()


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_port_that_somebody_listens_on_is_refused_even_if_it_is_shared(is_shared: bool) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use") as refused:
            SharedPorts(Settings(api_port=0, dp_port=other.getsockname()[1]))
    assert refused.value.errno == errno.EADDRINUSE


def test_nobody_else_gets_a_port_that_is_held() -> None:
    ports = SharedPorts(FREE)
    with pytest.raises(OSError, match="in use"):
        SharedPorts(Settings(api_port=ports.settings.api_port, dp_port=0))
    ports.close()
    SharedPorts(ports.settings).close()
