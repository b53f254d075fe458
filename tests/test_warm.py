"""A child that has its modules already is as one that was started by itself."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.cli.running import environment
from tests.warm import Warm

from kumafast import __version__


def started(directory: Path, *arguments: str, env: dict[str, str] | None = None) -> Warm:
    with (directory / "errors").open("ab") as errors:
        return Warm(arguments, stderr=errors, env=environment(env))


def read(child: Warm) -> str:
    assert child.stdout is not None
    with child.stdout as output:
        return output.read()


def test_output_and_exit_code_are_its_own(tmp_path: Path) -> None:
    one, other = started(tmp_path, "--version"), started(tmp_path, "nonsense")
    assert (read(one), one.wait(20), one.poll()) == (f"kumafast {__version__}\n", 0, 0)
    assert (read(other), other.wait(20)) == ("", 2)
    errors = (tmp_path / "errors").read_text()
    assert "No such command 'nonsense'" in errors
    assert "Usage: python -m kumafast" in errors


def test_variables_and_directory_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = started(tmp_path, "run", env={"KUMAFAST_API_PORT": "x"})
    assert (read(refused), refused.wait(20)) == ("", 2)
    assert "KUMAFAST_API_PORT" in (tmp_path / "errors").read_text()
    monkeypatch.chdir(tmp_path)
    ports = ("--api-port", "0", "--dp-port", "0", "--diagnostics-port", "0")
    child = started(tmp_path, "run", "--data-dir", "here", *ports)
    assert child.stdout is not None
    assert child.stdout.readline().startswith("ready api=")
    assert (tmp_path / "here").is_dir()
    assert os.readlink(f"/proc/{child.pid}/cwd") == str(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    child.terminate()
    assert (child.wait(20), read(child)) == (0, "")


def test_a_signal_is_an_exit_code_below_zero(tmp_path: Path) -> None:
    child = started(tmp_path, "run", "--data-dir", str(tmp_path / "data"), "--api-port", "0", "--dp-port", "0")
    child.kill()
    assert child.wait(20) == -signal.SIGKILL
    # Nobody is hit who has its id now.
    child.terminate()
    read(child)
