"""The cache of encoded documents: never a stale one, never more bytes than allowed, and no document encoded twice."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import builders

from kumafast import resources
from kumafast.resources import Resource
from kumafast.rest.documents import DocumentCache
from kumafast.store import MemoryStore

BYTES_MAX = 100


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 120)), max_size=40),
)
def test_cache_is_bounded_and_true(puts: list[tuple[int, int, int]]) -> None:
    cache = DocumentCache(bytes_max=BYTES_MAX)
    newest: dict[int, tuple[int, bytes]] = {}
    for key, revision, size in puts:
        document = bytes([revision]) * size
        cache.put(key, revision, document)
        newest[key] = (revision, document)
        held = {k: cache.get(k, r) for k, (r, _) in newest.items()}
        assert all(found is None or found == newest[k][1] for k, found in held.items())
        assert sum(len(found) for found in held.values() if found is not None) <= BYTES_MAX
        assert all(cache.get(k, r + 1) is None for k, (r, _) in newest.items())
        assert size > BYTES_MAX or held[key] == document


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
