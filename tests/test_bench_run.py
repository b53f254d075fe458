"""`make bench`: parts that fail leave the others alone, documents keep what was measured, reports show it."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import __main__ as harness
from bench import document, drawing, readers, summary
from bench.document import ROOT, Document, Figure, Run, flattened
from bench.parts import PARTS, Part, Sizes

MACHINE = {"cores": 2, "kernel": "Linux", "python": "3.11", "load_before": 0.5, "load_after": 1.5}


def _part(program: str, name: str = "core") -> Part:
    def read(folder: Path) -> Iterator[Figure]:
        yield from flattened(json.loads((folder / "out.json").read_text(encoding="utf-8")), name)

    def command(folder: Path, _: Sizes) -> list[str]:
        return [sys.executable, "-c", program.replace("OUT", str(folder / "out.json"))]

    return Part(name, "a test", 0.1, command, read)


def _run(part: str, *, error: str | None = None, command: str = "make bench") -> Run:
    return Run(part, command, "2026-01-02", "abc", MACHINE, 60.0, error, ("go-linear: no Go",))


@pytest.mark.parametrize("module", [document, summary])
def test_examples_run(module: object) -> None:
    failed, attempted = doctest.testmod(module)  # type: ignore[arg-type]
    assert (failed, attempted > 0) == (0, True)


def test_what_a_part_measured_is_kept_though_it_failed(tmp_path: Path) -> None:
    program = "open('OUT', 'w').write('{\"load_s\": 1.5, \"wrong\": [\"x\"]}'); raise SystemExit(3)"
    done, figures = harness.run(_part(program), Sizes(), "make bench", tmp_path)
    assert done.error == "exit status 3"
    assert figures == [Figure("core.load_s", 1.5, "s"), Figure("core.wrong.count", 1, "")]
    assert {"cores", "kernel", "python", "load_before", "load_after"} <= done.machine.keys()


def test_a_part_that_says_nothing_is_an_error_and_no_figure(tmp_path: Path) -> None:
    done, figures = harness.run(_part("pass"), Sizes(), "make bench", tmp_path)
    assert done.error is not None
    assert done.error.startswith("what it wrote cannot be read")
    assert figures == []


def test_parts_after_one_that_failed_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = {
        "bad": _part("raise SystemExit(1)", "bad"),
        "good": _part("open('OUT', 'w').write('{\"a_us\": 7}')", "good"),
    }
    monkeypatch.setattr(harness, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["bench", "--parts", "bad", "good", "--output", str(tmp_path)])
    assert harness.main() == 1
    [path] = tmp_path.glob("*.json")
    day = document.read(path)
    assert [each.id for each in day.figures["good"]] == ["good.a_us"]
    assert (day.runs["bad"].error, day.runs["good"].error) == ("exit status 1", None)
    assert day.runs["good"].command == "make bench BENCH='--parts good'"
    report = path.with_suffix(".md").read_text(encoding="utf-8")
    assert "| good.a_us | 7 µs |" in report
    assert "exit status 1" in report
    assert "not as it should be: bad" in capfd.readouterr().out


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    day = Document("2026-01-02")
    figure = Figure("wire.push_us", 6.712345678, "us", (6.5, 7.0), {"go-linear": 64.0})
    day.add(_run("core"), [figure])
    day.write(tmp_path / "day.json")
    again = document.read(tmp_path / "day.json")
    assert again.runs == day.runs
    assert again.figures == {"core": [Figure("wire.push_us", 6.71235, "us", (6.5, 7.0), {"go-linear": 64.0})]}


def test_a_part_replaces_itself_but_for_what_a_failed_one_did_not_measure() -> None:
    day = Document("2026-01-02")
    first, failed, again = _run("core"), _run("core", error="exit status 1"), _run("core", command="again")
    day.add(first, [Figure("a", 1, ""), Figure("b", 1, "")])
    day.add(failed, [Figure("b", 2, "")])
    day.add(failed, [])
    assert day.by_id() == {"a": (Figure("a", 1, ""), first), "b": (Figure("b", 2, ""), failed)}
    assert day.runs["core"] is failed
    day.add(again, [Figure("b", 3, "")])
    assert day.by_id() == {"b": (Figure("b", 3, ""), again)}
    assert list(day.runs) == ["core"]


def _wire_row(server: str, cpu_us: float, *, part: str = "push", connections: int = 1_000) -> dict[str, object]:
    case = {"server": server, "connections": connections, "repeats_node": False, "is_tls": False}
    pushes = {"cpu_us": cpu_us, "cpu_us_spread": [cpu_us - 1, cpu_us + 1], "floor_us": 5.0, "rounds": 3}
    return {
        "part": part,
        "case": case,
        "connect_us": 50.0,
        "resident_after_kb": 2.5,
        "idle_percent": None,
        "pushes": pushes,
    }


def test_the_wire_s_figures_have_their_peers(tmp_path: Path) -> None:
    rows = [_wire_row("kumafast-linear", 7.0), _wire_row("go-linear", 60.0), _wire_row("go-linear", 70.0, part="storm")]
    rows.append(_wire_row("go-linear", 80.0, connections=5_000))
    (tmp_path / "2026-01-02-wire.json").write_text(json.dumps({"figures": rows, "skipped": ["x"]}), encoding="utf-8")
    found = {each.id: each for each in readers.of_wire(tmp_path)}
    assert found["wire.push.kumafast-linear.1000.cpu_us"] == Figure(
        "wire.push.kumafast-linear.1000.cpu_us", 7.0, "us", (6.0, 8.0), {"go-linear": 60.0}
    )
    assert found["wire.push.go-linear.5000.cpu_us"].peers == {}
    assert readers.left_out_of_wire(tmp_path) == ("x",)


def test_sizes_stand_beside_kuma_s_where_it_was_measured(tmp_path: Path) -> None:
    change = {"published_cpu_s": [0.001, 0.001, 0.002], "sent_cpu_s": [0.002, 0.001, 0.003]}
    sizes = {size: {"load_cpu_s": 1.0, "changes": {"endpoint": change}} for size in ("1000", "50000")}
    (tmp_path / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")
    found = {each.id: each for each in readers.of_sizes(tmp_path)}
    assert found["sizes.1000.endpoint.sent_cpu_s"].peers == {"Kuma 2.14.3": 2.5}
    assert found["sizes.50000.endpoint.sent_cpu_s"].peers == {}
    assert found["sizes.50000.load_cpu_s"].unit == "s"


def test_what_a_benchmark_records_and_what_is_timed_are_figures(tmp_path: Path) -> None:
    command = PARTS["core"].command(tmp_path, Sizes())
    one = [each for each in command if not each.startswith("bench/")]
    only = ["bench/test_versions.py", "-k", "against_the_twin or test_diff_versions"]
    only += ["--benchmark-max-time=0.01", "--benchmark-min-rounds=1"]
    # Who is told of other workers times nothing.
    alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")}
    done = subprocess.run([*one, *only], cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    assert (tmp_path / "recorded.json").exists(), done.stdout + done.stderr
    found = {each.id: each for each in readers.of_pytest(tmp_path)}
    assert {"versions.difference_s", "versions.difference_twin_s", "versions.diff_versions.10"} <= found.keys()
    assert all(each.value > 0 and each.unit == "s" for each in found.values())


def test_what_was_timed_once_has_no_spread(tmp_path: Path) -> None:
    stats = {"median": 0.5, "q1": 0.4, "q3": 0.6}
    timed = [
        {"fullname": f"bench/test_a.py::test_{rounds}", "name": f"test_{rounds}", "extra_info": {"writes_per_s": 7}}
        | {"stats": {**stats, "rounds": rounds}}
        for rounds in (1, 5)
    ]
    (tmp_path / "recorded.json").write_text("{}", encoding="utf-8")
    (tmp_path / "timed.json").write_text(json.dumps({"benchmarks": timed}), encoding="utf-8")
    found = {each.id: each for each in readers.of_pytest(tmp_path)}
    assert found["a.1"] == Figure("a.1", 0.5, "s")
    assert found["a.5"] == Figure("a.5", 0.5, "s", (0.4, 0.6))
    assert found["a.5.writes_per_s"] == Figure("a.5.writes_per_s", 7, "a second")


def test_each_plot_is_drawn_of_what_is_there(tmp_path: Path) -> None:
    day = Document("2026-01-02")
    assert drawing.draw(day, tmp_path) == []
    day.add(
        _run("sizes"),
        [
            Figure(f"sizes.{size}.{name}", 0.1, "s")
            for size in (1_000, 10_000)
            for name in ("endpoint.sent_cpu_s", "load_cpu_s", "snapshots_cpu_s")
        ],
    )
    assert [path.name for path in drawing.draw(day, tmp_path)] == ["2026-01-02-sizes.svg", "2026-01-02-start.svg"]
    pushes = [
        Figure(f"wire.{part}.{server}.1000.{name}", 7.0, "us")
        for part in ("push", "storm")
        for server in ("kumafast-linear", "grpc-aio")
        for name in ("cpu_us", "floor_us", "resident_after_kb", "connect_us")
    ]
    day.add(_run("push"), pushes)
    drawn = drawing.draw(day, tmp_path)
    assert [path.stem.removeprefix("2026-01-02-") for path in drawn] == ["sizes", "push", "memory", "start", "storm"]
    again = [path.read_bytes() for path in drawn]
    assert [path.read_bytes() for path in drawing.draw(day, tmp_path)] == again
    assert "- push: go-linear: no Go" in summary.markdown(day, drawn)


def test_a_server_that_failed_is_in_the_plot_without_a_bar(tmp_path: Path) -> None:
    day = Document("2026-01-02")
    why = "storm: grpc-aio, 10,000 connections: failed, 2648 streams had errors"
    others = ("storm: go-linear, 10,000 connections: no Go here", "push: go-snapshot, 1,000 connections: no Go here")
    run = Run("storm", "make bench", "2026-01-02", "abc", MACHINE, 60.0, None, (why, *others))
    day.add(run, [Figure("wire.storm.kumafast-linear.10000.connect_us", 80.0, "us")])
    assert drawing._left_out(day, "storm") == {
        "grpc-aio": "failed at 10,000, see the report",
        "go-linear": "left out at 10,000, see the report",
    }
    rows = drawing._of_servers(
        {"wire.storm.kumafast-linear.10000.connect_us": 80.0},
        r"wire\.storm\.([\w-]+)\.(\d+)\.connect_us",
        drawing._left_out(day, "storm"),
    )
    assert [value for _, value, _ in rows] == [
        80.0,
        "left out at 10,000, see the report",
        "failed at 10,000, see the report",
    ]
    assert [path.name for path in drawing.draw(day, tmp_path)] == ["2026-01-02-storm.svg"]


def test_a_part_takes_as_long_as_it_was_given() -> None:
    assert PARTS["churn"].minutes_of(Sizes(minutes=2.0)) == 2.0
    assert PARTS["core"].minutes_of(Sizes(minutes=2.0)) == PARTS["core"].minutes


def test_the_command_of_a_part_has_what_was_chosen_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "3", "--sizes", "1000", "10000"])
    arguments = harness._parse()
    assert harness._command(PARTS["core"], arguments) == "make bench BENCH='--parts core'"
    assert harness._command(PARTS["push"], arguments) == "make bench BENCH='--parts push --rounds 3'"
    assert harness._command(PARTS["sizes"], arguments) == "make bench BENCH='--parts sizes --sizes 1000 10000'"


def test_the_usual_parts_fit_in_half_an_hour() -> None:
    assert sum(part.minutes for part in PARTS.values() if not part.is_long) <= 25
    assert summary.of_parts(PARTS.values()).count("only where named") == sum(part.is_long for part in PARTS.values())
