"""A zone is gone: three of each service's ten instances at once. Whoever runs it takes its dataplanes away; it returns.

All Envoys of the zone lose their streams in one moment; their dataplanes are deleted as fast as the control plane takes
it. Then they come back at other addresses, with new Envoys that hold nothing.
"""

from __future__ import annotations

import gevent
from loadtest.stage import Stage

OF_EACH_SERVICE = 3


def play(stage: Stage) -> None:
    zone = [number for service in range(stage.services) for number in stage.instances(service)[:OF_EACH_SERVICE]]
    with stage.phase("zone lost"):
        stage.leave(zone)
        stage.write_all(stage.changes.lose(number) for number in zone)
        stage.all_arrived()
        stage.all_back()
    gevent.sleep(min(2.0, stage.plan.seconds))
    with stage.phase("zone back"):
        stage.write_all(stage.changes.move(number, kind="come back") for number in zone)
        stage.come_back(zone)
        stage.all_back()
