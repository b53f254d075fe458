"""Many people edit policies at once: of one service each, and again and again one that every sidecar shows."""

from __future__ import annotations

import gevent
from loadtest.stage import Stage

FOR_ALL = 6
"""Policies for everybody in a run; each is made when the one before is everywhere, or two may go out as one."""


def play(stage: Stage) -> None:
    def edit_for_all() -> None:
        for _ in range(FOR_ALL):
            stage.write_and_wait(stage.changes.policy_for_all())
            gevent.sleep(stage.plan.seconds / FOR_ALL)

    with stage.phase("policy storm"):
        editing = gevent.spawn(edit_for_all)
        stage.write_steadily(stage.changes.policies(), rate=stage.plan.rate, seconds=stage.plan.seconds)
        editing.get()
