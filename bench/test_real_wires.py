"""Everybody on a real socket: nobody misses a change, nobody is sent what he holds, and a change costs whom it affects.

The small form of `python -m bench.real_wires`: counts are asserted, seconds are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from bench.real_wires.scenario import Figures, play
from bench.regular_mesh import CLIENTS

pytestmark = pytest.mark.gate

SIZE, CHANGES = 100, 50


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """All phases once. Each change waits for the one before, so that no two go out as one."""
    directory = tmp_path_factory.mktemp("real-wires")
    return uvloop.run(play(directory, size=SIZE, changes=CHANGES, interval_s=0.0, idle_s=1.0))


def test_a_change_is_one_message_to_each_whom_it_affects(figures: Figures, report: Callable[[str], None]) -> None:
    churn = figures["churn"]
    report(
        f"{churn['server_cpu_us_each_arrival']} µs of the control plane for each arrival, with its ACK and its share"
    )
    affected, changes = churn["affected"], churn["changes"]
    assert sum(changes.values()) == CHANGES
    assert set(changes) == {"add", "move", "move a sidecar", "policy", "remove"}
    assert sum(affected.values()) == CHANGES * CLIENTS
    assert churn["missed"] == 0
    # Endpoints go to those who reach the service; a policy's cluster is followed by its endpoints, or it would not
    # become warm; a sidecar that moves gets a listener at its new address, and loses the old one.
    assert (
        churn["received"]["messages"]
        == churn["received"]["resources"]
        == {
            "Cluster": affected["policy"],
            "ClusterLoadAssignment": sum(affected.values()),
            "Listener": changes["move a sidecar"],
        }
    )
    assert churn["received"]["for_warming"] == affected["policy"]
    assert churn["received"]["removed"] == changes["move a sidecar"]
    assert churn["received"]["held_already"] == churn["received"]["wrong_versions"] == 0


def test_everybody_holds_what_a_fresh_control_plane_would_give(figures: Figures) -> None:
    assert figures["differences_after_churn"] == []
    assert figures["differences_at_the_end"] == []


def test_nothing_is_sent_while_nothing_changes(figures: Figures) -> None:
    assert figures["idle"]["received"]["bytes"] == 0
    # Woken by no timer: a tick each second would be counted here.
    assert figures["idle"]["woken_each_second"] < 1


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_return_sends_only_what_changed_meanwhile(figures: Figures, how: str) -> None:
    back: dict[str, Any] = figures[how]
    assert back["streams_opened"] == SIZE
    assert back["affected"] == CLIENTS
    assert back["missed"] == 0
    assert back["received"]["messages"] == back["received"]["resources"] == {"ClusterLoadAssignment": CLIENTS}
    assert back["received"]["held_already"] == back["received"]["removed"] == 0
