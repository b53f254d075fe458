"""What a scenario can do, and what is noted while it does it.

In: a plan, a crew. Out: changes through REST, cuts, waits; an outcome. Never: which of these when; that is a scenario.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

import gevent
import httpx
import psutil
from bench.real_wires.arrivals import Awaited
from bench.real_wires.changes import Changes, Write, node_id
from bench.regular_mesh import PER_SERVICE
from gevent.lock import RLock
from gevent.pool import Pool
from loadtest.crew import Crew
from loadtest.outcome import ChangeMade, Holding, Outcome, PhasePlayed, added
from loadtest.plan import Plan

ARRIVE_S_MAX = 120.0
BACK_S_MAX = 300.0
REPORT_EACH_S = 0.5
PROFILE_WRITE_S_MAX = 120.0
WRITES_MAX = 64
_SAID = [each.name for each in fields(Write) if each.name != "document"]

Scenario = Callable[["Stage"], None]


class Stage:
    """One run, from the process that plays it."""

    def __init__(self, plan: Plan, crew: Crew) -> None:
        self.plan = plan
        self.changes = Changes(plan.users)
        self.outcome = Outcome()
        self._crew = crew
        self._http = httpx.Client(base_url=plan.api, timeout=60, limits=httpx.Limits(max_connections=WRITES_MAX))
        self._made: list[tuple[Awaited, str, int]] = []
        """Each change, its phase, and how many it affects; its number is its place."""
        self._missing: dict[int, Awaited] = {}
        self._away: set[str] = set()
        self._phase = "connect"
        self._reporting = RLock()
        self._streams: dict[str, int] = {}
        self._received: dict[str, Any] = {}
        self._configured = 0
        self._said = ""

    # The frame of a run.

    def play(self, scenario: Scenario) -> None:
        """Have everybody connect, play the scenario, and ask all what they hold."""
        following = gevent.spawn(self._follow)
        try:
            with self.phase("connect"):
                self.all_back()
            scenario(self)
            with self.phase("end"):
                self.all_back()
            for share in self._crew.ask("holdings"):
                self.outcome.holdings += [Holding(**each) for each in share]
        finally:
            following.kill()
            self._note_changes()
            self._http.close()

    def save(self) -> None:
        """Leave the outcome where the plan says."""
        self.outcome.save(self.plan.outcome_file)

    def _note_changes(self) -> None:
        for awaited, phase, affected in self._made:
            missed = sorted(awaited.waiting)
            self.outcome.changes.append(
                ChangeMade(
                    awaited.kind, phase, awaited.started, awaited.returned, affected, missed, sorted(awaited.arrivals)
                )
            )

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A part that has figures of its own; it ends when all that was changed in it has arrived."""
        self._report()
        self._phase, began = name, time.monotonic()
        streams, received = self._streams, self._received
        yield
        ended = max(time.monotonic(), self._settle())
        self.outcome.phases.append(
            PhasePlayed(name, began, ended, added(self._streams, streams, -1), added(self._received, received, -1))
        )

    # What happens.

    def write(self, write: Write | None) -> Awaited | None:
        """Make a change, and follow it to whom it affects. Returns when the control plane has answered."""
        if write is None:
            return None
        number = len(self._made)
        awaited = self.changes.expect(write, time.monotonic())
        awaited.waiting -= self._away
        self._made.append((awaited, self._phase, len(awaited.waiting)))
        self._missing[number] = awaited
        said = {name: getattr(write, name) for name in _SAID}
        # Answered by all before it is made, so that it arrives nowhere where nobody looks for it.
        self._crew.ask("expect", {"number": number, "write": said, "started": awaited.started})
        awaited.started = time.monotonic()
        try:
            response = self._http.request(write.method, write.path, json=write.document)
        except httpx.TransportError as error:
            self.outcome.problems.append(f"{write.method} {write.path}: {error!r}")
        else:
            if response.status_code not in (200, 201):
                self.outcome.problems.append(f"{write.method} {write.path}: {response.status_code} {response.text}")
        awaited.returned = time.monotonic()
        return awaited

    def request(self, method: str, path: str, document: Any = None) -> None:
        """Ask the API for something that no Envoy is waited for."""
        try:
            response = self._http.request(method, path, json=document)
        except httpx.TransportError as error:
            self.outcome.problems.append(f"{method} {path}: {error!r}")
        else:
            if not response.is_success:
                self.outcome.problems.append(f"{method} {path}: {response.status_code} {response.text}")

    def write_and_wait(self, write: Write) -> None:
        """Make a change, and wait until it is everywhere, or for as long as that may take."""
        awaited = self.write(write)
        deadline = time.monotonic() + ARRIVE_S_MAX
        while awaited is not None and awaited.waiting and time.monotonic() < deadline:
            gevent.sleep(REPORT_EACH_S / 5)

    def write_all(self, writes: Iterable[Write | None]) -> None:
        """Make these as fast as the control plane takes them, some at a time."""
        pool = Pool(WRITES_MAX // 2)
        for write in writes:
            pool.spawn(self.write, write)
        pool.join(raise_error=True)

    def write_steadily(self, writes: Iterator[Write | None], *, rate: float, seconds: float) -> None:
        """Make so many of these a second, whether or not those before have been answered."""
        pool, began = Pool(WRITES_MAX), time.monotonic()
        for number in range(max(1, int(rate * seconds))):
            gevent.sleep(max(0.0, began + number / rate - time.monotonic()))
            pool.spawn(self.write, next(writes))
        pool.join(raise_error=True)

    def cut(self, numbers: Iterable[int] = ()) -> None:
        """The streams of these end at once, without a word, or of nobody named those of all; their Envoys come back."""
        self._crew.ask("cut", [node_id(number) for number in numbers])

    def leave(self, numbers: Iterable[int]) -> None:
        """The Envoys of these dataplanes are gone, with all that they held. Nothing is waited for of them."""
        names = {node_id(number) for number in numbers}
        self._away |= names
        for number, awaited in tuple(self._missing.items()):
            awaited.waiting -= names
            self._is_everywhere(number)
        self._crew.ask("leave", sorted(names))

    def come_back(self, numbers: Iterable[int]) -> None:
        """New Envoys for these dataplanes connect, which hold nothing."""
        names = {node_id(number) for number in numbers}
        self._away -= names
        self._crew.ask("come back", sorted(names))

    def kill_control_plane(self) -> None:
        """It ends without a word; whoever started it starts it again."""
        if self.plan.profiler_file.exists():
            # Killed while it stands still for a sample it stays so, and its profiler waits for it.
            _end(int(self.plan.profiler_file.read_text(encoding="ascii")))
            self.plan.profiler_file.unlink()
        os.kill(int(self.plan.pid_file.read_text(encoding="ascii")), signal.SIGKILL)

    def instances(self, service: int) -> range:
        """The numbers of a service's dataplanes."""
        return range(service, self.plan.users, self.services)

    @property
    def services(self) -> int:
        """How many services the mesh has."""
        return self.plan.users // PER_SERVICE

    # Waiting.

    def all_back(self) -> None:
        """Wait until all who are not away are connected, and the control plane says that they have everything."""
        expected = self.plan.users - len(self._away)
        deadline = time.monotonic() + BACK_S_MAX
        while not (self._open_streams() == expected == self._configured and self._is_converged(expected)):
            if time.monotonic() > deadline:
                self.outcome.problems.append(f"{self._phase}: not all are back after {BACK_S_MAX:.0f} s")
                return
            gevent.sleep(0.1)
            self._report()

    def all_arrived(self) -> None:
        """Wait until every change is where it should be, or for long enough to say that it never will be."""
        deadline = time.monotonic() + ARRIVE_S_MAX
        while self._missing:
            if time.monotonic() > deadline:
                self.outcome.problems.append(f"{self._phase}: {len(self._missing)} changes have not arrived everywhere")
                self._missing.clear()
            gevent.sleep(0.1)
            self._report()

    def _is_converged(self, expected: int) -> bool:
        try:
            answer = self._http.get("/_convergence?revision=0&timeout=10s").json()
            metrics = self._http.get(self.plan.diagnostics + "/metrics").text
        except (httpx.TransportError, ValueError):
            return False
        return bool(answer.get("is_converged")) and f"kumafast_connected_proxies {float(expected)}" in metrics

    def _settle(self) -> float:
        """Wait until all has arrived and nothing comes any more; when the last of it was there."""
        self.all_arrived()
        last = max(
            (at for awaited, phase, _ in self._made if phase == self._phase for at in awaited.arrivals), default=0.0
        )
        quiet_since, before = time.monotonic(), self._received.get("bytes")
        while True:
            gevent.sleep(REPORT_EACH_S)
            self._report()
            if self._received.get("bytes") == before:
                return last or quiet_since
            quiet_since, before = time.monotonic(), self._received.get("bytes")

    # Noting.

    def _follow(self) -> None:
        while True:
            gevent.sleep(REPORT_EACH_S)
            self._report()
            self._tell()

    def _report(self) -> None:
        with self._reporting:
            reports = self._crew.ask("report")
            self._streams, self._received = {}, {}
            self._configured = 0
            for report in reports:
                self._take(report)
            opened = self._open_streams()
            self.outcome.timeline.append((time.monotonic(), opened, int(self._received.get("bytes", 0))))

    def _take(self, report: dict[str, Any]) -> None:
        self._streams = added(self._streams, report["streams"])
        self._received = added(self._received, report["received"])
        self._configured += report["is_configured"]
        self.outcome.configured += [tuple(each) for each in report["configured"]]
        if report["late"]:
            self.outcome.late.append((report["at"], max(report["late"])))
        for number, name, at in report["arrived"]:
            self._made[number][0].arrive(name, at)
            self._is_everywhere(number)

    def _is_everywhere(self, number: int) -> None:
        if not self._made[number][0].waiting:
            self._missing.pop(number, None)

    def _open_streams(self) -> int:
        return self._streams.get("opened", 0) - self._streams.get("closed", 0)

    def _tell(self) -> None:
        made, open_streams = len(self._made), self._open_streams()
        said = f"{self._phase}: {open_streams} streams, {made} changes, {len(self._missing)} under way"
        if said != self._said:
            self._said = said
            sys.stdout.write(said + "\n")
            sys.stdout.flush()


def _end(profiler: int) -> None:
    """Have a profiler write its graph; a return means that it looks at nobody any more."""
    deadline = time.monotonic() + PROFILE_WRITE_S_MAX
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(profiler)
        process.send_signal(signal.SIGINT)
        # Who has started it has not waited for it yet.
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                process.kill()
            gevent.sleep(0.1)
