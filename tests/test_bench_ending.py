"""A long command that is ended: by Ctrl-C and by SIGTERM it leaves nobody behind, and says what was kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bench.document import ROOT

# It says that it is there, then waits; a child of its own waits too.
_LONG = """
import subprocess, sys, tempfile, time
from bench import ending
with ending.early(lambda: "one part"), tempfile.TemporaryDirectory() as folder:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    try:
        print(child.pid, folder, flush=True)
        time.sleep(120)
    finally:
        child.terminate()
        child.wait()
"""


def _started(*command: str) -> subprocess.Popen[str]:
    def listen() -> None:
        # Where nobody may interrupt the tests, as in the background of a shell, this one may be.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_says_what_was_kept_and_leaves_nothing(number: signal.Signals, code: int) -> None:
    with _started("-c", _LONG) as long:
        assert long.stdout is not None
        pid, folder = long.stdout.readline().split()
        long.send_signal(number)
        _, said = long.communicate(timeout=60)
    assert (long.returncode, said) == (code, "\nended early: one part\n")
    assert not psutil.pid_exists(int(pid))
    assert not Path(folder).exists()


def test_sigterm_ends_it_where_ctrl_c_is_for_others() -> None:
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + _LONG
    with _started("-c", ignoring) as long:
        assert long.stdout is not None
        pid, folder = long.stdout.readline().split()
        long.send_signal(signal.SIGTERM)
        _, said = long.communicate(timeout=60)
    assert (long.returncode, said) == (143, "\nended early: one part\n")
    assert not psutil.pid_exists(int(pid))
    assert not Path(folder).exists()


def test_another_exit_is_left_alone() -> None:
    program = "from bench import ending\nwith ending.early(): raise SystemExit(7)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")


def test_a_benchmark_that_is_ended_has_its_part_tidy_up(tmp_path: Path) -> None:
    results = tmp_path / "results"
    with _started("-m", "bench", "--parts", "envoys", "--output", str(results)) as bench:
        part = _below(bench.pid, "bench.real_wires")
        server = _below(bench.pid, "kumafast")
        folder = Path(server.cmdline()[server.cmdline().index("--data-dir") + 1]).parent
        bench.send_signal(signal.SIGINT)
        _, said = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert "ended early: no part was done" in said
    assert not part.is_running()
    assert not server.is_running()
    assert not folder.exists()
    assert list(results.iterdir()) == []


def _below(pid: int, module: str) -> psutil.Process:
    """The process of a module that another has started, once it is there and has told its parent so."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for each in psutil.Process(pid).children(recursive=True):
            if module in each.cmdline():
                return each
        time.sleep(0.05)
    raise AssertionError(f"nobody runs {module}")
