"""The figures as Markdown: a table for each part, and what they say about the bounds that the wire is built for.

In: the JSON of a run. Out: text. Never: a figure that is not in the JSON.

`python -m bench.wire.report FILE.json` writes it again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_TITLES = {
    "push": "A push of 2 KB to all, acknowledgements read, plaintext",
    "tls": "The same over TLS; the floor is plaintext",
    "many": "As many connections as a process may have here",
    "streams": "Several streams on each connection",
    "storm": "All connect at once",
    "node": "A node of 61 KB, as a real Envoy describes itself",
}


def _pushed(name: str, digits: int) -> Callable[[Row], str]:
    return lambda row: "" if row["pushes"] is None else f"{row['pushes'][name]:.{digits}f}"


def _spread(name: str) -> Callable[[Row], str]:
    def show(row: Row) -> str:
        if row["pushes"] is None:
            return ""
        low, high = row["pushes"][f"{name}_spread"]
        return f"{row['pushes'][name]:.1f} ({low:.1f}–{high:.1f})"

    return show


def _plain(name: str, digits: int) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else f"{row[name]:.{digits}f}"


def _server(row: Row) -> str:
    case = row["case"]
    name = str(case["server"])
    name += " +TLS" if case["is_tls"] else ""
    return name + (", node with each ACK" if case["repeats_node"] else "")


def _size(row: Row) -> str:
    case = row["case"]
    return f"{case['connections']:,}" + (f" × {case['streams']}" if case["streams"] > 1 else "")


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("N", _size),
    ("server", _server),
    ("µs a push", _spread("cpu_us")),
    ("floor µs", _spread("floor_us")),
    ("× floor", _spread("times_floor")),
    ("p50 ms", _pushed("p50_ms", 0)),
    ("p99 ms", _pushed("p99_ms", 0)),
    ("floor p99", _pushed("floor_p99_ms", 0)),
    ("segments", _pushed("segments", 2)),
    ("longest turn ms", _plain("longest_turn_ms", 1)),
    ("KB a connection", _plain("resident_kb", 1)),
    ("after pushes", _plain("resident_after_kb", 1)),
    ("connect µs", _plain("connect_us", 0)),
    ("connected after s", _plain("open_seconds", 1)),
    ("idle %", _plain("idle_percent", 3)),
)


def write_report(run: Row) -> str:
    """Markdown of a whole run."""
    lines = [f"# The wire, {run['date']}", "", run["machine"], ""]
    for part, title in _TITLES.items():
        rows = [row for row in run["figures"] if row["part"] == part]
        if rows:
            lines += [f"## {title}", "", *_table(rows), ""]
    if run["skipped"]:
        lines += ["## Not measured", "", *(f"- {each}" for each in run["skipped"]), ""]
    bounds = list(_bounds(run["figures"]))
    if bounds:
        lines += ["## Bounds", "", "| bound | figure | holds |", "|---|---|---|"]
        lines += [f"| {name} | {figure} | {'yes' if holds else '**no**'} |" for name, figure, holds in bounds]
        lines += [""]
    return "\n".join(lines)


def _table(rows: list[Row]) -> list[str]:
    columns = [(name, show) for name, show in _COLUMNS if any(show(row) for row in rows)]
    lines = [" | ".join(name for name, _ in columns), "|".join("---" for _ in columns)]
    lines += [" | ".join(show(row) for _, show in columns) for row in rows]
    return [f"| {line} |" if "---" not in line else f"|{line}|" for line in lines]


def _bounds(rows: list[Row]) -> Iterable[tuple[str, str, bool]]:
    pushed = {(row["part"], row["case"]["server"], row["case"]["connections"]): row for row in rows}
    for (part, server, count), row in pushed.items():
        if not server.startswith("kumafast"):
            continue
        label = f"{server}, {count:,}" + (" over TLS" if row["case"]["is_tls"] else "")
        if part in ("push", "tls"):
            yield from _bounds_of_pushes(label, row)
        if part == "push":
            yield from _bounds_of_peers(label, row, pushed)
        if row["idle_percent"] is not None:
            yield f"{label}: idle < 0.1 % of a core", f"{row['idle_percent']:.3f}", row["idle_percent"] < 0.1


def _bounds_of_pushes(label: str, row: Row) -> Iterable[tuple[str, str, bool]]:
    times_max, kb_max = (2.5, 25.0) if row["case"]["is_tls"] else (1.6, 3.0)
    times, turn = row["pushes"]["times_floor"], row["longest_turn_ms"]
    resident = max(row["resident_kb"], row["resident_after_kb"])
    yield f"{label}: ≤ {times_max} × the plaintext floor", f"{times:.2f}", times <= times_max
    yield f"{label}: ≤ {kb_max:.0f} KB a connection", f"{resident:.1f}", resident <= kb_max
    yield f"{label}: no turn of the loop over 5 ms", f"{turn:.1f}", turn <= 5.0


def _bounds_of_peers(label: str, row: Row, pushed: dict[tuple[str, str, int], Row]) -> Iterable[tuple[str, str, bool]]:
    for peer, times_min in (("grpc-aio", 10), ("go-linear", 4), ("go-snapshot", 12)):
        other = pushed.get(("push", peer, row["case"]["connections"]))
        if other is not None:
            # Floors took turns with each, so the ratio of the ratios is free of what changed between the two.
            times = other["pushes"]["times_floor"] / row["pushes"]["times_floor"]
            yield f"{label}: ≥ {times_min} × less than {peer}", f"{times:.1f}", times >= times_min


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.wire.report", description="The tables of a run again.")
    parser.add_argument("document", type=Path, help="DATE-wire.json, as `make bench-wire` wrote it")
    path = parser.parse_args().document
    if not path.is_file():
        parser.error(f"there is no {path}")
    sys.stdout.write(write_report(json.loads(path.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
