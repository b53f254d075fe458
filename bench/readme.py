"""The table of figures in README.md: made of committed results, and nothing that is not in them.

In: the rows of `bench.figures`, the results in the tree. Out: Markdown between the two markers; or what is not as the
results say. Never: a value of its own.

    python -m bench.readme           # `make figures`: write the table anew
    python -m bench.compare readme   # fail where it is not what the committed results give
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import document
from bench.document import DAY, ROOT, Figure, flattened
from bench.figures import ROWS, SOURCES, Row
from bench.summary import in_base, shown, shown_with_spread

README = ROOT / "README.md"
BEGIN, END = "<!-- figures: by `make figures` -->", "<!-- /figures -->"
HEADING = "## Figures"
_HEAD = ["what", "figure", "peer", "ratio", "command", "when, where"]
# An id, of which another document's has its name and a colon first.
_REFERENCE = re.compile(r"\{([^{}]+)\}")


class MissingFigureError(Exception):
    """No committed result has the figure that a row names."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a figure is from: its command, its day, its machine in few words, and the file."""

    command: str
    date: str
    machine: str
    path: str


@dataclass(slots=True)
class Results:
    """Every figure that the committed results have, the newest of each, with its origin."""

    figures: dict[str, tuple[Figure, Origin]] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    def take(self, id: str) -> tuple[Figure, Origin]:
        if id not in self.figures:
            raise MissingFigureError(f"no committed result has the figure {id}")
        return self.figures[id]

    def matching(self, pattern: str) -> list[tuple[Figure, Origin]]:
        """Those of a pattern as of files."""
        found = [held for id, held in self.figures.items() if fnmatch.fnmatchcase(id, pattern)]
        if not found:
            raise MissingFigureError(f"no committed result has a figure {pattern}")
        return found


def results(root: Path = ROOT, *, is_committed: Callable[[str], bool] = lambda path: True) -> Results:
    """Read what is in the tree: the days' documents, the oldest first, and the other sources."""
    found = Results()
    days = (path for path in (root / "bench" / "results").glob("*.json") if DAY.fullmatch(path.stem))
    for path in sorted(days):
        name = str(path.relative_to(root))
        if is_committed(name):
            for id, (figure, run) in document.read(path).by_id().items():
                origin = Origin(run.command, run.date, _machine(run.machine), name)
                found.figures[id] = (figure, origin)
    for source, (pattern, command) in SOURCES.items():
        paths = [path for path in root.glob(pattern) if is_committed(str(path.relative_to(root)))]
        if paths:
            # The newest by the day in its name; by its name of those of a day.
            newest = max(paths, key=lambda path: (_day(path, root), str(path)))
            _add(found, source, newest, root, command)
    found.files = {origin.path for _, origin in found.figures.values()}
    return found


def _add(found: Results, source: str, path: Path, root: Path, command: str) -> None:
    held: Any = json.loads(path.read_text(encoding="utf-8"))
    about = held.get("machine", {})
    if "load_average_before" in about:
        about = {**about, "load_before": about["load_average_before"]}
    cores = about.get("cores") or held.get("processors")
    machine = _machine({**about, "cores": cores}) if cores else ""
    origin = Origin(held.get("command", command), _day(path, root), machine, str(path.relative_to(root)))
    for figure in flattened(held.get("figures", held)):
        found.figures[f"{source}:{figure.id}"] = (figure, origin)


def _day(path: Path, root: Path) -> str:
    match = DAY.search(str(path.relative_to(root)))
    return match.group() if match else ""


def _machine(about: dict[str, Any]) -> str:
    load = f", load {about['load_before']:g}" if "load_before" in about else ""
    return f"{about['cores']} cores{load}"


def table(held: Results, rows: Sequence[Row] = ROWS) -> str:
    """The table, each group under its name. Raises `MissingFigureError`."""
    lines = [f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD)]
    for group in dict.fromkeys(row.group for row in rows):
        lines.append(f"| **{group}** |" + " |" * (len(_HEAD) - 1))
        for row in rows:
            if row.group == group:
                lines += _lines(row, held)
    return "\n".join(lines) + "\n"


def _lines(row: Row, held: Results) -> list[str]:
    try:
        return [_line(row, held)]
    except MissingFigureError:
        sources = {each.partition(":")[0] for each in _REFERENCE.findall(row.what + row.figure)}
        if row.is_optional and not any(id.partition(":")[0] in sources for id in held.figures):
            return []
        raise


def _line(row: Row, held: Results) -> str:
    origins: list[Origin] = []
    figure = filled(row.figure, held, origins)
    own = list(dict.fromkeys(origins))
    peer, ratio, what = (filled(text, held, origins) for text in (row.peer, row.ratio, row.what))
    commands = ", ".join(dict.fromkeys(f"`{origin.command}`" for origin in own))
    whens = ", ".join(dict.fromkeys(_when(origin) for origin in own))
    return f"| {' | '.join([what, figure, peer, ratio, commands, whens])} |"


def _when(origin: Origin) -> str:
    return f"[{origin.date}]({origin.path})" + (f", {origin.machine}" if origin.machine else "")


def filled(text: str, held: Results, origins: list[Origin]) -> str:
    """A text with each `{figure}`, `{figure / figure}`, `{least pattern}` and `{most pattern}` as its value.

    `{spread figure}` is the value with the least and the most behind it. Raises `MissingFigureError` where it has none.
    """

    def show(match: re.Match[str]) -> str:
        word, _, id = match.group(1).partition(" ")
        if word == "spread":
            figure, origin = held.take(id)
            if figure.spread is None:
                raise MissingFigureError(f"the figure {id} has no spread")
            origins.append(origin)
            return shown_with_spread(figure.value, figure.unit, figure.spread)
        value, unit, used = _value(match.group(1), held)
        origins.extend(used)
        return shown(value, unit)

    return _REFERENCE.sub(show, text)


def _value(reference: str, held: Results) -> tuple[float, str, list[Origin]]:
    word, _, pattern = reference.partition(" ")
    if word in ("least", "most"):
        pick = min if word == "least" else max
        figure, origin = pick(held.matching(pattern), key=lambda each: in_base(each[0].value, each[0].unit)[0])
        return figure.value, figure.unit, [origin]
    first, *others = reference.split(" / ")
    figure, origin = held.take(first)
    if not others:
        return figure.value, figure.unit, [origin]
    divisor, other = held.take(others[0])
    (above, family), (below, other_family) = in_base(figure.value, figure.unit), in_base(divisor.value, divisor.unit)
    if family == other_family:
        return above / below, "times", [origin, other]
    # So much for each.
    return figure.value / divisor.value, figure.unit, [origin, other]


def section(readme: str) -> str:
    """The section of README that has the table, without its heading."""
    return readme.partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]


def replaced(readme: str, made: str) -> str:
    """README with the table in the place of the one that it has."""
    before, _, rest = readme.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{made}{END}{after}"


def findings(readme: str, held: Results, rows: Sequence[Row] = ROWS) -> list[str]:
    """What README says about figures that the results do not; nothing where it is as it should be."""
    if section(readme).count(BEGIN) != 1 or section(readme).count(END) != 1:
        return [f"the section {HEADING} has no {BEGIN} … {END}"]
    try:
        wanted = replaced(readme, table(held, rows))
    except MissingFigureError as error:
        return [str(error)]
    changed = difflib.unified_diff(
        readme.splitlines(), wanted.splitlines(), "README.md", "the results", n=0, lineterm=""
    )
    return [*changed, *uncovered(readme)]


def uncovered(readme: str) -> Iterator[str]:
    """Numbers in the section of figures that the table does not make."""
    text = section(readme)
    prose = text.partition(BEGIN)[0] + text.partition(END)[2]
    # Commands are to be typed, not figures; nor is where a link leads to.
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", prose)
    for line in prose.splitlines():
        if re.search(r"\d", line):
            yield f"a number that no committed result gives: {line.strip()}"


def committed(root: Path = ROOT) -> Callable[[str], bool]:
    """Whether git knows a file; everything where this is no checkout."""
    command = ["git", "ls-files", "-z", "bench", "loadtest"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    known = set(listed.stdout.split("\0"))
    return (lambda path: True) if listed.returncode else known.__contains__


def main() -> None:
    """Write the table anew, of what is in the tree."""
    held = results()
    readme = README.read_text(encoding="utf-8")
    try:
        README.write_text(replaced(readme, table(held)), encoding="utf-8")
    except MissingFigureError as error:
        sys.exit(f"README is as it was: {error}")
    is_committed = committed()
    for path in sorted(path for path in held.files if not is_committed(path)):
        sys.stdout.write(f"not committed yet: {path}\n")


if __name__ == "__main__":
    main()
