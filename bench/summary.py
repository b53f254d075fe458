"""The report of a day as Markdown: what was run, what failed or was left out, the plots, and every figure.

In: a `Document` and the names of its plots. Out: text. Never: a figure that the document does not have.

`python -m bench.summary bench/results/DATE.json` writes it and the plots again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import document, drawing
from bench.document import Document, Figure
from bench.parts import PARTS, Part

_FAMILIES = {
    "time": (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)),
    "bytes": (("B", 1.0), ("KB", 1e3), ("MB", 1e6), ("GB", 1e9)),
}
_UNITS = {
    "ns": ("time", 1e-9),
    "us": ("time", 1e-6),
    "ms": ("time", 1e-3),
    "s": ("time", 1.0),
    "bytes": ("bytes", 1.0),
    "kb": ("bytes", 1e3),
    "mb": ("bytes", 1e6),
}
_DIGITS = 3
"""Significant ones; more are noise."""


def shown(value: float, unit: str) -> str:
    """A value as people read it.

    >>> shown(0.00142, "s"), shown(2240054, "kb"), shown(569.3, "times"), shown(9132, ""), shown(-0.0004, "s")
    ('1.42 ms', '2.24 GB', '569 ×', '9,132', '−400 µs')
    """
    if unit not in _UNITS:
        words = {"times": " ×", "percent": " %"}.get(unit, f" {unit}" if unit else "")
        return f"{_digits(value)}{words}"
    family, factor = _UNITS[unit]
    base = value * factor
    scales = _FAMILIES[family]
    name, scale = next((each for each in reversed(scales) if abs(base) >= each[1]), scales[0])
    return f"{_digits(base / scale)} {name}" if base else f"0 {name}"


def shown_with_spread(value: float, unit: str, spread: tuple[float, float]) -> str:
    """The value, and in brackets what it was at least and at most; their unit where it is another.

    >>> shown_with_spread(0.00537, "s", (0.00487, 0.00579)), shown_with_spread(694, "us", (638, 2730))
    ('5.37 ms (4.87 to 5.79)', '694 µs (638 µs to 2.73 ms)')
    """
    texts = [shown(each, unit) for each in (value, *spread)]
    name, edges = texts[0].partition(" ")[2], texts[1:]
    if all(edge.partition(" ")[2] == name for edge in edges):
        edges = [edge.partition(" ")[0] for edge in edges]
    return f"{texts[0]} ({edges[0]} to {edges[1]})"


def in_base(value: float, unit: str) -> tuple[float, str]:
    """The value in its family's base, and the family: what two figures may be divided by each other in."""
    family, factor = _UNITS.get(unit, (unit, 1.0))
    return value * factor, family


def _digits(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    rounded = float(f"{value:.{_DIGITS}g}")
    text = f"{rounded:,.0f}" if abs(rounded) >= 10 ** (_DIGITS - 1) else f"{rounded:g}"
    return text.replace("-", "−", 1)


def markdown(day: Document, drawn: Sequence[Path]) -> str:
    """The whole report."""
    seconds = sum(run.seconds for run in day.runs.values())
    lines = [f"# Benchmarks of {day.date}", "", f"{len(day.runs)} parts, {seconds / 60:.0f} minutes.", ""]
    lines += ["| part | command | date | revision | machine | load before, after | seconds | went wrong |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for part, run in day.runs.items():
        about = run.machine
        where = f"{about['cores']} cores, {about['kernel']}, Python {about['python']}"
        load = f"{about.get('load_before', '')}, {about.get('load_after', '')}"
        cells = [part, f"`{run.command}`", run.date, run.commit, where, load, f"{run.seconds:.0f}", run.error or ""]
        lines.append(f"| {' | '.join(cells)} |")
    left_out = [f"- {run.part}: {each}" for run in day.runs.values() for each in run.left_out]
    lines += ["", "## Left out", "", *left_out] if left_out else []
    lines += ["", *(f"![{path.stem}]({path.name})" for path in drawn), ""]
    for part, figures in day.figures.items():
        about_part = PARTS[part].about if part in PARTS else ""
        lines += [f"## {part}: {about_part}", "", *_table(figures), ""]
    return "\n".join(lines)


def _table(figures: Iterable[Figure]) -> list[str]:
    lines = ["| figure | value | spread | peers |", "|---|---|---|---|"]
    for each in figures:
        spread = "" if each.spread is None else " to ".join(shown(edge, each.unit) for edge in each.spread)
        peers = ", ".join(f"{name} {shown(value, each.unit)}" for name, value in each.peers.items())
        lines.append(f"| {each.id} | {shown(each.value, each.unit)} | {spread} | {peers} |")
    return lines


def of_parts(parts: Iterable[Part]) -> str:
    """What `--list` says."""
    known = list(parts)
    lines = [
        f"{part.name:8} {part.minutes:5g} min  {part.about}{'; only where named' if part.is_long else ''}"
        for part in known
    ]
    usual = sum(part.minutes for part in known if not part.is_long)
    lines.append(f"all that are not long: {usual:g} minutes on two idle cores")
    lines.append("thousands of Envoys, real ones, instances, soaks: commands of their own, in docs/measuring.md")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.summary", description="A day's report and plots, again.")
    parser.add_argument("document", type=Path, help="bench/results/DATE.json")
    path = parser.parse_args().document
    if not path.is_file():
        parser.error(f"there is no {path}")
    day = document.read(path)
    drawn = drawing.draw(day, path.parent)
    path.with_suffix(".md").write_text(markdown(day, drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
