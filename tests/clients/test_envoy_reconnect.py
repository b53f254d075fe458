"""Envoys that hold 29 resources meet a new server process: they get none back, and exactly what changed meanwhile."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from tests.clients.envoy_contents import COUNT
from tests.clients.fleet import Fleet
from tests.clients.raw_envoy import ADS_MODES, SERVICES_MODES, Mode
from tests.envoy.harness import Traffic

from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET

pytestmark = pytest.mark.envoy

MODES = [*ADS_MODES, *SERVICES_MODES]
each_mode = pytest.mark.parametrize("mode", MODES, ids=str)
QUIET_S = 0.5
GONE = {"lds/l3", "rds/r3", "cds/c7", "eds/c7"}
_RECEIVED = "cluster.xds.upstream_cx_rx_bytes_total"


@dataclass(frozen=True)
class Comeback:
    """What one Envoy's coming back to a new server process came to."""

    sent: list[tuple[str, int]]
    """Type and size of each response."""
    received_bytes: int
    """Of all that came over its connections, with HTTP/2's own frames and TLS's handshake left out."""
    moved: dict[str, int]
    """By how much its counters of what it applied have moved."""
    failures: list[str]
    """Of requests through it all the while."""


def _come_back(fleet: Fleet, how: signal.Signals, **options: Any) -> dict[Mode, Comeback]:
    applied = {mode: fleet.applied(mode) for mode in MODES}
    received = {mode: fleet.envoys[mode].stat(_RECEIVED) for mode in MODES}
    traffic = {mode: Traffic(fleet.contents[mode].ports[2]) for mode in MODES}
    with ExitStack() as stack:
        for each in traffic.values():
            stack.enter_context(each.running())
        fleet.restart_server(how, **options)
        time.sleep(QUIET_S)
    found = {}
    for mode in MODES:
        events = fleet.server.events(str(mode))
        now = fleet.applied(mode)
        names = now.keys() | applied[mode].keys()
        moved = {name: now.get(name, 0) - applied[mode].get(name, 0) for name in names}
        assert traffic[mode].answers, "the traffic did not flow"
        found[mode] = Comeback(
            [(event[1], event[3]) for event in events if event[0] == "sent"],
            fleet.envoys[mode].stat(_RECEIVED) - received[mode],
            # A cluster that is gone has no counters any more.
            {name: by for name, by in moved.items() if by and name in now},
            traffic[mode].failures,
        )
    return found


@pytest.fixture(scope="module")
def unchanged(fleet: Fleet) -> dict[Mode, Comeback]:
    """All Envoys' comebacks to a server process that was stopped in order and has what the one before had."""
    return _come_back(fleet, signal.SIGTERM)


@pytest.fixture(scope="module")
def changed(fleet: Fleet, unchanged: object) -> dict[Mode, Comeback]:
    """The same, of one that was killed; the contents were changed while there was none."""

    def change() -> None:
        for mode in MODES:
            contents = fleet.contents[mode]
            contents.backends["c1"] = fleet.two.port
            contents.removed = GONE
            fleet.publish(mode)

    return _come_back(fleet, signal.SIGKILL, meanwhile=change)


@each_mode
def test_nothing_is_sent_that_is_held(fleet: Fleet, unchanged: dict[Mode, Comeback], mode: Mode) -> None:
    """A server without memory of its Envoys sends them nothing that they hold (rules 18, 19, 22, 44, 46)."""
    assert len(fleet.expected(mode) | GONE) == COUNT == 29
    comeback = unchanged[mode]
    assert comeback.failures == []
    if mode.is_delta:
        assert comeback.sent == []
        assert comeback.moved == {}
    else:
        # By names a SotW client cannot say what it holds; the wildcards of clusters and listeners can (rule 22).
        assert {kind for kind, _ in comeback.sent} == {ENDPOINT, ROUTE, SECRET}
        # What comes again is what is held: nothing is applied by it.
        assert {name.rpartition(".")[2] for name in comeback.moved} == {"update_success"}
    if mode.is_delta and mode.is_aggregated:
        # The server's settings and the heads of an answer, nothing else.
        assert comeback.received_bytes < 500
    assert fleet.trouble_but_for_the_absence(mode) == {}


@each_mode
def test_what_changed_meanwhile_arrives_exactly(fleet: Fleet, changed: dict[Mode, Comeback], mode: Mode) -> None:
    """A change and removals while there was no server arrive, and nothing else (rules 38, 44, 45, 46)."""
    fleet.wait_for_exactly_the_contents(mode)
    comeback = changed[mode]
    assert comeback.failures == []
    # Listener 2 leads by TLS through listener 1 to the cluster whose endpoint has moved.
    assert [fleet.answers(mode, listener) for listener in (0, 2)] == ["one", "two"]
    moved = {name: by for name, by in comeback.moved.items() if mode.is_delta or not name.endswith("update_success")}
    assert moved.pop("cluster.c1.membership_change") == 1
    assert moved.pop("cluster_manager.cluster_removed") == 1
    assert moved.pop("listener_manager.listener_removed") == 1
    if mode.is_delta:
        assert moved.pop("cluster.c1.update_success") == 1
        # One assignment has about 220 bytes with all around it, a removal less.
        assert sum(size for _, size in comeback.sent) < 1500
    # Each removal is an update of its type; of clusters and listeners nothing else was.
    rest = {name for name in moved if not name.endswith(("cds.update_success", "lds.update_success"))}
    assert {name for name in rest if ".c7." not in name and "r3" not in name} <= {
        "cluster_manager.cds.config_reload",
        "listener_manager.lds.config_reload",
    }
    assert CLUSTER in {kind for kind, _ in comeback.sent}
    assert LISTENER in {kind for kind, _ in comeback.sent}
