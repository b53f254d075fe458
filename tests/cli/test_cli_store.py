"""`kumafast store`: contents move between back ends unchanged, and what is wrong with them is found and said."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from pathlib import Path

import pytest
from tests.postgresql import Server
from typer.testing import CliRunner, Result

from kumafast.cli.main import app
from kumafast.resources import parse
from kumafast.store import Delete, Keyring, Put, open_store
from kumafast.store.postgres import connection

KEY = bytes(32)
MARKER = "a secret of users"
RESOURCES: list[dict[str, object]] = [
    {"type": "Mesh", "name": "default"},
    {"type": "Mesh", "name": "gone"},
    {"type": "Secret", "mesh": "default", "name": "s", "data": base64.b64encode(MARKER.encode()).decode()},
    {
        "type": "Dataplane",
        "mesh": "default",
        "name": "web-1",
        "labels": {"ö": "ü"},
        "networking": {"address": "127.0.0.1", "inbound": [{"port": 80, "tags": {"kuma.io/service": "web"}}]},
    },
    {"type": "DataplaneInsight", "mesh": "default", "name": "web-1", "subscriptions": []},
]


def run(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["store", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_bytes(base64.b64encode(KEY))
    return file


@pytest.fixture
def filled(tmp_path: Path) -> str:
    """A store in a file, with a log in which something was deleted."""
    url = f"sqlite:{tmp_path}/store.db"
    asyncio.run(_fill(url))
    return url


async def _fill(url: str) -> None:
    store = await open_store(url, keyring=Keyring([KEY]))
    resources = [parse(document) for document in RESOURCES]
    for resource in resources:
        await store.write([Put(resource)])
    await store.write([Delete(resources[1].key)])
    await store.close()


async def _held(url: str) -> list[object]:
    store = await open_store(url, keyring=Keyring([KEY]))
    try:
        kinds = ("Mesh", "Secret", "Dataplane", "DataplaneInsight")
        return [await store.revision(), *[(await store.list(kind)).items for kind in kinds]]
    finally:
        await store.close()


def test_a_store_moves_between_back_ends_unchanged(tmp_path: Path, filled: str, key: Path, postgresql: Server) -> None:
    before = asyncio.run(_held(filled))
    postgres, again = postgresql.new_store(), f"sqlite:{tmp_path}/again/store.db"
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    exported = run("export", first, "--store", filled)
    assert exported.output == "exported 4 resources (1 of them sealed secrets) at revision 6\n"
    assert first.stat().st_mode & 0o777 == 0o600
    assert run("import", first, "--store", postgres).output.startswith("imported 4 resources")
    run("check", "--store", postgres, "--secrets-key-file", key)
    assert asyncio.run(_held(postgres)) == before
    run("export", second, "--store", postgres)
    assert second.read_bytes() == first.read_bytes()
    run("import", second, "--store", again)
    assert asyncio.run(_held(again)) == before
    assert "whole: 4 resources" in run("check", "--store", again, "--secrets-key-file", key).output


def test_secrets_stay_sealed_in_the_file(tmp_path: Path, filled: str) -> None:
    file = tmp_path / "file"
    run("export", file, "--store", filled)
    for form in (MARKER.encode(), base64.b64encode(MARKER.encode())):
        assert form not in file.read_bytes()


def test_only_an_empty_store_is_filled(tmp_path: Path, filled: str, postgresql: Server) -> None:
    file, postgres = tmp_path / "file", postgresql.new_store()
    run("export", file, "--store", filled)
    run("import", file, "--store", postgres)
    for url in (filled, postgres):
        before = asyncio.run(_held(url))
        assert "only an empty" in run("import", file, "--store", url, code=1).output
        assert asyncio.run(_held(url)) == before


@pytest.mark.parametrize("url", ["sqlite:{tmp}/nothing.db", "postgres", "memory"])
@pytest.mark.parametrize("command", ["check", "export"])
def test_looking_at_a_store_makes_none(tmp_path: Path, postgresql: Server, url: str, command: str) -> None:
    store = postgresql.new_store() if url == "postgres" else url.format(tmp=tmp_path)
    arguments = (command, tmp_path / "file") if command == "export" else (command,)
    run(*arguments, "--store", store, code=1)
    assert list(tmp_path.iterdir()) == []
    if url == "postgres":
        assert "holds no store" in run(*arguments, "--store", store, code=1).output


def test_a_store_that_is_open_is_not_touched(tmp_path: Path, filled: str) -> None:
    async def beside() -> Result:
        store = await open_store(filled, keyring=Keyring([KEY]))
        try:
            return await asyncio.to_thread(run, "export", tmp_path / "file", "--store", filled, code=1)
        finally:
            await store.close()

    assert "in use by another process" in asyncio.run(beside()).output
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: lines[:-1], "not whole"),
        (lambda lines: lines[:2] + lines[3:], "not whole"),
        (lambda lines: [lines[0], lines[1].replace(b"web-1", b"web-2"), *lines[2:]], "not whole"),
        (lambda lines: [lines[0].replace(b'"format":1', b'"format":7'), *lines[1:]], "format is 7"),
        (lambda lines: [b"{}\n"], "no file that"),
        (lambda lines: [], "no file that"),
        (lambda lines: [lines[0], b"{", *lines[1:]], "line 2 is not JSON"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, filled: str, damage: object, said: str) -> None:
    file = tmp_path / "file"
    run("export", file, "--store", filled)
    assert callable(damage)
    file.write_bytes(b"".join(damage(file.read_bytes().splitlines(keepends=True))))
    assert said in run("import", file, "--store", f"sqlite:{tmp_path}/other.db", code=1).output
    assert not (tmp_path / "other.db").exists()


FAULTS = [
    ("DELETE FROM resources WHERE type = 'Mesh'", "in a mesh that is not there"),
    ("DELETE FROM resources WHERE type = 'Dataplane'", "belongs to a Dataplane that is not there"),
    ("UPDATE resources SET content = '{}' WHERE name = 'web-1' AND type = 'Dataplane'", "cannot be read"),
    ("UPDATE resources SET name = 'web-2' WHERE type = 'Dataplane'", "Dataplane web-2 of mesh default holds"),
    ("UPDATE resources SET revision = 2 WHERE type = 'Dataplane'", "is not what the log says"),
    ("UPDATE resources SET revision = 99 WHERE type = 'Dataplane'", "is of revision 99, and the store is at 6"),
    ("DELETE FROM changes WHERE revision = 3", "nothing between revisions 2 and 4"),
    ("DELETE FROM changes WHERE revision = 4", "of which the log knows nothing"),
]


@pytest.mark.parametrize(("sql", "said"), FAULTS)
@pytest.mark.parametrize("back_end", ["sqlite", "postgres"])
def test_what_is_wrong_is_found(
    tmp_path: Path, key: Path, postgresql: Server, back_end: str, sql: str, said: str
) -> None:
    url = postgresql.new_store() if back_end == "postgres" else f"sqlite:{tmp_path}/store.db"
    asyncio.run(_fill(url))
    assert "whole" in run("check", "--store", url, "--secrets-key-file", key).output

    async def tamper() -> None:
        admin = await connection.connect(connection.parse_url(url))
        await admin.execute(sql)
        await admin.close()

    if back_end == "postgres":
        asyncio.run(tamper())
    else:
        with sqlite3.connect(tmp_path / "store.db") as file:
            file.execute(sql.replace("'{}'", "X'7B7D'"))
        file.close()
    result = run("check", "--store", url, "--secrets-key-file", key, code=1)
    assert "the store is damaged" in result.output
    assert said in result.output


def test_a_key_that_does_not_open_secrets_is_found(tmp_path: Path, filled: str) -> None:
    other = tmp_path / "other"
    other.write_bytes(base64.b64encode(b"\1" * 32))
    result = run("check", "--store", filled, "--secrets-key-file", other, code=1)
    assert "Secret s of mesh default cannot be read: it is sealed under key" in result.output
