"""`python -m bench.real_wires`: a mesh on real wires, its figures as text and JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import uvloop
from bench import ending
from bench.flags import mesh_size
from bench.real_wires.scenario import play


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.real_wires", description=__doc__)
    parser.add_argument("--size", type=mesh_size, default=2_000, help="dataplanes, each with its Envoy")
    parser.add_argument("--rate", type=float, default=10.0, help="changes a second; 0: each when the last has arrived")
    parser.add_argument("--seconds", type=float, default=60.0, help="for so long")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds without a change")
    parser.add_argument("--directory", type=Path, help="for the store and the log; a temporary one where not given")
    parser.add_argument("--output", type=Path, help="the figures as JSON go here")
    arguments = parser.parse_args()
    with ending.early(), tempfile.TemporaryDirectory() as temporary:
        figures = uvloop.run(
            play(
                arguments.directory or Path(temporary),
                size=arguments.size,
                changes=int(arguments.seconds * (arguments.rate or 10.0)),
                interval_s=1 / arguments.rate if arguments.rate else 0.0,
                idle_s=arguments.idle,
            )
        )
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for phase, figure in figures.items():
        sys.stdout.write(f"{phase}: {_text(figure)}\n")


def _text(figure: object) -> str:
    """One phase on some lines, one group of figures on each."""
    if not isinstance(figure, dict):
        return str(figure)
    groups = {name: value for name, value in figure.items() if isinstance(value, dict)}
    plain = {name: value for name, value in figure.items() if name not in groups}
    lines = [", ".join(f"{name} {value}" for name, value in plain.items())]
    return "\n    ".join(lines + [f"{name}: {_text(value)}" for name, value in groups.items()])


if __name__ == "__main__":
    main()
