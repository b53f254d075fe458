"""What it costs when Envoys report again that all is as it was: CPU of the server for each report, and idle beside it.

200 connections with a stream each say the same again and again. `test_health_cost.py` reports it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from tests.attack.foe import Foe, Target, data
from tests.attack.health_attacks import PATH, asking, report
from tests.attack.victim import Setup, victim

ENVOYS = 200
ROUNDS = 100
_IDLE_S = 3.0


def measure() -> float:
    """Microseconds of the server's processor for each report, what it takes beside them left out."""
    with victim(Setup(nodes=0)) as server, ExitStack() as ending:
        target = Target(server.port, time.monotonic() + 60)
        foes = [ending.enter_context(Foe(target)) for _ in range(ENVOYS)]
        message = data(report(["localhost:80", "kuma:envoy:admin"], is_well=True))
        for number, foe in enumerate(foes):
            foe.ask(PATH, asking(f"default.w{number}"))
        # The first of each stream is read; those after it are compared.
        for _ in range(2):
            _say(foes, message)
        began = server.usage()
        time.sleep(_IDLE_S)
        idle_share = (server.usage().cpu_s - began.cpu_s) / _IDLE_S
        before, started = server.usage(), time.monotonic()
        for _ in range(ROUNDS):
            _say(foes, message)
        seconds = time.monotonic() - started
        spent = server.usage().cpu_s - before.cpu_s - idle_share * seconds
        assert {foe.outcome(0.0) for foe in foes} == {"open"}
    return 1e6 * spent / (ROUNDS * ENVOYS)


def _say(foes: Sequence[Foe], message: bytes) -> None:
    for foe in foes:
        foe.send(message)
    time.sleep(0.02)
