"""What is measured of each server: pushes turn by turn with the floor, memory, rest, turns of the loop, connects.

In: a `Case`. Out: `Figures`. Never: a floor of another run; a busy neighbour slows both, so the ratio holds.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.wire.servers import FLOOR, Bench
from bench.wire.target import Case, Round, Target

# What a runtime does only at first: growing its heap, importing, filling caches.
_ROUNDS_UNCOUNTED = 2
_WATCHED_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Pushes:
    """The medians of some rounds; each of them also as (least, most)."""

    cpu_us: float
    cpu_us_spread: tuple[float, float]
    floor_us: float
    floor_us_spread: tuple[float, float]
    times_floor: float
    """The median of each round's ratio to the floor's round just before."""
    times_floor_spread: tuple[float, float]
    p50_ms: float
    p99_ms: float
    floor_p99_ms: float
    client_us: float
    bytes: float
    segments: float
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one case came to. Memory is KiB for each connection: connected, and after the pushes."""

    part: str
    case: Case
    connect_us: float
    open_seconds: float
    resident_kb: float
    resident_after_kb: float | None = None
    idle_percent: float | None = None
    longest_turn_ms: float | None = None
    pushes: Pushes | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values, rounded to what they are worth."""
        rounded = _rounded(asdict(self))
        assert isinstance(rounded, dict)
        return rounded


def measure(bench: Bench, part: str, case: Case, *, rounds: int, idle_s: float = 0.0) -> Figures:
    """Open a case and push `rounds` times, beside a floor of as many plaintext sockets; 0 rounds: only connect.

    Raises `BenchmarkError` where a connection, a push or an acknowledgement is missing.
    """
    with ExitStack() as stack:
        target = Target(bench, case, stack)
        opening = target.open()
        figures = Figures(
            part=part,
            case=case,
            connect_us=opening.connect_us,
            open_seconds=opening.seconds,
            resident_kb=opening.resident_kb,
            idle_percent=target.idle_percent(idle_s) if idle_s else None,
        )
        if not rounds:
            return figures
        # The floor knows one stream for each connection: as many sends and receives, whatever the streams.
        floor = Target(bench, Case(server=FLOOR, connections=case.connections), stack)
        floor.open()
        pushes = _push_in_turn(target, floor, rounds)
        return replace(
            figures,
            pushes=pushes,
            resident_after_kb=target.resident_kb(),
            longest_turn_ms=target.longest_turn_ms(_WATCHED_ROUNDS),
        )


def _push_in_turn(target: Target, floor: Target, rounds: int) -> Pushes:
    pairs: list[tuple[Round, Round]] = []
    segments = 0
    for at in range(_ROUNDS_UNCOUNTED + rounds):
        if at == _ROUNDS_UNCOUNTED:
            segments = target.segments()
            gc.collect()
        pairs.append((floor.push(), target.push()))
    segments = target.segments() - segments
    pairs = pairs[_ROUNDS_UNCOUNTED:]
    floors, pushes = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ratios = [push.cpu_us / plain.cpu_us for plain, push in pairs]
    return Pushes(
        cpu_us=statistics.median(each.cpu_us for each in pushes),
        cpu_us_spread=_spread([each.cpu_us for each in pushes]),
        floor_us=statistics.median(each.cpu_us for each in floors),
        floor_us_spread=_spread([each.cpu_us for each in floors]),
        times_floor=statistics.median(ratios),
        times_floor_spread=_spread(ratios),
        p50_ms=statistics.median(each.p50_ms for each in pushes),
        p99_ms=statistics.median(each.p99_ms for each in pushes),
        floor_p99_ms=statistics.median(each.p99_ms for each in floors),
        client_us=statistics.median(each.client_us for each in pushes),
        bytes=statistics.median(each.bytes for each in pushes),
        segments=segments / (rounds * target.streams),
        rounds=rounds,
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(value, 3) if isinstance(value, float) else value
