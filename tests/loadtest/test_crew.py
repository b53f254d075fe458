"""The stage asks all processes and has all answers, whoever is slow, silent or fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from loadtest.crew import Crew, listen

from loadtest import crew


@dataclass
class Message:
    data: Any


class Node:
    """A runner of one process; what it sends goes to its peers, a moment later."""

    def __init__(self) -> None:
        self.peers: list[Node] = []
        self.listeners: dict[str, Callable[..., Any]] = {}
        self.delay_s = 0.0

    @property
    def worker_count(self) -> int:
        return len(self.peers)

    def register_message(self, msg_type: str, listener: Callable[..., Any], concurrent: bool = False) -> None:
        self.listeners[msg_type] = listener

    def send_message(self, msg_type: str, data: Any = None, client_id: str | None = None) -> None:
        for peer in self.peers:
            gevent.spawn_later(self.delay_s, peer.take, msg_type, data)

    def take(self, msg_type: str, data: Any) -> None:
        self.listeners[msg_type](environment=None, msg=Message(data))


def connected(count: int) -> tuple[Node, list[Node]]:
    master, workers = Node(), [Node() for _ in range(count)]
    master.peers = list(workers)
    for worker in workers:
        worker.peers = [master]
    return master, workers


def test_all_answer_and_each_is_heard() -> None:
    master, workers = connected(3)
    for number, worker in enumerate(workers):
        worker.delay_s = 0.01 * number
        listen(worker, lambda what, data, number=number: (number, what, data))  # type: ignore[misc]
    asking = Crew(master)
    assert sorted(asking.ask("report", [1])) == [(number, "report", [1]) for number in range(3)]


def test_questions_at_the_same_time_keep_their_answers() -> None:
    master, (worker, other) = connected(2)
    worker.delay_s = 0.02
    listen(worker, lambda what, data: data)
    listen(other, lambda what, data: data)
    asking = Crew(master)
    asked = [gevent.spawn(asking.ask, "x", number) for number in range(10)]
    assert [greenlet.get(timeout=10) for greenlet in asked] == [[number, number] for number in range(10)]


def test_failure_in_one_process_is_raised() -> None:
    master, (worker, other) = connected(2)
    listen(worker, lambda what, data: data)
    listen(other, lambda what, data: 1 // 0)
    with pytest.raises(RuntimeError, match="report: ZeroDivisionError"):
        Crew(master).ask("report")


def test_silence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "ANSWER_S_MAX", 0.05)
    master, (worker, other) = connected(2)
    listen(worker, lambda what, data: data)
    other.listeners["kumafast-ask"] = lambda **_: None
    with pytest.raises(TimeoutError, match="report: 1 of 2 answers"):
        Crew(master).ask("report")
