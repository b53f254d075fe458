"""`kumafast run` as a process, for tests of the command.

In: a directory, flags. Out: its ready line, all that it says. Never: a process that outlives its test's fixture.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

PORTS = ("--api-port", "0", "--dp-port", "0", "--diagnostics-port", "0")


PROGRAM = (sys.executable, "-m", "kumafast")


def arguments(directory: Path, *flags: object, program: Sequence[str] = PROGRAM) -> list[str]:
    """The command with its data in `data` of a directory, on free ports."""
    return [*program, "run", "--data-dir", str(directory / "data"), *PORTS, *map(str, flags)]


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of this process without those of kumafast, and others."""
    return {**{key: value for key, value in os.environ.items() if not key.startswith("KUMAFAST_")}, **(env or {})}


class Run:
    """`kumafast run` as a process; `stderr` is all that it has said there once it has ended."""

    def __init__(
        self,
        directory: Path,
        *flags: object,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.process = subprocess.Popen(
            arguments(directory, *flags, program=program),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(env),
        )
        self.stderr = ""
        # Read beside: a full pipe would stop it.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        if not self.ready.startswith("ready"):
            self.stop()
            pytest.fail(self.stderr)
        self.api = self.ready.split()[1].removeprefix("api=")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr += line

    def wait_for(self, text: str) -> None:
        """Wait until it has said something on stderr, which is read beside."""
        deadline = time.monotonic() + 10
        while text not in self.stderr:
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.01)

    def stop(self) -> str:
        """End it; all that it has said on stderr."""
        self.process.terminate()
        self.process.wait(20)
        self._reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return self.stderr
