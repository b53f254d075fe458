"""A store's process is killed again and again: what was acknowledged is there afterwards, and nothing else.

In: a store, a point of its work. Out: every promise that was broken, in words. Never: a death that is not a real one.

`python -m tests.store.crashes --rounds 300` does so often on a file and in a PostgreSQL of its own, at all points.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.postgresql import running
from tests.store import kinds
from tests.store.faulty_disk import Action, FaultyDisk, Kind

from kumafast.errors import CompactedError
from kumafast.store import Commit, Store, transfer

SQLITE_POINTS = ("begin", "half", "commit", "announce", "wake", "forget", "checkpoint", "create", "renew")
SQLITE_DISK_POINTS = {"write": (Kind.WRITE, 200), "sync": (Kind.SYNC, 40), "power cut": (Kind.WRITE | Kind.SYNC, 200)}
"""Inside of SQLite, at any call of a kind, of which each process makes more than so many: in the middle of a
transaction, of moving its log into the file, of opening it."""
POSTGRES_POINTS = ("lock", "append", "commit", "notify", "forget")
WRITES = 200
ROUNDS_OF_ONE = 42
"""After so many deaths another store begins, so that a look at what is left does not take longer and longer."""


@dataclass
class Dead:
    """What a process said until it died."""

    status: int
    opened_at: int | None = None
    begun: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    seen: list[int] = field(default_factory=list)
    failed: str = ""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """From `dying`'s answer."""
        dead = cls(answer["status"])
        for line in answer["said"]:
            word, _, rest = line.partition(" ")
            match word:
                case "opened":
                    dead.opened_at = int(rest)
                case "begun":
                    dead.begun.add(rest)
                case "done":
                    dead.acknowledged.add(rest)
                case "refused":
                    dead.refused.add(rest)
                case "seen":
                    dead.seen.append(int(rest))
                case _:
                    dead.failed = rest
        return dead


class Dying:
    """Where processes come from that die as they are told."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.store.dying"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
            env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def die(self, url: str, *, prefix: str, point: str, when: str, after: int, writes: int = WRITES) -> Dead:
        """One process from its start to its end."""
        request = {
            "url": url, "prefix": prefix, "point": point, "when": when, "after": after, "writes": writes
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Dead.of(json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@dataclass
class History:
    """All that was ever said of one store."""

    begun: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def add(self, dead: Dead, prefix: str) -> None:
        """What another process has said."""
        self.begun |= dead.begun | {f"{prefix}-first"}
        self.acknowledged |= dead.acknowledged
        self.refused |= dead.refused

    def broken(self, held: Mapping[str, int]) -> Iterator[str]:
        """What does not fit to names and revisions that are stored."""
        if lost := self.acknowledged - held.keys():
            yield f"acknowledged and lost: {sorted(lost)[:5]}"
        names = {name.removesuffix("-twin") for name in held}
        if phantom := names - self.begun:
            yield f"never begun, and there: {sorted(phantom)[:5]}"
        if phantom := self.refused & names:
            yield f"refused, and there: {sorted(phantom)[:5]}"
        if halves := [name for name in names if held.get(name) != held.get(name + "-twin")]:
            yield f"half there: {sorted(halves)[:5]}"


async def broken_after(url: str, history: History, dead: Dead) -> list[str]:
    """Everything that is not as it was promised, after a death."""
    contents = await transfer.read(url)
    broken = contents.faults(kinds.decode)
    store = await _open(url)
    try:
        things = (await store.list("Thing")).items
        held = {stored.resource.name: stored.revision for stored in things}
        broken += history.broken(held)
        first = dead.opened_at or 0
        if dead.seen != list(range(first + 1, first + 1 + len(dead.seen))):
            broken.append(f"its watch was not in order: {dead.seen}")
        last = dead.seen[-1] if dead.seen else first
        if await store.revision() < last:
            broken.append(f"revision {last} was seen, and the store is at {await store.revision()}")
        else:
            broken += await _resumes(store, last, floor=contents.floor)
    finally:
        await store.close()
    return broken


async def _resumes(store: Store, after: int, *, floor: int) -> list[str]:
    """Whether a watch goes on where the dead one ended."""
    newest = await store.revision()
    found: list[Commit] = []
    watch = store.watch(after=after)
    try:
        async with asyncio.timeout(20):
            while len(found) < newest - after:
                found.append(await anext(watch))
    except CompactedError:
        return [] if after < floor else [f"a watch after {after} is told to list again, with a floor of {floor}"]
    if [commit.revision for commit in found] != list(range(after + 1, newest + 1)):
        return [f"a watch after {after} has gaps: {[commit.revision for commit in found]}"]
    told = {change.key.name for commit in found for change in commit.changes if change.stored is not None}
    new = {stored.resource.name for stored in (await store.list("Thing")).items if stored.revision > after}
    return [] if new <= told else [f"a watch after {after} does not tell {sorted(new - told)[:5]}"]


async def _open(url: str) -> Store:
    if url.startswith("sqlite:"):
        return await kinds.open_sqlite(Path(url.removeprefix("sqlite:")))
    return await kinds.open_postgres(url)


@dataclass
class Result:
    """What came of a number of deaths."""

    deaths: int = 0
    acknowledged: int = 0
    broken: list[str] = field(default_factory=list)


class Rounds:
    """Deaths at one point of one store, one after the other."""

    def __init__(self, dying: Dying, folder: Path, url: str, *, disk: FaultyDisk | None = None) -> None:
        self._dying = dying
        self._folder = folder
        self._url = url
        self._disk = disk
        self.history = History()

    def begin(self, url: str) -> None:
        """Go on with another store."""
        self._url, self.history = url, History()

    async def one(
        self, point: str, when: str, *, number: int, chance: random.Random, beside: asyncio.Task[None] | None = None
    ) -> Result:
        """One death at a point, and a look at what it left; whoever writes `beside` is stopped in between."""
        url, prefix, history = self._url, f"{point.replace(' ', '')}-{when}-{number}", self.history
        if point == "create":
            # Only at the very first start.
            url, history = f"sqlite:{self._folder}/{prefix}.db", History()
        at = chance.randrange(2, 12)
        if point in {"create", "renew", "checkpoint"}:
            at = chance.randrange({"create": 3, "renew": 1, "checkpoint": 4}[point])
        if point in SQLITE_DISK_POINTS:
            assert self._disk is not None
            kind, calls = SQLITE_DISK_POINTS[point]
            action = Action.POWER_CUT if point == "power cut" else Action.KILL
            self._disk.fail(kind, action=action, after=chance.randrange(calls))
        dead = await asyncio.to_thread(self._dying.die, url, prefix=prefix, point=point, when=when, after=at)
        if self._disk is not None:
            self._disk.mend()
        if beside is not None:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)
        history.add(dead, prefix)
        broken = [f"it did not die at {point}: {dead.status} {dead.failed}"] if dead.status != -9 else []
        broken += await broken_after(url, history, dead)
        return Result(1, len(dead.acknowledged), [f"{point} {when} {number}: {words}" for words in broken])


@contextmanager
def sqlite_rounds(folder: Path) -> Iterator[Rounds]:
    """Rounds on a file, on a disk that can end its process too."""
    disk = FaultyDisk(folder, folder / "crash")
    with Dying(disk.environment) as dying:
        yield Rounds(dying, folder / "crash", f"sqlite:{folder}/crash/store.db", disk=disk)


def sqlite_points() -> list[tuple[str, str]]:
    """Every point with both of its sides, and those on the disk."""
    both = [(point, when) for point in SQLITE_POINTS for when in ("before", "after")]
    return [*both, *((point, "during") for point in SQLITE_DISK_POINTS)]


async def _many(
    rounds: Rounds, points: list[tuple[str, str]], count: int, *, seed: int, new_url: Callable[[], str]
) -> Result:
    chance, total = random.Random(seed), Result()
    for number in range(count):
        if number % ROUNDS_OF_ONE == 0:
            rounds.begin(new_url())
        point, when = points[number % len(points)]
        result = await rounds.one(point, when, number=number, chance=chance)
        total.deaths += result.deaths
        total.acknowledged += result.acknowledged
        total.broken += result.broken
    return total


def main() -> int:
    """Print one line for each back end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=300, help="deaths on each back end")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sqlite_rounds(Path(folder)) as rounds:
        numbers = itertools.count()
        many = _many(
            rounds, sqlite_points(), given.rounds, seed=given.seed,
            new_url=lambda: f"sqlite:{folder}/crash/store-{next(numbers)}.db",
        )  # fmt: skip
        in_file = asyncio.run(many)
    _print("sqlite", in_file)
    with tempfile.TemporaryDirectory() as folder, running() as server, Dying() as dying:
        rounds = Rounds(dying, Path(folder), server.new_store())
        points = [(point, when) for point in POSTGRES_POINTS for when in ("before", "after")]
        in_postgresql = asyncio.run(_many(rounds, points, given.rounds, seed=given.seed, new_url=server.new_store))
    _print("postgres", in_postgresql)
    return 1 if in_file.broken or in_postgresql.broken else 0


def _print(name: str, result: Result) -> None:
    print(  # noqa: T201
        f"{name}: {result.deaths} deaths among {result.acknowledged} acknowledged writes, "
        f"{len(result.broken)} promises broken",
        flush=True,
    )
    for words in result.broken[:20]:
        print(f"  {words}")  # noqa: T201


if __name__ == "__main__":
    raise SystemExit(main())
