"""The documents and reports of load tests: each says where it is from, as those of the benchmarks do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import document, readme

from loadtest import real_envoys, report

RUN = {"scenario": "steady", "users": 100, "workers": 1, "seconds": 60.0, "rate": 10.0, "tls": "none"}
REAL = {"envoys": 50, "rate": 200.0, "answered": 7, "failed": 0, "tls_connections": 3, "phases": {}, "wrong": []}


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ({}, "make loadtest SCENARIO=steady USERS=100"),
        ({"workers": 2, "tls": "server"}, "make loadtest SCENARIO=steady USERS=100 WORKERS=2 TLS=server"),
        ({"scenario": "soak", "seconds": 3600.0}, "make soak MINUTES=60 USERS=100"),
        ({"scenario": "soak", "seconds": 90.0}, "make loadtest SCENARIO=soak USERS=100 SECONDS=90"),
    ],
)  # fmt: skip
def test_a_command_is_what_a_user_types(asked: dict[str, object], command: str) -> None:
    assert report.command({**RUN, **asked}) == command


def test_a_document_has_what_the_table_of_readme_shows(tmp_path: Path) -> None:
    before = {**document.machine(), "cores": 4, "load_before": 0.3}
    folder = tmp_path / "loadtest" / "results" / "2026-12-01-envoys-50"
    folder.mkdir(parents=True)
    made = {**document.origin("make load-envoys N=50", before), **REAL}
    (folder / "figures.json").write_text(json.dumps(made), encoding="utf-8")

    figure, origin = readme.results(tmp_path).take("sidecars:answered")

    assert figure.value == 7
    assert (origin.command, origin.date, origin.machine) == ("make load-envoys N=50", "2026-12-01", "4 cores, load 0.3")
    assert {"date", "revision", "command", "machine"} <= made.keys()
    assert {"cores", "kernel", "python", "load_before", "load_after"} == made["machine"].keys()


def test_a_report_of_real_envoys_says_where_it_was_made() -> None:
    text = real_envoys.markdown({**document.origin("make load-envoys N=50", document.machine()), **REAL})
    assert "by `make load-envoys N=50`" in text
    assert "cores, load " in text


def test_a_document_that_does_not_say_its_machine_is_still_shown() -> None:
    assert "By `make load-envoys N=50`" in real_envoys.markdown(REAL)
