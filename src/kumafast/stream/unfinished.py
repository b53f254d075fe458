"""What streams left unfinished, for when their clients come back.

In: the key of a node and the clusters that its stream left warming. Out: the same, once, to its next stream.
Never: for longer than such a client waits, nor for more clients than there is room for (rule 48).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

KEPT_S = 30.0
"""Envoy has a cluster wait for its endpoints for 15 s, and tries to connect again within seconds."""
KEPT_MAX = 16_384


class Unfinished:
    """Clusters by their client's key.

    >>> unfinished = Unfinished()
    >>> unfinished.note("web-1", frozenset({"backend"}))
    >>> sorted(unfinished.take("web-1")), sorted(unfinished.take("web-1"))
    (['backend'], [])
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # With the second at which it is forgotten; the oldest come first.
        self._kept: OrderedDict[str, tuple[float, frozenset[str]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, key: str, clusters: frozenset[str]) -> None:
        """A stream has ended and left these."""
        now = self._clock()
        self._kept.pop(key, None)
        self._kept[key] = (now + KEPT_S, clusters)
        while len(self._kept) > KEPT_MAX or next(iter(self._kept.values()))[0] < now:
            self._kept.popitem(last=False)

    def take(self, key: str) -> frozenset[str]:
        """What the last stream of a client left, for its next one."""
        until, clusters = self._kept.pop(key, (0.0, frozenset()))
        return clusters if until >= self._clock() else frozenset()
