"""The report of a run: Markdown for people, JSON for machines, plots.

In: figures, the outcome and the samples behind them. Out: `report.md`, `figures.json`, `propagation.svg`,
`timeline.svg`. Never: a judgement; that stands in the figures.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loadtest.control_plane import Sample
from loadtest.figures import SOAK_S_MIN, quantile
from loadtest.outcome import Outcome

Curve = list[tuple[float, float]]
"""Seconds, and what was so then."""

NAMED_SHARE_MIN = 0.08
"""Of a run: the names of shorter phases are in the tables alone."""
WINDOWS_MAX = 300
"""A line of a plot has about so many points at most: in a long run each stands for more than a second."""
DOTS_MAX = 20_000
"""So many arrivals are drawn at most: of more, every so many-th."""


def write(
    folder: Path, figures: dict[str, Any], outcome: Outcome, samples: Sequence[Sample], *, draws: bool = True
) -> None:
    """Write all four files into a folder; the two plots only where it `draws`, for that takes seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    text = markdown(figures)
    if not draws:
        text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("!["))
    (folder / "report.md").write_text(text, encoding="utf-8")
    if not draws:
        return
    draw_propagation(folder / "propagation.svg", outcome)
    draw_timeline(folder / "timeline.svg", outcome, samples)


def markdown(figures: dict[str, Any]) -> str:
    """The report as text."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    processes = f"{figures['workers']} process" + ("es" if figures["workers"] > 1 else "")
    wrong = figures["wrong"]
    lines = [
        f"# {figures['scenario']}: {figures['users']:,} Envoys in {processes}",
        "",
        f"{figures.get('date', today)}, {_machine(figures)}, TLS: {figures['tls']}, by",
        f"`{figures.get('command') or command(figures)}`.",
        "",
        *(f"{note}  " for note in figures.get("notes", ())),
        *([""] if figures.get("notes") else []),
        f"**{figures['wrong_end_states']} wrong end states** of {figures['holding']:,} Envoys"
        + ("." if not wrong else "; what is wrong:"),
        *(f"- {each}" for each in wrong),
        "",
        *_propagation(figures["phases"]),
        "",
        *_usage(figures["phases"]),
        "",
        *_slopes(figures["slopes"]),
        f"The server's memory was {figures['server_rss_mb_max']} MB at most. What arrived before the answer of its",
        "write took no time after it. Clients are late when a timer of theirs is: that is in all delays that they see.",
        "",
        "![propagation](propagation.svg)",
        "![timeline](timeline.svg)",
    ]
    return "\n".join(lines) + "\n"


def command(figures: dict[str, Any]) -> str:
    """How a user asks for such a run; what is as the Makefile has it is left out.

    >>> run = {"scenario": "soak", "users": 2000, "workers": 1, "seconds": 3600.0, "rate": 10.0, "tls": "none"}
    >>> command(run)
    'make soak MINUTES=60 USERS=2000'
    >>> command({**run, "scenario": "steady", "workers": 2, "seconds": 30.0})
    'make loadtest SCENARIO=steady USERS=2000 WORKERS=2 SECONDS=30'
    """
    seconds, rate = f"{figures['seconds']:g}", f"{figures['rate']:g}"
    usual = {"WORKERS": "1", "SECONDS": "60", "RATE": "10", "TLS": "none"}
    chosen = {"WORKERS": str(figures["workers"]), "SECONDS": seconds, "RATE": rate, "TLS": figures["tls"]}
    asked = f"make loadtest SCENARIO={figures['scenario']} USERS={figures['users']}"
    is_soak = figures["scenario"] == "soak" and figures["workers"] == 1 and figures["tls"] == "none"
    if is_soak and figures["seconds"] % 60 == 0:
        asked = f"make soak MINUTES={figures['seconds'] / 60:g} USERS={figures['users']}"
        del chosen["SECONDS"]
    return " ".join([asked, *(f"{name}={value}" for name, value in chosen.items() if value != usual[name])])


def _machine(figures: dict[str, Any]) -> str:
    about = figures.get("machine")
    if about is None:  # of a document that said no more of its machine
        return f"{platform.system()} on {figures['processors']} processors"
    load = f"load {about['load_before']:g} before and {about['load_after']:g} after"
    return (
        f"{about['kernel']}, Python {about['python']}, {about['cores']} cores, {load}, revision {figures['revision']}"
    )


def _propagation(phases: dict[str, Any]) -> list[str]:
    rows = []
    for name, phase in phases.items():
        changes = ", ".join(f"{count} {kind}" for kind, count in phase["changes"].items())
        rows.append(
            [
                name,
                phase["seconds"],
                changes or "–",
                phase["affected"],
                phase["missed"],
                _some(phase["propagation_ms"], "p50", "p99", "max"),
                _some(phase["from_request_ms"], "p50", "p99", "max"),
                _some(phase["configured_ms"], "p50", "p99"),
            ]
        )
    head = ["phase", "seconds", "changes", "affected", "missed", "ms from the answer, p50 / p99 / max"]
    return _table([*head, "ms from the request", "ms until a new Envoy has all, p50 / p99"], rows)


def _usage(phases: dict[str, Any]) -> list[str]:
    rows = []
    for name, phase in phases.items():
        resources = phase["received"].get("resources", {})
        rows.append(
            [
                name,
                f"{phase['server_cpu_s']} ({phase['server_core_share']})",
                "–" if phase["server_rss_mb"] is None else phase["server_rss_mb"],
                ", ".join(f"{count} {kind}" for kind, count in resources.items() if count) or "nothing",
                phase["busiest_client_core_share"],
                _some(phase["client_late_ms"], "p50", "max"),
                phase["others_core_share"],
                phase["limit"],
            ]
        )
    head = [
        "phase",
        "server CPU, s (of a core)",
        "server memory, MB",
        "resources received",
        "busiest client, of a core",
    ]
    return _table([*head, "clients late, ms, p50 / max", "others, of a core", "at a limit"], rows)


def _slopes(slopes: dict[str, Any]) -> list[str]:
    rows = [
        [phase, name, slope["level"], slope["growth"], slope["limit"]]
        for phase, held in slopes.items()
        for name, slope in held.items()
    ]
    head = ["phase", "of the server", "level", "growth after the first quarter", "may grow by"]
    note = f"A soak of less than {SOAK_S_MIN / 60:.0f} minutes is not judged: caches still fill."
    return [*_table(head, rows), "", note, ""] if rows else []


def _table(head: list[str], rows: list[list[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def _some(quantiles: dict[str, float], *names: str) -> str:
    return " / ".join(f"{quantiles[name]:g}" for name in names) if quantiles else "–"


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Else each run writes another file of the same picture.
    matplotlib.rcParams["svg.hashsalt"] = "loadtest"
    return pyplot


def _shade(axis: Any, outcome: Outcome, began: float, *, is_named: bool = False) -> None:
    seconds = outcome.phases[-1].ended - outcome.phases[0].began if outcome.phases else 0.0
    for number, phase in enumerate(outcome.phases):
        axis.axvspan(phase.began - began, phase.ended - began, color="0.90" if number % 2 else "0.97", zorder=0)
        # The names of what is shorter would lie upon each other.
        if is_named and phase.ended - phase.began > NAMED_SHARE_MIN * seconds:
            middle = (phase.began + phase.ended) / 2 - began
            place = {"xy": (middle, 1.02), "xycoords": ("data", "axes fraction")}
            axis.annotate(textwrap.fill(phase.name, 18), **place, fontsize=8, ha="center", va="bottom")


def draw_propagation(path: Path, outcome: Outcome) -> None:
    """A dot for each arrival, the median and the 99th percentile of each second, and how new Envoys fared."""
    pyplot = _pyplot()
    began = outcome.timeline[0][0] if outcome.timeline else 0.0
    figure, axis = pyplot.subplots(figsize=(9, 4.5))
    dots = [
        (change.started - began, 1000 * (at - change.started)) for change in outcome.changes for at in change.arrivals
    ]
    shown = dots[:: len(dots) // DOTS_MAX + 1]
    if shown:
        # As a picture within the drawing: thousands of dots as lines are megabytes.
        axis.scatter(*zip(*shown, strict=True), s=2, color="0.6", label="an arrival", rasterized=True)
        window_s = _window_s(max(at for at, _ in dots))
        windows: dict[int, list[float]] = {}
        for at, delay in dots:
            windows.setdefault(int(at / window_s), []).append(delay)
        of_what = "a second" if window_s == 1 else f"{window_s:.0f} s"
        for share, color in ((0.5, "tab:blue"), (0.99, "tab:red")):
            # A window without a write is a gap.
            every = range(min(windows), max(windows) + 1)
            line = [quantile(windows[window], share) if window in windows else math.nan for window in every]
            middles = [window_s * (window + 0.5) for window in every]
            label = f"p{100 * share:.0f} of {of_what}"
            axis.plot(middles, line, marker=".", markersize=3, color=color, linewidth=1.0, label=label)
    if outcome.configured:
        new = [(at - began, 1000 * seconds) for at, seconds in outcome.configured][
            :: len(outcome.configured) // 5_000 + 1
        ]
        axis.scatter(*zip(*new, strict=True), s=2, color="tab:green", label="a new Envoy, configured", rasterized=True)
    _shade(axis, outcome, began, is_named=True)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.set_xlabel("seconds; of a write, when it was sent")
    axis.set_ylabel("ms from the request to the arrival")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, dpi=150)
    pyplot.close(figure)


def draw_timeline(path: Path, outcome: Outcome, samples: Sequence[Sample]) -> None:
    """Streams, bytes, processors and memory over the seconds of the run."""
    pyplot = _pyplot()
    began = outcome.timeline[0][0] if outcome.timeline else 0.0
    panels: list[tuple[str, list[tuple[str, Curve]]]] = [
        ("open streams", [("", [(at - began, float(count)) for at, count, _ in outcome.timeline])]),
        ("received, MB/s", [("", _rates([(at - began, size / 1e6) for at, _, size in outcome.timeline]))]),
        ("of a core", [("server", _cpu(samples, began, "server")), ("busiest client", _cpu(samples, began, "client"))]),
        ("server memory, MB", [("", _held(samples, began, lambda sample: sample.server_rss_bytes / 1e6))]),
        ("server descriptors", [("", _held(samples, began, lambda sample: float(sample.descriptors)))]),
        ("server tasks", [("", _held(samples, began, lambda sample: float(sample.tasks)))]),
        ("clients late, ms", [("", _most([(at - began, 1000 * late) for at, late in outcome.late]))]),
    ]
    panels = [panel for panel in panels if any(curve for _, curve in panel[1])]
    figure, axes = pyplot.subplots(len(panels), 1, sharex=True, squeeze=False, figsize=(9, 1.9 * len(panels) + 0.5))
    for number, (axis, (name, curves)) in enumerate(zip(axes[:, 0], panels, strict=True)):
        for label, curve in curves:
            if curve:
                axis.plot(*zip(*curve, strict=True), label=label, linewidth=1.0)
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
        if len(curves) > 1:
            axis.legend(loc="upper right", fontsize=8)
        _shade(axis, outcome, began, is_named=number == 0)
    axes[-1, 0].set_xlabel("seconds")
    if outcome.timeline:
        axes[0, 0].set_xlim(0, max(outcome.timeline[-1][0] - began, 1e-3))
    figure.align_ylabels()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _window_s(seconds: float) -> float:
    """Whole seconds that a point of a plot stands for, of a run of so many; less than one would be noise."""
    return max(1.0, math.ceil(seconds / WINDOWS_MAX))


def _most(curve: Curve) -> Curve:
    """The highest of each window."""
    window_s = _window_s(curve[-1][0]) if curve else 1.0
    windows: dict[int, tuple[float, float]] = {}
    for at, value in curve:
        window = int(at / window_s)
        if window not in windows or value > windows[window][1]:
            windows[window] = (at, value)
    return list(windows.values())


def _rates(totals: Sequence[tuple[float, float]]) -> Curve:
    """What came each second, of what had come until then."""
    curve: Curve = []
    last = totals[0] if totals else (0.0, 0.0)
    window_s = _window_s(totals[-1][0]) if totals else 1.0
    for at, total in totals:
        if at - last[0] >= window_s:
            # A process that was started again counts from nothing.
            curve.append((at, max(0.0, (total - last[1]) / (at - last[0]))))
            last = (at, total)
    return curve


def _cpu(samples: Sequence[Sample], began: float, who: str) -> Curve:
    if who == "server":
        return _rates([(sample.at - began, sample.server_cpu_s) for sample in samples])
    each = [
        _rates([(sample.at - began, sample.clients_cpu_s[pid]) for sample in samples if pid in sample.clients_cpu_s])
        for pid in {pid for sample in samples for pid in sample.clients_cpu_s}
    ]
    return max(each, key=lambda curve: sum(share for _, share in curve), default=[])


def _held(samples: Sequence[Sample], began: float, of: Callable[[Sample], float]) -> Curve:
    """A gap where there was no process."""
    samples = samples[:: len(samples) // (4 * WINDOWS_MAX) + 1]
    return [(sample.at - began, of(sample) if sample.server_rss_bytes else math.nan) for sample in samples]
