"""Whether the proxies run what the store wants: who has acknowledged, who is waited for, who refused.

In: which snapshot each stream has acknowledged or refused, for whom none could be made. Out: `ConvergenceReport` for a
revision of the store, when every connected proxy has acknowledged its newest snapshot. Never: polling; each event wakes
those who wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kumafast.snapshot import Snapshot, SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.templates import Failure

MANY = 64
LOOK_AGAIN_S = 0.01
"""While more than so many proxies are waited for, a waiter is woken at most this often: each of them acknowledges."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A proxy that refused what it was sent, with its own words; or one that was sent nothing, with ours."""

    node: str
    type_url: str
    message: str
    failure: Failure | None = None
    """What could not be made for it, so that it was not sent."""


@dataclass(frozen=True, slots=True)
class ConvergenceReport:
    """Where the connected proxies stand.

    `proxies` counts those whose configuration was moved by a revision from the first of a row up to now; who refuses
    something from before that is none of `rejected`. `seconds` is the wait.
    """

    revision: int
    is_converged: bool
    proxies: int
    waiting: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    seconds: float


class Published(Protocol):
    """When a snapshot was published: the store's revision that moved it and the monotonic second of its reconcile."""

    @property
    def revision(self) -> int:
        """The revision."""
        ...

    @property
    def at(self) -> float:
        """The monotonic second."""
        ...


class Progress(Protocol):
    """How far the snapshots are; the reconciler is one."""

    async def reached(self, revision: int) -> None:
        """Return when all commits up to a revision are in the published snapshots."""
        ...

    def published(self, node_id: str) -> Published | None:
        """When the snapshot of a connected node last moved."""
        ...

    def failure(self, node_id: str) -> Failure | None:
        """What could not be made for a connected node; None where nothing is wrong."""
        ...


@dataclass(slots=True)
class _Stream:
    node_id: str
    synced: Snapshot | None = None
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)
    """For each type the version that was refused and why."""


class Convergence:
    """Follows streams and answers, for a revision, when the proxies that it concerns have taken it."""

    def __init__(
        self,
        *,
        cache: SnapshotCache,
        progress: Progress,
        observe_seconds: Callable[[float], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = cache
        self._monotonic = monotonic
        self._progress = progress
        self._observe_seconds = observe_seconds
        self._streams: dict[str, _Stream] = {}
        # Of those who wait: there is none while nobody does, for a push to ten thousand streams wakes as often.
        self._moved: asyncio.Event | None = None

    def stream_opened(self, stream_id: str, node: Node) -> None:
        """A node is connected; it is waited for from now on."""
        self._streams[stream_id] = _Stream(node.id)

    def response_rejected(self, stream_id: str, type_url: str, version: str, message: str) -> None:
        """A node refused a version of a type; it is not waited for until there is something newer."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.refused[type_url] = (version, message)
            self._wake()

    def response_acknowledged(self, stream_id: str, type_url: str) -> None:
        """A node took a type."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.refused:
            stream.refused.pop(type_url, None)

    def stream_synced(self, stream_id: str, snapshot: Snapshot) -> None:
        """A node has acknowledged all of a snapshot that it asked for."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.synced is snapshot:
            return
        stream.synced = snapshot
        published = self._progress.published(stream.node_id)
        if published is not None and self._observe_seconds is not None:
            self._observe_seconds(self._monotonic() - published.at)
        self._wake()

    def stream_closed(self, stream_id: str) -> None:
        """A node has gone; nobody waits for it."""
        if self._streams.pop(stream_id, None) is not None:
            self._wake()

    async def wait(self, revision: int, timeout_s: float, *, since: int | None = None) -> ConvergenceReport:
        """Wait until every connected proxy has acknowledged or refused the state of the store at a revision.

        The report says who is missing where the time ran out. It is about all revisions from `since`, which is that of
        the first of several writes; without it there was one.
        """
        started = self._monotonic()
        first = revision if since is None else min(since, revision)
        is_reached = False
        try:
            async with asyncio.timeout(timeout_s):
                await self._progress.reached(revision)
                is_reached = True
                while left := [id_ for id_, stream in self._streams.items() if self._is_waited_for(stream)]:
                    await self._all_moved(left)
        except TimeoutError:
            pass
        waiting = tuple(sorted(self._waiting()))
        nodes = {stream.node_id for stream in self._streams.values()}
        concerned = {node_id for node_id in nodes if self._concerns(node_id, first)}
        rejected = tuple(each for each in self.rejections() if _is_of(each, concerned, first))
        return ConvergenceReport(
            revision=revision,
            is_converged=is_reached and not waiting and not rejected,
            proxies=len(concerned),
            waiting=waiting,
            rejected=rejected,
            seconds=self._monotonic() - started,
        )

    def rejections(self) -> tuple[Rejection, ...]:
        """What connected proxies refuse now, and what could not be made for them."""
        refused = [rejection for stream in self._streams.values() for rejection in self._refusals(stream)]
        for node_id in dict.fromkeys(stream.node_id for stream in self._streams.values()):
            failure = self._progress.failure(node_id)
            if failure is not None:
                refused.append(Rejection(node_id, failure.type_url, failure.message, failure))
        return tuple(refused)

    def _concerns(self, node_id: str, revision: int) -> bool:
        published = self._progress.published(node_id)
        return published is not None and published.revision >= revision

    def _refusals(self, stream: _Stream) -> list[Rejection]:
        newest = self._cache.get(stream.node_id)
        return [
            Rejection(stream.node_id, type_url, message)
            for type_url, (version, message) in stream.refused.items()
            # What was refused before the newest snapshot says nothing about that one.
            if newest is not None and newest.version(type_url) == version
        ]

    async def _all_moved(self, left: list[str]) -> None:
        """Wait until each of these streams was seen to be synced, or gone. Who comes or falls behind meanwhile is not
        looked at: of those who are left one is, so all of the wait costs as much as there are streams, not each event.
        """
        while left:
            stream = self._streams.get(left[-1])
            if stream is None or not self._is_waited_for(stream):
                left.pop()
                continue
            if self._moved is None:
                self._moved = asyncio.Event()
            await self._moved.wait()
            if len(left) > MANY:
                await asyncio.sleep(LOOK_AGAIN_S)

    def _waiting(self) -> set[str]:
        return {stream.node_id for stream in self._streams.values() if self._is_waited_for(stream)}

    def _is_waited_for(self, stream: _Stream) -> bool:
        newest = self._cache.get(stream.node_id)
        return newest is not None and stream.synced is not newest and not self._refusals(stream)

    def _wake(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None


def _is_of(rejection: Rejection, concerned: set[str], first: int) -> bool:
    """Whether a refusal is of something that a revision from the first on has moved, or was to move."""
    if rejection.failure is not None:
        return rejection.failure.revision >= first
    return rejection.node in concerned
