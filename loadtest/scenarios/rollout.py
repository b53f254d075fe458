"""A rolling deploy of 100 services, ten at a time: an instance goes, its dataplane moves, a new Envoy comes.

The next instance of a service follows a moment later, as fast as the plan's seconds want it.
"""

from __future__ import annotations

import gevent
from bench.regular_mesh import PER_SERVICE
from gevent.pool import Pool
from loadtest.stage import Stage

SERVICES, AT_A_TIME = 100, 10


def play(stage: Stage) -> None:
    services = min(SERVICES, stage.services)
    at_a_time = min(AT_A_TIME, services)
    pause_s = stage.plan.seconds * at_a_time / (services * PER_SERVICE)

    def deploy(service: int) -> None:
        for number in stage.instances(service):
            stage.leave([number])
            stage.write(stage.changes.move(number, kind="instance"))
            stage.come_back([number])
            gevent.sleep(pause_s)

    with stage.phase("rollout"):
        pool = Pool(at_a_time)
        for service in range(services):
            pool.spawn(deploy, service)
        pool.join(raise_error=True)
        stage.all_back()
