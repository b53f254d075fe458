"""What each program says, as figures: by the way to a value, with its unit, its spread, and the same of its peers.

In: JSON that a part's program wrote. Out: `Figure`. Never: a value that was not measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.document import ROOT, Figure, flattened, unit_of

KUMA = ROOT / "bench" / "peers" / "kuma.json"


def of_pytest(folder: Path) -> Iterator[Figure]:
    """What benchmarks recorded, and what pytest-benchmark timed: the median, with the quartiles as its spread."""
    recorded = _read(folder / "recorded.json")
    for module, figures in recorded.items():
        yield from (Figure(f"{module}.{name}", value, unit_of(name)) for name, value in figures.items())
    timed = folder / "timed.json"
    # Empty where nothing was timed.
    for each in _read(timed)["benchmarks"] if timed.exists() and timed.stat().st_size else []:
        module = Path(each["fullname"].partition("::")[0]).stem
        name = ".".join(re.sub("^test_", "", part) for part in (module, *re.split(r"[\[\]]", each["name"])) if part)
        stats = each["stats"]
        # What was timed once varied by nothing that is known.
        yield Figure(name, stats["median"], "s", (stats["q1"], stats["q3"]) if stats["rounds"] > 1 else None)
        extra = {key: value for key, value in each["extra_info"].items() if isinstance(value, int | float)}
        yield from (Figure(f"{name}.{key}", value, unit_of(key)) for key, value in extra.items())


def of_sizes(folder: Path) -> Iterator[Figure]:
    """`sizes.<dataplanes>.<figure>`, with Kuma's where it was measured with as many."""
    kuma = _read(KUMA)
    peers = {
        "endpoint.sent_cpu_s": ("Kuma 2.14.3", kuma["2.14.3"]["endpoint_cpu_s"]),
        "policy_1_percent.sent_cpu_s": ("Kuma 3.0 preview", kuma["3.0-preview"]["policy_for_1_percent_cpu_s"]),
    }
    for size, figures in _read(folder / "sizes.json").items():
        for kind, measured in figures.pop("changes").items():
            for name, (median, least, most) in measured.items():
                peer, known = peers.get(f"{kind}.{name}", ("", {}))
                beside = {peer: known[size]} if size in known else {}
                yield Figure(f"sizes.{size}.{kind}.{name}", median, "s", (least, most), beside)
        yield from flattened(figures, f"sizes.{size}")


def of_wire(folder: Path) -> Iterator[Figure]:
    """`wire.<part>.<server>.<connections>.<figure>`; those of kumafast have the other servers' as peers."""
    [path] = folder.glob("*-wire.json")
    rows = _read(path)["figures"]
    for row in rows:
        same = [each for each in rows if {**each["case"], "server": ""} == {**row["case"], "server": ""}]
        others = {
            each["case"]["server"]: _of_row(each)
            for each in same
            if each["part"] == row["part"] and not each["case"]["server"].startswith("kumafast")
        }
        is_ours = row["case"]["server"].startswith("kumafast")
        for name, (value, spread) in _of_row(row).items():
            peers = {peer: held[name][0] for peer, held in others.items() if name in held} if is_ours else {}
            yield Figure(f"{_case(row)}.{name}", value, unit_of(name), spread, peers)


def left_out_of_wire(folder: Path) -> tuple[str, ...]:
    """What the wire's benchmark skipped, with its reasons."""
    return tuple(each for path in folder.glob("*-wire.json") for each in _read(path)["skipped"])


def _case(row: dict[str, Any]) -> str:
    case = row["case"]
    again = ".each_ack" if case["repeats_node"] else ""
    return f"wire.{row['part']}.{case['server']}.{case['connections']}{again}"


def _of_row(row: dict[str, Any]) -> dict[str, tuple[float, tuple[float, float] | None]]:
    values = {**row, **(row["pushes"] or {})}
    found: dict[str, tuple[float, tuple[float, float] | None]] = {}
    for name, value in values.items():
        if isinstance(value, int | float) and name != "rounds":
            spread = values.get(f"{name}_spread")
            found[_NAMES.get(name, name)] = (value, None if spread is None else (spread[0], spread[1]))
    return found


# What has its unit in the middle.
_NAMES = {"open_seconds": "open_s", "bytes": "pushed_bytes"}


def of_envoys(folder: Path) -> Iterator[Figure]:
    """`envoys.<phase>.<figure>`."""
    yield from flattened(_read(folder / "envoys.json"), "envoys")


def of_leds(folder: Path) -> Iterator[Figure]:
    """`leds.<eds, stream or content>.<endpoints>.<figure>`."""
    for row in _read(folder / "leds.json"):
        yield from flattened(
            {name: value for name, value in row.items() if name not in ("naming", "endpoints")},
            f"leds.{row['naming']}.{row['endpoints']}",
        )


def of_attacks(folder: Path) -> Iterator[Figure]:
    """`attacks.<figure>`, of all attacks together."""
    yield from flattened(_read(folder / "attacks.json"), "attacks")


def of_churn(folder: Path) -> Iterator[Figure]:
    """`churn.<server>.<what>.<level or growth>`."""
    yield from flattened(_read(folder / "churn.json"), "churn")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
