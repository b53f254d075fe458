"""Instances of an older revision are replaced by today's under load, one by one, and those by the older ones again.

In: a crew, a revision of this repository. Out: for each step who was served and what was refused; what was lost.
Never: an older compiled core; the older Python runs on today's.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.instances.crew import Crew
from tests.cli.running import PROGRAM

from kumafast import _core

LOAD_S = 3.0
_ROOT = Path(__file__).resolve().parents[2]
# Without the finder that an editable installation leaves, which leads to today's sources.
_BOOT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
from kumafast.cli.main import main
main()
"""


def older_program(revision: str, directory: Path) -> Sequence[str]:
    """How to run the kumafast of a revision; its sources are put into a directory."""
    archive = subprocess.run(["git", "archive", revision, "src"], cwd=_ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    core = Path(str(sys.modules[f"{_core.__name__}.selectors"].__file__)).parent
    for library in core.glob("*.so"):
        shutil.copy(library, directory / "src" / "kumafast" / "_core")
    return [sys.executable, "-c", _BOOT, str(directory / "src")]


async def play(crew: Crew, older: Sequence[str]) -> dict[str, Any]:
    """The figures of each step."""
    steps: dict[str, Any] = {}
    crew.program = older
    async with crew.running(), crew.loaded():
        steps["older alone"] = await _look(crew, is_today=False)
        for number, name in ((0, "today's beside the older"), (1, "today's alone")):
            await crew.replace(number, PROGRAM)
            steps[name] = await _look(crew, is_today=number == 1)
        for number, name in ((0, "the older beside today's"), (1, "the older alone again")):
            await crew.replace(number, older)
            steps[name] = await _look(crew, is_today=False)
    return {"proxies": crew.size, **steps}


async def _look(crew: Crew, *, is_today: bool) -> dict[str, Any]:
    """Load for a while; what was acknowledged is stored, has arrived, and is what today's would make of it."""
    crew.load.is_paused = False
    await asyncio.sleep(LOAD_S)
    await crew.quiet()
    lines = await crew.differences()
    refusals, crew.load.refusals = crew.load.refusals, []
    written, crew.load.counts = crew.load.counts["acknowledged"], Counter()
    return {
        "acknowledged": written,
        "refused": Counter(each.status for each in refusals),
        "lost": [line for line in lines if line.startswith("lost")],
        # What another revision makes of the same need not be the same.
        "differences": [line for line in lines if not line.startswith("lost")] if is_today else "not compared",
    }
