"""A mesh on an ordinary day: endpoints come, move and go, some sidecars move, now and then somebody edits a policy."""

from __future__ import annotations

from loadtest.stage import Stage


def play(stage: Stage) -> None:
    with stage.phase("steady"):
        stage.write_steadily(iter(stage.changes), rate=stage.plan.rate, seconds=stage.plan.seconds)
