"""Who has which policies, the older way and by page, and explanations over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.rest.fakes import error
from tests.rest.test_rest_rules import ECHO, WEB, get, mesh_timeout, put

pytestmark = pytest.mark.anyio


def timeout(name: str, source: str = "*", destination: str = "*", limit: str = "9s") -> dict[str, Any]:
    sides = {
        "sources": [{"match": {"kuma.io/service": source}}],
        "destinations": [{"match": {"kuma.io/service": destination}}],
    }
    return {"type": "Timeout", "mesh": "default", "name": name, **sides, "conf": {"connectTimeout": limit}}


def permission(name: str, *destinations: str) -> dict[str, Any]:
    return {
        "type": "TrafficPermission",
        "mesh": "default",
        "name": name,
        "sources": [{"match": {"kuma.io/service": "*"}}],
        "destinations": [{"match": {"kuma.io/service": service}} for service in destinations],
    }


@pytest.fixture
async def scene(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """An echo and a web that reaches it, in a mesh without initial policies."""
    for document in (ECHO, WEB, timeout("wide"), timeout("narrow", "web"), permission("all", "*")):
        await put(client, document)
    return client


async def test_policies_of_a_proxy(scene: httpx.AsyncClient) -> None:
    await put(scene, mesh_timeout("mine", {"rules": [{"default": {"idleTimeout": "1s"}}]}))
    shown = await get(scene, "/meshes/default/dataplanes/web-1/policies")
    assert (shown["kind"], shown["total"]) == ("SidecarDataplane", 3)
    assert [
        (item["type"], item["name"], item["service"], sorted(item["matchedPolicies"])) for item in shown["items"]
    ] == [
        ("dataplane", "", "", ["MeshTimeout"]),
        ("inbound", "127.0.0.1:17002:17102", "web", ["TrafficPermission"]),
        ("outbound", "127.0.0.1:17201", "echo", ["Timeout"]),
    ]
    # What is outweighed is not attached, and what is has its whole document.
    (attached,) = shown["items"][2]["matchedPolicies"]["Timeout"]
    assert attached == await get(scene, "/meshes/default/timeouts/narrow")


async def test_dataplanes_of_a_policy(scene: httpx.AsyncClient) -> None:
    found = await get(scene, "/meshes/default/timeouts/narrow/dataplanes")
    assert found == {
        "total": 1,
        "items": [
            {
                "dataplane": {"mesh": "default", "name": "web-1"},
                "kind": "SidecarDataplane",
                "attachments": [{"type": "outbound", "name": "127.0.0.1:17201", "service": "echo"}],
            }
        ],
    }
    assert await get(scene, "/meshes/default/timeouts/wide/dataplanes") == {"total": 0, "items": []}
    found = await get(scene, "/meshes/default/traffic-permissions/all/dataplanes")
    assert [item["dataplane"]["name"] for item in found["items"]] == ["echo-1", "web-1"]


async def test_who_a_policy_has_to_do_with(scene: httpx.AsyncClient) -> None:
    for number in range(7):
        await put(scene, {**WEB, "name": f"web-{number}"})
    path = "/meshes/default/timeouts/narrow/_resources/dataplanes"
    # Of a connection those at either end: its destinations are everybody.
    assert (await get(scene, path))["total"] == 8
    await put(scene, timeout("narrow", "web", "other"))
    whole = await get(scene, path)
    assert [item["name"] for item in whole["items"]] == [f"web-{number}" for number in range(7)]
    assert (whole["total"], "next" in whole) == (7, False)
    item = whole["items"][0]
    assert (item["type"], item["mesh"], item["labels"]["kuma.io/zone"]) == ("Dataplane", "default", "east")

    seen: list[str] = []
    following = f"{path}?size=3"
    while following:
        page = await get(scene, following)
        assert page["total"] == 7
        seen += [item["name"] for item in page["items"]]
        following = page.get("next")
    assert seen == [f"web-{number}" for number in range(7)]
    assert [item["name"] for item in (await get(scene, f"{path}?name=b-3"))["items"]] == ["web-3"]


async def test_a_shadow_has_to_do_with_those_that_it_would_be_for(scene: httpx.AsyncClient) -> None:
    spec = {"targetRef": {"kind": "Dataplane", "name": "web-1"}, "to": [{"targetRef": {"kind": "Mesh"}}]}
    spec["to"][0]["default"] = {"idleTimeout": "1s"}  # type: ignore[index]
    await put(scene, {**mesh_timeout("dark", spec), "labels": {"kuma.io/effect": "shadow"}})
    found = await get(scene, "/meshes/default/meshtimeouts/dark/_resources/dataplanes")
    assert [item["name"] for item in found["items"]] == ["web-1"]
    (item,) = (await get(scene, "/meshes/default/meshtimeouts/dark/_explanation"))["items"]
    assert item == {"name": "web-1", "subjects": []}


@pytest.mark.parametrize("path", ["_resources/dataplanes", "dataplanes", "_explanation"])
async def test_policies_that_are_not_there(scene: httpx.AsyncClient, path: str) -> None:
    missing = error(404, "Could not retrieve policy", "Not found")
    assert await get(scene, f"/meshes/default/timeouts/none/{path}", 404) == missing
    assert (await get(scene, f"/meshes/none/timeouts/wide/{path}", 404))["invalid_parameters"] == [
        {"field": "mesh", "reason": "mesh of name none is not found"}
    ]
    response = await scene.get(f"/meshes/default/dataplane-insights/web-1/{path}")
    assert (response.status_code, response.text) == (404, "404: Page Not Found")


async def test_pages_that_cannot_be(scene: httpx.AsyncClient) -> None:
    for path in ("_resources/dataplanes", "_explanation"):
        refused = await get(scene, f"/meshes/default/timeouts/wide/{path}?size=1001", 400)
        assert refused["invalid_parameters"][0]["field"] == "size"


async def test_a_proxy_explained(scene: httpx.AsyncClient) -> None:
    explained = await get(scene, "/meshes/default/dataplanes/web-1/_explanation")
    assert explained["resource"]["name"] == "web-1"
    inbound, outbound = explained["subjects"]
    assert (inbound["subject"], inbound["name"], inbound["addresses"]) == ("inbound", "17002", ["127.0.0.1:17002"])
    assert [(entry["type"], entry["candidates"][0]["verdict"]) for entry in inbound["policies"]] == [
        ("TrafficPermission", "applies")
    ]
    assert (outbound["subject"], outbound["name"]) == ("outbound", "echo")
    (entry,) = outbound["policies"]
    assert entry["conf"] == {"connectTimeout": "9s"}
    assert entry["candidates"] == [
        {"name": "narrow", "verdict": "applies", "fields": ["connectTimeout"], "losses": []},
        {
            "name": "wide",
            "verdict": "outweighed",
            "fields": [],
            "losses": [
                {
                    "fields": ["connectTimeout"],
                    "to": "narrow",
                    "reason": "more specific source: 1 tag without * against 0",
                }
            ],
        },
    ]


async def test_a_policy_explained(scene: httpx.AsyncClient) -> None:
    explained = await get(scene, "/meshes/default/timeouts/wide/_explanation?name=web")
    assert (explained["resource"]["name"], explained["total"], explained["next"]) == ("wide", 1, None)
    (item,) = explained["items"]
    (subject,) = item["subjects"]
    assert (item["name"], subject["name"], subject["verdict"]) == ("web-1", "echo", "outweighed")
    assert subject["losses"][0]["to"] == "narrow"


async def test_what_silences_a_policy_is_named(scene: httpx.AsyncClient) -> None:
    to = [{"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": "1s"}}]
    await put(scene, mesh_timeout("newer", {"to": to}))
    (item,) = (await get(scene, "/meshes/default/timeouts/narrow/_explanation?name=web"))["items"]
    (subject,) = item["subjects"]
    assert (subject["conf"], subject["verdict"]) == (None, "silenced")
    assert subject["silencedBy"] == {"type": "MeshTimeout", "name": "newer"}
    assert subject["reason"] == "MeshTimeout is the newer form, and newer was written by a user"


async def test_policies_of_the_whole_proxy(scene: httpx.AsyncClient) -> None:
    trace = {"type": "TrafficTrace", "mesh": "default", "name": "trace"}
    await put(scene, {**trace, "selectors": [{"match": {"kuma.io/service": "web"}}]})
    shown = await get(scene, "/meshes/default/dataplanes/web-1/policies")
    assert next((item["type"], sorted(item["matchedPolicies"])) for item in shown["items"]) == (
        "dataplane",
        ["TrafficTrace"],
    )
    whole = (await get(scene, "/meshes/default/dataplanes/web-1/_explanation"))["subjects"][0]
    assert (whole["subject"], whole["name"], [entry["type"] for entry in whole["policies"]]) == (
        "proxy",
        "web-1",
        ["TrafficTrace"],
    )
    found = await get(scene, "/meshes/default/traffic-traces/trace/dataplanes")
    assert [item["attachments"] for item in found["items"]] == [[{"type": "dataplane", "name": "", "service": ""}]]


async def test_a_policy_of_a_service_is_attached_to_the_service(scene: httpx.AsyncClient) -> None:
    sides = {side: [{"match": {"kuma.io/service": "*"}}] for side in ("sources", "destinations")}
    await put(scene, {"type": "TrafficLog", "mesh": "default", "name": "log", **sides})
    found = await get(scene, "/meshes/default/traffic-logs/log/dataplanes")
    assert [item["attachments"] for item in found["items"]] == [
        [{"type": "service", "name": "echo", "service": "echo"}]
    ]
