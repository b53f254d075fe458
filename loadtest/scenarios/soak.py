"""Everything comes and goes for a long time: endpoints, sidecars, streams, policies, meshes, readers. Nothing may grow.

Where the other scenarios end with a comparison, this has a verdict besides: the slopes of what the server holds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import gevent
from loadtest.stage import Stage

NEW_ENVOY_EACH_S = 1.0
CUT_EACH_S, CUT_SHARE = 5.0, 0.01
POLICY_EACH_S, MESH_EACH_S, READ_EACH_S = 30.0, 10.0, 5.0


def play(stage: Stage) -> None:
    dice = random.Random(0)
    until = time.monotonic() + stage.plan.seconds

    def each(seconds: float, happen: Callable[[int], None]) -> gevent.Greenlet:
        def repeat() -> None:
            number = 0
            while time.monotonic() + seconds < until:
                gevent.sleep(seconds)
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
        # after half an hour: what has a bound is to be full before anything is judged.
        stage.cut()
        stage.all_back()
        beside = [
            each(NEW_ENVOY_EACH_S, replace),
            each(CUT_EACH_S, cut),
            each(POLICY_EACH_S, lambda _: stage.write_and_wait(stage.changes.policy_for_all())),
            each(MESH_EACH_S, make_mesh),
            each(READ_EACH_S, lambda _: stage.request("GET", "/meshes/default/dataplanes+insights?size=1000")),
        ]
        stage.write_steadily(iter(stage.changes), rate=stage.plan.rate, seconds=stage.plan.seconds)
        gevent.joinall(beside, raise_error=True)
        stage.all_back()
