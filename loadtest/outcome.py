"""What came out of a run, in plain data: what was changed, where it arrived when, who holds what.

In: what the stage has seen. Out: a JSON file, and the same read again. Never: figures; those are the report's.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ChangeMade:
    """One write; times are monotonic seconds."""

    kind: str
    phase: str
    started: float
    returned: float
    affected: int
    missed: list[str]
    """The node ids at which it has not arrived."""
    arrivals: list[float]


@dataclass(frozen=True, slots=True)
class PhasePlayed:
    """A part of a scenario; what came in it, of all Envoys together."""

    name: str
    began: float
    ended: float
    """When the last of what it is about was there."""
    streams: dict[str, int]
    received: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Holding:
    """What an Envoy holds."""

    node_id: str
    held: dict[str, dict[str, str]]
    warming: list[str]


@dataclass(slots=True)
class Outcome:
    """All of a run."""

    phases: list[PhasePlayed] = field(default_factory=list)
    changes: list[ChangeMade] = field(default_factory=list)
    configured: list[tuple[float, float]] = field(default_factory=list)
    """When a new Envoy had everything, and the seconds since it began to connect."""
    late: list[tuple[float, float]] = field(default_factory=list)
    """When a process with Envoys reported, and by how many seconds its timer was late since the last report."""
    timeline: list[tuple[float, int, int]] = field(default_factory=list)
    """Monotonic second, open streams, bytes received until then."""
    problems: list[str] = field(default_factory=list)
    """What should not have happened: writes that were refused, what did not come to its end."""
    holdings: list[Holding] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it down; where the file is there it is whole."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read what `save` wrote."""
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        read["phases"] = [PhasePlayed(**each) for each in read["phases"]]
        read["changes"] = [ChangeMade(**each) for each in read["changes"]]
        read["holdings"] = [Holding(**each) for each in read["holdings"]]
        for name in ("configured", "late", "timeline"):
            read[name] = [tuple(each) for each in read[name]]
        return cls(**read)


def added(first: dict[str, Any], second: dict[str, Any], sign: int = 1) -> dict[str, Any]:
    """The sum of two trees of counters, or with `sign` -1 their difference; what one lacks is nothing."""
    total: dict[str, Any] = {}
    for name in first.keys() | second.keys():
        one, other = first.get(name), second.get(name)
        if isinstance(one, dict) or isinstance(other, dict):
            total[name] = added(one or {}, other or {}, sign)
        else:
            total[name] = (one or 0) + sign * (other or 0)
    return dict(sorted(total.items()))
