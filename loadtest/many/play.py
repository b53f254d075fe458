"""What happens to them: all connect, endpoints move at a rate, two policies are edited that are everybody's.

In: a plan, the client. Out: an outcome, as a scenario of locust has one. Never: a judgement; that is the figures'.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import httpx
from bench.real_wires.changes import Changes, Write, node_id
from bench.regular_mesh import for_all
from loadtest.many.client import Envoys
from loadtest.outcome import ChangeMade, Outcome, PhasePlayed
from loadtest.plan import Plan

from kumafast.resources.document import to_document

CONVERGE_S_MAX = 600.0
_WRITERS = 16
_SETTLE_S = 0.5
_TOLD_EACH_S = 1.0


class Play:
    """One run: its phases, in turn."""

    def __init__(self, plan: Plan, envoys: Envoys, outcome: Outcome) -> None:
        self.outcome = outcome
        self.acknowledged_s: dict[str, float] = {}
        """By phase with an edit: seconds from its request until the control plane had everybody's acknowledgement."""
        self._plan = plan
        self._envoys = envoys
        self._changes = Changes(plan.users)
        self._http = httpx.Client(base_url=plan.api, timeout=2 * CONVERGE_S_MAX)
        self._bytes = 0

    def all(self) -> None:
        """Every phase."""
        with self._http:
            self._connect()
            self._steady()
            self._edit("a policy of what comes in", self._changes.policy_for_all())
            document = to_document(for_all(8))
            path = "/meshes/default/meshtimeouts/everybody"
            self._edit("a policy of all that goes out", Write("policy for all", "PUT", path, document, "", ""))

    def _connect(self) -> None:
        with self._phase("connect"):
            began = time.monotonic()
            answer = self._envoys.open(self._tell)
            self._converge(0)
            self.outcome.configured += [(began + us / 1e6, us / 1e6) for us in answer["last_us"] if us >= 0]
            if answer["configured"] != self._plan.users:
                self.outcome.problems.append(f"{answer['configured']} of {self._plan.users} Envoys could serve")

    def _steady(self) -> None:
        """Each move is of an instance of another service, so that each of its clients is sent that service once."""
        rate, count = self._plan.rate, int(self._plan.rate * self._plan.seconds)
        made: list[tuple[Write, float, float, int]] = []
        with self._phase("steady") as name, ThreadPoolExecutor(_WRITERS) as writers:
            began = time.monotonic()
            for number in range(count):
                time.sleep(max(0.0, began + number / rate - time.monotonic()))
                writers.submit(lambda write: made.append((write, *self._write(write))), self._changes.move(number))
            writers.shutdown()
            self._converge(max(revision for *_, revision in made))
            self._settle()
            came: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
            for at, envoy, service in self._envoys.arrivals():
                came[service].append((node_id(envoy), at))
            for write, started, returned, _ in made:
                self._note_move(name, write, started, returned, came.pop(write.resource, []))
            if came:
                self.outcome.problems.append(f"{name}: endpoints of {len(came)} services came, which had not changed")

    def _note_move(
        self, phase: str, write: Write, started: float, returned: float, came: list[tuple[str, float]]
    ) -> None:
        clients = self._changes.affected(write)
        reached = {envoy for envoy, _ in came}
        if reached - clients or len(came) != len(reached):
            self.outcome.problems.append(f"{phase}: {write.resource} came {len(came)} times to {len(clients)} clients")
        arrivals = sorted(at for _, at in came)
        missed = sorted(clients - reached)
        self.outcome.changes.append(ChangeMade("move", phase, started, returned, len(clients), missed, arrivals))

    def _edit(self, name: str, write: Write) -> None:
        """Its arrival at an Envoy is that of the last that it is sent."""
        with self._phase(name):
            started, returned, revision = self._write(write)
            self._converge(revision)
            self.acknowledged_s[name] = round(self._ended - started, 3)
            self._settle()
            told = self._envoys.ask("tell")
            began = told["began_ns"] / 1e9
            last = [(number, began + us / 1e6) for number, us in enumerate(told["last_us"]) if us >= 0]
            missed = sorted({node_id(number) for number in range(self._plan.users)} - {node_id(at) for at, _ in last})
            arrivals = sorted(at for _, at in last)
            self.outcome.changes.append(
                ChangeMade(write.kind, name, started, returned, self._plan.users, missed, arrivals)
            )

    # Its parts.

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[str]:
        """A part that has figures of its own: it ends when the control plane has every acknowledgement."""
        self._envoys.ask("mark")
        began = time.monotonic()
        self._note_timeline()
        self._ended = 0.0
        yield name
        counts = self._envoys.ask("count")
        self._tell(counts, name)
        self._bytes += counts["bytes"]
        if counts["errors"] or counts["acknowledgements"] != counts["messages"] or counts["unsent"]:
            self.outcome.problems.append(f"{name}: {counts}")
        streams = {"opened": self._plan.users} if name == "connect" else {}
        received = {key: counts[key] for key in ("bytes", "resources", "removed", "held_already", "for_warming")}
        received |= {"messages": counts["messages"], "wrong_versions": counts["wrong_versions"]}
        self.outcome.phases.append(PhasePlayed(name, began, self._ended or time.monotonic(), streams, received))

    def _write(self, write: Write) -> tuple[float, float, int]:
        """When it was asked for, when it was answered, the revision that it made. Raises HTTPStatusError."""
        started = time.monotonic()
        response = self._http.request(write.method, write.path, json=write.document)
        returned = time.monotonic()
        response.raise_for_status()
        return started, returned, int(response.headers["X-Kumafast-Revision"])

    def _converge(self, revision: int) -> None:
        """Wait until the control plane has everybody's acknowledgement of a revision."""
        timeout = f"{CONVERGE_S_MAX:.0f}s"

        def ask() -> tuple[dict[str, Any], float]:
            answer = self._http.get("/_convergence", params={"revision": revision, "timeout": timeout})
            return answer.json(), time.monotonic()

        with ThreadPoolExecutor(1) as asking:
            asked = asking.submit(ask)
            while not wait([asked], _TOLD_EACH_S).done:
                self._note_timeline()
            report, self._ended = asked.result()
        if not report["is_converged"] or report["rejected"]:
            self.outcome.problems.append(f"revision {revision}: {len(report['waiting'])} have not acknowledged it")

    def _settle(self) -> None:
        """Wait until nothing comes any more: what is late must be counted too."""
        before = -1
        while before != (now := self._envoys.ask("count")["messages"]):
            self._note_timeline()
            before = now
            time.sleep(_SETTLE_S)

    def _note_timeline(self) -> None:
        self._note(self._envoys.ask("count"))

    def _note(self, counts: dict[str, Any]) -> None:
        self.outcome.timeline.append((time.monotonic(), counts["configured"], self._bytes + counts["bytes"]))

    def _tell(self, counts: dict[str, Any], name: str = "connect") -> None:
        self._note(counts)
        sys.stdout.write(f"{name}: {counts['configured']} configured, {counts['messages']} messages\n")
        sys.stdout.flush()
