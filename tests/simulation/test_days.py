"""Hours of several instances in virtual time; `python -m tests.simulation.days` plays days."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from tests.simulation import days, virtual_time
from tests.simulation.cluster import Cluster
from tests.simulation.virtual_time import StuckError, VirtualLoop, WallClock

from kumafast import certificates
from kumafast.store import Commit

SEEDS = range(100, 103)
HOURS = 1.5


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Instances complain of PostgreSQL some thousand times."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_all_that_fails_all_is_as_it_should_be(seed: int) -> None:
    outcome = days.play(seed, hours=HOURS)
    assert outcome.faults == []
    assert outcome.counts["written"] > 20
    # Somebody was killed, cut off, or set by years at least a few times.
    assert sum(outcome.counts[name] for name, _ in days.FAILURES) > 3


def test_the_same_seed_is_the_same_history_and_another_is_another() -> None:
    first, second, other = (days.play(seed, hours=0.3) for seed in (1, 1, 2))
    assert (first.digest, first.counts) == (second.digest, second.counts)
    assert first.digest != other.digest


def test_a_write_that_is_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Cluster.apply

    def forget(self: Cluster, commits: Sequence[Commit], origin: str) -> None:
        kept = [
            replace(commit, changes=tuple(change for change in commit.changes if change.key.type != "MeshTimeout"))
            for commit in commits
        ]
        apply(self, kept, origin)

    monkeypatch.setattr(Cluster, "apply", forget)
    faults = days.play(0, hours=0.3).faults
    assert any("is lost, or made up" in fault for fault in faults), faults


def test_a_timer_that_storms_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def storm(_: days.World) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.5
        while loop.time() < until:
            await asyncio.sleep(0.00001)

    monkeypatch.setattr(days, "FAILURES", [("storms", storm)])
    assert any("turns in one second" in fault for fault in days.play(0, hours=0.3).faults)


@pytest.mark.parametrize(("leap_s", "is_renewed"), [(60.0, False), (-60.0, False), (days.YEAR_S, True)])
def test_a_clock_that_is_set_there_and_back_renews_once_what_is_of_another_time(
    leap_s: float, is_renewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(days, "FAILURES", [("clocks set", days.World.jump)])
    monkeypatch.setattr(days, "LEAPS_S", (leap_s,))
    outcome = days.play(4, hours=1.5)
    assert outcome.faults == []
    assert outcome.counts["leaps"] > 4
    renewed = outcome.counts["certificates"] - outcome.counts["streams"]
    # And some whose time has come meanwhile: a period has 16 hours, of which 1.5 pass.
    assert renewed <= outcome.counts["overdue after leaps"] + days.PROXIES // 2
    assert (renewed > outcome.counts["leaps"]) == is_renewed


def test_certificates_that_leaps_make_for_nothing_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(days, "FAILURES", [("clocks set", days.World.jump)])
    monkeypatch.setattr(days, "LEAPS_S", (days.HOUR_S,))
    # As if each hour needed one.
    monkeypatch.setattr(certificates, "period_at", lambda *_, now, **__: int(now.timestamp() // 3600))
    faults = days.play(4, hours=1.0).faults
    assert any("certificates, " in fault and "'s clock was set by" in fault for fault in faults), faults


def test_time_passes_when_there_is_nothing_to_do() -> None:
    async def main(loop: VirtualLoop) -> list[tuple[float, str]]:
        seen: list[tuple[float, str]] = []
        clock = WallClock(loop.time, start=1000.0)

        async def note(after_s: float, what: str) -> None:
            await asyncio.sleep(after_s)
            seen.append((loop.time(), what))

        await asyncio.gather(note(86_400.0, "a day"), note(0.5, "half a second"), note(1e6, "eleven days"))
        clock.jump(-500)
        assert clock() == 500 + loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return seen

    assert virtual_time.run(main) == [(0.5, "half a second"), (86_400.0, "a day"), (1e6, "eleven days")]


def test_who_waits_for_nothing_is_told() -> None:
    async def main(_: VirtualLoop) -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError):
        virtual_time.run(main)
