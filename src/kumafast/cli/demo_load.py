"""The demo's clients: requests without a pause, and an account of every one.

In: a URL. Out: who answered which request when, and which were lost. Never: a second try for a request that failed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

_CLIENTS = 4
_PAUSE_S = 0.002
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it began, who answered, or what went wrong."""

    began: float
    instance: str | None
    problem: str


@dataclass(slots=True)
class Load:
    """What became of the requests so far."""

    outcomes: list[Outcome] = field(default_factory=list)

    def since(self, moment: float, until: float = float("inf")) -> list[Outcome]:
        """The requests that began between two moments of the monotonic clock."""
        return [outcome for outcome in list(self.outcomes) if moment <= outcome.began < until]

    def instances(self, moment: float) -> Counter[str]:
        """How many requests each instance has answered of those that began after a moment."""
        return Counter(outcome.instance for outcome in self.since(moment) if outcome.instance is not None)

    def lost(self, moment: float, until: float = float("inf")) -> list[Outcome]:
        """The requests between two moments that nobody answered properly."""
        return [outcome for outcome in self.since(moment, until) if outcome.instance is None]


def ask(client: httpx.Client, url: str) -> Outcome:
    """Send one request."""
    began = time.monotonic()
    try:
        response = client.get(url)
    except httpx.HTTPError as error:
        return Outcome(began, None, f"{type(error).__name__}: {error}")
    if response.status_code != 200:
        return Outcome(began, None, f"status {response.status_code}: {response.text.strip()[:120]}")
    return Outcome(began, str(response.json()["instance"]), "")


@contextmanager
def running(url: str) -> Iterator[Load]:
    """Send requests from several clients for as long as the context lasts."""
    load, stopping = Load(), threading.Event()

    def work() -> None:
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            while not stopping.is_set():
                load.outcomes.append(ask(client, url))
                time.sleep(_PAUSE_S)

    threads = [threading.Thread(target=work, name=f"client-{number}", daemon=True) for number in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stopping.set()
        for thread in threads:
            thread.join(_TIMEOUT_S)
