"""`_rules`, `_policies`, `_layout` and identifiers: as a 2.14.3 answered, and what it was not asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.rest.fakes import error

from kumafast.resources import catalog

pytestmark = pytest.mark.anyio

REFERENCE = Path(__file__).parent / "kuma-2.14"

ZONE = "east"
"""Of the tests' control plane; the reference's is `default`."""

ECHO = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "echo-1",
    "networking": {
        "address": "127.0.0.1",
        "inbound": [
            {
                "port": 17001,
                "servicePort": 17101,
                "tags": {"kuma.io/service": "echo", "kuma.io/protocol": "http", "version": "v1"},
            }
        ],
        "admin": {"port": 17901},
    },
}
WEB = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "web-1",
    "networking": {
        "address": "127.0.0.1",
        "inbound": [
            {"port": 17002, "servicePort": 17102, "tags": {"kuma.io/service": "web", "kuma.io/protocol": "tcp"}}
        ],
        "outbound": [{"port": 17201, "tags": {"kuma.io/service": "echo"}}],
        "admin": {"port": 17902},
    },
}


def reference(name: str) -> Any:
    text = (REFERENCE / f"GET_web-1_{name}.json").read_text()
    return json.loads(text.replace('"kuma.io/zone": "default"', f'"kuma.io/zone": "{ZONE}"'))


async def put(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    kind = catalog.by_name(document["type"])
    assert kind is not None
    mesh = f"/meshes/{document['mesh']}" if "mesh" in document else ""
    response = await client.put(f"{mesh}/{kind.path}/{document['name']}", json=document)
    assert response.status_code in (200, 201), response.text


async def get(client: httpx.AsyncClient, path: str, status: int = 200) -> Any:
    response = await client.get(path)
    assert response.status_code == status, response.text
    return response.json()


@pytest.fixture
async def scene(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The reference's: a mesh with its initial policies, an echo and a web that reaches it."""
    await client.delete("/meshes/default")
    await put(client, {"type": "Mesh", "name": "default"})
    await put(client, ECHO)
    await put(client, WEB)
    return client


async def test_rules_as_kuma_has_them(scene: httpx.AsyncClient) -> None:
    assert await get(scene, "/meshes/default/dataplanes/web-1/_rules") == reference("rules")


@pytest.mark.parametrize("name", ["policies", "layout"])
async def test_refusals_as_kuma_words_them(scene: httpx.AsyncClient, name: str) -> None:
    assert await get(scene, f"/meshes/default/dataplanes/web-1/_{name}", 400) == reference(name)


def mesh_timeout(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"type": "MeshTimeout", "mesh": "default", "name": name, "spec": spec}


def timeout_to(name: str, **limits: str) -> dict[str, Any]:
    ref = {"kind": "MeshService", "name": name} if name != "*" else {"kind": "Mesh"}
    return {"targetRef": ref, "default": limits}


def of_timeouts(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The entry of MeshTimeout."""
    (entry,) = (entry for entry in entries if entry[name] == "MeshTimeout")
    return entry


async def test_rules_of_services_and_matches(scene: httpx.AsyncClient) -> None:
    to = [timeout_to("echo", idleTimeout="2s"), timeout_to("*", connectionTimeout="3s")]
    await put(scene, mesh_timeout("a", {"targetRef": {"kind": "Mesh"}, "to": to}))
    match = {"spiffeID": {"type": "Exact", "value": "spiffe://default/web"}}
    rules = [{"default": {"idleTimeout": "7s"}}, {"matches": [match], "default": {"idleTimeout": "8s"}}]
    await put(scene, mesh_timeout("b", {"targetRef": {"kind": "Dataplane", "name": "web-1"}, "rules": rules}))
    entry = of_timeouts((await get(scene, "/meshes/default/dataplanes/web-1/_rules"))["rules"], "type")
    initial = "mesh-timeout-all-default"

    assert [(rule["matchers"], names(rule["origin"])) for rule in entry["toRules"]] == [
        ([{"key": "kuma.io/service", "not": False, "value": "echo"}], [initial, "a"]),
        ([], [initial, "a"]),
    ]
    assert [(rule["conf"]["idleTimeout"], rule["conf"]["connectionTimeout"]) for rule in entry["toRules"]] == [
        ("2s", "3s"),
        ("1h0m0s", "3s"),
    ]
    (resource_rule,) = entry["toResourceRules"]
    assert [(each["resourceMeta"]["name"], each["ruleIndex"]) for each in resource_rule["origin"]] == [
        (initial, 0),
        ("a", 1),
    ]
    (inbound,) = entry["inboundRules"]
    assert [(rule.get("match"), rule["conf"][0]["idleTimeout"]) for rule in inbound["rules"]] == [
        (match, "8s"),
        (None, "7s"),
    ]
    assert [
        [(each["resourceMeta"]["name"], each["ruleIndex"]) for each in rule["origin"]] for rule in inbound["rules"]
    ] == [
        [("b", 1)],
        [(initial, 0), ("b", 0)],
    ]
    (from_rules,) = entry["fromRules"]
    assert [(rule["matchers"], names(rule["origin"])) for rule in from_rules["rules"]] == [([], [initial])]


def names(origin: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in origin]


async def test_sources_are_listed_and_the_first_decides(scene: httpx.AsyncClient) -> None:
    def permission(name: str, *sources: tuple[dict[str, Any], str]) -> dict[str, Any]:
        from_ = [{"targetRef": ref, "default": {"action": action}} for ref, action in sources]
        spec = {"targetRef": {"kind": "Mesh"}, "from": from_}
        return {"type": "MeshTrafficPermission", "mesh": "default", "name": name, "spec": spec}

    web, everybody = {"kind": "MeshSubset", "tags": {"kuma.io/service": "web"}}, {"kind": "Mesh"}
    await put(scene, permission("b", (everybody, "Deny"), (web, "Allow")))
    await put(scene, permission("a", (web, "Deny")))
    rules = (await get(scene, "/meshes/default/dataplanes/echo-1/_rules"))["rules"]
    (entry,) = [entry for entry in rules if entry["type"] == "MeshTrafficPermission"]
    (inbound,) = entry["fromRules"]
    # a outweighs b, so what b says of web is never reached.
    assert [(rule["matchers"], rule["conf"], names(rule["origin"])) for rule in inbound["rules"]] == [
        ([{"key": "kuma.io/service", "not": False, "value": "web"}], {"action": "Deny"}, ["a"]),
        ([], {"action": "Deny"}, ["b"]),
    ]


async def test_a_silenced_kind_is_warned_of(scene: httpx.AsyncClient) -> None:
    sides = {side: [{"match": {"kuma.io/service": "*"}}] for side in ("sources", "destinations")}
    await put(scene, {"type": "Timeout", "mesh": "default", "name": "mine", **sides, "conf": {"connectTimeout": "9s"}})
    entry = of_timeouts((await get(scene, "/meshes/default/dataplanes/web-1/_rules"))["rules"], "type")
    assert entry["warnings"] == [
        "has no effect on requests to echo: all of this came with the mesh, and Timeout mine was written by a user"
    ]


@pytest.fixture
async def exclusive(scene: httpx.AsyncClient) -> httpx.AsyncClient:
    await put(scene, {"type": "Mesh", "name": "default", "meshServices": {"mode": "Exclusive"}})
    return scene


WEB_1 = "/meshes/default/dataplanes/web-1"
WEB_KRI = f"kri_dp_default_{ZONE}__web-1_"
ECHO_KRI = f"kri_msvc_default_{ZONE}__echo_"


async def test_layout(exclusive: httpx.AsyncClient) -> None:
    layout = await get(exclusive, f"{WEB_1}/_layout")
    assert layout["kri"] == WEB_KRI
    assert layout["labels"]["kuma.io/zone"] == ZONE
    assert layout["inbounds"] == [
        {
            "kri": f"{WEB_KRI}17002",
            "port": 17002,
            "protocol": "tcp",
            "proxyResourceName": "inbound:127.0.0.1:17002",
        }
    ]
    assert layout["outbounds"] == [
        {"kri": ECHO_KRI, "port": 17201, "protocol": "http", "proxyResourceName": "outbound:127.0.0.1:17201"}
    ]


async def test_policies_of_ports(exclusive: httpx.AsyncClient) -> None:
    origins = [{"kri": f"kri_mt_default_{ZONE}__mesh-timeout-all-default_"}]
    inbound = await get(exclusive, f"{WEB_1}/_inbounds/{WEB_KRI}17002/_policies")
    (entry,) = inbound["policies"]
    assert (entry["kind"], entry["origins"]) == ("MeshTimeout", origins)
    assert [(rule["kri"], rule["conf"]["idleTimeout"]) for rule in entry["rules"]] == [(origins[0]["kri"], "2h0m0s")]
    outbound = await get(exclusive, f"{WEB_1}/_outbounds/{ECHO_KRI}/_policies")
    entry = of_timeouts(outbound["policies"], "kind")
    assert (entry["kind"], entry["origins"], len(entry["conf"])) == ("MeshTimeout", origins, 1)
    assert entry["conf"][0]["idleTimeout"] == "1h0m0s"
    route = f"{WEB_1}/_outbounds/{ECHO_KRI}/_routes/kri_mt_default_{ZONE}__r_/_policies"
    assert await get(exclusive, route) == outbound
    assert await get(exclusive, f"{WEB_1}/_outbounds/{ECHO_KRI}/_routes") == {"routes": []}


async def test_what_holds_both_ways_is_shown_beside_what_comes_in(exclusive: httpx.AsyncClient) -> None:
    conf = {"tlsVersion": {"min": "TLS13"}}
    spec = {"targetRef": {"kind": "Mesh"}, "rules": [{"default": conf}]}
    await put(exclusive, {"type": "MeshTLS", "mesh": "default", "name": "tls", "spec": spec})
    rules = await get(exclusive, f"{WEB_1}/_rules")
    (entry,) = (each for each in rules["rules"] if each["type"] == "MeshTLS")
    assert (entry["toRules"], entry["toResourceRules"]) == ([], [])
    assert [rule["conf"] for rule in entry["inboundRules"][0]["rules"]] == [[conf]]
    outbound = await get(exclusive, f"{WEB_1}/_outbounds/{ECHO_KRI}/_policies")
    assert "MeshTLS" not in {each["kind"] for each in outbound["policies"]}


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        (f"_inbounds/{WEB_KRI}1/_policies", "Invalid inbound KRI"),
        (f"_inbounds/{ECHO_KRI}/_policies", "Invalid inbound KRI"),
        (f"_outbounds/{WEB_KRI}17002/_policies", "Invalid outbound KRI"),
        (f"_outbounds/kri_msvc_default_{ZONE}__other_/_routes", "Invalid outbound KRI"),
        ("_inbounds/web/_policies", 'invalid identifier string: "web"'),
        ("_outbounds/id_a_b_c_d_e_f/_policies", "identifier must start with 'kri': \"id_a_b_c_d_e_f\""),
        (f"_outbounds/{ECHO_KRI}/_routes/r/_policies", 'invalid identifier string: "r"'),
    ],
)
async def test_identifiers_that_name_nothing(exclusive: httpx.AsyncClient, path: str, detail: str) -> None:
    assert await get(exclusive, f"{WEB_1}/{path}", 400) == error(400, "Bad Request", f"bad request: {detail}")


@pytest.mark.parametrize(
    "path", ["_rules", "_policies", "_layout", f"_inbounds/{WEB_KRI}/_policies", f"_outbounds/{ECHO_KRI}/_routes"]
)
async def test_who_is_not_there(scene: httpx.AsyncClient, path: str) -> None:
    assert await get(scene, f"/meshes/default/dataplanes/nobody/{path}", 404) == error(
        404, "Could not retrieve Dataplane", "Not found"
    )
    assert (await get(scene, f"/meshes/none/dataplanes/web-1/{path}", 404))["invalid_parameters"] == [
        {"field": "mesh", "reason": "mesh of name none is not found"}
    ]


async def test_a_resource_by_its_identifier(scene: httpx.AsyncClient) -> None:
    shown = await get(scene, WEB_1)
    assert shown["kri"] == WEB_KRI
    assert await get(scene, f"/_kri/{WEB_KRI}") == shown
    mesh = await get(scene, "/meshes/default")
    assert await get(scene, f"/_kri/{mesh['kri']}") == mesh


@pytest.mark.parametrize(
    ("identifier", "status", "detail"),
    [
        (f"kri_dp_default_{ZONE}__nobody_", 404, "Not found"),
        ("kri_dp_default_west__web-1_", 404, "Not found"),
        (f"kri_dp_default_{ZONE}_ns_web-1_", 404, "Not found"),
        ("web", 400, 'bad request: invalid identifier string: "web"'),
        ("kri_nope_default___web-1_", 400, 'bad request: unknown short name of resource type: "nope"'),
    ],
)
async def test_identifiers_of_nothing(scene: httpx.AsyncClient, identifier: str, status: int, detail: str) -> None:
    title = "Could not retrieve a resource" if status == 404 else "Bad Request"
    assert await get(scene, f"/_kri/{identifier}", status) == error(status, title, detail)
