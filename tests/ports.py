"""Ports for whoever has to know them before anything listens."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below the ports that the kernel gives to connections, which would take them while nobody listens.
_PORTS = range(15_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Ports that are different and were all free a moment ago, at every address."""
    with ExitStack() as held:
        found: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"fewer than {count} ports are free")


def free_port() -> int:
    """A port that was free a moment ago."""
    return free_ports(1)[0]
