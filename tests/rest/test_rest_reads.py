"""Reading over HTTP: shapes as a real Kuma 2.14 answered, pages, filters."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from tests import builders
from tests.rest.fakes import dataplane_document

from kumafast.resources import Resource, with_defaults
from kumafast.rest.documents import time_text
from kumafast.rest.paging import page, window
from kumafast.store import MemoryStore

LIST = "/meshes/default/dataplanes"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")

anyio = pytest.mark.anyio


def _written(resource: Resource) -> Resource:
    return with_defaults(resource, zone="east")


async def _fill(store: MemoryStore, count: int) -> list[str]:
    names = [f"web-{i:03}" for i in range(count)]
    for i, name in enumerate(names):
        await store.put(_written(builders.dataplane(name, labels={"shard": str(i % 3)})))
    return names


@anyio
async def test_mesh_as_kuma_shows_it(client: httpx.AsyncClient) -> None:
    mtls = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}
    await client.put("/meshes/default", json={"type": "Mesh", "name": "default", "mtls": mtls})
    answer = await client.get("/meshes/default")
    document = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    # The fields and their order are those of GET /meshes/default of a 2.14.3.
    assert list(document) == ["type", "name", "creationTime", "modificationTime", "kri", "mtls"]
    assert TIME.fullmatch(document.pop("creationTime"))
    assert TIME.fullmatch(document.pop("modificationTime"))
    assert document == {"type": "Mesh", "name": "default", "kri": "kri_m____default_", "mtls": mtls}


@anyio
async def test_dataplane_as_kuma_shows_it(client: httpx.AsyncClient) -> None:
    await client.put(f"{LIST}/web-1", json=dataplane_document())
    document = (await client.get(f"{LIST}/web-1")).json()
    times = [document.pop("creationTime"), document.pop("modificationTime")]
    assert all(TIME.fullmatch(time) for time in times)
    assert document == {
        "type": "Dataplane",
        "mesh": "default",
        "name": "web-1",
        "labels": {
            "kuma.io/env": "universal",
            "kuma.io/mesh": "default",
            "kuma.io/origin": "zone",
            "kuma.io/proxy-type": "sidecar",
            "kuma.io/zone": "east",
        },
        "kri": "kri_dp_default_east__web-1_",
        "networking": {
            "address": "127.0.0.1",
            "inbound": [
                {
                    "port": 17001,
                    "servicePort": 17101,
                    "tags": {"kuma.io/service": "web", "kuma.io/zone": "east", "version": "v1"},
                }
            ],
            "admin": {"port": 17901},
        },
    }


@anyio
async def test_item_follows_every_write(client: httpx.AsyncClient) -> None:
    """What is shown is remembered by its revision, so a newer one is never shadowed."""
    for number in range(3):
        await client.put(f"{LIST}/web-1", json=dataplane_document(labels={"round": str(number)}))
        assert (await client.get(f"{LIST}/web-1")).json()["labels"]["round"] == str(number)
        assert (await client.get(LIST)).json()["items"][0]["labels"]["round"] == str(number)
    await client.delete(f"{LIST}/web-1")
    await client.put(f"{LIST}/web-1", json=dataplane_document(labels={"round": "new"}))
    assert (await client.get(f"{LIST}/web-1")).json()["labels"]["round"] == "new"


@anyio
async def test_modification_time_moves_and_creation_time_stays(client: httpx.AsyncClient) -> None:
    await client.put(f"{LIST}/web-1", json=dataplane_document())
    first = (await client.get(f"{LIST}/web-1")).json()
    await client.put(f"{LIST}/web-1", json=dataplane_document(labels={"round": "2"}))
    second = (await client.get(f"{LIST}/web-1")).json()
    assert first["creationTime"] == first["modificationTime"] == second["creationTime"]
    assert second["modificationTime"] > first["modificationTime"]


@anyio
async def test_empty_list(client: httpx.AsyncClient) -> None:
    assert (await client.get(LIST)).json() == {"total": 0, "items": [], "next": None}
    assert (await client.get("/dataplanes")).json() == {"total": 0, "items": [], "next": None}


@anyio
async def test_list_holds_what_items_hold(client: httpx.AsyncClient, store: MemoryStore) -> None:
    names = await _fill(store, 5)
    listed = (await client.get(LIST)).json()
    assert listed == {
        "total": 5,
        "items": [(await client.get(f"{LIST}/{name}")).json() for name in names],
        "next": None,
    }


@anyio
async def test_default_size_is_100(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await _fill(store, 101)
    listed = (await client.get(LIST)).json()
    assert (listed["total"], len(listed["items"])) == (101, 100)
    assert listed["next"] == "http://127.0.0.1:5681/meshes/default/dataplanes?offset=100&size=100"


@anyio
async def test_list_of_all_meshes(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.mesh("shop"))
    await store.put(builders.dataplane("a", mesh="shop"))
    await store.put(builders.dataplane("a"))
    listed = (await client.get("/dataplanes")).json()
    assert [(item["mesh"], item["name"]) for item in listed["items"]] == [("default", "a"), ("shop", "a")]
    assert [item["name"] for item in (await client.get("/meshes")).json()["items"]] == ["default", "shop"]
    assert (await client.get("/meshes/shop/dataplanes")).json()["total"] == 1


@anyio
@pytest.mark.parametrize("size", [1, 2, 7, 100, 1000])
async def test_pages_make_the_whole(client: httpx.AsyncClient, store: MemoryStore, size: int) -> None:
    names = await _fill(store, 23)
    found: list[str] = []
    following: str | None = f"{LIST}?size={size}"
    while following is not None:
        answer = (await client.get(following)).json()
        assert answer["total"] == 23
        assert len(answer["items"]) == min(size, 23 - len(found))
        found += [item["name"] for item in answer["items"]]
        following = answer["next"]
    assert found == names


@anyio
async def test_next_keeps_the_filters(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await _fill(store, 30)
    found: list[dict[str, Any]] = []
    following: str | None = f"{LIST}?size=2&name=web-0&filter[labels.shard]=1"
    while following is not None:
        answer = (await client.get(following)).json()
        assert answer["total"] == 10
        found += answer["items"]
        following = answer["next"]
    assert [item["name"] for item in found] == [f"web-{i:03}" for i in range(1, 30, 3)]


@anyio
@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name=web-00", [f"web-{i:03}" for i in range(10)]),
        ("name=b-011", ["web-011"]),
        ("name=WEB", []),
        ("name=", [f"web-{i:03}" for i in range(12)]),
        ("filter[labels.shard]=2", ["web-002", "web-005", "web-008", "web-011"]),
        ("filter[labels.shard]=2&filter[labels.kuma.io/zone]=east&name=8", ["web-008"]),
        ("filter[labels.shard]=2&filter[labels.shard]=2&name=8", ["web-008"]),
        ("filter[labels.shard]=9", []),
        ("filter[labels.absent]=", []),
        ("offset=10", ["web-010", "web-011"]),
        ("offset=12", []),
        ("offset=999999", []),
    ],
)
async def test_filters(client: httpx.AsyncClient, store: MemoryStore, query: str, names: list[str]) -> None:
    await _fill(store, 12)
    listed = (await client.get(f"{LIST}?{query}")).json()
    assert [item["name"] for item in listed["items"]] == names
    assert listed["next"] is None


@given(total=st.integers(0, 60), size=st.integers(1, 70))
def test_concatenated_pages_are_the_list(total: int, size: int) -> None:
    items = [b"%d" % i for i in range(total)]
    found: list[int] = []
    query = f"size={size}"
    for _ in range(total + 1):
        scope = {"type": "http", "path": "/dataplanes", "query_string": query.encode(), "headers": [(b"host", b"cp")]}
        request = Request({**scope, "method": "GET", "scheme": "http", "server": ("cp", 80)})
        part = window(request)
        document = httpx.Response(200, content=page(request, part.of(items), total=total, window=part)).json()
        found += document["items"]
        if document["next"] is None:
            break
        query = httpx.URL(document["next"]).query.decode()
    assert found == list(range(total))


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [(0, "06:37:43Z"), (500_000, "06:37:43.5Z"), (66_850, "06:37:43.06685Z"), (1, "06:37:43.000001Z")],
)
def test_times_as_go_writes_them(microseconds: int, text: str) -> None:
    time = datetime(2026, 11, 23, 6, 37, 43, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert time_text(time) == f"2026-11-23T{text}"
