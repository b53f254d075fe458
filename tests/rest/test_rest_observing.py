"""Logs, traces and templates over the API: written, shown, warned of where they have no effect, removed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

WEB = [{"match": {"kuma.io/service": "web"}}]
MODIFICATION = {"cluster": {"operation": "patch", "match": {"name": "backend"}, "value": "connectTimeout: 3s\n"}}

# By path: the kind, what it is for, a conf, and the warning in a mesh without backends.
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "traffic-logs": (
        "TrafficLog",
        {"sources": WEB, "destinations": WEB},
        {"backend": "file"},
        "the mesh has no logging backend file, so nothing is logged",
    ),
    "traffic-traces": (
        "TrafficTrace",
        {"selectors": WEB},
        {"backend": "jaeger"},
        "the mesh has no tracing backend jaeger, so nothing is traced",
    ),
    "proxytemplates": ("ProxyTemplate", {"selectors": WEB}, {"modifications": [MODIFICATION]}, "without default-proxy"),
}


@pytest.mark.parametrize("path", KINDS)
async def test_such_a_policy_comes_and_goes(client: httpx.AsyncClient, path: str) -> None:
    kind, ends, conf, warning = KINDS[path]
    written = {"type": kind, "mesh": "default", "name": "p", **ends, "conf": conf}
    url = f"/meshes/default/{path}/p"
    created = await client.put(url, json=written)
    assert created.status_code == 201
    (said,) = created.json()["warnings"]
    assert warning in said
    shown = (await client.get(url)).json()
    assert {field: shown[field] for field in written} == written
    assert [item["name"] for item in (await client.get(f"/{path}")).json()["items"]] == ["p"]
    assert (await client.delete(url)).status_code == 200
    assert (await client.get(url)).status_code == 404


async def test_there_is_no_warning_where_the_backend_is_there(client: httpx.AsyncClient) -> None:
    backend = {"name": "file", "type": "file", "conf": {"path": "/tmp/a"}}
    mesh = {"type": "Mesh", "name": "default", "logging": {"backends": [backend]}}
    assert (await client.put("/meshes/default", json=mesh)).status_code == 200
    kind, ends, conf, _ = KINDS["traffic-logs"]
    written = {"type": kind, "mesh": "default", "name": "p", **ends, "conf": conf}
    assert (await client.put("/meshes/default/traffic-logs/p", json=written)).json() == {}
