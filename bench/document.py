"""The document of a day's measurements: what was run where, and each figure with its unit, its spread and its peers.

In: figures of parts. Out: `bench/results/<date>.json`, read and written. Never: a figure without the run that gave it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")

UNITS = ("ns", "us", "ms", "s", "bytes", "kb", "mb", "percent", "times")
"""What the last word of a figure's name may say that it is in; anything else is a count."""


COUNTS = ("count", "pushes")
"""Last words of names of how many there were, whatever they were timed in."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One value. `spread` is (least, most) of what it is typical of; `peers` is the same of others, by their name."""

    id: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    peers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What one part was: its command, where and of which revision it ran, and what went wrong."""

    part: str
    command: str
    date: str
    commit: str
    machine: dict[str, Any]
    seconds: float
    error: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class Document:
    """The runs of a day by part, each with its figures. A part that is run again replaces what it had."""

    date: str
    runs: dict[str, Run] = field(default_factory=dict)
    figures: dict[str, list[Figure]] = field(default_factory=dict)

    def add(self, run: Run, figures: Iterable[Figure]) -> None:
        """Put a part's run in the place of its last. What one that failed did not measure stays as it was."""
        found = list(figures)
        measured = {each.id for each in found}
        earlier = [part for part in self.runs if part == run.part or part.startswith(f"{run.part}, before ")]
        for part in earlier:
            was, held = self.runs.pop(part), self.figures.pop(part)
            kept = [each for each in held if run.error and each.id not in measured]
            if kept:
                name = f"{run.part}, before {len(earlier)}" if part == run.part else part
                self.runs[name], self.figures[name] = was, kept
        self.runs[run.part], self.figures[run.part] = run, found

    def by_id(self) -> dict[str, tuple[Figure, Run]]:
        """Each figure with its run."""
        return {each.id: (each, self.runs[part]) for part, held in self.figures.items() for each in held}

    def write(self, path: Path) -> None:
        """A line for each figure, so that two days can be compared line by line."""
        runs = ",\n".join(f" {json.dumps(part)}: {_line(asdict(run))}" for part, run in self.runs.items())
        figures = ",\n".join(
            " " + _line({"id": each.id, "command": self.runs[part].command, "part": part, **_plain(each)})
            for part, held in self.figures.items()
            for each in held
        )
        text = f'{{"date": "{self.date}",\n"runs": {{\n{runs}\n}},\n"figures": [\n{figures}\n]}}\n'
        path.write_text(text, encoding="utf-8")


def read(path: Path) -> Document:
    """A document as `write` left it."""
    held = json.loads(path.read_text(encoding="utf-8"))
    document = Document(held["date"])
    for part, run in held["runs"].items():
        document.runs[part] = Run(**{**run, "left_out": tuple(run["left_out"])})
        document.figures[part] = []
    for each in held["figures"]:
        spread = None if each.get("spread") is None else (each["spread"][0], each["spread"][1])
        figure = Figure(each["id"], each["value"], each["unit"], spread, each.get("peers", {}))
        document.figures[each["part"]].append(figure)
    return document


def unit_of(name: str) -> str:
    """The unit that a name tells: the last of its words that is one.

    >>> unit_of("churn.answer_ms.p99"), unit_of("churn.answer_ms.count"), unit_of("cpu_s_of_start"), unit_of("kills")
    ('ms', '', 's', '')
    >>> unit_of("writes_per_s")
    'a second'
    """
    words = re.split(r"[._]", name)
    if words[-2:] == ["per", "s"]:
        return "a second"
    if words[-1] in COUNTS:
        return ""
    return next((word for word in reversed(words) if word in UNITS), "")


def flattened(value: Any, prefix: str = "") -> Iterator[Figure]:
    """Every number of a JSON document, named by the way to it; of a list how long it is, and its items.

    >>> [(each.id, each.value) for each in flattened({"wrong": [], "cpu": {"all_s": 1.5}}, "mesh")]
    [('mesh.wrong.count', 0), ('mesh.cpu.all_s', 1.5)]
    """
    if isinstance(value, dict):
        for name, each in value.items():
            yield from flattened(each, f"{prefix}.{name}" if prefix else name)
    elif isinstance(value, list):
        yield Figure(f"{prefix}.count", len(value), "")
        for at, each in enumerate(value):
            yield from flattened(each, f"{prefix}.{at}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield Figure(prefix, value, unit_of(prefix))


def machine() -> dict[str, Any]:
    """Where this runs; the load is that of now."""
    return {
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def origin(command: str, before: dict[str, Any]) -> dict[str, Any]:
    """What a document of its own says of itself; `before` is `machine()` of when its run began."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "revision": commit(),
        "command": command,
        "machine": {**before, "load_after": round(os.getloadavg()[0], 1)},
    }


def commit() -> str:
    """The revision of this tree, with a + where something is changed; empty where there is no git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _plain(figure: Figure) -> dict[str, Any]:
    found: dict[str, Any] = {"value": _rounded(figure.value), "unit": figure.unit}
    if figure.spread is not None:
        found["spread"] = [_rounded(each) for each in figure.spread]
    if figure.peers:
        found["peers"] = {name: _rounded(each) for name, each in figure.peers.items()}
    return found


def _rounded(value: float) -> float:
    """To six digits; more are noise."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
