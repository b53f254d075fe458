"""Instances of two versions on one PostgreSQL: what only the newer one knows passes by the older one, and stays."""

from __future__ import annotations

import json
import logging

import pytest
from tests.postgresql import Server
from tests.store import kinds
from tests.store.contract import replay, take
from tests.store.kinds import Note, Thing, key, mesh, reaches

from kumafast.errors import ConflictError, NotFoundError, UnknownTypeError
from kumafast.resources import Resource
from kumafast.store import Delete, Put
from kumafast.store.postgres import PostgresStore

pytestmark = pytest.mark.anyio


async def open_older(url: str) -> PostgresStore:
    """An instance of before there were notes."""

    def decode(content: bytes) -> Resource:
        if json.loads(content)["type"] == "Note":
            raise UnknownTypeError("unknown resource type Note")
        return kinds.decode(content)

    return await PostgresStore.open(url, encode=kinds.encode, decode=decode)


async def test_what_it_does_not_know_passes_by_and_is_kept(
    postgresql: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgresql.new_store()
    newer, older = await kinds.open_postgres(url), await open_older(url)
    await newer.put(mesh())
    with caplog.at_level(logging.WARNING):
        await newer.write([Put(Note(mesh="default", name="a")), Put(Thing(name="with it"))])
        await newer.put(Note(mesh="default", name="b"))
        await reaches(older, 3)
    assert [record.getMessage().split(", which")[0] for record in caplog.records] == [
        f"PostgreSQL at 127.0.0.1:{postgresql.port}/postgres holds Notes"
    ]
    # Revisions go on, and the rest of a commit is there.
    commits = await take(older.watch(after=0), 3)
    assert [[change.key.type for change in commit.changes] for commit in commits] == [["Mesh"], ["Thing"], []]
    with pytest.raises(NotFoundError):
        await older.get(key("Note", "a"))
    assert (await older.put(Thing(name="of the older one"))).revision == 4
    await reaches(newer, 4)
    assert {stored.resource.name for stored in (await newer.list("Note")).items} == {"a", "b"}
    # One that begins now, and one that was there, when they are changed and go.
    late = await open_older(url)
    await newer.put(Note(mesh="default", name="a", value=2))
    await newer.delete(key("Note", "a"))
    await newer.put(Thing(name="last"))
    for store in (older, late):
        await reaches(store, 7)
        assert replay(await take(store.watch(after=3), 4)).keys() == {
            key("Thing", name) for name in ("of the older one", "last")
        }
        assert store.work.readings == 0
        await store.close()
    await newer.close()


async def test_a_mesh_with_what_it_does_not_know_is_left_to_who_does(postgresql: Server) -> None:
    url = postgresql.new_store()
    newer, older = await kinds.open_postgres(url), await open_older(url)
    await newer.write([Put(mesh()), Put(mesh("other")), Put(Note(mesh="default", name="a"))])
    await reaches(older, 1)
    with pytest.raises(ConflictError, match="mesh default holds what only a newer kumafast knows"):
        await older.delete(key("Mesh", "default"))
    await older.delete(key("Mesh", "other"))
    await newer.write([Delete(key("Note", "a"))])
    await reaches(older, 3)
    await older.delete(key("Mesh", "default"))
    await older.close()
    await newer.close()
