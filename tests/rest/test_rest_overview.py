"""The overview: dataplanes with their insights, in the shape of a real Kuma 2.14, by tag, status and kind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from tests import builders
from tests.rest.fakes import dataplane_document

from kumafast import resources
from kumafast.resources import DataplaneInsight, with_defaults
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio

LIST = "/meshes/default/dataplanes/_overview"
CONNECTED = "2026-11-23T06:39:18.543428Z"
UPDATED = "2026-11-23T06:39:18.954314Z"

SUBSCRIPTION: dict[str, Any] = {
    "id": "cf09fc72-43c3-4123-a069-2586bf2eacfa",
    "controlPlaneInstanceId": "vm-f9ec",
    "connectTime": CONNECTED,
    "status": {
        "lastUpdateTime": UPDATED,
        "total": {"responsesSent": "3", "responsesAcknowledged": "3"},
        "cds": {"responsesSent": "1", "responsesAcknowledged": "1"},
        "eds": {},
        "lds": {"responsesSent": "1", "responsesAcknowledged": "1"},
        "rds": {},
    },
    "version": {
        "kumaDp": {"version": "2.14.3", "gitTag": "v2.14.3", "kumaCpCompatible": True},
        "envoy": {"version": "1.40.0", "build": "9e55/1.40.0/Clean/RELEASE/BoringSSL"},
    },
}
METADATA: dict[str, Any] = {
    "dataplane.admin.port": "17901",
    "dataplane.proxyType": "dataplane",
    "features": ["feature-reuse-port"],
    "ipv6Enabled": True,
    "otelEnvInventory": {"logs": None, "pipeEnabled": True},
    "workdir": "/var/lib/kuma-dp",
}


def _insight(name: str, *, mesh: str = "default", is_online: bool = True) -> DataplaneInsight:
    subscription = dict(SUBSCRIPTION) if is_online else {**SUBSCRIPTION, "disconnectTime": UPDATED}
    document = {"type": "DataplaneInsight", "mesh": mesh, "name": name}
    parsed = resources.parse({**document, "subscriptions": [subscription], "metadata": METADATA})
    assert isinstance(parsed, DataplaneInsight)
    return parsed


async def _names(client: httpx.AsyncClient, query: str, path: str = LIST) -> list[str]:
    answer = await client.get(f"{path}?{query}")
    assert answer.status_code == 200
    assert answer.json()["total"] == len(answer.json()["items"])
    return [item["name"] for item in answer.json()["items"]]


async def test_overview_as_kuma_shows_it(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await client.put("/meshes/default/dataplanes/echo-1", json=dataplane_document("echo-1"))
    await store.put(_insight("echo-1"))
    listed = (await client.get(LIST)).json()
    assert (listed["total"], listed["next"]) == (1, None)
    [document] = listed["items"]
    # The fields and their order are those of GET …/dataplanes/_overview of a 2.14.3.
    head = ["type", "mesh", "name", "creationTime", "modificationTime", "labels", "kri"]
    assert list(document) == [*head, "dataplane", "dataplaneInsight"]
    assert document["type"] == "DataplaneOverview"
    assert document["kri"] == "kri_dp_default_east__echo-1_"
    assert list(document["dataplane"]) == ["networking"]
    assert list(document["dataplane"]["networking"]) == ["address", "inbound", "admin"]
    assert document["dataplaneInsight"] == {"subscriptions": [SUBSCRIPTION], "metadata": METADATA}
    item = (await client.get("/meshes/default/dataplanes/echo-1/_overview")).json()
    assert item == document


async def test_dataplane_that_never_connected(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane())
    [document] = (await client.get(LIST)).json()["items"]
    assert document["dataplaneInsight"] == {}


async def test_overview_follows_both_sides(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane("web-1"))
    path = "/meshes/default/dataplanes/web-1/_overview"
    assert (await client.get(path)).json()["dataplaneInsight"] == {}
    await store.put(_insight("web-1"))
    assert "disconnectTime" not in (await client.get(path)).json()["dataplaneInsight"]["subscriptions"][0]
    await store.put(_insight("web-1", is_online=False))
    assert "disconnectTime" in (await client.get(path)).json()["dataplaneInsight"]["subscriptions"][0]
    await store.put(builders.dataplane("web-1", address="127.0.0.9"))
    assert (await client.get(path)).json()["dataplane"]["networking"]["address"] == "127.0.0.9"


async def test_paths_of_older_clients(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.mesh("shop"))
    for mesh in ("default", "shop"):
        await store.put(with_defaults(builders.dataplane("web-1", mesh=mesh), zone="east"))
        await store.put(_insight("web-1", mesh=mesh))
    for new, old in [
        (LIST, "/meshes/default/dataplanes+insights"),
        ("/meshes/shop/dataplanes/web-1/_overview", "/meshes/shop/dataplanes+insights/web-1"),
        ("/dataplanes/_overview", "/dataplanes+insights"),
    ]:
        expected, found = await client.get(new), await client.get(old)
        assert (found.status_code, found.json()) == (200, expected.json())
    assert (await client.get("/dataplanes/_overview")).json()["total"] == 2


async def test_by_tag(client: httpx.AsyncClient, store: MemoryStore) -> None:
    for number, version in ((1, "v1"), (2, "v2"), (3, "v1")):
        tags = {"kuma.io/service": "web", "version": version}
        await store.put(builders.dataplane(f"web-{number}", tags=tags))
    both = [
        builders.inbound(8080, tags={"kuma.io/service": "echo", "version": "v1"}),
        builders.inbound(8081, tags={"kuma.io/service": "admin", "scheme": "a:b"}),
    ]
    await store.put(builders.dataplane("echo-1", inbound=both))
    assert await _names(client, "tag=kuma.io/service:web") == ["web-1", "web-2", "web-3"]
    assert await _names(client, "tag=kuma.io/service:web&tag=version:v1") == ["web-1", "web-3"]
    assert await _names(client, "tag=version:*") == ["echo-1", "web-1", "web-2", "web-3"]
    assert await _names(client, "tag=scheme:a:b") == ["echo-1"]
    assert await _names(client, "tag=version:v1&name=echo") == ["echo-1"]
    # One inbound must have all of them; the union of two does not count.
    assert await _names(client, "tag=kuma.io/service:admin&tag=version:v1") == []
    assert await _names(client, "tag=absent:x") == []


async def test_by_status(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.mesh("shop"))
    for name in ("on", "off", "never"):
        await store.put(builders.dataplane(name))
        await store.put(builders.dataplane(name, mesh="shop"))
    await store.put(_insight("on"))
    await store.put(_insight("off", is_online=False))
    await store.put(_insight("never", mesh="shop"))
    assert await _names(client, "status=online") == ["on"]
    assert await _names(client, "status=Offline") == ["never", "off"]
    assert await _names(client, "status=online", path="/dataplanes/_overview") == ["on", "never"]
    assert await _names(client, "status=online", path="/meshes/shop/dataplanes/_overview") == ["never"]


async def test_by_gateway(client: httpx.AsyncClient, store: MemoryStore) -> None:
    tags = {"kuma.io/service": "edge"}
    await store.put(builders.dataplane("sidecar"))
    await store.put(builders.dataplane("delegated", inbound=[], gateway={"tags": tags}))
    await store.put(builders.dataplane("builtin", inbound=[], gateway={"type": "BUILTIN", "tags": tags}))
    assert await _names(client, "gateway=true") == ["builtin", "delegated"]
    assert await _names(client, "gateway=false") == ["sidecar"]
    assert await _names(client, "gateway=builtin") == ["builtin"]
    assert await _names(client, "gateway=delegated") == ["delegated"]
    assert await _names(client, "gateway=") == ["builtin", "delegated", "sidecar"]
    assert await _names(client, "gateway=builtin&tag=kuma.io/service:edge") == ["builtin"]


async def test_overview_in_pages(client: httpx.AsyncClient, store: MemoryStore) -> None:
    for i in range(9):
        await store.put(builders.dataplane(f"web-{i}", tags={"kuma.io/service": "web", "side": "lr"[i % 2]}))
        await store.put(_insight(f"web-{i}", is_online=i < 6))
    found: list[str] = []
    following: str | None = f"{LIST}?size=2&tag=side:l&status=online"
    while following is not None:
        answer = (await client.get(following)).json()
        assert answer["total"] == 3
        found += [item["name"] for item in answer["items"]]
        following = answer["next"]
    assert found == ["web-0", "web-2", "web-4"]


async def test_insights_are_read_only_resources(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane("web-1"))
    await store.put(_insight("web-1"))
    document = (await client.get("/meshes/default/dataplane-insights/web-1")).json()
    assert document["subscriptions"] == [SUBSCRIPTION]
    assert (await client.get("/meshes/default/dataplane-insights")).json()["total"] == 1
    assert orjson.loads(orjson.dumps(document))["metadata"] == METADATA
    assert datetime.fromisoformat(document["creationTime"]).tzinfo == UTC
