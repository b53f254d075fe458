"""Clients that have begun something and left it, or ask for nothing: after a while they are ended.

In: connections whose clients owe something, or have no call. Out: their ends. Never: a timer for each connection;
anything for a connection that goes about its business.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from kumafast._core import IDLE, OWING

OWING_MAX_S = 10.0
"""How long SETTINGS, the rest of a frame, of headers or of a message, or a call's first message may be left out."""
IDLE_MAX_S = 300.0
"""How long a connection may have no call."""
# Ends in one turn of the loop.
_SLICE = 64


class Client(Protocol):
    """A connection, as far as its silence is concerned."""

    def end_silence(self, seconds: float, /) -> bool:
        """End what is owed for so long; whether something still is."""

    def leave(self) -> None:
        """Close the connection in order, or at once where that was tried before."""


class Silence:
    """Watches the connections of a server. What is owed is ended within one to two times its limit."""

    def __init__(self, *, owing_max_s: float = OWING_MAX_S, idle_max_s: float = IDLE_MAX_S) -> None:
        self._owing = _Watch(owing_max_s, lambda client: client.end_silence(owing_max_s))
        self._idle = _Watch(idle_max_s, _leave)

    def __len__(self) -> int:
        return len(self._owing) + len(self._idle)

    def note(self, client: Client, rest: int) -> None:
        """A client has become what the core's `Protocol.rest_changed` says."""
        self.forget(client)
        if rest == OWING:
            self._owing.add(client)
        elif rest == IDLE:
            self._idle.add(client)

    def forget(self, client: Client) -> None:
        """A connection is gone."""
        self._owing.discard(client)
        self._idle.discard(client)


def _leave(client: Client) -> bool:
    client.leave()
    # What it has not read yet may keep it for as long again.
    return True


class _Watch:
    """Clients in the order of their coming, each looked at once its time is over: one timer is enough for all."""

    def __init__(self, seconds: float, end: Callable[[Client], bool]) -> None:
        """`end` says whether the client is to be looked at again, after as long a time."""
        self._seconds = seconds
        self._end = end
        self._until: OrderedDict[Client, float] = OrderedDict()
        self._timer: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._until)

    def add(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        self._until[client] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def discard(self, client: Client) -> None:
        # The timer stays: it is cheaper to find nothing once in its time.
        self._until.pop(client, None)

    def _look(self) -> None:
        # There is one already for whoever is added meanwhile.
        loop = asyncio.get_running_loop()
        for _ in range(_SLICE):
            if not self._until:
                self._timer = None
                return
            client, until = next(iter(self._until.items()))
            if until > loop.time():
                self._timer = loop.call_at(until, self._look)
                return
            del self._until[client]
            if self._end(client):
                self.add(client)
        self._timer = loop.call_soon(self._look)
