"""`make bench`: run the parts one after the other, and write down what they came to.

In: which parts, of which sizes. Out: `bench/results/<date>.json`, and the report of that day (`.md`, `.svg`). A part
that fails leaves the others alone, and each is written down as soon as it is done. Never: a figure without the run that
gave it.

    make bench                                    # everything but the long parts
    make bench BENCH='--parts core push'          # some; the day's other parts stay as they are
    make bench BENCH='--parts sizes --sizes 1000 10000'
    make bench BENCH=--all                        # the long parts too, fifty minutes
    make bench BENCH=--list
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import document, drawing, ending, summary
from bench.document import RESULTS, ROOT, Document, Figure, Run
from bench.flags import count, mesh_size, positive
from bench.parts import PARTS, Part, Sizes

_OVERDUE = 5
"""A part that takes so many times what it should is ended."""
_OVERDUE_S_LEAST = 600.0
_TIDY_S = 15.0
"""One that is ended has so long to end what it has started, and to remove its files."""


def run(part: Part, sizes: Sizes, command: str, folder: Path) -> tuple[Run, list[Figure]]:
    """Run the program of a part; its figures, even where it failed in the end."""
    about = document.machine()
    began = time.monotonic()
    overdue_s = max(_OVERDUE_S_LEAST, _OVERDUE * 60 * part.minutes_of(sizes))
    error = _carry_out(part.command(folder, sizes), overdue_s)
    about["load_after"] = round(os.getloadavg()[0], 1)
    figures: list[Figure] = []
    left_out: tuple[str, ...] = ()
    try:
        figures = list(part.read(folder))
        left_out = part.left_out(folder)
    except (OSError, ValueError, KeyError) as failure:
        error = error or f"what it wrote cannot be read: {failure!r}"
    done = Run(
        part=part.name,
        command=command,
        date=datetime.date.today().isoformat(),
        commit=document.commit(),
        machine=about,
        seconds=round(time.monotonic() - began, 1),
        error=error,
        left_out=left_out,
    )
    return done, figures


def _carry_out(command: Sequence[str], seconds: float) -> str | None:
    """Run a program in a group of its own, so that it leaves nobody behind; what went wrong."""
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"ended after {seconds / 60:.0f} minutes"
        finally:
            _end(process)
    return None if status == 0 else f"exit status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have it tidy up where it still runs; who is left of its group then is not asked."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TIDY_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def main() -> int:
    arguments = _parse()
    if arguments.list:
        sys.stdout.write(summary.of_parts(PARTS.values()))
        return 0
    chosen = [PARTS[name] for name in (PARTS if arguments.all else arguments.parts)]
    sizes = Sizes(
        dataplanes=arguments.sizes,
        connections=arguments.connections,
        rounds=arguments.rounds,
        minutes=arguments.minutes,
    )
    path = arguments.output / f"{datetime.date.today().isoformat()}.json"
    arguments.output.mkdir(parents=True, exist_ok=True)
    day = document.read(path) if path.exists() else Document(datetime.date.today().isoformat())
    expected, began = sum(part.minutes_of(sizes) for part in chosen), time.monotonic()
    _say(f"{_some(len(chosen), 'part')}, about {_some(expected, 'minute')} on two idle cores; to {path}")
    measured: list[str] = []
    with ending.early(lambda: _kept(measured, path)):
        failed = _measure(chosen, sizes, arguments, day, measured)
    drawn = drawing.draw(day, arguments.output)
    (arguments.output / f"{day.date}.md").write_text(summary.markdown(day, drawn), encoding="utf-8")
    _say(f"{path.with_suffix('.md')}, {len(drawn)} plots; {(time.monotonic() - began) / 60:.1f} minutes in all")
    if failed:
        _say(f"not as it should be: {', '.join(failed)}")
    return int(bool(failed))


def _measure(
    chosen: Sequence[Part], sizes: Sizes, arguments: argparse.Namespace, day: Document, measured: list[str]
) -> list[str]:
    """Run these, and write each down; the names of those that failed. Who is done stands in `measured`."""
    failed = []
    for number, part in enumerate(chosen, 1):
        takes = _some(part.minutes_of(sizes), "minute")
        _say(f"{number} of {len(chosen)}, {part.name}: {part.about}; about {takes}")
        with tempfile.TemporaryDirectory() as folder:
            done, figures = run(part, sizes, _command(part, arguments), Path(folder))
        day.add(done, figures)
        day.write(arguments.output / f"{day.date}.json")
        measured.append(part.name)
        outcome = f"{_some(len(figures), 'figure')} in {done.seconds:.0f} s"
        _say(f"{part.name}: {outcome}" + (f", but {done.error}" if done.error else ""))
        failed += [part.name] if done.error else []
    return failed


def _kept(measured: Sequence[str], path: Path) -> str:
    if not measured:
        return f"no part was done; {path} is as it was"
    return f"{', '.join(measured)} in {path}; `python -m bench.summary {path}` writes its report"


def _some(number: float, what: str) -> str:
    return f"{number:g} {what}" + ("" if number == 1 else "s")


def _command(part: Part, arguments: argparse.Namespace) -> str:
    """What a reader types to have this part again."""
    words = ["--parts", part.name]
    for name in part.heeds:
        value = getattr(arguments, name)
        if value != _defaults()[name]:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return f"make bench BENCH={shlex.quote(' '.join(words))}"


def _defaults() -> dict[str, object]:
    sizes = Sizes()
    return {
        "sizes": list(sizes.dataplanes),
        "connections": list(sizes.connections),
        "rounds": sizes.rounds,
        "minutes": sizes.minutes,
    }


def _parse() -> argparse.Namespace:
    usual = [name for name, part in PARTS.items() if not part.is_long]
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=form)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=usual, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--all", action="store_true", help="every part, the long ones too")
    parser.add_argument("--list", action="store_true", help="say what the parts are and how long they take")
    parser.add_argument("--sizes", nargs="+", type=mesh_size, help="dataplanes of the meshes, for `sizes`")
    parser.add_argument("--connections", nargs="+", type=count, help="for `push`, plaintext")
    parser.add_argument("--rounds", type=count, help="pushes that count, of which the median is taken")
    parser.add_argument("--minutes", type=positive, help="for `churn`")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the folder for the results")
    parser.set_defaults(**_defaults())
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"== {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
