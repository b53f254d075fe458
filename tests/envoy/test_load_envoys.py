"""`make load-envoys`, small: a deploy of all services, edits of policies, a killed control plane; no request fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from loadtest.__main__ import ROOT

pytestmark = [pytest.mark.envoy, pytest.mark.slow, pytest.mark.timeout(400)]

EDITS = 4


def test_no_request_fails_through_a_deploy_edits_and_restarts(tmp_path: Path, envoy_binary: str) -> None:
    command = [sys.executable, "-m", "loadtest.real_envoys", "--envoys", "5", "--rate", "40", "--edits", str(EDITS)]
    ended = subprocess.run(
        [*command, "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=350, check=False
    )
    assert ended.returncode == 0, ended.stdout[-4_000:] + ended.stderr[-4_000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["wrong"] == []
    assert figures["failed"] == 0
    assert figures["tls_connections"] > 0
    # A deploy, the edits, a stop and a kill: there were requests in each.
    assert len(figures["phases"]) == 4
    assert all(phase["answered"] for phase in figures["phases"].values())
