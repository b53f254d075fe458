"""Host names of dataplanes as IP addresses, since Envoy takes no names in listeners and endpoints.

In: names that dataplanes use. Out: the address last found for each, and a call when one has changed.
Never: waiting in the reconciler; a name that is not resolved yet has no address, and is announced when it has one.

DNS announces nothing, so names in use are looked up again every `REFRESH_S`. Where no dataplane uses a name, nothing
runs.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Collection

_LOG = logging.getLogger(__name__)

REFRESH_S = 30.0
LOOKUP_TIMEOUT_S = 5.0
LOOKUPS_AT_ONCE_MAX = 16


def is_ip(host: str) -> bool:
    """Whether a host is an address already.

    >>> is_ip("10.0.0.1"), is_ip("::1"), is_ip("db.example")
    (True, True, False)
    """
    # Asked of each endpoint: the C library is ten times as fast, and as strict, but knows no scopes of IPv6.
    try:
        if ":" in host:
            ipaddress.IPv6Address(host)
        else:
            socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):
        return False
    return True


async def look_up(host: str) -> str | None:
    """The lowest address of a host, IPv4 before IPv6, so that equal answers in any order are one; None for none."""
    try:
        async with asyncio.timeout(LOOKUP_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        _LOG.warning("cannot resolve %s, the address of a dataplane: %s", host, error or "timed out")
        return None
    ips = {str(address[0]) for *_, address in found}
    return min(ips, key=lambda ip: (":" in ip, ip), default=None)


class Addresses:
    """Remembers the address of each name that some dataplane uses. Bounded by those names."""

    def __init__(
        self,
        *,
        in_use: Callable[[], Collection[str]],
        changed: Callable[[str], None],
        look_up: Callable[[str], Awaitable[str | None]] = look_up,
        refresh_s: float = REFRESH_S,
    ) -> None:
        self._in_use = in_use
        self._changed = changed
        self._look_up = look_up
        self._refresh_s = refresh_s
        self._known: dict[str, str | None] = {}
        self._asked = asyncio.Event()

    def get(self, host: str) -> str | None:
        """The address of a host: itself where it is one, what was found last, or None until something was found."""
        if host in self._known:
            return self._known[host]
        if is_ip(host):
            return host
        self._known[host] = None
        self._asked.set()
        return None

    def find(self, host: str) -> str | None:
        """As `get`, for one who only looks: no name is looked up because of it."""
        if host in self._known:
            return self._known[host]
        return host if is_ip(host) else None

    async def follow(self) -> None:
        """Look up new names when they come and known ones again and again, until cancelled."""
        fresh: set[str] = set()
        while True:
            await self._wait()
            in_use = set(self._in_use())
            for host in self._known.keys() - in_use:
                del self._known[host]
                fresh.discard(host)
            is_due = not self._asked.is_set()
            self._asked.clear()
            hosts = in_use if is_due else in_use - fresh
            limit = asyncio.Semaphore(LOOKUPS_AT_ONCE_MAX)
            await asyncio.gather(*(self._refresh(host, limit) for host in hosts))
            fresh |= hosts

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._refresh_s if self._known else None):
                await self._asked.wait()
        except TimeoutError:
            pass

    async def _refresh(self, host: str, limit: asyncio.Semaphore) -> None:
        async with limit:
            found = await self._look_up(host)
        self.learn(host, found)

    def learn(self, host: str, found: str | None) -> None:
        """Take in what a look-up of a host found; None for nothing."""
        # A name server that is away for a while must not take endpoints away.
        if found is not None and found != self._known.get(host):
            self._known[host] = found
            self._changed(host)
