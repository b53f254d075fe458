"""PostgreSQL's disk is full, or it is read-only: it answers and takes nothing, and is written to again afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.postgresql import Server
from tests.store import kinds
from tests.store.kinds import Thing

from kumafast.errors import StoreUnavailableError
from kumafast.store import transfer
from kumafast.store.postgres import PostgresStore, connection

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

WAIT_S = 60.0


def _mount(data: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=160m,mode=0700", "tmpfs", str(data)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("nobody but root may mount a file system")


@pytest.fixture
def small() -> Iterator[Server]:
    """A server on a disk of its own."""
    server = Server(settings=("max_wal_size=32MB",), prepare=_mount)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        subprocess.run(["umount", "--lazy", str(server.data)], check=True)
        server.remove()


async def _check_both(stores: list[PostgresStore], names: set[str]) -> None:
    async with asyncio.timeout(WAIT_S):
        while await stores[1].revision() < await stores[0].revision():
            await asyncio.sleep(0.01)
    for store in stores:
        assert {stored.resource.name for stored in (await store.list("Thing")).items} == names


async def _works(store: PostgresStore) -> None:
    async with asyncio.timeout(WAIT_S):
        while store.failure:
            await asyncio.sleep(0.01)


async def test_a_full_disk_refuses_writes_until_there_is_room(small: Server) -> None:
    url = small.new_store()
    stores = [await kinds.open_postgres(url) for _ in range(2)]
    names = set()
    filler = small.data / "filler"
    free = os.statvfs(small.data)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
    with suppress(StoreUnavailableError):
        for number in range(1000):
            await stores[0].put(Thing(name=f"thing-{number}", labels={"much": os.urandom(20_000).hex()}))
            names.add(f"thing-{number}")
    assert len(names) < 1000
    assert "No space left on device" in stores[0].failure
    await _check_both(stores, names)
    filler.unlink()
    await stores[0].put(Thing(name="last"))
    await _works(stores[0])
    await _check_both(stores, names | {"last"})
    for store in stores:
        await store.close()
    assert (await transfer.read(url)).faults(kinds.decode) == []


async def test_one_that_is_read_only_refuses_writes_until_it_is_not(
    mortal: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = mortal.new_store()
    stores = [await kinds.open_postgres(url) for _ in range(2)]
    await stores[0].put(Thing(name="a"))
    admin = await connection.connect(connection.parse_url(url))
    await admin.execute("ALTER ROLE kumafast SET default_transaction_read_only = on")
    try:
        # Those that are there already learn of it when they come anew.
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'kumafast' AND pid <> pg_backend_pid()"
        )
        with pytest.raises(StoreUnavailableError, match="read-only transaction"):
            await stores[0].put(Thing(name="b"))
        assert "read-only transaction" in stores[0].failure
        assert caplog.text.count("writes are refused: PostgreSQL at 127.0.0.1") <= 2
    finally:
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute("ALTER ROLE kumafast RESET default_transaction_read_only")
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'kumafast' AND pid <> pg_backend_pid()"
    )
    await admin.close()
    await stores[0].put(Thing(name="last"))
    await _works(stores[0])
    await _check_both(stores, {"a", "last"})
    for store in stores:
        await store.close()
