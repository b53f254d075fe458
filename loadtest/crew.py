"""Questions to the processes that are the Envoys, and their answers, over locust's own messages.

In: the name of a question with plain data. Out: an answer from each process; the same with one process as with many.
Never: what is asked; that is the stage's and the worker's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gevent.event import Event

_ASK, _ANSWER = "kumafast-ask", "kumafast-answer"
ANSWER_S_MAX = 120.0


class Runner(Protocol):
    """Locust's runner, of any kind, as far as it is used here."""

    @property
    def worker_count(self) -> int:
        """How many processes have Envoys."""

    def register_message(self, msg_type: str, listener: Callable[..., Any], concurrent: bool = False) -> None:
        """Have a listener called for each message of this type."""

    def send_message(self, msg_type: str, data: Any = None, client_id: str | None = None) -> None:
        """Send to the other side: from the master to all workers, from a worker to the master."""


@dataclass(slots=True)
class _Question:
    answers: list[Any] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    is_answered: Event = field(default_factory=Event)


class Crew:
    """All processes with Envoys, as seen by the one that plays the scenario."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._numbers = itertools.count(1)
        self._open: dict[int, _Question] = {}
        runner.register_message(_ANSWER, self._take)

    def ask(self, what: str, data: Any = None) -> list[Any]:
        """Ask all and wait for all answers. Raises RuntimeError where one failed, TimeoutError where one is silent."""
        number, question = next(self._numbers), _Question()
        self._open[number] = question
        try:
            self._runner.send_message(_ASK, {"number": number, "what": what, "data": data})
            if not question.is_answered.wait(ANSWER_S_MAX):
                raise TimeoutError(f"{what}: {len(question.answers)} of {self._runner.worker_count} answers")
        finally:
            del self._open[number]
        if question.errors:
            raise RuntimeError(f"{what}: {question.errors[0]}")
        return question.answers

    def _take(self, environment: object, msg: Any, **_: object) -> None:
        question = self._open.get(msg.data["number"])
        if question is None:
            return
        if msg.data["error"]:
            question.errors.append(msg.data["error"])
        question.answers.append(msg.data["answer"])
        if len(question.answers) == self._runner.worker_count:
            question.is_answered.set()


def listen(runner: Runner, answer: Callable[[str, Any], Any]) -> None:
    """Answer what the crew is asked, in a process with Envoys."""

    def take(environment: object, msg: Any, **_: object) -> None:
        reply: dict[str, Any] = {"number": msg.data["number"], "answer": None, "error": ""}
        try:
            reply["answer"] = answer(msg.data["what"], msg.data["data"])
        except Exception as error:  # Whoever asked waits for an answer, whatever went wrong.
            reply["error"] = repr(error)
        runner.send_message(_ANSWER, reply)

    runner.register_message(_ASK, take)
