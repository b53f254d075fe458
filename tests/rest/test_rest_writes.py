"""Writing over HTTP: statuses, warnings, revisions, conditions, and nothing half-applied."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from tests import builders
from tests.rest.fakes import Convergence, dataplane_document, error, everything, services

from kumafast.errors import StoreUnavailableError
from kumafast.resources import Dataplane, Resource
from kumafast.resources.resource import ResourceKey
from kumafast.rest.api import create_api
from kumafast.store import MemoryStore, StoredResource

pytestmark = pytest.mark.anyio

ITEM = "/meshes/default/dataplanes/web-1"
KEY = ResourceKey("Dataplane", "default", "web-1")
CONFLICT = 409


async def test_put_creates_then_updates(client: httpx.AsyncClient, store: MemoryStore) -> None:
    created = await client.put(ITEM, json=dataplane_document())
    assert (created.status_code, created.json(), created.headers["X-Kumafast-Revision"]) == (201, {}, "2")
    changed = dataplane_document()
    changed["networking"]["address"] = "127.0.0.2"
    updated = await client.put(ITEM, json=changed)
    assert (updated.status_code, updated.json(), updated.headers["X-Kumafast-Revision"]) == (200, {}, "3")
    stored = (await store.get(KEY)).resource
    assert isinstance(stored, Dataplane)
    assert stored.address == "127.0.0.2"


async def test_a_dataplane_that_moves_keeps_the_very_outbounds_that_it_had(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    """Those that were read together share theirs, and go on to when one of them has moved."""
    document = dataplane_document()
    document["networking"]["outbound"] = [{"port": 10001, "tags": {"kuma.io/service": "backend"}}]
    await client.put(ITEM, json=document)
    before = (await store.get(KEY)).resource
    document["networking"]["address"] = "127.0.0.2"
    await client.put(ITEM, json=document)
    moved = (await store.get(KEY)).resource
    assert isinstance(before, Dataplane)
    assert isinstance(moved, Dataplane)
    assert moved.address == "127.0.0.2"
    assert moved.outbounds[0] is before.outbounds[0]
    document["networking"]["outbound"][0]["port"] = 10002
    await client.put(ITEM, json=document)
    led = (await store.get(KEY)).resource
    assert isinstance(led, Dataplane)
    assert led.outbounds[0].port == 10002


async def test_put_of_what_is_stored_is_no_commit(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await client.put(ITEM, json=dataplane_document())
    again = await client.put(ITEM, json=dataplane_document())
    assert (again.status_code, again.headers["X-Kumafast-Revision"]) == (200, "2")
    assert await store.revision() == 2


async def test_put_adds_what_the_server_knows(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await client.put(ITEM, json=dataplane_document(labels={"team": "shop"}))
    stored = (await store.get(KEY)).resource
    assert isinstance(stored, Dataplane)
    assert stored.labels["team"] == "shop"
    assert stored.labels["kuma.io/zone"] == "east"
    assert stored.inbounds[0].tags["kuma.io/zone"] == "east"


async def test_put_as_kumactl_does_it(client: httpx.AsyncClient) -> None:
    """kumactl sends times that never were, an identifier without a zone, and reads back what it wrote."""
    document = dataplane_document(
        creationTime="0001-01-01T00:00:00Z",
        modificationTime="0001-01-01T00:00:00Z",
        kri="kri_dp_default___web-1_",
    )
    answer = await client.put(ITEM, json=document)
    assert (answer.status_code, answer.json()) == (201, {})
    read = (await client.get(ITEM)).json()
    assert read["creationTime"] != "0001-01-01T00:00:00Z"
    assert read["kri"] == "kri_dp_default_east__web-1_"
    assert (await client.put(ITEM, json=read)).json() == {}


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
async def test_content_type_is_not_looked_at(client: httpx.AsyncClient, content_type: str) -> None:
    body = b'{"type": "Mesh", "name": "shop"}'
    answer = await client.put("/meshes/shop", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 201


async def test_unknown_fields_are_named_and_ignored(client: httpx.AsyncClient) -> None:
    document = dataplane_document(colour="red")
    document["networking"]["inbound"][0]["prot"] = "http"
    answer = await client.put(ITEM, json=document)
    assert answer.status_code == 201
    assert answer.json() == {
        "warnings": ["networking.inbound[0].prot: unknown field, ignored", "colour: unknown field, ignored"]
    }
    assert "colour" not in (await client.get(ITEM)).json()


async def test_warnings_are_limited(client: httpx.AsyncClient) -> None:
    answer = await client.put(ITEM, json={**dataplane_document(), **{f"field{i}": i for i in range(1000)}})
    assert len(answer.json()["warnings"]) == 21
    assert answer.json()["warnings"][-1] == "980 more unknown fields, ignored"


async def test_a_mesh_with_mtls_gets_its_authority(client: httpx.AsyncClient) -> None:
    mtls = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}
    answer = await client.put("/meshes/default", json={"type": "Mesh", "name": "default", "mtls": mtls})
    assert answer.status_code == 200
    assert answer.json() == {}
    names = [item["name"] for item in (await client.get("/meshes/default/secrets")).json()["items"]]
    assert names == ["default.ca-builtin-cert-ca-1", "default.ca-builtin-key-ca-1", "default.ca-trust"]
    assert (await client.get("/meshes/default")).json()["mtls"] == mtls


async def test_older_forms_are_accepted(client: httpx.AsyncClient) -> None:
    networking = {"inbound": [{"interface": "127.0.0.1:9000:8080", "tags": {"service": "cart"}}]}
    document = {"type": "Dataplane", "mesh": "default", "name": "web-1", "networking": networking}
    answer = await client.put(ITEM, json=document)
    assert (answer.status_code, answer.json()) == (201, {})
    inbound = (await client.get(ITEM)).json()["networking"]["inbound"][0]
    assert (inbound["port"], inbound["servicePort"], inbound["tags"]["kuma.io/service"]) == (9000, 8080, "cart")


async def test_every_violation_in_one_answer(client: httpx.AsyncClient, store: MemoryStore) -> None:
    before = await everything(store)
    document = {"type": "Mesh", "mesh": "shop", "name": "Web", "networking": {"inbound": [{"port": 0}]}}
    answer = await client.put(ITEM, json=document)
    assert answer.status_code == 400
    assert answer.json()["title"] == "Could not process a resource"
    assert answer.json()["detail"] == "Resource is not valid"
    fields = [entry["field"] for entry in answer.json()["invalid_parameters"]]
    assert fields == ["name", "type", "mesh", "name", "networking.address", "networking.inbound[0].port"]
    assert await everything(store) == before


async def test_put_into_an_unknown_mesh(client: httpx.AsyncClient, store: MemoryStore) -> None:
    answer = await client.put("/meshes/nope/dataplanes/web-1", json=dataplane_document(mesh="nope"))
    assert answer.status_code == 404
    assert answer.json() == error(
        404, "Failed to retrieve Mesh", "Not found", ("mesh", "mesh of name nope is not found")
    )
    assert await store.revision() == 1


async def test_delete(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await client.put(ITEM, json=dataplane_document())
    gone = await client.delete(ITEM)
    assert (gone.status_code, gone.json(), gone.headers["X-Kumafast-Revision"]) == (200, {}, "3")
    missing = await client.delete(ITEM)
    assert (missing.status_code, missing.json()) == (404, error(404, "Could not delete a resource", "Not found"))


async def test_delete_takes_the_insight_along(client: httpx.AsyncClient, store: MemoryStore) -> None:
    from kumafast.resources import DataplaneInsight

    await store.put(builders.dataplane())
    await store.put(DataplaneInsight(mesh="default", name="web-1"))
    await client.delete(ITEM)
    assert (await client.get("/meshes/default/dataplane-insights/web-1")).status_code == 404


async def test_delete_of_a_mesh_with_dataplanes(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.dataplane())
    refused = await client.delete("/meshes/default")
    violation = ("mesh", "unable to delete mesh default, there are still some dataplanes attached")
    assert refused.status_code == 400
    assert refused.json() == error(400, "Could not delete a resource", "Resource is not valid", violation)
    await client.delete(ITEM)
    assert (await client.delete("/meshes/default")).status_code == 200
    assert (await client.get("/meshes/default")).status_code == 404


async def test_conditional_writes(client: httpx.AsyncClient) -> None:
    put = client.put
    assert (await put(ITEM, json=dataplane_document(), headers={"If-None-Match": "*"})).status_code == 201
    assert (await put(ITEM, json=dataplane_document(), headers={"If-None-Match": "*"})).status_code == CONFLICT
    tag = (await client.get(ITEM)).headers["ETag"]
    newer = dataplane_document(labels={"round": "2"})
    assert (await put(ITEM, json=newer, headers={"If-Match": tag})).status_code == 200
    refused = await put(ITEM, json=dataplane_document(), headers={"If-Match": tag})
    assert refused.status_code == CONFLICT
    assert refused.json()["title"] == "Conflict"
    assert (await client.delete(ITEM, headers={"If-Match": tag})).status_code == CONFLICT
    tag = (await client.get(ITEM)).headers["ETag"]
    assert (await client.delete(ITEM, headers={"If-Match": tag})).status_code == 200


async def test_two_who_create_at_once(client: httpx.AsyncClient, store: MemoryStore) -> None:
    documents = [dataplane_document(labels={"writer": str(i)}) for i in range(8)]
    answers = await asyncio.gather(*(client.put(ITEM, json=document) for document in documents))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert await store.revision() == 9


class _Unwritable(MemoryStore):
    async def put(self, resource: Resource, *, expected_revision: int | None = None) -> StoredResource:
        raise StoreUnavailableError("the disk is full")


async def test_store_that_cannot_be_written() -> None:
    store = _Unwritable()
    await MemoryStore.put(store, builders.mesh())
    transport = httpx.ASGITransport(app=create_api(services(store, Convergence())))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.put(ITEM, json=dataplane_document())
        assert answer.status_code == 503
        assert answer.json() == error(503, "Could not process a resource", "the disk is full")
        assert (await client.get("/meshes/default")).status_code == 200


class _Broken(MemoryStore):
    async def get(self, key: ResourceKey) -> StoredResource:
        raise RuntimeError("a secret of ours")


async def test_failure_of_ours_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    transport = httpx.ASGITransport(app=create_api(services(_Broken(), Convergence())))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer: Any = await client.get(ITEM)
    assert answer.status_code == 500
    assert answer.json() == error(500, "Internal Server Error", "Internal Server Error")
    assert "a secret of ours" in caplog.text
    assert "Traceback" in caplog.text
