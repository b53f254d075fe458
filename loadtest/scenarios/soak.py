"""Everything comes and goes for a long time: endpoints, sidecars, streams, policies, meshes, readers. Nothing may grow.

Where the other scenarios end with a comparison, this has a verdict besides: the slopes of what the server holds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import gevent
from bench.slope import WARM_UP
from loadtest.stage import Stage

NEW_ENVOY_EACH_S = 1.0
CUT_EACH_S, CUT_SHARE = 5.0, 0.01
POLICY_EACH_S, MESH_EACH_S, READ_EACH_S = 30.0, 10.0, 5.0
AWAY_MAX = 500
HURRY = 3
"""How many times as often everything happens at first. What fills by chance (who was moved once, the busiest moment of
an allocator) is near its bound after as many changes as are judged afterwards, and no longer rises then. What each
change leaves behind rises all the same."""
HURRY_SHARE = 0.8 * WARM_UP
"""Of the time: the rest of the warm-up goes at the pace that is judged."""


def play(stage: Stage) -> None:
    dice = random.Random(0)
    hurried_s = HURRY_SHARE * stage.plan.seconds
    hurry_until = time.monotonic() + hurried_s
    until = time.monotonic() + stage.plan.seconds

    def each(seconds: float, happen: Callable[[int], None]) -> gevent.Greenlet:
        def repeat() -> None:
            number = 0
            while time.monotonic() + seconds < until:
                gevent.sleep(seconds / HURRY if time.monotonic() < hurry_until else seconds)
                happen(number)
                number += 1

        return gevent.spawn(repeat)

    def replace(_: int) -> None:
        number = dice.randrange(stage.plan.users)
        stage.leave([number])
        stage.come_back([number])

    def cut(_: int) -> None:
        stage.cut(dice.sample(range(stage.plan.users), max(1, int(CUT_SHARE * stage.plan.users))))

    def make_mesh(number: int) -> None:
        # Without an authority: its keys would be sealed, and the comparison has none to open them.
        name = f"soak-{number}"
        stage.request("PUT", f"/meshes/{name}", {"type": "Mesh", "name": name})
        stage.request("DELETE", f"/meshes/{name}")

    with stage.phase("soak"):
        # Of each proxy the newest stream that has ended is remembered. By chance the last of them would have one only
        # after half an hour: what has a bound is to be full before anything is judged. Not all at once, for of more
        # than a thousand that are away the first are forgotten.
        for start in range(0, stage.plan.users, AWAY_MAX):
            stage.cut(range(start, min(start + AWAY_MAX, stage.plan.users)))
            # Until their ends are seen they would count as back.
            gevent.sleep(1.0)
            stage.all_back()
        beside = [
            each(NEW_ENVOY_EACH_S, replace),
            each(CUT_EACH_S, cut),
            each(POLICY_EACH_S, lambda _: stage.write_and_wait(stage.changes.policy_for_all())),
            each(MESH_EACH_S, make_mesh),
            each(READ_EACH_S, lambda _: stage.request("GET", "/meshes/default/dataplanes+insights?size=1000")),
        ]
        changes = iter(stage.changes)
        stage.write_steadily(changes, rate=HURRY * stage.plan.rate, seconds=hurried_s)
        stage.write_steadily(changes, rate=stage.plan.rate, seconds=stage.plan.seconds - hurried_s)
        gevent.joinall(beside, raise_error=True)
        stage.all_back()
