"""Two revisions side by side: how much more or less each kind of change costs in this tree than at another revision.

In: a revision of git. Out: a table of ratios, each the median of rounds in which both take turns, with its spread.
Never: a verdict; whether 1.02 is noise the spread says.

    make bench-compare BASE=main~5
    python -m bench.compare main~5 --size 10000 --rounds 7

Or README and the results that are committed: `python -m bench.compare readme` fails where a figure of README is not
what they give (`bench.readme`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import ending, readme
from bench.flags import count, mesh_size

ROOT = Path(__file__).resolve().parent.parent
Costs = dict[str, float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """What one kind costs in this tree, in terms of what it costs at the other revision."""

    kind: str
    base_ms: float
    median: float
    least: float
    most: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("base", help="the revision to compare with, or `readme`")
    parser.add_argument("--size", type=mesh_size, default=1_000, help="dataplanes of the mesh [default: 1000]")
    parser.add_argument("--rounds", type=count, default=5, help="how often each is measured [default: 5]")
    arguments = parser.parse_args()
    if arguments.base == "readme":
        sys.exit(_readme())
    pairs: list[tuple[Costs, Costs]] = []
    revision = commit_of(arguments.base)
    if revision is None:
        parser.error(f"git knows no revision {arguments.base!r}")

    def kept() -> str:
        done = f"{len(pairs)} of {arguments.rounds} rounds\n\n"
        return done + table(ratios(pairs), arguments.base, arguments.size) if pairs else ending.NOTHING

    with ending.early(kept), built(revision) as base:
        for number in range(arguments.rounds):
            # Whoever is first meets a cooler machine: they take turns at that too.
            order = (base, ROOT) if number % 2 else (ROOT, base)
            costs = {tree: measured(tree, arguments.size) for tree in order}
            pairs.append((costs[base], costs[ROOT]))
            sys.stderr.write(f"round {number + 1} of {arguments.rounds}\n")
    sys.stdout.write(table(ratios(pairs), arguments.base, arguments.size))


def commit_of(revision: str) -> str | None:
    """The commit that a revision of git names, if it names one."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


@contextlib.contextmanager
def built(revision: str) -> Iterator[Path]:
    """A tree of a revision with an environment of its own, until the block is left."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base"
        _run(["git", "worktree", "add", "--quiet", "--detach", str(tree), revision], ROOT)
        try:
            _run(["make", "--quiet", "build"], tree)
            yield tree
        finally:
            _run(["git", "worktree", "remove", "--force", str(tree)], ROOT)


def measured(tree: Path, size: int) -> Costs:
    """What `bench.mesh_cost` of this tree says of another: its own package, its own mesh, the same questions."""
    command = [str(tree / ".venv" / "bin" / "python"), str(ROOT / "bench" / "mesh_cost.py"), str(size)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    answer = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    costs: Costs = json.loads(answer.stdout)
    return costs


def ratios(pairs: Sequence[tuple[Costs, Costs]]) -> list[Ratio]:
    """For each kind that both know: the ratio within each round, so that what the machine does to both falls out."""
    found = []
    for kind in pairs[0][0].keys() & pairs[0][1].keys():
        each = [new[kind] / base[kind] for base, new in pairs]
        base_ms = statistics.median(base[kind] for base, _ in pairs)
        found.append(Ratio(kind, base_ms, statistics.median(each), min(each), max(each)))
    order = list(pairs[0][1])
    return sorted(found, key=lambda ratio: order.index(ratio.kind))


def table(found: Sequence[Ratio], base: str, size: int) -> str:
    """The ratios as Markdown."""
    head = f"| {size:,} dataplanes | {base}, ms of CPU | this tree, times that | least to most |\n|---|---|---|---|\n"
    rows = (f"| {r.kind} | {r.base_ms:.2f} | {r.median:.2f} | {r.least:.2f} to {r.most:.2f} |\n" for r in found)
    return head + "".join(rows)


def _readme() -> int:
    found = readme.findings(readme.README.read_text(encoding="utf-8"), readme.results(is_committed=readme.committed()))
    sys.stdout.write("".join(f"{each}\n" for each in found))
    return int(bool(found))


def _run(command: Sequence[str], tree: Path) -> None:
    subprocess.run(command, cwd=tree, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
