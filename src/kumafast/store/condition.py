"""Whether a store can be written now: said when that changes, and shown meanwhile.

In: what became of writes. Out: the reason for which nothing can be written; a line in the log when that begins, for
each other reason that comes to it, and when it is over. Never: a line for each write.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_LOG = logging.getLogger(__name__)

_REASONS_SAID_MAX = 8


class Condition:
    """Of one store. `reason` is empty while it can be written."""

    def __init__(self, name: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._monotonic = monotonic
        self._since = 0.0
        self._said: set[str] = set()
        self.reason = ""

    def failed(self, reason: str) -> None:
        """Nothing could be written, and why."""
        if not self.reason:
            self._since = self._monotonic()
            self._said.clear()
        self.reason = reason
        if reason not in self._said and len(self._said) < _REASONS_SAID_MAX:
            self._said.add(reason)
            _LOG.warning("reads go on, writes are refused: %s", reason)

    def worked(self) -> None:
        """Something could be written."""
        if self.reason:
            _LOG.info("%s can be written again, after %.1f s", self._name, self._monotonic() - self._since)
            self.reason = ""
