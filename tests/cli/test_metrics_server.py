"""The process beside an Envoy: it answers while Envoy lives, and ends with it however that ends."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

DEADLINE_S = 30.0

# Becomes a program that stands for Envoy, as the launcher does.
_LAUNCHER = """
import os, sys
from kumafast.cli import metrics_server
folder = sys.argv[1]
metrics_server.start(
    metrics_socket=f"{folder}/metrics.sock",
    config_socket=f"{folder}/config.sock",
    admin={"pipe": {"path": f"{folder}/admin.sock"}},
)
os.execv("/bin/sleep", ["sleep", "600"])
"""


def wait_until(condition: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends, f"timed out waiting until {what}"
        time.sleep(0.02)


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", _LAUNCHER, str(tmp_path)])
    wait_until((tmp_path / "metrics.sock").exists, "it listens")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_envoy(envoy: subprocess.Popen[bytes], how: signal.Signals, tmp_path: Path) -> None:
    envoy.send_signal(how)
    wait_until(lambda: not (tmp_path / "metrics.sock").exists(), "it has ended")


def test_it_ends_with_envoy_after_it_was_asked(envoy: subprocess.Popen[bytes], tmp_path: Path) -> None:
    socket = tmp_path / "metrics.sock"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=DEADLINE_S) as client:
        # Nobody has said what to publish.
        assert client.get("http://it/meshmetric").status_code == 503
        assert client.get("http://it/other").status_code == 404
    envoy.kill()
    wait_until(lambda: not socket.exists(), "it has ended")
