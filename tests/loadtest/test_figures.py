"""The figures of a run say what happened, who was at a limit, and all that is wrong."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench.real_wires import truth
from bench.real_wires.simulated_envoy import TYPES
from bench.regular_mesh import fill
from loadtest.control_plane import Sample, processors
from loadtest.outcome import ChangeMade, Holding, Outcome, PhasePlayed, added
from loadtest.plan import Plan

from loadtest import figures, report

PLAN = Plan("steady", 50, 1, 10.0, 10.0, api="", diagnostics="", dp_host="127.0.0.1", dp_port=1, directory="")
PROCESSORS = processors()


def holding(number: int) -> Holding:
    return Holding(f"default.dp-{number:06}", {type_url: {} for type_url in TYPES}, [])


def played() -> Outcome:
    """Ten seconds with one change that took 5 to 14 ms to ten Envoys."""
    arrivals = [103.0 + 0.005 + 0.001 * number for number in range(10)]
    change = ChangeMade("add", "steady", 102.99, 103.0, 10, [], arrivals)
    phase = PhasePlayed(
        "steady", 100.0, 110.0, {"opened": 50}, {"bytes": 10, "held_already": 0, "resources": {"X": 10}}
    )
    return Outcome(
        phases=[phase],
        changes=[change],
        configured=[(101.0, 0.2)],
        late=[(100.5, 0.001), (101.0, 0.004)],
        timeline=[(100.0, 0, 0), (110.0, 50, 10)],
        holdings=[holding(number) for number in range(50)],
    )


def samples(*, server: float = 0.1, client: float = 0.2, machine: float = 0.5) -> list[Sample]:
    """Each second, with what each uses of a core, and the machine of all its cores."""
    return [
        Sample(99.0 + at, server * at, 100_000_000 + at, {7: client * at}, machine * PROCESSORS * at)
        for at in range(13)
    ]


def test_figures_of_a_run_in_which_all_is_well() -> None:
    made = figures.of(PLAN, played(), samples(), [], tls="none")
    assert made["wrong"] == []
    assert made["wrong_end_states"] == 0
    steady = made["phases"]["steady"]
    assert steady["changes"] == {"add": 1}
    assert steady["propagation_ms"] == {"p50": 10.0, "p90": 14.0, "p99": 14.0, "max": 14.0, "count": 10}
    assert steady["from_request_ms"]["max"] == 24.0
    assert steady["configured_ms"]["count"] == 1
    assert steady["server_cpu_s"] == pytest.approx(1.0)
    assert steady["server_core_share"] == pytest.approx(0.1)
    assert steady["busiest_client_core_share"] == pytest.approx(0.2)
    assert steady["machine_share"] == pytest.approx(0.5)
    assert steady["others_core_share"] == pytest.approx(0.5 * PROCESSORS - 0.3)
    assert steady["client_late_ms"]["max"] == 4.0
    assert steady["limit"] == "nobody"


def test_memory_of_a_phase_between_two_samples_is_not_known_rather_than_none() -> None:
    outcome = played()
    outcome.phases.append(PhasePlayed("end", 110.1, 110.2, {}, {}))
    made = figures.of(PLAN, outcome, samples(), [], tls="none")
    assert made["phases"]["steady"]["server_rss_mb"] == 100.0
    assert made["phases"]["end"]["server_rss_mb"] is None
    [row] = [line for line in report.markdown(made).splitlines() if line.startswith("| end | 0.0")]
    assert row.split(" | ")[2] == "–"


@pytest.mark.parametrize(
    ("used", "said"),
    [
        (samples(server=0.95), "the server used 0.95 of a core"),
        (samples(client=0.95), "a client process used 0.95 of a core"),
        (samples(machine=1.0), "the machine was 100 % busy"),
    ],
)
def test_who_is_at_a_limit_is_named(used: list[Sample], said: str) -> None:
    made = figures.of(PLAN, played(), used, [], tls="none")
    assert made["phases"]["steady"]["limit"].startswith(said)


def test_clients_that_are_late_are_the_limit_whoever_takes_their_time() -> None:
    outcome = played()
    outcome.late = [(at, 0.08) for at, _ in outcome.late]
    made = figures.of(PLAN, outcome, samples(), [], tls="none")
    assert made["phases"]["steady"]["limit"] == "the clients' own timers were 80 ms late in most half seconds"


def test_all_that_is_wrong_is_said() -> None:
    outcome = played()
    outcome.changes[0] = replace(outcome.changes[0], missed=["default.dp-000001"])
    outcome.phases[0] = replace(outcome.phases[0], received={"held_already": 3, "wrong_versions": 2})
    outcome.problems.append("PUT /x: 503")
    del outcome.holdings[0]
    made = figures.of(PLAN, outcome, samples(), ["default.dp-000001 Cluster: ['a']"], tls="none")
    assert made["wrong_end_states"] == 1
    assert made["wrong"] == [
        "default.dp-000001 Cluster: ['a']",
        "49 of 50 Envoys have said what they hold",
        "PUT /x: 503",
        "steady: missed 1",
        "steady: held_already 3",
        "steady: wrong_versions 2",
    ]
    assert "- PUT /x: 503" in report.markdown(made)


@pytest.mark.parametrize("leak", ["memory, MB", "descriptors", "tasks"])
def test_soak_in_which_something_grows_is_wrong(leak: str) -> None:
    outcome = played()
    outcome.phases[0] = replace(outcome.phases[0], name="soak", ended=100.0 + figures.SOAK_S_MIN)
    flat = [
        replace(sample, at=100.0 + number * figures.SOAK_S_MIN / 12, descriptors=60, tasks=20)
        for number, sample in enumerate(samples())
    ]
    assert figures.of(PLAN, outcome, flat, [], tls="none")["wrong"] == []
    grown = {
        "memory, MB": [replace(each, server_rss_bytes=100_000_000 + 1_000_000 * at) for at, each in enumerate(flat)],
        "descriptors": [replace(each, descriptors=60 + at) for at, each in enumerate(flat)],
        "tasks": [replace(each, tasks=20 + at) for at, each in enumerate(flat)],
    }
    (wrong,) = figures.of(PLAN, outcome, grown[leak], [], tls="none")["wrong"]
    assert wrong.startswith(f"soak: {leak} grew by")
    # While caches fill it says nothing.
    outcome.phases[0] = replace(outcome.phases[0], ended=99.0 + figures.SOAK_S_MIN)
    assert figures.of(PLAN, outcome, grown[leak], [], tls="none")["wrong"] == []


def test_truth_is_another_control_planes(tmp_path: Path) -> None:
    store = tmp_path / "kumafast.db"
    asyncio.run(fill(store, 50))
    different = asyncio.run(truth.differences(store, [holding(0), replace(holding(1), warming=["service-00000"])]))
    assert [line.split(":")[0] for line in different] == [
        "default.dp-000000 Cluster",
        "default.dp-000000 ClusterLoadAssignment",
        "default.dp-000000 Listener",
        "default.dp-000001 Cluster",
        "default.dp-000001 ClusterLoadAssignment",
        "default.dp-000001 Listener",
        "default.dp-000001 waits for the endpoints of ['service-00000']",
    ]


def test_outcome_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    played().save(tmp_path / "outcome.json")
    assert Outcome.load(tmp_path / "outcome.json") == played()


def test_plan_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN


def test_counters_add_up_and_can_be_taken_from_each_other() -> None:
    first = {"bytes": 1, "messages": {"a": 1}}
    second = {"bytes": 2, "messages": {"a": 3, "b": 4}, "removed": 5}
    total = added(first, second)
    assert total == {"bytes": 3, "messages": {"a": 4, "b": 4}, "removed": 5}
    assert added(total, first, -1) == second


def test_report_is_four_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    outcome = played()
    report.write(tmp_path, figures.of(PLAN, outcome, samples(), [], tls="none"), outcome, samples())
    assert json.loads((tmp_path / "figures.json").read_text())["wrong_end_states"] == 0
    text = (tmp_path / "report.md").read_text()
    assert "**0 wrong end states** of 50 Envoys." in text
    assert "10 / 14 / 14" in text
    for name in ("propagation.svg", "timeline.svg"):
        assert (tmp_path / name).read_text().rstrip().endswith("</svg>")
