"""What a user changes in finished resources, seen in traffic while it is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.envoy.harness import Mesh
from tests.envoy.test_routes_envoy import Routed

pytestmark = pytest.mark.envoy

LUA = """
name: envoy.filters.http.lua
typedConfig:
  '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
  defaultSourceCode:
    inlineString: |
      function envoy_on_request(handle) handle:headers():replace("x-lua", "1") end
"""


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Routed]:
    mesh = Mesh(tmp_path_factory.mktemp("patches"), envoy_binary, uses_delta=True)
    with mesh.ending:
        yield Routed(mesh)


def patch(name: str, *modifications: dict[str, Any]) -> dict[str, Any]:
    top = {"kind": "MeshService", "name": "web-1"}
    spec = {"targetRef": top, "default": {"appendModifications": list(modifications)}}
    return {"type": "MeshProxyPatch", "mesh": "default", "name": name, "spec": spec}


def test_a_json_patch_and_a_filter_are_seen_while_they_are_there(routed: Routed) -> None:
    header = {"op": "add", "path": "/responseHeadersToAdd/-", "value": {"header": {"key": "x-patched", "value": "1"}}}
    answer = {"virtualHost": {"operation": "Patch", "match": {"name": "echo"}, "jsonPatches": [header]}}
    where = {"name": "envoy.filters.http.router", "origin": "outbound"}
    script = {"httpFilter": {"operation": "AddBefore", "match": where, "value": LUA}}
    with routed.written("meshproxypatches", patch("answer", answer)):
        seen = routed.get("/")
        assert (seen.headers["x-patched"], "x-lua" in seen.json()["headers"]) == ("1", False)
        with routed.written("meshproxypatches", patch("script", script)):
            seen = routed.get("/")
            assert (seen.headers["x-patched"], seen.json()["headers"]["x-lua"]) == ("1", "1")
    seen = routed.get("/")
    assert ("x-patched" in seen.headers, "x-lua" in seen.json()["headers"]) == (False, False)
