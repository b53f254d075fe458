"""The verdict of a run of churn: a leak is found, whatever pushes of megabytes are under way; nothing else is."""

from __future__ import annotations

import random

import pytest
from bench.slope import GROWTH_MAX_BYTES, grown

SAMPLES = 1700
LIMIT_MB = GROWTH_MAX_BYTES / 1e6


def run_of(leak_mb: float, *, warm_up_mb: float = 5.0, seed: int = 1) -> list[tuple[float, float]]:
    """Seconds and megabytes: caches that fill in the first minutes, and now and then pushes of two megabytes each."""
    dice = random.Random(seed)
    return [
        (
            float(at),
            60 + warm_up_mb * min(1.0, at / 300) + leak_mb * at / SAMPLES + 2.1 * dice.choice((0, 1, 1, 1, 2, 3)),
        )
        for at in range(SAMPLES)
    ]


@pytest.mark.gate
@pytest.mark.parametrize("seed", range(20))
def test_leak_is_told_from_what_is_under_way(seed: int) -> None:
    flat, level = grown(run_of(0.0, seed=seed))
    assert abs(flat) < LIMIT_MB / 4
    assert 64 < level < 68
    # Of a leak the three quarters after the warm-up are seen, between the lows of their first and last eighth.
    assert grown(run_of(4.0, seed=seed))[0] > LIMIT_MB


@pytest.mark.gate
@pytest.mark.parametrize("count", [1, 2, 5, 17, 40, 161])
def test_short_runs_have_a_verdict_too(count: int) -> None:
    assert grown(run_of(0.0, warm_up_mb=0.0)[:count])[1] > 0
