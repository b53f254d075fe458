"""Every stream ends at once, then the control plane dies: all come back at once, and are sent what they lack alone."""

from __future__ import annotations

from loadtest.stage import Stage


def play(stage: Stage) -> None:
    with stage.phase("all streams cut"):
        stage.cut()
        stage.all_back()
    with stage.phase("a change after that"):
        stage.write(stage.changes.add("extra-cut", "service-00000"))
    with stage.phase("control plane killed"):
        # Durable when it is answered, and hardly on any wire when the process ends.
        stage.write(stage.changes.add("extra-killed", "service-00001"))
        stage.kill_control_plane()
        stage.all_back()
    with stage.phase("a change after its return"):
        stage.write(stage.changes.add("extra-return", "service-00002"))
