"""The cache of encoded documents: never a stale one, never more bytes than allowed, and no document encoded twice."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import builders

from kumafast import resources
from kumafast.resources import Mesh, Resource
from kumafast.rest.documents import DocumentCache
from kumafast.store import MemoryStore, StoredResource

BYTES_MAX = 100

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 120)), max_size=40),
)
def test_cache_is_bounded_and_true(puts: list[tuple[int, int, int]]) -> None:
    cache = DocumentCache(bytes_max=BYTES_MAX)
    newest: dict[int, tuple[StoredResource, bytes]] = {}
    for number, revision, size in puts:
        document = bytes([revision]) * size
        stored = _stored(number, revision)
        cache.put(stored, document)
        newest[number] = (stored, document)
        held = {number: cache.get(stored) for number, (stored, _) in newest.items()}
        assert all(found is None or found == newest[number][1] for number, found in held.items())
        assert sum(len(found) for found in held.values() if found is not None) <= BYTES_MAX
        assert all(cache.get(replace(stored, revision=stored.revision + 1)) is None for stored, _ in newest.values())
        assert all(cache.get(stored, "beside") is None for stored, _ in newest.values())
        assert size > BYTES_MAX or held[number] == document


def test_a_document_goes_with_what_it_shows() -> None:
    cache = DocumentCache()
    kept = _stored(0, 1)
    cache.put(kept, b"kept")
    for number in range(1, 1_000):
        cache.put(_stored(number, 1), b"gone")
    assert len(cache) == 1
    assert cache.get(kept) == b"kept"


def test_a_document_stays_when_the_value_before_it_goes() -> None:
    cache = DocumentCache()
    before, after = _stored(0, 1), _stored(0, 2)
    cache.put(before, b"before")
    cache.put(after, b"after")
    del before
    assert cache.get(after) == b"after"
    assert len(cache) == 1


def test_a_document_takes_no_more_memory_than_its_length() -> None:
    """orjson's bytes have room for several times what is in them, which no length says."""
    cache = DocumentCache()
    stored = [_stored(number, 1) for number in range(100)]
    content = {"dataplanes": [{"name": f"dp-{number:06}"} for number in range(100)]}
    length = len(orjson.dumps(content))
    tracemalloc.start()
    try:
        # What an answer is joined from, as a list of all has them until then.
        answered = [cache.put(each, orjson.dumps(content)) for each in stored]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answered == [orjson.dumps(content)] * 100
    # An entry is some hundred bytes beside its document.
    assert taken / 100 < length + 1_000


def _stored(number: int, revision: int) -> StoredResource:
    return StoredResource(Mesh(name=f"mesh-{number}"), revision, _NOW, _NOW)


@pytest.mark.anyio
async def test_each_revision_is_encoded_once(
    client: httpx.AsyncClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    to_document = resources.to_document

    def counted(resource: Resource) -> dict[str, object]:
        encoded.append(resource.name)
        return to_document(resource)

    monkeypatch.setattr(resources, "to_document", counted)
    for i in range(10):
        await store.put(builders.dataplane(f"web-{i}"))
    for _ in range(3):
        assert (await client.get("/meshes/default/dataplanes")).json()["total"] == 10
        await client.get("/meshes/default/dataplanes/web-3")
    assert sorted(encoded) == [f"web-{i}" for i in range(10)]
    await store.put(builders.dataplane("web-3", labels={"round": "2"}))
    await client.get("/meshes/default/dataplanes")
    assert encoded[10:] == ["web-3"]
