"""The Envoys of one process: who they are, what has arrived at them, how late the process itself is.

In: questions of the stage; what each Envoy is sent. Out: answers in plain data. Never: sockets; those are the users'.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.real_wires.arrivals import Arrivals, Awaited
from bench.real_wires.changes import Changes, Write, node_id
from bench.real_wires.envoy_node import described
from bench.real_wires.simulated_envoy import Facts, Received, SimulatedEnvoy
from bench.regular_mesh import METADATA

Fire = Callable[[str, float, int], object]
"""Told of what locust's page shows: a name, milliseconds, bytes."""


class Member(Protocol):
    """An Envoy's user."""

    envoy: SimulatedEnvoy

    def cut(self) -> None:
        """Lose the connection, without a word; come back."""

    def leave(self) -> None:
        """Lose the connection and everything that is held; stay away."""

    def come_back(self) -> None:
        """Be a new Envoy."""


@dataclass(slots=True)
class News:
    """What has come up since the last report."""

    arrived: list[tuple[int, str, float]] = field(default_factory=list)
    """Number of the change, node id, monotonic second."""
    configured: list[tuple[float, float]] = field(default_factory=list)
    """When a new Envoy had everything, and the seconds since it began to connect."""
    late: list[float] = field(default_factory=list)
    """By how many seconds a timer of this process was late."""


class Worker:
    """One process' share: of so many `workers` this one has each number that leaves its index as the remainder."""

    def __init__(self, size: int, workers: int, fire: Fire) -> None:
        self.index = 0
        self.members: dict[str, Member] = {}
        self.streams: Counter[str] = Counter()
        """How many were opened, closed, and refused."""
        self.received = Received()
        self.news = News()
        self.fire = fire
        self._size, self._workers = size, workers
        self._changes = Changes(size)
        self._arrivals = Arrivals()
        self._numbers: dict[int, int] = {}
        """The number of each change, by the identity of what follows it, which lives as long as this."""
        self._followed: list[Awaited] = []
        self._away: set[str] = set()
        self._node = described(METADATA)
        self._free: list[int] = []
        self._next = 0

    # The users' side.

    def enlist(self, member: Member) -> str:
        """A node id of this process' share for a new user. Raises IndexError where all dataplanes have one."""
        if self._free:
            number = heapq.heappop(self._free)
        else:
            number = self.index + self._workers * self._next
            self._next += 1
        if number >= self._size:
            raise IndexError(f"the mesh has {self._size} dataplanes, and user {number} is one too many")
        self.members[node_id(number)] = member
        return node_id(number)

    def dismiss(self, name: str) -> None:
        """A user has gone for good; the next has its node id."""
        del self.members[name]
        heapq.heappush(self._free, int(name.rpartition("-")[2]))

    def new_envoy(self, name: str) -> SimulatedEnvoy:
        """An Envoy that holds nothing."""
        return SimulatedEnvoy(name, node=self._node, received=self.received, arrived=self._arrived)

    def configured(self, began: float, at: float) -> None:
        """A new Envoy has everything."""
        self.news.configured.append((at, at - began))
        self.fire("configured", 1000 * (at - began), 0)

    def _arrived(self, name: str, type_url: str, resource: str, facts: Facts, at: float) -> None:
        for awaited in self._arrivals.take(name, type_url, resource, facts, at):
            self.news.arrived.append((self._numbers[id(awaited)], name, at))
            self.fire(awaited.kind, 1000 * (at - awaited.started), 0)

    # The stage's side.

    def answer(self, what: str, data: Any) -> Any:
        """Answer a question. Raises KeyError for one that there is not."""
        answers: dict[str, Callable[[Any], Any]] = {
            "expect": self._expect,
            "report": self._report,
            "cut": self._cut,
            "leave": self._leave,
            "come back": self._come_back,
            "holdings": self._holdings,
        }
        return answers[what](data)

    def _expect(self, data: dict[str, Any]) -> None:
        """Follow a change: when this is answered, none of its arrivals can be missed."""
        write = Write(**data["write"], document=None)
        awaited = self._changes.expect(write, data["started"])
        awaited.waiting.intersection_update(self.members)
        awaited.waiting.difference_update(self._away)
        self._numbers[id(awaited)] = data["number"]
        self._followed.append(awaited)
        self._arrivals.expect(awaited)

    def _report(self, _: object) -> dict[str, Any]:
        news, self.news = self.news, News()
        return {
            "arrived": news.arrived,
            "configured": news.configured,
            "late": news.late,
            "streams": dict(self.streams),
            "received": self.received.as_document(),
            "is_configured": sum(member.envoy.is_configured() for member in self.members.values()),
            "at": time.monotonic(),
        }

    def _cut(self, names: Collection[str] | None) -> None:
        """These lose their connections, or all do."""
        for member in (
            [self.members[name] for name in names if name in self.members] if names else self.members.values()
        ):
            member.cut()

    def _leave(self, names: Collection[str]) -> None:
        ours = [name for name in names if name in self.members]
        self._arrivals.forget(ours)
        self._away.update(ours)
        for name in ours:
            self.members[name].leave()

    def _come_back(self, names: Collection[str]) -> None:
        self._away.difference_update(names)
        for name in names:
            if name in self.members:
                self.members[name].come_back()

    def _holdings(self, _: object) -> list[dict[str, Any]]:
        envoys = (member.envoy for member in self.members.values())
        return [{"node_id": envoy.node_id, "held": envoy.held, "warming": sorted(envoy.warming)} for envoy in envoys]
