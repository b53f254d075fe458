"""What a process has acknowledged outlives its death, wherever in its work on a file it dies."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from tests.store.crashes import sqlite_points, sqlite_rounds

pytestmark = pytest.mark.anyio

ROUNDS = int(os.environ.get("KUMAFAST_CRASH_ROUNDS", "1"))
"""At each point, on each side of it; `python -m tests.store.crashes` is the longer look, at both back ends."""


@pytest.mark.slow
async def test_a_kill_loses_nothing_and_makes_up_nothing(tmp_path: Path) -> None:
    chance = random.Random(11)
    with sqlite_rounds(tmp_path) as rounds:
        for number in range(ROUNDS):
            for point, when in sqlite_points():
                result = await rounds.one(point, when, number=number, chance=chance)
                assert not result.broken
    assert len(rounds.history.acknowledged) > 100 * ROUNDS
