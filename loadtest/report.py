"""The report of a run: Markdown for people, JSON for machines, plots.

In: figures, the outcome and the samples behind them. Out: `report.md`, `figures.json`, `propagation.svg`,
`timeline.svg`. Never: a judgement; that stands in the figures.
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.control_plane import Sample
from loadtest.figures import SOAK_S_MIN, quantile
from loadtest.outcome import Outcome

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
        f"{today}, {platform.system()} on {figures['processors']} processors, TLS: {figures['tls']}, by",
        f"`make loadtest SCENARIO={figures['scenario']} USERS={figures['users']} WORKERS={figures['workers']}"
        f" SECONDS={figures['seconds']:g} RATE={figures['rate']:g} TLS={figures['tls']}`.",
        "",
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
                phase["server_rss_mb"],
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
    for number, phase in enumerate(outcome.phases):
        axis.axvspan(phase.began - began, phase.ended - began, color="0.93" if number % 2 else "0.97", zorder=0)
        if is_named:
            place = {"xy": (phase.began - began, 1.01), "xycoords": ("data", "axes fraction")}
            axis.annotate(phase.name, **place, fontsize=7, rotation=30, ha="left", va="bottom")


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
        seconds: dict[int, list[float]] = {}
        for at, delay in dots:
            seconds.setdefault(int(at), []).append(delay)
        for share, color in ((0.5, "tab:blue"), (0.99, "tab:red")):
            # A second without a write is a gap.
            every = range(min(seconds), max(seconds) + 1)
            line = [quantile(seconds[second], share) if second in seconds else math.nan for second in every]
            axis.plot(
                [second + 0.5 for second in every],
                line,
                marker=".",
                color=color,
                linewidth=1.2,
                label=f"p{100 * share:.0f} of a second",
            )
    if outcome.configured:
        new = [(at - began, 1000 * seconds) for at, seconds in outcome.configured][
            :: len(outcome.configured) // 5_000 + 1
        ]
        axis.scatter(*zip(*new, strict=True), s=2, color="tab:green", label="a new Envoy, configured", rasterized=True)
    _shade(axis, outcome, began, is_named=True)
    axis.set_yscale("log")
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
    figure, axes = pyplot.subplots(6, 1, sharex=True, figsize=(9, 12))
    at = [row[0] - began for row in outcome.timeline]
    axes[0].plot(at, [row[1] for row in outcome.timeline], color="tab:blue")
    axes[0].set_ylabel("open streams")
    pairs = list(itertools.pairwise(outcome.timeline))
    rates = [(right[2] - left[2]) / max(right[0] - left[0], 1e-3) / 1e6 for left, right in pairs]
    axes[1].plot(at[1:], rates, color="tab:blue")
    axes[1].set_ylabel("received, MB/s")
    steps = list(itertools.pairwise(samples))
    seconds = [right.at - began for _, right in steps]
    axes[2].plot(seconds, [_rate(left, right, "server") for left, right in steps], label="server", linewidth=0.9)
    axes[2].plot(
        seconds, [_rate(left, right, "client") for left, right in steps], label="busiest client", linewidth=0.9
    )
    axes[2].set_ylabel("of a core")
    axes[2].legend(loc="upper right", fontsize=8)
    axes[3].plot([each.at - began for each in samples], [each.server_rss_bytes / 1e6 for each in samples])
    axes[3].set_ylabel("server memory, MB")
    held = {"descriptors": [each.descriptors for each in samples], "tasks": [each.tasks for each in samples]}
    for name, counts in held.items():
        axes[5].plot([each.at - began for each in samples], counts, label=f"server {name}", linewidth=0.9)
    axes[5].legend(loc="center right", fontsize=8)
    axes[4].plot([row[0] - began for row in outcome.late], [1000 * row[1] for row in outcome.late], linewidth=0.9)
    axes[4].set_ylabel("clients late, ms")
    axes[5].set_xlabel("seconds")
    for axis in axes:
        axis.set_ylim(bottom=0)
        _shade(axis, outcome, began, is_named=axis is axes[0])
    if at:
        axes[0].set_xlim(0, at[-1])
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _rate(left: Sample, right: Sample, who: str) -> float:
    if who == "server":
        spent = right.server_cpu_s - left.server_cpu_s
    else:
        both = left.clients_cpu_s.keys() & right.clients_cpu_s.keys()
        spent = max((right.clients_cpu_s[pid] - left.clients_cpu_s[pid] for pid in both), default=0.0)
    return max(0.0, spent / max(right.at - left.at, 1e-3))
