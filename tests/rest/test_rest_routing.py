"""What routes traffic over HTTP: at Kuma's paths, with its violations and what writers should know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.rest.fakes import Convergence, error, services

from kumafast.rest.api import create_api
from kumafast.store import MemoryStore

pytestmark = pytest.mark.anyio

EVERYTHING = [{"match": {"kuma.io/service": "*"}}]
ROUTE = {"sources": EVERYTHING, "destinations": EVERYTHING, "conf": {"destination": {"kuma.io/service": "*"}}}
OUTSIDE = {"networking": {"address": "example.com:443"}, "tags": {"kuma.io/service": "billing"}}
VIRTUAL = {
    "selectors": EVERYTHING,
    "conf": {
        "host": "{{.name}}.mesh",
        "port": "80",
        "parameters": [{"name": "name", "tagKey": "kuma.io/service"}],
    },
}
BACKEND = {"kind": "MeshService", "name": "backend"}
REQUESTS = {"matches": [{"path": {"type": "Exact", "value": "/a"}}], "default": {"backendRefs": [BACKEND]}}
CONNECTIONS = {"default": {"backendRefs": [BACKEND]}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "TrafficRoute": ("traffic-routes", ROUTE),
    "MeshHTTPRoute": ("meshhttproutes", {"spec": {"to": [{"targetRef": BACKEND, "rules": [REQUESTS]}]}}),
    "MeshTCPRoute": ("meshtcproutes", {"spec": {"to": [{"targetRef": BACKEND, "rules": [CONNECTIONS]}]}}),
    "ExternalService": ("external-services", OUTSIDE),
    "VirtualOutbound": ("virtual-outbounds", VIRTUAL),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_is_written_read_and_deleted_at_its_path(client: httpx.AsyncClient, kind: str) -> None:
    path, fields = KINDS[kind]
    item = f"/meshes/default/{path}/x"
    created = await client.put(item, json={"type": kind, "mesh": "default", "name": "x", **fields})
    assert created.status_code == 201, created.text
    assert created.json() == {}
    found = (await client.get(item)).json()
    assert fields.items() <= found.items()
    assert [each["name"] for each in (await client.get(f"/meshes/default/{path}")).json()["items"]] == ["x"]
    assert (await client.delete(item)).status_code == 200
    assert (await client.get(item)).status_code == 404


async def test_what_is_not_valid_is_refused_with_all_of_it(client: httpx.AsyncClient) -> None:
    document = {"type": "ExternalService", "mesh": "default", "name": "x", "networking": {"address": "a"}}
    address = "networking.address"
    refused = await client.put("/meshes/default/external-services/x", json=document)
    assert refused.json() == error(
        400,
        "Could not process a resource",
        "Resource is not valid",
        (address, "unable to parse address"),
        (address, "address has to be a valid IP address or a domain name"),
        (address, "unable to parse port in address"),
        (address, "port must be in the range [1, 65535]"),
        ("tags", 'mandatory tag "kuma.io/service" is missing'),
    )


async def test_who_verifies_nobody_is_warned(client: httpx.AsyncClient) -> None:
    networking = {"address": "example.com:443", "tls": {"enabled": True}}
    document = {"type": "ExternalService", "mesh": "default", "name": "x", **OUTSIDE, "networking": networking}
    created = await client.put("/meshes/default/external-services/x", json=document)
    assert [warning.partition(":")[0] for warning in created.json()["warnings"]] == ["networking.tls"]


@pytest.mark.parametrize("creates_routes", [False, True])
async def test_a_new_mesh_permits_and_routes_everything_where_that_is_asked_for(creates_routes: bool) -> None:
    settings = replace(services(MemoryStore(), Convergence()), creates_routes=creates_routes)
    transport = httpx.ASGITransport(app=create_api(settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:5681") as api:
        assert (await api.put("/meshes/m", json={"type": "Mesh", "name": "m"})).status_code == 201
        names = [
            item["name"]
            for path in ("traffic-permissions", "traffic-routes")
            for item in (await api.get(f"/meshes/m/{path}")).json()["items"]
        ]
    assert names == (["allow-all-m", "route-all-m"] if creates_routes else [])
