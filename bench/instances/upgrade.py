"""Instances of an older revision are replaced by today's under load, one by one, and those by the older ones again.

In: a crew; a revision of this repository, or `schema` for the newest that knows a version of PostgreSQL's schema less.
Out: for each step who was served, what was refused and what was lost, and which schema the database was at.
Never: an older compiled core; the older Python runs on today's.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from bench.instances.crew import WAIT_S, Crew
from bench.instances.pairs import spread
from tests.cli.running import PROGRAM

from kumafast import _core
from kumafast.store.postgres import connection as connections
from kumafast.store.postgres import schema

LOAD_S = 5.0
SCHEMA = "schema"
"""Instead of a revision: the newest that knows one version of the schema less than today's."""
_READ_S = 0.05
_ROOT = Path(__file__).resolve().parents[2]
_SCHEMA_FILE = "src/kumafast/store/postgres/schema.py"
# Without the finder that an editable installation leaves, which leads to today's sources.
_BOOT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
"""
_MAIN = "from kumafast.cli.main import main\nmain()\n"
_KNOWN = "from kumafast.store.postgres.schema import MIGRATIONS\nprint(MIGRATIONS[-1].version)\n"


def revision_of(base: str) -> str:
    """The commit that is upgraded from."""
    if base == SCHEMA:
        newest = f"version={schema.MIGRATIONS[-1].version},"
        commits = _git("log", "--format=%H", f"-S{newest}", "--", _SCHEMA_FILE).split()
        base = f"{commits[-1]}^"
    return _git("rev-parse", "--short", base).strip()


def older_sources(revision: str, directory: Path) -> Path:
    """The sources of a revision, beside today's core, in a directory."""
    archive = subprocess.run(["git", "archive", revision, "src"], cwd=_ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(directory, filter="data")
    core = Path(str(sys.modules[f"{_core.__name__}.selectors"].__file__)).parent
    for library in core.glob("*.so"):
        shutil.copy(library, directory / "src" / "kumafast" / "_core")
    return directory / "src"


async def play(crew: Crew, base: str, directory: Path) -> dict[str, Any]:
    """The figures of each step."""
    revision = revision_of(base)
    sources = older_sources(revision, directory)
    older = [sys.executable, "-c", _BOOT + _MAIN, str(sources)]
    known = subprocess.run(
        [sys.executable, "-c", _BOOT + _KNOWN, str(sources)], check=True, capture_output=True, text=True
    ).stdout
    steps: dict[str, Any] = {}
    crew.program = older
    async with crew.running(makes_tables=False), crew.loaded(), _reading(crew) as reads:
        steps["older alone"] = await _step(crew, reads)
        for number, name in ((0, "today's beside the older"), (1, "today's alone")):
            steps[name] = await _step(crew, reads, (number, PROGRAM), is_today=number == 1)
        for number, name in ((0, "the older beside today's"), (1, "the older alone again")):
            steps[name] = await _step(crew, reads, (number, older))
    schemas = {"older": int(known), "today": schema.MIGRATIONS[-1].version}
    return {"proxies": crew.size, "from": revision, "schema": schemas, "steps": steps}


async def _step(
    crew: Crew, reads: Counter[str], replaced: tuple[int, Sequence[str]] | None = None, *, is_today: bool = False
) -> dict[str, Any]:
    """Replace an instance under load, if any, and load for a while; what was acknowledged is stored then, has arrived,
    and is what today's would make of it."""
    reads.clear()
    crew.load.refusals.clear()
    await crew.witness.take()
    crew.load.is_paused = False
    written = crew.load.counts["acknowledged"]
    began = time.monotonic()
    lost = 0 if replaced is None else await crew.replace(*replaced)
    replaced_s = time.monotonic() - began
    await asyncio.sleep(LOAD_S)
    await crew.quiet()
    lost_writes = await crew.lost()
    # What another revision makes of the same need not be the same; and today's store brings the tables forward.
    differences = await crew.differences() if is_today else "not compared"
    stayed = None if replaced is None else 1 - replaced[0]
    seen, refused, _ = await crew.witness.take()
    return {
        "schema_held": await _held(crew.url),
        "replaced_s": round(replaced_s, 2),
        "acknowledged": crew.load.counts["acknowledged"] - written,
        "writes_refused": Counter(each.status for each in [*crew.load.refusals, *refused]),
        "reads": dict(reads),
        "streams_lost": lost,
        "push_s": spread([each.seconds for each in seen if stayed in (None, each.number)]),
        "lost": lost_writes,
        "differences": differences,
    }


@contextlib.asynccontextmanager
async def _reading(crew: Crew) -> AsyncIterator[Counter[str]]:
    """Read from all that are there, all the time; the statuses of the answers, or the errors."""
    statuses: Counter[str] = Counter()

    async def read() -> None:
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            while True:
                for api in crew.apis():
                    try:
                        response = await client.get(f"{api}/meshes/default/dataplanes?size=10")
                        statuses[str(response.status_code)] += 1
                    except (httpx.TransportError, AttributeError) as error:
                        # One that has left the list while it was asked may end before it answers.
                        statuses[type(error).__name__ if api in crew.apis() else "asked while it left"] += 1
                await asyncio.sleep(_READ_S)

    task = asyncio.create_task(read())
    try:
        yield statuses
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _held(url: str) -> int:
    """The version of the schema that the database is at."""
    connection = await connections.connect(connections.parse_url(url))
    try:
        return int(await connection.fetchval("SELECT version FROM head"))
    finally:
        await connections.disconnect(connection)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=_ROOT, check=True, capture_output=True, text=True).stdout
