"""README's figures are those of the committed results, each of them, and nothing else."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bench import compare, readme
from bench.document import ROOT, Document, Figure, Run, unit_of
from bench.figures import ROWS, Row
from bench.readme import BEGIN, END, MissingFigureError, Results, filled, findings, results, table

TEXT = readme.README.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def held() -> Results:
    return results(is_committed=readme.committed())


def test_readme_says_what_the_committed_results_say(held: Results) -> None:
    assert findings(TEXT, held) == []


def test_a_figure_that_was_changed_is_found(held: Results) -> None:
    made = table(held)
    numbers = list(re.finditer(r"\d[\d.,]* (?:µs|ms|s|KB|MB|×)", made))
    assert len(numbers) > len(ROWS)
    for number in numbers[:: len(numbers) // 20]:
        changed = made[: number.start()] + "1" + made[number.start() :]
        assert any(line.startswith("-|") for line in findings(readme.replaced(TEXT, changed), held)), number.group()


def test_the_command_fails_where_readme_says_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.compare", "readme"])
    with pytest.raises(SystemExit, match="0"):
        compare.main()
    (tmp_path / "README.md").write_text(TEXT.replace(" ms;", " s;", 1), encoding="utf-8")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    with pytest.raises(SystemExit, match="1"):
        compare.main()
    assert "--- README.md" in capsys.readouterr().out


def test_a_row_without_a_committed_result_is_found(held: Results) -> None:
    row = Row(group="A change", what="what nobody measured", figure="{sizes.7.endpoint.sent_cpu_s}")
    assert findings(TEXT, held, [*ROWS, row]) == ["no committed result has the figure sizes.7.endpoint.sent_cpu_s"]


def test_a_result_that_is_not_committed_is_none() -> None:
    assert results(is_committed=lambda path: False).figures == {}


def test_a_number_beside_the_table_is_found(held: Results) -> None:
    said = TEXT.replace(BEGIN, f"It takes 7 ms, as [said](bench/1.txt) by `make 2`.\n\n{BEGIN}")
    assert findings(said, held) == ["a number that no committed result gives: It takes 7 ms, as [said by ."]
    assert findings(TEXT.replace(END, ""), held) != []


def test_a_row_of_what_is_long_is_there_once_it_was_measured(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row.is_optional and "{many:" not in row.figure]
    assert len(rows) == 4
    assert len(table(results(tmp_path), rows).splitlines()) == 2 + 1
    for scenario, users in (("steady", 15_000), ("rollout", 15_000), ("reconnect-storm", 15_000), ("soak", 2_000)):
        path = max(ROOT.glob(f"loadtest/results/*-{scenario}-*/figures.json"))
        copy = tmp_path / "loadtest" / "results" / f"2026-01-02-{scenario}-{users}" / "figures.json"
        copy.parent.mkdir(parents=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    assert len(table(results(tmp_path), rows).splitlines()) == 2 + 1 + len(rows)
    with pytest.raises(MissingFigureError, match="soak:gone"):
        table(results(tmp_path), [replace(rows[-1], figure="{soak:gone}")])


def _day(date: str, **figures: float) -> Document:
    day = Document(date)
    run = Run("core", "make bench BENCH='--parts core'", date, "abc", {"cores": 2, "load_before": 0.5}, 1.0)
    day.add(run, [Figure(f"core.{name}", value, "us") for name, value in figures.items()])
    return day


def test_the_newest_document_that_has_a_figure_counts(tmp_path: Path) -> None:
    folder = tmp_path / "bench" / "results"
    folder.mkdir(parents=True)
    _day("2026-01-02", new_us=2.0, old_us=8.0).write(folder / "2026-01-02.json")
    _day("2026-01-03", new_us=4.0).write(folder / "2026-01-03.json")
    (folder / "2026-01-03-kills.json").write_text(json.dumps({"differences": []}), encoding="utf-8")
    found = results(tmp_path)
    row = Row(
        group="g", what="a", figure="{core.new_us}; {kills:differences.count}", ratio="{core.old_us / core.new_us}"
    )
    assert table(found, [row]).splitlines()[-1] == (
        "| a | 4 µs; 0 |  | 2 × | `make bench BENCH='--parts core'`, `make bench-instances PART=kills` | "
        "[2026-01-03](bench/results/2026-01-03.json), 2 cores, load 0.5, "
        "[2026-01-03](bench/results/2026-01-03-kills.json) |"
    )
    with pytest.raises(MissingFigureError, match=r"core\.gone"):
        table(found, [replace(row, peer="{core.gone}")])


def test_what_is_divided_has_the_same_unit_or_is_for_each() -> None:
    held = _results(a_ms=3.0, b_us=1_500.0, count=4)
    assert filled("{a_ms / b_us}", held, []) == "2 ×"
    assert filled("{a_ms / count}", held, []) == "750 µs"
    assert filled("{least ?_*s} to {most ?_*s}", held, []) == "1.5 ms to 3 ms"


def test_what_varied_has_its_spread_and_a_row_that_names_none_is_found() -> None:
    held = _results(a_us=694.0, b_ms=5.4)
    figure, origin = held.figures["a_us"]
    held.figures["a_us"] = (replace(figure, spread=(638.0, 2_730.0)), origin)
    origins: list[readme.Origin] = []
    assert filled("{spread a_us}; {a_us}", held, origins) == "694 µs (638 µs to 2.73 ms); 694 µs"
    assert origins == [origin, origin]
    with pytest.raises(MissingFigureError, match="the figure b_ms has no spread"):
        filled("{spread b_ms}", held, [])


def _results(**figures: float) -> Results:
    origin = readme.Origin("make bench", "2026-01-01", "2 cores", "bench/results/2026-01-01.json")
    return Results({id: (Figure(id, value, unit_of(id)), origin) for id, value in figures.items()})
