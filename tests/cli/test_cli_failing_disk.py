"""`kumafast run` on a disk that fails: what is said, what is refused, and that proxies are served all the while."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from bench.real_wires.fleet import Fleet, until
from tests.cli.running import Run, arguments, environment
from tests.instances import NAMES, NODES, WAIT_S, dataplane, fill
from tests.store.faulty_disk import FaultyDisk, Kind
from typer.testing import CliRunner

from kumafast.cli.main import app

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    (tmp_path / "disk").mkdir()
    return FaultyDisk(tmp_path, tmp_path / "disk")


@pytest.fixture
def run(tmp_path: Path, disk: FaultyDisk) -> Iterator[Run]:
    running = Run(tmp_path, "--store", f"sqlite:{tmp_path}/disk/store.db", "--no-dp-tls", env=disk.environment)
    yield running
    disk.mend()
    running.stop()


def _junk(path: Path) -> None:
    path.write_bytes(b"what somebody has copied over it\n" * 3000)


def _full(disk: FaultyDisk, _: Path) -> None:
    disk.fail(Kind.WRITE, error=errno.ENOSPC)


def _read_only(disk: FaultyDisk, _: Path) -> None:
    disk.fail(Kind.WRITE | Kind.OPEN, error=errno.EROFS)


def _unsyncable(disk: FaultyDisk, _: Path) -> None:
    disk.fail(Kind.SYNC)


def _broken(disk: FaultyDisk, _: Path) -> None:
    disk.fail(Kind.READ | Kind.WRITE | Kind.SYNC | Kind.OPEN)


def _damaged(disk: FaultyDisk, path: Path) -> None:
    _junk(path)
    disk.fail(Kind.SYNC | Kind.OPEN)


def _removed(disk: FaultyDisk, path: Path) -> None:
    path.unlink()
    disk.fail(Kind.OPEN)


FAILURES = (_full, _read_only, _unsyncable, _broken, _damaged, _removed)


async def test_proxies_and_readers_are_served_while_the_disk_fails_and_writes_go_on_after_it(
    run: Run, disk: FaultyDisk, tmp_path: Path
) -> None:
    path = tmp_path / "disk" / "store.db"
    diagnostics = run.ready.split()[3].partition("=")[2]
    fleet = Fleet(NODES[1:])
    async with httpx.AsyncClient(timeout=60) as client:

        async def put(port: int) -> httpx.Response:
            return await client.put(f"{run.api}/meshes/default/dataplanes/{NAMES[0]}", json=dataplane(NAMES[0], port))

        async def shown() -> tuple[str, float]:
            ready = await client.get(f"{diagnostics}/ready")
            assert ready.status_code == 200
            metrics = (await client.get(f"{diagnostics}/metrics")).text
            [line] = [line for line in metrics.splitlines() if line.startswith("kumafast_store_failing ")]
            return ready.text, float(line.split()[1])

        await fill(client, run.api)
        dp_port = int(run.ready.split()[2].rpartition(":")[2])
        fleet.start("127.0.0.1", dp_port)
        await until(lambda: all(envoy.is_configured() for envoy in fleet.envoys.values()), "all", timeout_s=WAIT_S)
        for number, fails in enumerate(FAILURES):
            port = 1000 + number
            fails(disk, path)
            refused = await put(port)
            assert (refused.status_code, refused.headers["content-type"]) == (503, "application/json"), refused.text
            assert str(path) in refused.json()["detail"]
            words, value = await shown()
            assert words.startswith("ready, but nothing can be written: the store ")
            assert value == 1
            # Nothing of it is seen, and whoever comes anew is served what was there before.
            held = await client.get(f"{run.api}/meshes/default/dataplanes/{NAMES[0]}")
            assert held.json()["networking"]["inbound"][0]["port"] == (port - 1 if number else 8080)
            newcomer = Fleet(NODES[:1])
            newcomer.start("127.0.0.1", dp_port)
            await until(newcomer.envoys[NODES[0]].is_configured, "the newcomer", timeout_s=WAIT_S)
            disk.mend()
            async with asyncio.timeout(WAIT_S):
                while await shown() != ("ready\n", 0.0):
                    await asyncio.sleep(0.05)
            written = await put(port)
            assert written.status_code == 200, written.text
            revision = written.headers["X-Kumafast-Revision"]
            report = (await client.get(f"{run.api}/_convergence?revision={revision}&timeout=60s")).json()
            assert (report["is_converged"], report["proxies"]) == (True, len(NODES))
            await newcomer.stop()
        assert fleet.streams["closed"] == 0
        await fleet.stop()
    said = await asyncio.to_thread(run.stop)
    assert "Traceback" not in said, said
    # One line for each change: what is in the way, and that it is no more.
    assert said.count("can be written again") == len(FAILURES), said
    assert said.count("writes are refused") <= 2 * len(FAILURES), said
    checked = await asyncio.to_thread(CliRunner().invoke, app, ["store", "check", "--store", f"sqlite:{path}"])
    assert checked.output.startswith("whole: "), checked.output


def _page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(4096, len(content), 4096):
        content[at : at + 512] = os.urandom(512)
    path.write_bytes(content)


def _header(path: Path) -> None:
    path.write_bytes(os.urandom(100) + path.read_bytes()[100:])


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _one_line(said: str, path: Path) -> str:
    """The error, which is all that was said."""
    [line] = [line for line in said.splitlines() if " INFO " not in line]
    assert line.startswith("error: "), said
    assert str(path) in line
    return line


@pytest.mark.parametrize("damage", [_page, _header, _cut, _junk])
def test_a_damaged_file_is_refused_at_the_start_and_saved_by_export(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path, url = tmp_path / "data" / "store.db", f"sqlite:{tmp_path}/data/store.db"
    backup, saved = tmp_path / "backup", tmp_path / "saved"
    resources = [f'{{"type": "Mesh", "name": "m{number}"}}' for number in range(50)]
    _import(url, resources, tmp_path)
    assert CliRunner().invoke(app, ["store", "export", str(backup), "--store", url]).exit_code == 0
    damage(path)
    before = path.read_bytes()
    started = CliRunner().invoke(app, arguments(tmp_path, "--store", url, program=()))
    assert started.exit_code == 1
    line = _one_line(started.output, path)
    assert "is damaged" in line
    assert "kumafast store import" in line
    assert "kumafast store export" in line
    checked = CliRunner().invoke(app, ["store", "check", "--store", url])
    assert (checked.exit_code, "is damaged" in checked.output) == (1, True)
    exported = CliRunner().invoke(app, ["store", "export", str(saved), "--store", url])
    assert exported.exit_code == 1
    assert path.read_bytes() == before
    if damage is _header:
        # Only the header was lost, so that everything is there.
        assert "exported 50 resources" in exported.output
    else:
        assert "nothing can be read" in exported.output or "of the rest this is known" in exported.output
    # Either file makes a store that works.
    path.rename(tmp_path / "away")
    for source in (backup, saved):
        if source.exists():
            path.unlink(missing_ok=True)
            imported = CliRunner().invoke(app, ["store", "import", str(source), "--store", url])
            assert imported.exit_code == 0, imported.output
            assert CliRunner().invoke(app, ["store", "check", "--store", url]).output.startswith("whole: ")


def _import(url: str, documents: list[str], tmp_path: Path) -> None:
    """A store that holds these."""
    from kumafast.resources import decode
    from kumafast.store import Put, open_store

    async def fill() -> None:
        store = await open_store(url)
        for document in documents:
            await store.write([Put(decode(document.encode()))])
        await store.close()

    asyncio.run(fill())


@pytest.mark.parametrize(
    ("kinds", "error", "advice"),
    [
        (Kind.WRITE, errno.ENOSPC, "make room on its disk"),
        (Kind.OPEN | Kind.WRITE, errno.EROFS, "writable"),
        (Kind.READ | Kind.OPEN, errno.EIO, "look at the disk"),
    ],
)
def test_a_disk_that_fails_at_the_start_is_named_in_one_line(
    tmp_path: Path, disk: FaultyDisk, kinds: Kind, error: int, advice: str
) -> None:
    path = tmp_path / "disk" / "store.db"
    disk.fail(kinds, error=error)
    started = subprocess.run(
        arguments(tmp_path, "--store", f"sqlite:{path}"),
        capture_output=True, text=True, check=False, timeout=60, env=environment(disk.environment),
    )  # fmt: skip
    assert started.returncode == 1
    assert advice in _one_line(started.stderr, path)
