"""Policies over the API: a mesh comes with its own and takes them along, users' are written, refused and listed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.rest.fakes import error

from kumafast.resources import Mesh
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio

TO_BACKEND = [{"targetRef": {"kind": "MeshService", "name": "backend"}, "default": {"http": {"requestTimeout": "1m"}}}]
TIMEOUTS = "/meshes/payments/meshtimeouts"


def mesh_timeout(**spec: Any) -> dict[str, Any]:
    return {"type": "MeshTimeout", "mesh": "default", "name": "mt", "spec": spec}


async def names_of(client: httpx.AsyncClient, path: str) -> list[str]:
    return [item["name"] for item in (await client.get(path)).json()["items"]]


async def test_a_mesh_comes_and_goes_with_its_policies(client: httpx.AsyncClient, store: MemoryStore) -> None:
    revision = await store.revision()
    answer = await client.put("/meshes/payments", json={"type": "Mesh", "name": "payments"})
    assert answer.status_code == 201
    assert int(answer.headers["X-Kumafast-Revision"]) == await store.revision() == revision + 1
    both = ["mesh-gateways-timeout-all-payments", "mesh-timeout-all-payments"]
    assert await names_of(client, TIMEOUTS) == both
    item = (await client.get(f"{TIMEOUTS}/mesh-timeout-all-payments")).json()
    assert item["kri"] == "kri_mt_payments_east__mesh-timeout-all-payments_"
    assert item["spec"]["targetRef"] == {"kind": "Mesh", "proxyTypes": ["Sidecar"]}
    # What a user deleted stays deleted, whatever is then written to the mesh.
    assert (await client.delete(f"{TIMEOUTS}/mesh-timeout-all-payments")).status_code == 200
    changed = {"type": "Mesh", "name": "payments", "labels": {"team": "a"}}
    assert (await client.put("/meshes/payments", json=changed)).status_code == 200
    assert await names_of(client, TIMEOUTS) == both[:1]
    assert (await client.delete("/meshes/payments")).status_code == 200
    assert await names_of(client, "/meshtimeouts") == []


async def test_a_mesh_without_initial_policies(client: httpx.AsyncClient) -> None:
    mesh = {"type": "Mesh", "name": "payments", "skipCreatingInitialPolicies": ["*"]}
    assert (await client.put("/meshes/payments", json=mesh)).status_code == 201
    assert await names_of(client, TIMEOUTS) == []


async def test_a_condition_that_a_mesh_is_new(client: httpx.AsyncClient, store: MemoryStore) -> None:
    mesh, only_new = {"type": "Mesh", "name": "payments"}, {"If-None-Match": "*"}
    assert (await client.put("/meshes/payments", json=mesh, headers=only_new)).status_code == 201
    assert len(await names_of(client, TIMEOUTS)) == 2
    assert (await client.put("/meshes/payments", json=mesh, headers=only_new)).status_code == 409
    await store.put(Mesh(name="made-by-hand"))
    assert await names_of(client, "/meshes/made-by-hand/meshtimeouts") == []


async def test_policies_are_written_and_shown(client: httpx.AsyncClient) -> None:
    written = mesh_timeout(to=TO_BACKEND)
    assert (await client.put("/meshes/default/meshtimeouts/mt", json=written)).status_code == 201
    assert (await client.put("/meshes/default/meshtimeouts/mt", json=written)).status_code == 200
    shown = (await client.get("/meshes/default/meshtimeouts/mt")).json()
    assert shown["labels"] == {
        "kuma.io/env": "universal",
        "kuma.io/mesh": "default",
        "kuma.io/origin": "zone",
        "kuma.io/zone": "east",
    }
    assert shown["spec"]["to"][0]["default"] == {"http": {"requestTimeout": "1m0s"}}
    legacy = {
        "type": "Timeout",
        "mesh": "default",
        "name": "t",
        "sources": [{"match": {"kuma.io/service": "*"}}],
        "destinations": [{"match": {"kuma.io/service": "backend"}}],
        "conf": {"connectTimeout": "10s"},
    }
    assert (await client.put("/meshes/default/timeouts/t", json=legacy)).status_code == 201
    shown = (await client.get("/meshes/default/timeouts/t")).json()
    assert {key: shown[key] for key in legacy} == legacy
    assert await names_of(client, "/timeouts") == ["t"]
    assert (await client.delete("/meshes/default/timeouts/t")).status_code == 200


async def test_all_violations_in_one_answer(client: httpx.AsyncClient, store: MemoryStore) -> None:
    revision = await store.revision()
    answer = await client.put("/meshes/default/meshtimeouts/mt", json=mesh_timeout(targetRef={"kind": "Nobody"}))
    assert answer.status_code == 400
    assert answer.json() == error(
        400,
        "Could not process a resource",
        "Resource is not valid",
        ("spec.targetRef.kind", "value is not supported"),
        ("spec", "at least one of 'from', 'to' or 'rules' has to be defined"),
    )
    assert await store.revision() == revision


async def test_unknown_fields_are_named(client: httpx.AsyncClient) -> None:
    answer = await client.put("/meshes/default/meshtimeouts/mt", json=mesh_timeout(to=TO_BACKEND, too=1))
    assert answer.json() == {"warnings": ["spec.too: unknown field, ignored"]}


async def test_a_policy_needs_its_mesh(client: httpx.AsyncClient) -> None:
    written = {**mesh_timeout(to=TO_BACKEND), "mesh": "nowhere"}
    assert (await client.put("/meshes/nowhere/meshtimeouts/mt", json=written)).status_code == 404
