"""A flame graph names what a process does, until it is ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import psutil
import pytest
from loadtest.control_plane import WatchedControlPlane, end_profile, profile
from loadtest.crew import Crew
from loadtest.plan import Plan
from loadtest.stage import Stage

pytestmark = pytest.mark.slow

BUSY = """
import time
def burn_for_a_while():
    until = time.monotonic() + 60
    while time.monotonic() < until:
        pass
print("begun", flush=True)
burn_for_a_while()
"""


def test_flame_graph_has_the_functions_of_the_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as busy:
        try:
            assert busy.stdout is not None
            assert busy.stdout.readline() == "begun\n"
            profiler = profile(busy.pid, tmp_path / "made" / "flame.svg")
            # As long as it samples it runs; one that may not trace another process ends at once.
            time.sleep(3)
            if profiler.poll() is not None:
                pytest.skip("no right to trace a process")
            end_profile(profiler)
        finally:
            busy.kill()
    assert "burn_for_a_while" in (tmp_path / "made" / "flame.svg").read_text()


def test_what_is_measured_is_a_process_of_its_own(tmp_path: Path) -> None:
    with WatchedControlPlane(tmp_path, users=50, tls="none").running() as control_plane:
        started = psutil.Process(int(control_plane.pid_file.read_text(encoding="ascii")))
        assert started.cmdline()[1:4] == ["-m", "kumafast", "run"]


# It writes down, when it is ended, whether the process that it looks at is still there.
PROFILER = """
import os, signal, sys
looked_at, path = int(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("begun", flush=True)
    signal.pause()
except KeyboardInterrupt:
    os.kill(looked_at, 0)
    open(path, "w").write("there")
"""


def test_a_control_plane_is_killed_once_its_profiler_looks_no_more(tmp_path: Path) -> None:
    plan = Plan("reconnect-storm", 50, 1, 1.0, 1.0, "http://127.0.0.1:1", "", "127.0.0.1", 1, directory=str(tmp_path))
    said = tmp_path / "said"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as control_plane:
        try:
            command = [sys.executable, "-c", PROFILER, str(control_plane.pid), str(said)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as profiler:
                assert profiler.stdout is not None
                assert profiler.stdout.readline() == "begun\n"
                plan.pid_file.write_text(str(control_plane.pid), encoding="ascii")
                plan.profiler_file.write_text(str(profiler.pid), encoding="ascii")
                stage = Stage(plan, cast(Crew, None))
                stage.kill_control_plane()
            assert control_plane.wait(60) == -9
            assert (profiler.returncode, said.read_text(encoding="utf-8")) == (0, "there")
            # Its successor has no profiler.
            assert not plan.profiler_file.exists()
        finally:
            control_plane.kill()
