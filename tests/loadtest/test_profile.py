"""A flame graph names what a process does, until it is ended."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from loadtest.control_plane import end_profile, profile

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
