"""Two instances under load: one is killed, PostgreSQL is away. `python -m bench.instances` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.instances import kills, outages
from bench.instances.cable import Cable
from bench.instances.crew import Crew
from tests.postgresql import Server, running

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SIZE, RATE = 20, 20.0


async def test_a_kill_loses_no_write_and_sends_nobody_what_it_holds(postgresql: Server, tmp_path: Path) -> None:
    crew = Crew(tmp_path, postgresql.new_store(), size=SIZE, rate=RATE)
    figures = await kills.play(crew, kills=2, load_s=1.0)
    assert figures["differences"] == []
    assert figures["sent_again"] == 0
    assert figures["acknowledged"] > 20
    assert [each["moved"] > 0 for each in figures["each"]] == [True, True]


async def test_while_postgresql_is_away_all_goes_on_but_writes(tmp_path: Path) -> None:
    with running() as server:
        async with Cable(server.port).laid() as cable:
            url = server.new_store().replace(f":{server.port}/", f":{cable.port}/")
            crew = Crew(tmp_path, url, size=SIZE, rate=RATE)
            # Longer than a write waits.
            figures = await outages.play(crew, server, cable, seconds=5.0)
    for way in ("stopped", "killed", "cut off"):
        of_way = figures[way]
        assert set(of_way["refused"]) == {"503"}, way
        assert (of_way["streams_lost"], of_way["sent_again"], of_way["differences"]) == (0, 0, []), way
