"""Figures of a run: propagation, what the server used, how late the clients themselves were, what is wrong.

In: an outcome, samples of the processes, what differs from the truth. Out: plain data, for the report and for machines.
Never: files, clocks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.slope import GROWTH_MAX as GROWTH_MAX_SHARE
from bench.slope import GROWTH_MAX_BYTES, grown
from loadtest.control_plane import Sample, processors
from loadtest.outcome import ChangeMade, Outcome, PhasePlayed
from loadtest.plan import Plan

CLIENT_BUSY = SERVER_BUSY = 0.9
"""Of a core: from here on a process of one thread is at its limit."""
MACHINE_BUSY = 0.95
LATE_S = 0.05
SHOWN_MAX = 10
SOAK_S_MIN = 900.0
"""Caches and the store's log of commits fill for some minutes: slopes of a shorter soak are shown and not judged."""
# By how much the line through the lows may rise after the warm-up: a share of the level, and so much at least.
GROWTH_MAX: dict[str, tuple[float, float]] = {
    "memory, MB": (GROWTH_MAX_SHARE, GROWTH_MAX_BYTES / 1e6),
    "descriptors": (0.01, 5.0),
    "tasks": (0.01, 5.0),
}


def of(
    plan: Plan, outcome: Outcome, samples: Sequence[Sample], different: Sequence[str], *, tls: str
) -> dict[str, Any]:
    """All of a run. Under `wrong` stands what is not as it should be: with nothing there the run is good."""
    phases = {phase.name: _phase(phase, outcome, samples) for phase in outcome.phases}
    slopes = {phase.name: _slopes(phase, samples) for phase in outcome.phases if phase.name == "soak"}
    return {
        "scenario": plan.scenario,
        "users": plan.users,
        "workers": plan.workers,
        "seconds": plan.seconds,
        "rate": plan.rate,
        "tls": tls,
        "processors": processors(),
        "phases": phases,
        "slopes": slopes,
        "server_rss_mb_max": round(max((sample.server_rss_bytes for sample in samples), default=0) / 1e6, 1),
        "holding": len(outcome.holdings),
        "wrong_end_states": len({line.split()[0] for line in different}),
        "wrong": [*_wrong(plan, outcome, phases, different), *_risen(slopes, phases)],
    }


def _wrong(plan: Plan, outcome: Outcome, phases: dict[str, Any], different: Sequence[str]) -> Iterable[str]:
    yield from different[:SHOWN_MAX]
    if len(outcome.holdings) != plan.users:
        yield f"{len(outcome.holdings)} of {plan.users} Envoys have said what they hold"
    yield from outcome.problems[:SHOWN_MAX]
    for name, phase in phases.items():
        for what in ("missed", "held_already", "wrong_versions", "given_up"):
            count = phase[what] if what == "missed" else phase["received"].get(what, 0)
            if count:
                yield f"{name}: {what} {count}"


def _phase(phase: PhasePlayed, outcome: Outcome, samples: Sequence[Sample]) -> dict[str, Any]:
    changes = [change for change in outcome.changes if change.phase == phase.name]
    configured = [seconds for at, seconds in outcome.configured if phase.began <= at <= phase.ended]
    late = [seconds for at, seconds in outcome.late if phase.began <= at <= phase.ended]
    used = _used(samples, phase.began, phase.ended)
    late_s = quantile(late, 0.5)
    return {
        "seconds": round(phase.ended - phase.began, 2),
        "changes": dict(sorted(Counter(change.kind for change in changes).items())),
        "affected": sum(change.affected for change in changes),
        "missed": sum(len(change.missed) for change in changes),
        "propagation_ms": _milliseconds(delays(changes)),
        "from_request_ms": _milliseconds([at - change.started for change in changes for at in change.arrivals]),
        "answer_ms": _milliseconds([change.returned - change.started for change in changes]),
        "configured_ms": _milliseconds(configured),
        **used,
        "client_late_ms": _milliseconds(late),
        "limit": _limit(used, late_s),
        "streams": phase.streams,
        "received": phase.received,
    }


def _slopes(phase: PhasePlayed, samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Of what the server holds: its level, by how much the line through its lows rises, how much it may."""
    within = [sample for sample in samples if phase.began <= sample.at <= phase.ended]
    held = {
        "memory, MB": [sample.server_rss_bytes / 1e6 for sample in within],
        "descriptors": [float(sample.descriptors) for sample in within],
        "tasks": [float(sample.tasks) for sample in within],
    }
    found = {}
    for name, values in held.items():
        growth, level = grown([(sample.at, value) for sample, value in zip(within, values, strict=True)])
        share, least = GROWTH_MAX[name]
        found[name] = {
            "level": round(level, 1),
            "growth": round(growth, 2),
            "limit": round(max(share * level, least), 2),
        }
    return found


def _risen(slopes: dict[str, dict[str, dict[str, float]]], phases: dict[str, Any]) -> Iterable[str]:
    for phase, held in slopes.items():
        if phases[phase]["seconds"] < SOAK_S_MIN:
            continue
        for name, slope in held.items():
            if slope["growth"] > slope["limit"]:
                yield f"{phase}: {name} grew by {slope['growth']:g} at {slope['level']:g}"


def delays(changes: Iterable[ChangeMade]) -> list[float]:
    """Seconds from the answer to a write until it was at each Envoy; what was there before the answer took none."""
    return [max(0.0, at - change.returned) for change in changes for at in change.arrivals]


def _used(samples: Sequence[Sample], began: float, ended: float) -> dict[str, Any]:
    """What the processes used from one second to another, of one core where it is a share."""
    seconds = max(ended - began, 1e-9)

    def spent(of: Callable[[Sample], float]) -> float:
        return _at(samples, ended, of) - _at(samples, began, of)

    server = spent(lambda sample: sample.server_cpu_s)
    pids = {pid for sample in samples for pid in sample.clients_cpu_s}
    clients = [spent(lambda sample, pid=pid: sample.clients_cpu_s.get(pid, 0.0)) for pid in pids]  # type: ignore[misc]
    machine = spent(lambda sample: sample.machine_cpu_s)
    memory = [sample.server_rss_bytes for sample in samples if began <= sample.at <= ended]
    return {
        "server_cpu_s": round(server, 3),
        "server_core_share": round(server / seconds, 3),
        # None was taken of what was over between two samples.
        "server_rss_mb": round(max(memory) / 1e6, 1) if memory else None,
        "busiest_client_core_share": round(max(clients, default=0.0) / seconds, 3),
        "clients_cpu_s": round(sum(clients), 3),
        "machine_share": round(machine / seconds / processors(), 3),
        "others_core_share": round(max(0.0, machine - server - sum(clients)) / seconds, 3),
    }


def _at(samples: Sequence[Sample], second: float, of: Callable[[Sample], float]) -> float:
    """What had been used at a second, on the line between the samples around it."""
    if not samples:
        return 0.0
    after = bisect_left(samples, second, key=lambda sample: sample.at)
    if after == 0 or after == len(samples):
        return of(samples[min(after, len(samples) - 1)])
    left, right = samples[after - 1], samples[after]
    share = (second - left.at) / (right.at - left.at)
    return of(left) + share * (of(right) - of(left))


def _limit(used: dict[str, Any], late_s: float) -> str:
    """Who could do no more, in words; the delays of a run are those of whoever that is."""
    said = []
    if used["busiest_client_core_share"] > CLIENT_BUSY:
        said.append(f"a client process used {used['busiest_client_core_share']:.2f} of a core")
    if used["server_core_share"] > SERVER_BUSY:
        said.append(f"the server used {used['server_core_share']:.2f} of a core")
    if used["machine_share"] > MACHINE_BUSY:
        others = used["others_core_share"]
        said.append(
            f"the machine was {100 * used['machine_share']:.0f} % busy, {others:.2f} of a core with others' work"
        )
    if late_s > LATE_S:
        said.append(f"the clients' own timers were {1000 * late_s:.0f} ms late in most half seconds")
    return "; ".join(said) or "nobody"


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of all lies; 0 where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(1000 * quantile(seconds, share), 2) for name, share in shares.items()} | {"count": len(seconds)}
