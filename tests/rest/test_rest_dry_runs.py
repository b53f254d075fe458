"""What writes would do, asked over HTTP: as the writes would be answered, and nothing stored."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.rest.fakes import dataplane_document, error, everything

from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


def client_document(name: str = "client-1") -> dict[str, Any]:
    return dataplane_document(
        name,
        networking={
            "address": "127.0.0.1",
            "inbound": [{"port": 18001, "tags": {"kuma.io/service": "client"}}],
            "outbound": [{"port": 10_001, "tags": {"kuma.io/service": "web"}}],
        },
    )


def timeout_document(connect: str = "1s", **over: Any) -> dict[str, Any]:
    ends = {end: [{"match": {"kuma.io/service": "*"}}] for end in ("sources", "destinations")}
    return {"type": "Timeout", "mesh": "default", "name": "t", **ends, "conf": {"connectTimeout": connect}, **over}


async def put(client: httpx.AsyncClient, document: dict[str, Any], *, query: str = "") -> httpx.Response:
    paths = {"Dataplane": "dataplanes", "Timeout": "timeouts"}
    path = f"/meshes/{document['mesh']}/{paths[document['type']]}/{document['name']}"
    return await client.put(path + query, json=document)


@pytest.fixture
async def mesh(client: httpx.AsyncClient) -> None:
    for document in (dataplane_document(), client_document(), client_document("client-2")):
        assert (await put(client, document)).status_code == 201


async def test_a_dry_run_says_who_gets_what_and_stores_nothing(
    client: httpx.AsyncClient, store: MemoryStore, mesh: None
) -> None:
    before = await everything(store)
    response = await put(client, timeout_document(), query="?dry_run=true")
    assert response.status_code == 200
    names = [{"mesh": "default", "name": "client-1"}, {"mesh": "default", "name": "client-2"}]
    assert response.json() == {
        "resources": [{"type": "Timeout", "mesh": "default", "name": "t", "outcome": "created"}],
        "proxies": {"affected": 2, "connected": 0, "total": 3, "names": names},
        "groups": [
            {
                "proxies": 2,
                "names": names,
                "edits": [
                    {
                        "kind": "changed",
                        "typeUrl": CLUSTER,
                        "resources": ["web"],
                        "differences": [{"path": "connectTimeout", "before": "5s", "after": "1s"}],
                    }
                ],
            }
        ],
        "failed": [],
        "leftOut": {"proxies": 0, "edits": 0},
    }
    assert await everything(store) == before


async def test_a_dry_run_is_refused_as_the_write_would_be(client: httpx.AsyncClient, mesh: None) -> None:
    bad = timeout_document(destinations=[])
    refused = await put(client, bad, query="?dry_run=true")
    assert refused.status_code == 400
    assert refused.json() == (await put(client, bad)).json()
    away = timeout_document(mesh="nowhere")
    assert (await put(client, away, query="?dry_run=true")).json() == (await put(client, away)).json()
    unclear = await put(client, timeout_document(), query="?dry_run=yes")
    assert unclear.json() == error(
        400, "Could not process a resource", "Invalid dry_run", ("dry_run", "must be true or false")
    )


async def test_a_deletion_is_asked_about_likewise(client: httpx.AsyncClient, store: MemoryStore, mesh: None) -> None:
    assert (await put(client, timeout_document())).status_code == 201
    before = await everything(store)
    response = await client.delete("/meshes/default/timeouts/t?dry_run=true")
    assert response.json()["resources"][0]["outcome"] == "deleted"
    [group] = response.json()["groups"]
    assert group["edits"][0]["differences"] == [{"path": "connectTimeout", "before": "1s", "after": "5s"}]
    assert (await client.delete("/meshes/default/timeouts/none?dry_run=true")).status_code == 404
    assert await everything(store) == before


async def test_what_changes_nothing_says_so(client: httpx.AsyncClient, mesh: None) -> None:
    response = (await put(client, dataplane_document(), query="?dry_run=true")).json()
    assert [each["outcome"] for each in response["resources"]] == ["unchanged"]
    assert (response["proxies"]["affected"], response["groups"]) == (0, [])


async def test_several_documents_count_together(client: httpx.AsyncClient, store: MemoryStore, mesh: None) -> None:
    before = await everything(store)
    documents = [
        {"type": "Mesh", "name": "payments"},
        dataplane_document("pay-1", mesh="payments"),
        timeout_document(),
        timeout_document("2s", labels={"a": "b"}),
        dataplane_document(),
    ]
    deletions = [{"type": "Dataplane", "mesh": "default", "name": "client-2"}]
    response = await client.post("/_diff", json={"resources": documents, "deletions": deletions})
    assert response.status_code == 200
    outcomes = [(each["name"], each["outcome"], each.get("isAlong", False)) for each in response.json()["resources"]]
    assert outcomes[:6] == [
        ("payments", "created", False),
        ("pay-1", "created", False),
        ("t", "created", False),
        ("t", "created", False),
        ("web-1", "unchanged", False),
        ("client-2", "deleted", False),
    ]
    # The policies that a mesh begins with.
    assert outcomes[6:]
    assert all(outcome == "created" and is_along for _, outcome, is_along in outcomes[6:])
    affected = [each["name"] for each in response.json()["proxies"]["names"]]
    assert affected == ["client-1", "pay-1"]
    changed = [edit for group in response.json()["groups"] for edit in group["edits"] if edit["kind"] == "changed"]
    assert [edit["differences"][0]["after"] for edit in changed] == ["2s"]
    assert await everything(store) == before


async def test_all_that_is_wrong_is_told_with_its_place(client: httpx.AsyncClient) -> None:
    documents = [
        timeout_document(),
        timeout_document(destinations=[]),
        {"type": "Nothing", "name": "x"},
        timeout_document(mesh="nowhere"),
        {"type": "Timeout", "mesh": "default"},
    ]
    body = {"resources": documents, "deletions": [{"type": "DataplaneInsight", "mesh": "default", "name": "x"}]}
    response = await client.post("/_diff", json=body)
    assert response.json() == error(
        400,
        "Could not process a resource",
        "Resource is not valid",
        ("resources[1].destinations", "must have at least one element"),
        ("resources[2].type", "must be the type of a resource that can be written"),
        ("resources[3].mesh", "mesh of name nowhere is not found"),
        ("resources[4].name", "cannot be empty"),
        ("deletions[0].type", "must be the type of a resource that can be written"),
    )
    unclear: list[Any] = [{}, ["x"], [{}] * 1001]
    for resources in unclear:
        assert (await client.post("/_diff", json={"resources": resources})).status_code == 400


async def test_in_a_mesh_it_is_about_that_mesh(client: httpx.AsyncClient, store: MemoryStore) -> None:
    ours = {"resources": [timeout_document()]}
    assert (await client.post("/meshes/default/_diff", json=ours)).status_code == 200
    for refused in (timeout_document(mesh="other"), {"type": "Mesh", "name": "default"}, secret_document()):
        response = await client.post("/meshes/default/_diff", json={"resources": [refused]})
        assert response.status_code == 400


def secret_document() -> dict[str, Any]:
    return {"type": "Secret", "mesh": "default", "name": "s", "data": "YQ=="}
