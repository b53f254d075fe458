"""Built-in gateways over the API: written, listed, and asked which policies and dataplanes they have."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.gateways import gateway_dataplane, gateway_route, mesh_gateway, rule, to
from tests.rest.test_rest_rules import get, put

from kumafast.resources import to_document

pytestmark = pytest.mark.anyio

TWO = ({"tags": {"port": "one"}}, {"port": 8443, "hostname": "a.example.com", "tags": {"port": "two"}})


def for_listener(kind: str, name: str, port: str | None, **spec: Any) -> dict[str, Any]:
    top = {"kind": "MeshGateway", "name": "edge", **({} if port is None else {"tags": {"port": port}})}
    return {"type": kind, "mesh": "default", "name": name, "spec": {"targetRef": top, **spec}}


def to_all(**default: Any) -> list[dict[str, Any]]:
    return [{"targetRef": {"kind": "Mesh"}, "default": default}]


@pytest.fixture
async def scene(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A gateway with two listeners, one without a MeshGateway, and a route for one listener."""
    other = gateway_dataplane("gate-1", service="gate")
    route = gateway_route(rule("/", to("backend")), match={"port": "one"})
    for resource in (gateway_dataplane(), other, mesh_gateway(*TWO), route):
        await put(client, to_document(resource))
    await put(client, for_listener("MeshTimeout", "slow", "two", to=to_all(http={"requestTimeout": "1s"})))
    await put(client, for_listener("MeshTimeout", "fast", None, to=to_all(http={"requestTimeout": "9s"})))
    return client


async def test_both_kinds_are_resources_like_any(scene: httpx.AsyncClient) -> None:
    item = await get(scene, "/meshes/default/meshgateways/edge")
    assert item["kri"] == "kri_mgw_default_east__edge_"
    assert item["conf"]["listeners"][1]["hostname"] == "a.example.com"
    assert [each["name"] for each in (await get(scene, "/meshgatewayroutes"))["items"]] == ["r"]
    assert (await scene.delete("/meshes/default/meshgatewayroutes/r")).status_code == 200
    assert (await scene.get("/meshes/default/meshgatewayroutes/r")).status_code == 404


async def test_who_is_a_gateway_and_who_has_a_route(scene: httpx.AsyncClient) -> None:
    for path in ("meshgateways/edge", "meshgatewayroutes/r"):
        shown = await get(scene, f"/meshes/default/{path}/dataplanes")
        assert shown == {"total": 1, "items": [{"dataplane": {"mesh": "default", "name": "edge-1"}}]}
        shown = await get(scene, f"/meshes/default/{path}/_resources/dataplanes")
        assert [each["name"] for each in shown["items"]] == ["edge-1"]
    absent = await scene.get("/meshes/default/meshgateways/nobody/dataplanes")
    assert (absent.status_code, absent.json()["title"]) == (404, "Could not retrieve policy")
    shown = await get(scene, "/meshes/default/meshtimeouts/slow/_resources/dataplanes")
    assert [each["name"] for each in shown["items"]] == ["edge-1"]


async def test_policies_of_listeners_are_explained_by_these(scene: httpx.AsyncClient) -> None:
    log = {"backends": [{"type": "File", "file": {"path": "/tmp/a"}}]}
    from_all = [{"targetRef": {"kind": "Mesh"}, "default": log}]
    await put(scene, for_listener("MeshAccessLog", "log", "two", **{"from": from_all}))
    shown = await get(scene, "/meshes/default/dataplanes/edge-1/_explanation")
    found = {(each["subject"], each["name"], *each["addresses"]): each["policies"] for each in shown["subjects"]}
    assert set(found) == {
        ("inbound", "8080", "127.0.0.1:8080"),
        ("inbound", "a.example.com", "127.0.0.1:8443"),
        ("outbound", "backend", "127.0.0.1:8080"),
    }
    (timeout,) = found["outbound", "backend", "127.0.0.1:8080"]
    assert timeout["conf"] == {"http": {"requestTimeout": "9s"}}
    assert [each["type"] for each in found["inbound", "a.example.com", "127.0.0.1:8443"]] == ["MeshAccessLog"]
    assert found["inbound", "8080", "127.0.0.1:8080"] == []
    rules = {each["type"]: each for each in (await get(scene, "/meshes/default/dataplanes/edge-1/_rules"))["rules"]}
    (rule_of_log,) = rules["MeshAccessLog"]["fromRules"]
    assert rule_of_log["inbound"]["tags"] == {"kuma.io/service": "edge", "kuma.io/zone": "east", "port": "two"}


@pytest.mark.parametrize("name", ["edge-1", "gate-1"])
@pytest.mark.parametrize("path", ["_rules", "_explanation", "policies"])
async def test_everything_that_is_asked_of_a_proxy_is_answered(scene: httpx.AsyncClient, name: str, path: str) -> None:
    await get(scene, f"/meshes/default/dataplanes/{name}/{path}")
