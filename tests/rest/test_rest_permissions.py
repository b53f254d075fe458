"""Over the API: permissions are written with remarks, and a mesh's constraints keep dataplanes out."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests import builders
from tests.rest.fakes import dataplane_document

from kumafast.resources import Dataplane
from kumafast.resources.resource import ResourceKey
from kumafast.rest.bootstrap import create_dp_app
from kumafast.rest.services import DpServices
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio

PERMISSIONS = "/meshes/default/traffic-permissions"
CONSTRAINTS = {"dataplaneProxy": {"requirements": [{"tags": {"team": "shop"}}]}}


def rule(source: str, destination: str) -> dict[str, Any]:
    return {"sources": [{"match": {"service": source}}], "destinations": [{"match": {"service": destination}}]}


def permission(**fields: Any) -> dict[str, Any]:
    return {"type": "TrafficPermission", "mesh": "default", "name": "tp", **fields}


async def test_one_rule_of_0_1_0_is_taken_in_silence(client: httpx.AsyncClient) -> None:
    answer = await client.put("/meshes/default/traffic-permission/tp", json=permission(rules=[rule("web", "cart")]))
    assert (answer.status_code, answer.json()) == (201, {})
    item = (await client.get(f"{PERMISSIONS}/tp")).json()
    assert item["sources"] == [{"match": {"kuma.io/service": "web"}}]
    assert item["destinations"] == [{"match": {"kuma.io/service": "cart"}}]


async def test_several_rules_are_taken_with_a_warning(client: httpx.AsyncClient) -> None:
    answer = await client.put(f"{PERMISSIONS}/tp", json=permission(rules=[rule("a", "x"), rule("b", "y")]))
    assert answer.status_code == 201
    (warning,) = answer.json()["warnings"]
    assert warning.startswith("rules: each of the 2 rules is a permission of its own")


async def test_a_mesh_traffic_permission(client: httpx.AsyncClient) -> None:
    spec = {"from": [{"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}}]}
    document = {"type": "MeshTrafficPermission", "mesh": "default", "name": "mtp", "spec": spec}
    path = "/meshes/default/meshtrafficpermissions/mtp"
    assert (await client.put(path, json=document)).status_code == 201
    item = (await client.get(path)).json()
    assert (item["spec"], item["kri"]) == (spec, "kri_mtp_default_east__mtp_")
    answer = await client.put(path, json={**document, "spec": {}})
    assert answer.status_code == 400
    assert answer.json()["invalid_parameters"] == [
        {"field": "spec", "reason": "at least one of 'from' or 'rules' has to be defined"}
    ]


async def test_a_dataplane_that_the_mesh_does_not_want(client: httpx.AsyncClient, store: MemoryStore) -> None:
    await store.put(builders.mesh(constraints=CONSTRAINTS))
    answer = await client.put("/meshes/default/dataplanes/web-1", json=dataplane_document())
    assert answer.status_code == 400
    (violation,) = answer.json()["invalid_parameters"]
    assert violation["field"] == "networking.inbound[0].tags"
    assert "does not fulfill any requirements" in violation["reason"]
    assert (await client.get("/meshes/default/dataplanes/web-1")).status_code == 404


async def test_one_that_is_there_when_the_mesh_changes_stays_and_is_refused_when_it_comes_again(
    client: httpx.AsyncClient, store: MemoryStore
) -> None:
    path = "/meshes/default/dataplanes/web-1"
    assert (await client.put(path, json=dataplane_document())).status_code == 201
    mesh = {"type": "Mesh", "name": "default", "constraints": CONSTRAINTS}
    assert (await client.put("/meshes/default", json=mesh)).status_code == 200
    assert (await client.get(path)).status_code == 200
    assert (await client.put(path, json=dataplane_document())).status_code == 400
    app = create_dp_app(DpServices(store=store, zone="east", certificate_pem=lambda: None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1:5678") as dp:
        answer = await dp.post("/bootstrap", json={"mesh": "default", "name": "web-1"})
        assert answer.status_code == 422
        assert answer.json()["invalid_parameters"][0]["field"] == "networking.inbound[0].tags"
        await store.delete(ResourceKey(Dataplane.type.name, "default", "web-1"))
        # Nor does a launcher register one.
        bringing = {"mesh": "default", "name": "web-1", "dataplaneResource": json.dumps(dataplane_document())}
        assert (await dp.post("/bootstrap", json=bringing)).status_code == 422
    assert (await client.get(path)).status_code == 404
