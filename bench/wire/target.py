"""A server under load: its process, its clients, and one push to all of them at a time.

In: a server's name, how many connections and streams. Out: what opening them, a push and nothing at all cost it.
Never: the clients' CPU time in the server's.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from bench.wire import payload
from bench.wire.process import BenchmarkError, Process
from bench.wire.servers import FLOOR, WITH_OWN_RESOURCE, Bench

_WARM_UP = 64
# A client process with more would need more than one core for its half.
_CONNECTIONS_EACH = 10_000
# What a timer each millisecond takes.
_WATCHED_IDLE_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class Case:
    """One server and its clients. `window` connections are begun at a time; each has so many streams."""

    server: str
    connections: int
    streams: int = 1
    is_tls: bool = False
    window: int = 256
    has_large_node: bool = False
    repeats_node: bool = False


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Per connection: CPU time of the server, and what is resident when all are there and nothing moves."""

    connect_us: float
    resident_kb: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Round:
    """One push to every stream, and every acknowledgement read."""

    cpu_us: float
    """CPU time of the server for each push."""
    client_us: float
    p50_ms: float
    p99_ms: float
    """From the command until that share of the streams has been reached."""
    bytes: float
    """Of the message, for each push."""


class Target:
    """A running server with its clients, from `open` on."""

    def __init__(self, bench: Bench, case: Case, stack: ExitStack) -> None:
        self.case = case
        self._bench = bench
        self._stack = stack
        self._clients: list[tuple[Process, int]] = []
        nodes = case.connections * case.streams
        command = bench.command(case.server, nodes=nodes, is_tls=case.is_tls)
        self.server = stack.enter_context(Process(command, name=case.server))
        self._port = self.server.hear()["port"]
        self._resident_kb = 0.0

    @property
    def streams(self) -> int:
        """How many streams are pushed to."""
        return self.case.connections * self.case.streams

    def open(self) -> Opening:
        """Connect all; what a first few need once is not counted."""
        self._warm_up()
        self._resident_kb = self._settled_kb()
        before, began = self.server.cpu_us(), time.monotonic()
        parts = math.ceil(self.case.connections / _CONNECTIONS_EACH)
        for part in range(parts):
            first, end = (self.case.connections * each // parts for each in (part, part + 1))
            client = self._stack.enter_context(self._start_client(first, end - first))
            self._clients.append((client, (end - first) * self.case.streams))
        for client, _ in self._clients:
            client.tell("open")
        for client, streams in self._clients:
            answer = client.hear()
            if answer["errors"] or answer["pushes"] < streams:
                raise BenchmarkError(f"{self.case.server}: {streams} streams were to be answered, not {_told(answer)}")
        seconds = time.monotonic() - began
        self.server.wait_until_quiet()
        spent = self.server.cpu_us() - before
        return Opening(
            connect_us=spent / self.case.connections, resident_kb=self.resident_kb(), seconds=round(seconds, 2)
        )

    def resident_kb(self) -> float:
        """KiB for each connection beyond what the server had before them, when what is not in use was given back."""
        return (self._settled_kb() - self._resident_kb) / self.case.connections

    def push(self, *, is_watched: bool = False) -> Round:
        """One push to all; `is_watched` allows for the timer that watches the loop.

        Raises `BenchmarkError` unless every stream gets exactly one, and no error comes.
        """
        for client, streams in self._clients:
            ready = client.ask(f"expect {streams}")
            if ready["unexpected"]:
                raise BenchmarkError(f"{self.case.server} pushed {ready['unexpected']} times more than it was told to")
        before, began_ns = self.server.cpu_us(), time.monotonic_ns()
        self.server.tell("push")
        answers = [client.hear() for client, _ in self._clients]
        self.server.hear()
        self.server.wait_until_quiet(**({"idle_share": _WATCHED_IDLE_SHARE} if is_watched else {}))
        spent = self.server.cpu_us() - before
        for (_, streams), answer in zip(self._clients, answers, strict=True):
            if answer["errors"] or answer["pushes"] != streams:
                raise BenchmarkError(f"{self.case.server}: {streams} pushes were to arrive, not {_told(answer)}")
        arrivals_ms = sorted(
            (answer["began_ns"] - began_ns) / 1e6 + each / 1e3 for answer in answers for each in answer["arrivals_us"]
        )
        return Round(
            cpu_us=spent / self.streams,
            client_us=sum(answer["cpu_us"] for answer in answers) / self.streams,
            p50_ms=arrivals_ms[len(arrivals_ms) // 2],
            p99_ms=arrivals_ms[len(arrivals_ms) * 99 // 100],
            bytes=sum(answer["bytes"] for answer in answers) / self.streams,
        )

    def longest_turn_ms(self, rounds: int) -> float | None:
        """The longest turn of the event loop during so many pushes, in CPU time; None where there is no such loop."""
        if self.case.server == FLOOR or self.case.server.startswith("go-"):
            return None
        self.server.ask("watch")
        for _ in range(rounds):
            self.push(is_watched=True)
        return float(self.server.ask("turns")["longest_turn_ms"])

    def idle_percent(self, seconds: float) -> float:
        """The share of a core that it takes while nothing happens."""
        self.server.wait_until_quiet()
        before, began = self.server.cpu_us(), time.monotonic()
        time.sleep(seconds)
        return (self.server.cpu_us() - before) / 1e4 / (time.monotonic() - began)

    def segments(self) -> int:
        """TCP segments with data that the clients have had from the server so far."""
        return sum(int(client.ask("counts")["segments"]) for client, _ in self._clients)

    def _warm_up(self) -> None:
        count = min(_WARM_UP, self.case.connections)
        with self._start_client(0, count) as client:
            for line in ("open", f"expect {count * self.case.streams}"):
                answer = client.ask(line)
                if answer.get("errors"):
                    raise BenchmarkError(f"{self.case.server} fails a few clients: {_told(answer)}")
            self.server.ask("push")
            client.hear()
        self.server.wait_until_quiet()

    def _settled_kb(self) -> float:
        self.server.ask("settle")
        return self.server.resident_kb()

    def _start_client(self, first: int, connections: int) -> Process:
        case = self.case
        names = [payload.SHARED] + ([payload.OWN] if case.server in WITH_OWN_RESOURCE else [])
        command = [str(self._bench.client), "--port", str(self._port), "--connections", str(connections)]
        command += ["--streams", str(case.streams), "--first", str(first), "--window", str(case.window)]
        command += ["--node", str(self._bench.node_file(is_large=case.has_large_node))]
        command += [argument for name in names for argument in ("--name", name)]
        command += ["--tls"] * case.is_tls + ["--repeat-node"] * case.repeats_node
        return Process(command, name=f"the load client of {case.server}")


def _told(answer: dict[str, Any]) -> str:
    return ", ".join(f"{key} {answer[key]}" for key in ("connected", "pushes", "errors") if key in answer)
