"""A hundred streams of the client in C++, several on a connection, from the command to the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.real_wires.simulated_envoy import TYPES
from bench.wire.process import ROOT
from bench.wire.servers import why_no_compiler
from loadtest.many.client import read_contents, read_holdings

from kumafast._core import digest

STREAMS, EACH, MOVES = 100, 5, 4
OUTBOUNDS, CLIENTS = 5, 50


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_stream_ends_with_what_the_control_plane_says(tmp_path: Path) -> None:
    if (missing := why_no_compiler()) is not None:
        pytest.skip(missing)
    command = [sys.executable, "-m", "loadtest.many", "--streams", str(STREAMS), "--each", str(EACH)]
    command += ["--rate", str(MOVES), "--seconds", "1", "--no-plots", "--output", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stdout[-4_000:] + ended.stderr[-4_000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["wrong"], figures["wrong_end_states"], figures["holding"]) == ([], 0, STREAMS)
    connect, steady, inbound, outbound = figures["phases"].values()
    # Its own cluster, the two that it goes out by, and one for each outbound; as it is of listeners.
    assert connect["received"]["resources"] == {
        "Cluster": STREAMS * (OUTBOUNDS + 3),
        "ClusterLoadAssignment": STREAMS * OUTBOUNDS,
        "Listener": STREAMS * (OUTBOUNDS + 1),
    }
    # A sidecar that moves has another address in its own listener.
    assert steady["received"]["resources"] == {
        "Cluster": 0,
        "ClusterLoadAssignment": MOVES * CLIENTS,
        "Listener": MOVES,
    }
    assert (steady["affected"], steady["propagation_ms"]["count"]) == (MOVES * CLIENTS, MOVES * CLIENTS)
    assert inbound["received"]["resources"]["Cluster"] == STREAMS
    assert outbound["received"]["resources"]["Cluster"] == STREAMS * OUTBOUNDS
    for edit in (inbound, outbound):
        assert (edit["affected"], edit["missed"], edit["propagation_ms"]["count"]) == (STREAMS, 0, STREAMS)
        # The last arrival is not later than the last acknowledgement.
        assert edit["from_request_ms"]["max"] <= 1_000 * edit["acknowledged_s"] + 1


def test_what_the_client_wrote_is_read_again_and_its_versions_are_looked_at(tmp_path: Path) -> None:
    body = b"of any\nbytes \0"
    version = digest(body).hex()
    file = tmp_path / "contents"
    other = b"2 another-version 3 inbound:10.0.0.1:8080\nabc"
    file.write_bytes(f"1 {version} {len(body)} a service\n".encode() + body + other)
    contents, wrong = read_contents(file)
    assert wrong == ["inbound:10.0.0.1:8080 came as another-version"]
    (tmp_path / "holdings").write_text("7 0 0 1\n8 2 1\n")
    seven, eight = read_holdings(tmp_path / "holdings", contents)
    assert (seven.node_id, seven.warming, len(eight.warming)) == ("default.dp-000007", [], 2)
    assert seven.held == {
        TYPES[0]: {},
        TYPES[1]: {"a service": version},
        TYPES[2]: {"inbound:10.0.0.1:8080": "another-version"},
    }
