"""Clients that connect, take a push and vanish, plaintext and TLS, for as long as is asked: what stays behind?

`make churn MINUTES=30`, or `python -m bench.churn --minutes 30`. Two servers, each in a process of its own, have a few
neighbours that stay; each second says what the servers hold (`churn.csv`, `churn.svg` with matplotlib). The first
quarter is the warm-up: until then caches fill up to their bounds, and what of that stays is said by type. From there on
nothing may rise. The last line is the verdict, and a server that grows makes the exit code 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from bench import ending
from bench.flags import positive
from bench.slope import GROWTH_MAX, GROWTH_MAX_BYTES, WARM_UP, grown
from tests.attack.foe import DELTA, Foe, Target, data, delta, windows
from tests.attack.neighbours import Neighbours, be_polite, neighbours
from tests.attack.victim import Setup, Usage, VictimProcess, victim
from tests.stream.grpc_client import create_certificate

NEIGHBOURS = 50
AT_A_TIME = 10
OBJECTS_GROWTH_MAX = 0.01
# To count objects is to collect the garbage first, which holds up the server.
OBJECTS_EACH_S = 10.0
TYPES_SHOWN = 6
UNFINISHED = "churn.csv.part"
_HEAD = [
    *("second", "server", "connections_made", "rss_mb", "malloc_mb", "descriptors", "tasks", "streams", "cpu_s"),
    *("p50_ms", "p99_ms", "max_ms", "objects"),
]


def come_and_go(port: int, is_tls: bool, pipe: Pipe) -> None:
    """The main function of a process of clients: it says how many there were whenever it is asked."""
    ending.by_its_parent()
    be_polite()
    context = None
    if is_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    made = turn = 0
    while True:
        foes = [Foe(Target(port, time.monotonic() + 30, context)) for _ in range(AT_A_TIME)]
        for foe in foes:
            # The push of megabytes is cut off in its middle.
            foe.send(foe.request(DELTA), windows((0, 1)), data(delta("big" if turn % 8 == 0 else "*")))
        for foe in foes:
            if turn % 8:
                foe.wait_for("response")
            foe.abort() if turn % 2 else foe.sock.close()
        made, turn = made + len(foes), turn + 1
        if pipe.poll():
            if pipe.recv() == "stop":
                return
            pipe.send(made)


@dataclass
class Side:
    """One server with all that talks to it."""

    name: str
    server: VictimProcess
    others: Neighbours
    pipe: Pipe
    warm_up_s: float
    rows: list[list[Any]] = field(default_factory=list)
    objects_due: float = 0.0
    levels: dict[str, dict[str, float]] = field(default_factory=dict)
    """What was held at the end, and by how much it rose since the warm-up, by what it is of."""
    cold: Counter[str] = field(default_factory=Counter)
    """Its objects by type before the first connection, and at the end of the warm-up."""
    warm: Counter[str] | None = None

    def sample(self, second: float) -> list[Any]:
        self.pipe.send("how many")
        if self.warm is None and second >= self.warm_up_s:
            self.warm = self.server.census()
        is_exact = second >= self.objects_due
        if is_exact:
            self.objects_due = second + OBJECTS_EACH_S
        usage = self.server.usage() if is_exact else self.server.glance()
        delays = self.others.report()
        made = self.pipe.recv() if self.pipe.poll(60) else -1
        memory = [round(usage.rss_bytes / 1e6, 2), round(usage.malloc_bytes / 1e6, 3)]
        clocks = [round(value, 2) for value in (usage.cpu_s, delays.p50_ms, delays.p99_ms, delays.max_ms)]
        counts = [usage.descriptors, usage.tasks, usage.streams]
        row = [round(second, 1), self.name, made, *memory, *counts, *clocks, usage.objects if is_exact else ""]
        self.rows.append(row)
        return row

    def findings(self, before: Usage, after: Usage) -> list[str]:
        """What is wrong with this side's run."""
        found = []
        limits = dict.fromkeys(("rss_mb", "malloc_mb"), (GROWTH_MAX, GROWTH_MAX_BYTES / 1000000.0))
        for name, (share, least) in {**limits, "objects": (OBJECTS_GROWTH_MAX, 0.0)}.items():
            column = _HEAD.index(name)
            growth, level = grown([(row[0], row[column]) for row in self.rows if row[column] != ""])
            self.levels[name] = {"level": level, "growth": growth}
            sys.stdout.write(f"{self.name}: {name} {level:,.1f}, {growth:+,.2f} since the warm-up\n")
            if growth > max(level * share, least):
                found.append(f"{self.name}: {name} grew by {growth:.1f} at {level:.1f}")
        for name in ("descriptors", "tasks", "streams", "connections"):
            if getattr(after, name) != getattr(before, name):
                found.append(f"{self.name}: {name} {getattr(before, name)} before, {getattr(after, name)} after")
        at_rest = self.server.census()
        sys.stdout.write(f"{self.name}: since the first connection {held(self.cold, at_rest)}\n")
        if self.warm is not None:
            sys.stdout.write(f"{self.name}: since the warm-up {held(self.warm, at_rest)}\n")
        lost = self.others.report().lost
        return [*found, f"{self.name}: {lost} neighbours lost"] if lost else found


def held(before: Counter[str], after: Counter[str]) -> str:
    """Of which types there are more objects than before, and fewer."""
    moved = {name: after[name] - before[name] for name in before.keys() | after.keys()}
    most = sorted(moved, key=lambda name: -abs(moved[name]))[:TYPES_SHOWN]
    return f"{sum(moved.values()):+} objects: " + ", ".join(f"{name} {moved[name]:+}" for name in most if moved[name])


def plot(sides: Sequence[Side], path: Path) -> bool:
    """Draw memory, descriptors and delays over time; False where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return False
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    shown = {"rss_mb": "resident, MB", "malloc_mb": "allocated, MB", "objects": "Python's objects"}
    shown |= {"descriptors": "descriptors", "p99_ms": "neighbours' p99, ms"}
    figure, axes = pyplot.subplots(len(shown), 1, sharex=True, figsize=(9, 11))
    for axis, (name, label) in zip(axes, shown.items(), strict=True):
        for side in sides:
            rows = [row for row in side.rows if row[_HEAD.index(name)] != ""]
            column = [row[_HEAD.index(name)] for row in rows]
            axis.plot([row[0] / 60 for row in rows], column, label=side.name, linewidth=0.8)
        axis.axvspan(0, sides[0].rows[-1][0] / 60 * WARM_UP, color="0.92", label="warm-up")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    axes[0].legend()
    axes[0].set_title(f"{sum(side.rows[-1][2] for side in sides):,} connections came and went".replace(",", " "))
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path)
    return True


def run(seconds: float, folder: Path, output: Path | None = None) -> list[str]:
    """Churn for so long; the findings, of which there should be none."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        certificates = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides, before = [], []
        for name in ("plaintext", "TLS"):
            tls = create_certificate(certificates) if name == "TLS" else None
            server = stack.enter_context(victim(Setup(nodes=NEIGHBOURS, big_bytes=2 << 20, big_each_s=5.0, tls=tls)))
            ca = tls.certificate if tls else None
            others = stack.enter_context(neighbours(server.port, NEIGHBOURS, ca=ca))
            before.append(server.settle(lambda usage: usage.streams == NEIGHBOURS))
            cold = server.census()
            here, there = context.Pipe()
            process = context.Process(target=come_and_go, args=(server.port, tls is not None, there), daemon=True)
            process.start()
            stack.callback(process.kill)
            sides.append(Side(name, server, others, here, seconds * WARM_UP, cold=cold))
        # That of the last run stays until there is a whole one.
        sample_all(sides, seconds, folder / UNFINISHED)
        (folder / UNFINISHED).replace(folder / "churn.csv")
        for side in sides:
            side.pipe.send("stop")
        is_plotted = plot(sides, folder / "churn.svg")
        sys.stdout.write(f"\n{folder / 'churn.csv'}" + (f", {folder / 'churn.svg'}\n" if is_plotted else "\n"))
        findings = []
        for side, at_first in zip(sides, before, strict=True):
            at_last = side.server.settle(lambda usage, first=at_first: usage.descriptors == first.descriptors)  # type: ignore[misc]
            sys.stdout.write(f"{side.name}: before {at_first}\n{side.name}: after  {at_last}\n")
            findings += side.findings(at_first, at_last)
        figures = {"connections": sum(side.rows[-1][2] for side in sides), "minutes": seconds / 60}
        figures |= {"findings": findings, **{side.name: side.levels for side in sides}}
        if output is not None:
            output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        return findings


def sample_all(sides: Sequence[Side], seconds: float, path: Path) -> None:
    """A row of the table for each side and second, written as it comes."""
    began = time.monotonic()
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(_HEAD)
        while (passed := time.monotonic() - began) < seconds:
            rows = [side.sample(passed) for side in sides]
            table.writerows(rows)
            file.flush()
            said = "; ".join(
                f"{row[1]} {row[2]} made, {row[3]:.0f} MB, {row[5]} fds, p99 {row[10]:.1f} ms" for row in rows
            )
            _tell(f"{passed:6.0f} of {seconds:.0f} s: {said}", second=int(passed))
            time.sleep(max(0.0, 1.0 - (time.monotonic() - began - passed)))


def _tell(progress: str, *, second: int) -> None:
    """On a terminal one line that changes; in a file a line each minute."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r{progress}   ")
    elif second % 60 == 0:
        sys.stdout.write(progress + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.churn", description=__doc__)
    parser.add_argument("--minutes", type=positive, default=30.0)
    parser.add_argument("--folder", type=Path, default=Path("bench/results"), help="for the table and the plot")
    parser.add_argument("--json", type=Path, help="the figures go here")
    words = parser.parse_args()
    words.folder.mkdir(parents=True, exist_ok=True)
    unfinished = words.folder / UNFINISHED
    with ending.early(lambda: f"the seconds until then, in {unfinished}" if unfinished.exists() else ending.NOTHING):
        findings = run(words.minutes * 60, words.folder, words.json)
    sys.stdout.write("".join(f"{finding}\n" for finding in findings))
    sys.stdout.write("verdict: it grows\n" if findings else "verdict: flat\n")
    raise SystemExit(bool(findings))


if __name__ == "__main__":
    main()
