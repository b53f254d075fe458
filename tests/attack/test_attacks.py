"""Whoever attacks is ended, or served where no rule is broken; the neighbours notice nothing, and nothing is left.

The gates are counts and ratios: a turn of the server's loop is compared with an empty loop of a million in the same
process. What the neighbours' clocks say is in the informational run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.attack.campaign import ALL, Campaign, Result, campaign
from tests.attack.health_attacks import ATTACKS
from tests.stream.grpc_client import create_certificate

NEIGHBOURS = 60
SECONDS = 0.25
# By the server's own CPU clock; some 50 ms where the figures of the README come from.
TURN_UNITS_MAX = 5.0
RSS_GROWTH_MAX = 600 << 20
# Twenty clients that are pushed eight megabytes each share those eight: with as many for each it would be 160.
SHARED_GROWTH_MAX = 96 << 20
SHARING = ("slow: ", "storm: streams cut off")
# Those of which one connection alone needs what TLS makes no different.
TLS_TOO = [name for name in ATTACKS if name.startswith(("half", "slow", "storm")) or "PING" in name]


@pytest.fixture(scope="module", params=[False, True], ids=["plaintext", "TLS"])
def under_attack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """A server with neighbours for all attacks one after the other; at the end it must hold what it held before."""
    tls = create_certificate(Path(tmp_path_factory.mktemp("tls"))) if request.param else None
    with campaign(NEIGHBOURS, each_s=0.5, tls=tls) as running:
        running.quiet(1.0)
        # What is kept of large pushes has its bound, and is there before.
        running.run("slow: reads nothing, big pushes wait", SECONDS)
        before = running.server.settle(lambda usage: usage.streams == NEIGHBOURS)
        yield running
        after = running.server.settle(lambda usage: usage.descriptors <= before.descriptors)
        final = running.quiet(1.5)
        assert (final.delays.silent, final.delays.lost) == (0, 0)
        assert (after.descriptors, after.connections, after.streams, after.tasks) == (
            before.descriptors,
            before.connections,
            before.streams,
            before.tasks,
        )
        # Other caches of what was read and sent have a bound, and are not full before.
        assert after.objects <= before.objects + 10_000
        assert after.malloc_bytes <= before.malloc_bytes + (16 << 20)


def check(result: Result, before_rss: int) -> None:
    assert result.delays.lost == 0, result
    growth_max = SHARED_GROWTH_MAX if result.name.startswith(SHARING) else RSS_GROWTH_MAX
    assert result.during.rss_max_bytes < before_rss + growth_max, result
    assert result.turn_units < TURN_UNITS_MAX, result


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_ends_and_neighbours_go_on(under_attack: Campaign, name: str, request: pytest.FixtureRequest) -> None:
    if under_attack.is_tls and name not in TLS_TOO:
        pytest.skip("within TLS it is the same")
    before = under_attack.server.usage().rss_bytes
    result = under_attack.run(name, SECONDS)
    assert result.outcomes.keys() <= ATTACKS[name].ends, result
    check(result, before)


@pytest.mark.informational
def test_thousand_neighbours_while_all_attack(capsys: pytest.CaptureFixture[str]) -> None:
    """Milliseconds of this machine: p99 and the longest, for each attack and for all at once."""
    with campaign(1000, each_s=1.0) as running, capsys.disabled():
        for result in (running.quiet(2.0), *(running.run(name, 2.0) for name in (*ATTACKS, ALL))):
            sys.stdout.write(f"\n{result}")
            assert result.delays.lost == 0
