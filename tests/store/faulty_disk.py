"""A disk that fails on command, under a process of its own (faulty_disk.c).

In: the files that are on it, what is to fail. Out: variables for the process, and how often something has failed.
Never: a file beside these, or another process.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import mmap
import os
import struct
import subprocess
import tempfile
from enum import IntEnum, IntFlag
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_LAYOUT = struct.Struct("6i")


class Kind(IntFlag):
    """Which calls are meant."""

    READ = 1
    WRITE = 2
    SYNC = 4
    OPEN = 8


class Action(IntEnum):
    """What becomes of them."""

    NOTHING = 0
    FAIL = 1
    KILL = 2
    POWER_CUT = 3
    """What was not synced is lost, and the process dies."""


class FaultyDisk:
    """Fails for whoever was started with its `environment`."""

    def __init__(self, folder: Path, files: Path) -> None:
        """`folder` is for the disk's own file; `files` is what the paths of those that fail begin with."""
        control = folder / "faulty-disk"
        control.write_bytes(bytes(_LAYOUT.size))
        with control.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), _LAYOUT.size)
        self.environment = {
            "LD_PRELOAD": str(_library()),
            "KUMAFAST_DISK": str(control),
            "KUMAFAST_DISK_FILES": str(files),
        }

    def fail(self, kinds: Kind, *, error: int = errno.EIO, after: int = 0, action: Action = Action.FAIL) -> None:
        """From now on, once so many calls of these kinds have passed."""
        calls, failures = self.calls, self.failures
        self._control[:] = _LAYOUT.pack(Action.NOTHING, error, kinds, after, calls, failures)
        self._control[: struct.calcsize("i")] = struct.pack("i", action)

    def mend(self) -> None:
        """Fail no more."""
        self._control[: struct.calcsize("i")] = struct.pack("i", Action.NOTHING)

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return int(_LAYOUT.unpack(self._control[:])[4])

    @property
    def failures(self) -> int:
        """How many of them have failed."""
        return int(_LAYOUT.unpack(self._control[:])[5])


@functools.cache
def _library() -> Path:
    """The compiled C, made once for each version of it."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"kumafast-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"faulty_disk-{digest}.so"
    if not library.exists():
        made = library.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["cc", "-O1", "-shared", "-fPIC", "-o", str(made), str(_SOURCE), "-ldl", "-lpthread"], check=True
        )
        made.rename(library)
    return library
