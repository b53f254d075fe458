"""Which text opens which store."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.postgresql import Server

from kumafast.errors import SettingsError
from kumafast.resources import parse
from kumafast.store import MemoryStore, SqliteStore, open_store

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("url", ["memory", "memory:"])
async def test_memory(url: str) -> None:
    store = await open_store(url)
    assert type(store) is MemoryStore
    await store.close()


async def test_sqlite_keeps_real_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    resources = [
        parse({"type": "Mesh", "name": "default"}),
        parse(
            {
                "type": "Dataplane",
                "mesh": "default",
                "name": "web-1",
                "labels": {"team": "a"},
                "networking": {
                    "address": "127.0.0.1",
                    "inbound": [{"port": 80, "tags": {"kuma.io/service": "web", "version": "1"}}],
                    "outbound": [{"port": 10000, "tags": {"kuma.io/service": "echo"}}],
                },
            }
        ),
        parse({"type": "DataplaneInsight", "mesh": "default", "name": "web-1", "subscriptions": []}),
    ]
    store = await open_store("sqlite:~/data/store.db")
    assert isinstance(store, SqliteStore)
    stored = [await store.put(resource) for resource in resources]
    await store.close()
    assert (tmp_path / "data" / "store.db").is_file()

    again = await open_store(f"sqlite:{tmp_path}/data/store.db")
    assert [await again.get(resource.key) for resource in resources] == stored
    # Equal after a restart, so writing the same again is no commit.
    assert [await again.put(resource) for resource in resources] == stored
    await again.delete(resources[1].key)
    assert (await again.list("DataplaneInsight")).items == ()
    await again.close()


@pytest.mark.parametrize(
    "url", ["", "sqlite", "sqlite:", "memory:x", "redis://h", "/var/lib/store.db", "Memory", "postgres:kuma"]
)
async def test_anything_else_is_refused_and_the_choices_are_named(url: str) -> None:
    with pytest.raises(SettingsError, match=r"memory .* sqlite:PATH .* postgres://"):
        await open_store(url)


async def test_postgres_keeps_real_resources(postgresql: Server) -> None:
    url = postgresql.new_store()
    resource = parse({"type": "Mesh", "name": "default"})
    store = await open_store(url)
    stored = await store.put(resource)
    await store.close()
    again = await open_store(url.replace("postgres://", "postgresql://"))
    assert again.identity == store.identity
    assert await again.put(resource) == stored
    await again.close()
