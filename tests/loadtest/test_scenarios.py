"""Each scenario, small, from the command to the report: a control plane, fifty Envoys, no wrong end state."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loadtest.__main__ import ROOT, SCENARIOS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

USERS = 50
# What each must have done, or it was not played: changes and streams by phase.
DONE = {
    "steady": {"steady": (12, 0)},
    "rollout": {"rollout": (USERS, USERS)},
    "policy-storm": {"policy storm": (10, 0)},
    "reconnect-storm": {"all streams cut": (0, USERS), "control plane killed": (1, USERS)},
    "soak": {"soak": (30, 1)},
    "zone-failure": {"zone lost": (15, 0), "zone back": (15, 15)},
}


def play(folder: Path, scenario: str, *flags: str) -> dict[str, Any]:
    """The figures of a short run, which must end well."""
    command = [sys.executable, "-m", "loadtest", "--scenario", scenario, "--users", str(USERS)]
    # In a soak a new Envoy comes each second. Plots are drawn in test_figures.py.
    command += ["--seconds", "2" if scenario == "soak" else "1", "--rate", "12"]
    command += ["--no-plots", "--output", str(folder), *flags]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=350, check=False)
    assert ended.returncode == 0, ended.stdout[-4_000:] + ended.stderr[-4_000:]
    figures: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return figures


def assert_all_well(figures: dict[str, Any]) -> None:
    assert figures["wrong"] == []
    assert (figures["wrong_end_states"], figures["holding"]) == (0, USERS)
    for name, (changes, streams) in DONE[figures["scenario"]].items():
        phase = figures["phases"][name]
        assert sum(phase["changes"].values()) >= changes, name
        assert phase["streams"].get("opened", 0) >= streams, name
        # Nobody is missed, so each arrival has a delay.
        assert phase["propagation_ms"].get("count", 0) >= bool(phase["affected"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_ends_with_what_the_control_plane_says(tmp_path: Path, scenario: str) -> None:
    assert set(DONE) == set(SCENARIOS)
    assert_all_well(play(tmp_path, scenario))


def test_envoys_in_two_processes_with_certificates(tmp_path: Path) -> None:
    assert_all_well(play(tmp_path, "rollout", "--workers", "2", "--tls", "mutual"))
