"""A disk fails under the store in a file: writes are refused, reads go on, and nothing acknowledged is missing later.

The stores are in a process of their own, whose disk alone fails (faulty_disk.py); what it does is said step by step.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.store import kinds
from tests.store.faulty_disk import Action, FaultyDisk, Kind
from tests.store.kinds import Thing

from kumafast.errors import StoreUnavailableError
from kumafast.store import transfer
from kumafast.store.sqlite_file import DamagedError

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Child:
    """A process that opens stores on a disk that fails. `ask` says what it did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk"
        self.folder.mkdir()
        self.disk = FaultyDisk(folder, self.folder)
        self._log = folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CHILD],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                cwd=Path(__file__).parents[2], env={**os.environ, **self.disk.environment},
            )  # fmt: skip
        self.path = self.folder / "0.db"
        self._logged = 0

    def open(self, number: int) -> None:
        """Another store, at `path`."""
        self._logged = len(self._log.read_text())
        self.path = self.folder / f"{number}.db"
        assert self.ask("open", str(self.path)) == 0

    @property
    def log(self) -> str:
        """What was logged of this store."""
        return self._log.read_text()[self._logged :]

    def ask(self, word: str, *rest: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([word, *rest]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self.log
        return json.loads(line)

    def until_dead(self) -> set[str]:
        """Write until it is dead; what it has acknowledged."""
        acknowledged = set()
        with suppress(BrokenPipeError, AssertionError):
            # Ten thousand refusals may come before the disk is tried again, and nothing is written after the last.
            until = time.monotonic() + 60
            for number in itertools.takewhile(lambda _: time.monotonic() < until, itertools.count()):
                if isinstance(self.ask("put", f"again-{number}"), int):
                    acknowledged.add(f"again-{number}")
        assert self._process.wait(60) == -9
        with suppress(BrokenPipeError):
            self.end()
        return acknowledged

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


_CHILD = """
import asyncio, json, logging, sys
from pathlib import Path
from kumafast.errors import KumafastError
from kumafast.store import Put
from tests.store import kinds

logging.basicConfig(level=logging.INFO, format="%(message)s")

async def main():
    for line in sys.stdin:
        word, *rest = json.loads(line)
        try:
            match word:
                case "open":
                    store = await kinds.open_sqlite(Path(rest[0]))
                    watch = store.watch(after=0)
                    answer = await store.revision()
                case "close":
                    answer = await store.close()
                case "put":
                    answer = await store.write([Put(kinds.Thing(name=name)) for name in rest])
                case "many":
                    puts = [store.put(kinds.Thing(name=f"many-{number}")) for number in range(50)]
                    results = await asyncio.gather(*puts, return_exceptions=True)
                    answer = [str(result) for result in results if isinstance(result, KumafastError)]
                case "held":
                    answer = [stored.resource.name for stored in (await store.list("Thing")).items]
                case "watched":
                    answer = (await anext(watch)).revision
                case "failure":
                    answer = store.failure
                case "recovered":
                    async with asyncio.timeout(60):
                        while store.failure:
                            await asyncio.sleep(0.01)
                    answer = await store.revision()
        except KumafastError as error:
            answer = f"refused: {error}"
        print(json.dumps(answer), flush=True)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    process = Child(tmp_path_factory.mktemp("failing"))
    yield process
    process.end()


@pytest.fixture
def child(process: Child) -> Iterator[Child]:
    process.open(next(_NUMBERS))
    yield process
    process.disk.mend()
    process.ask("close")


_NUMBERS = itertools.count()


async def _check_whole(child: Child, *names: str) -> None:
    """The store holds these and no others, in a log without gaps, once it is closed."""
    child.ask("close")
    assert "Traceback" not in child.log, child.log
    contents = await transfer.read(f"sqlite:{child.path}")
    assert contents.faults(kinds.decode) == []
    assert sorted(row.name for row in contents.resources) == sorted(names)


FAILURES = {
    "disk full": (Kind.WRITE, errno.ENOSPC, "full; make room"),
    "read-only": (Kind.WRITE, errno.EROFS, "disk I/O error; look at the disk"),
    "error at writing": (Kind.WRITE, errno.EIO, "disk I/O error; look at the disk"),
    "error at syncing": (Kind.SYNC, errno.EIO, "disk I/O error; look at the disk"),
    "error at everything": (Kind.READ | Kind.WRITE | Kind.SYNC | Kind.OPEN, errno.EIO, "look at the disk"),
}


@pytest.mark.parametrize(("kinds_", "error", "said"), FAILURES.values(), ids=FAILURES)
async def test_writes_are_refused_and_reads_go_on_until_it_works_again(
    child: Child, kinds_: Kind, error: int, said: str
) -> None:
    assert [child.ask("put", "a"), child.ask("put", "b", "c")] == [1, 2]
    child.disk.fail(kinds_, error=error)
    refused = [child.ask("put", f"no-{number}", f"nor-{number}") for number in range(10)]
    assert all(answer.startswith(f"refused: the store {child.path} ") for answer in refused)
    # Of many at once each is refused.
    assert len(child.ask("many")) == 50
    assert said in child.ask("failure")
    assert str(child.path) in child.ask("failure")
    assert child.ask("held") == ["a", "b", "c"]
    assert [child.ask("watched"), child.ask("watched")] == [1, 2]
    child.disk.mend()
    # Nobody has to write for it to be noticed.
    assert child.ask("recovered") == 2
    assert child.ask("put", "d") == 3
    assert child.ask("watched") == 3
    await _check_whole(child, "a", "b", "c", "d")
    assert child.log.count("writes are refused") <= 2, child.log
    assert child.log.count("can be written again") == 1, child.log


async def test_a_sync_that_failed_leaves_nothing_assumed(child: Child) -> None:
    child.ask("put", *(f"held-{number}" for number in range(200)))
    # It fails once, has lost what was written, and the next one says that all is well.
    child.disk.fail(Kind.SYNC)
    assert "disk I/O error" in child.ask("put", "refused")
    child.disk.mend()
    assert child.ask("recovered") == 1
    assert child.ask("put", "later") == 2
    await _check_whole(child, "later", *(f"held-{number}" for number in range(200)))


async def test_a_file_that_is_taken_away_is_written_anew(child: Child) -> None:
    child.ask("put", "a", "b")
    child.path.unlink()
    assert "was removed" in child.ask("put", "c")
    assert child.ask("recovered") == 1
    assert child.ask("put", "c") == 2
    await _check_whole(child, "a", "b", "c")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(4096, len(content), 4096):
        content[at : at + 512] = os.urandom(512)
    path.write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path, 2 * 4096)


def _replace(path: Path) -> None:
    path.write_bytes(b"not a database at all " * 1000)


@pytest.mark.parametrize("damage", [_flip, _cut, _replace])
async def test_a_file_that_is_damaged_beneath_it_is_written_anew(child: Child, damage: Callable[[Path], None]) -> None:
    names = [f"held-{number}" for number in range(300)]
    child.ask("put", *names)
    # What was moved into the file is not in its write-ahead log any more.
    assert child.ask("put", names[0], "more") == 2
    names.append("more")
    damage(child.path)
    # Found out by an error of the disk, as it would be where the disk is what has damaged it.
    child.disk.fail(Kind.SYNC)
    assert "disk I/O error" in child.ask("put", "refused")
    child.disk.mend()
    assert child.ask("recovered") == 2
    assert child.ask("put", "later") == 3
    assert child.ask("held") == sorted([*names, "later"])
    await _check_whole(child, *names, "later")
    assert child.path.with_name(f"{child.path.name}.damaged").exists()


@pytest.mark.parametrize("after", [0, 7, 30, 60])
async def test_a_power_cut_while_a_file_is_set_right_leaves_no_less_than_there_was(tmp_path: Path, after: int) -> None:
    child = Child(tmp_path)
    child.open(0)
    names = {f"held-{number}" for number in range(300)}
    child.ask("put", *names)
    child.ask("put", "more")
    _flip(child.path)
    child.disk.fail(Kind.SYNC)
    child.ask("put", "refused")
    child.disk.fail(Kind.WRITE | Kind.SYNC, action=Action.POWER_CUT, after=after)
    acknowledged = names | {"more"} | child.until_dead()
    try:
        store = await kinds.open_sqlite(child.path)
    except DamagedError:
        # As it was found; nothing of it is thrown away.
        return
    held = {stored.resource.name for stored in (await store.list("Thing")).items}
    await store.close()
    assert acknowledged <= held


async def test_another_store_in_its_place_is_left_alone(child: Child, tmp_path: Path) -> None:
    child.ask("put", "a")
    other = await kinds.open_sqlite(tmp_path / "other.db")
    await other.put(kinds.Thing(name="of another"))
    await other.close()
    (tmp_path / "other.db").replace(child.path)
    child.path.with_name(f"{child.path.name}-wal").unlink()
    assert "was removed" in child.ask("put", "b")
    assert "another than this process was started with" in child.ask("failure") or child.ask("put", "b")
    assert "another than this process was started with" in child.ask("put", "c")
    assert child.ask("held") == ["a"]
    child.ask("close")
    contents = await transfer.read(f"sqlite:{child.path}")
    assert [row.name for row in contents.resources] == ["of another"]


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own, where we may have one."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("nobody but root may mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_disk_that_is_full_in_truth(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    with _mounted(disk, "size=1m"):
        store = await kinds.open_sqlite(disk / "store.db")
        written = 0
        with suppress(StoreUnavailableError):
            for written in range(1000):
                await store.put(Thing(name=f"thing-{written}", labels={"much": "x" * 5000}))
        assert written > 10
        assert await store.revision() == len((await store.list("Thing")).items) == written
        assert "make room on its disk" in store.failure
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert (await store.put(Thing(name="more", labels={"much": "x" * 60_000}))).revision == written + 1
        assert store.failure == ""
        await store.close()
        contents = await transfer.read(f"sqlite:{disk}/store.db")
        assert contents.faults(kinds.decode) == []
        assert len(contents.resources) == written + 1


async def test_a_file_system_that_is_read_only_in_truth(tmp_path: Path) -> None:
    disk = tmp_path / "fixed"
    disk.mkdir()
    with _mounted(disk, "size=1m"):
        store = await kinds.open_sqlite(disk / "store.db")
        await store.put(Thing(name="a"))
        await store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreUnavailableError, match="writable"):
            await kinds.open_sqlite(disk / "store.db")
