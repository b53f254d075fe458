"""The report of instances under load shows what was measured, and the summary of a part the same."""

from __future__ import annotations

from typing import Any

from bench.instances import report
from bench.instances.pairs import Ring, spread

PUSH = {"p50": 0.004, "p99": 0.0123, "longest": 0.25, "pushes": 1234}


def _document(part: str, figures: dict[str, Any]) -> dict[str, Any]:
    machine = {"cores": 2, "load_average_before": 0.4}
    return {"part": part, "date": "2026-11-30", "revision": "abc1234", "command": f"python -m bench.instances {part}",
            "machine": machine, "seconds": 61.0, "figures": figures}  # fmt: skip


def _kills(**changed: Any) -> dict[str, Any]:
    each = [{"connected_s": seconds} for seconds in (0.5, 0.75, 0.9)]
    figures = {"proxies": 2000, "kills": 3, "acknowledged": 9132, "writes_a_second": 91.6, "differences": [],
               "sent_again": 0, "all_equal_s": {"median": 5.4, "longest": 6.1}, "each": each,
               "survivors_push_s": {"witness": PUSH, "all": PUSH}}  # fmt: skip
    return _document("kills", {**figures, **changed})


def test_what_is_lost_is_not_counted_as_what_differs() -> None:
    shown = report.text(_kills(differences=["lost: dp-1 at 10.0.0.1", "default.dp-2 holds something else"]))
    assert "acknowledged writes that were lost: 1 of 9,132 (limit 0)" in shown
    assert "Envoys that held something else after a kill: 1 (limit 0)" in shown


def test_the_witness_has_the_limit() -> None:
    pushes = [row for row in report.rows(_kills()) if row.what.startswith("push to who stayed")]
    assert [(row.figure, row.limit) for row in pushes] == [
        ("4.0 ms, 12 ms, 250 ms, 1,234", "p99 500 ms"),
        ("4.0 ms, 12 ms, 250 ms, 1,234", ""),
    ]


def test_each_file_is_a_section_with_its_command() -> None:
    way = {"refused": {"503": 1200, "ReadTimeout": 1}, "refused_after_s": {"longest": 4.02, "longest_of_witness": 4.0},
           "streams_lost": 0, "came_back_meanwhile": 100, "newcomers_served_s": 0.1, "read_s": 0.02,
           "writes_again_after_s": [0.4, 1.2], "sent_again": 0, "differences": []}  # fmt: skip
    outages = _document("outages", {"proxies": 2000, "seconds": 60.0, "stopped": way, "killed": way, "cut off": way})
    written = report.markdown({"kills.json": _kills(), "outages.json": outages})
    assert "## `kills` (kills.json)" in written
    assert "2 cores, load average 0.4 before it, 61 s, `python -m bench.instances outages` at abc1234" in written
    assert "1,200 × 503, 1 × ReadTimeout; 1,200 × 503, 1 × ReadTimeout" in written
    assert "| first write after the return, slower instance | 1.2 s; 1.2 s; 1.2 s | 5 s |" in written


def test_upgrades_and_workers_are_shown_too() -> None:
    step = {"schema_held": 3, "acknowledged": 500, "writes_refused": {}, "reads": {"200": 90}, "streams_lost": 0,
            "push_s": PUSH, "lost": [], "differences": []}  # fmt: skip
    steps = {"older alone": {**step, "schema_held": 2, "differences": "not compared"}, "today's alone": step}
    schema = {"older": 2, "today": 3}
    shown = report.text(_document("upgrade", {"proxies": 400, "from": "d0c34de", "schema": schema, "steps": steps}))
    assert "older alone, database at schema 2" in shown
    assert "500, 0; 90 × 200; 0, 0, 0; 12 ms (limit 0 refused and lost)" in shown
    kind = {"pushes_a_second": 10_000, "cpu_of_all_workers_s": 1.2, "cpu_of_the_busiest_s": 0.6, "client_cpu_s": 0.1}
    ratio = {"by_elapsed": 1.8, "by_cpu_of_the_busier": 1.75}
    killed = {"of_the_dead": 991, "proxies": 2000, "back_after_s": 0.57, "sent_again": 0}
    ratios = {"ratio_reading": ratio, "ratio_stopped": ratio}
    of_each = {f"workers_{count}": {"reading": kind, "stopped": kind} for count in (1, 2)}
    figures = {"streams": 10_000, "message_bytes": 2048, "killed": killed, **ratios, **of_each}
    assert "by CPU of the busier: 1.80; 1.75 (limit 1.7)" in report.text(_document("workers", figures))


def test_a_ring_closes() -> None:
    ring = Ring(10, prefix="x")
    assert ring.clients(0) == {"default.x-000005", "default.x-000006", "default.x-000007", "default.x-000008",
                               "default.x-000009"}  # fmt: skip
    outbound = ring.dataplane(9, ring.first_address(9))["networking"]["outbound"][0]
    assert outbound["tags"]["kuma.io/service"] == ring.service(0)


def test_the_spread_of_nothing_is_nothing() -> None:
    assert spread([]) == {"p50": 0, "p99": 0, "longest": 0, "pushes": 0}


def test_a_document_with_the_fields_of_the_other_documents_is_shown() -> None:
    about = {"cores": 4, "kernel": "Linux", "python": "3.12", "load_before": 0.4, "load_after": 1.5}
    text = report.markdown({"kills.json": {**_kills(), "machine": about}})
    assert "4 cores, load average 0.4 before it" in text
