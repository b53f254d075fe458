"""Routes seen in traffic: shares of a split, requests that go elsewhere, and what their service is told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, Sidecar, rejected, wait_until

pytestmark = pytest.mark.envoy

REQUESTS = 2_000
V1, V2 = {**ECHO, "version": "1"}, {**ECHO, "version": "2"}


class Routed:
    """A client of a service in two versions."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.services = {version: mesh.echo(f"echo-{version}", version=version)[0] for version in ("1", "2")}
        self.client: Sidecar
        self.client, (self.port,) = mesh.client("web-1", ECHO)
        wait_until(lambda: self.get("/").status_code == 200, "the service answers")

    def get(self, path: str, **headers: str) -> httpx.Response:
        """One request on a connection of its own: those that are open stay with the listener that took them."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=5)

    def instance(self, path: str, **headers: str) -> str:
        """Who answers a request."""
        name: str = self.get(path, **headers).json()["instance"]
        return name

    @contextmanager
    def route(self, **conf: Any) -> Iterator[None]:
        """Lead the client so while in the block."""
        document = {
            "type": "TrafficRoute",
            "mesh": "default",
            "name": "led",
            "sources": [{"match": {"kuma.io/service": "web-1"}}],
            "destinations": [{"match": ECHO}],
            "conf": conf,
        }
        url = f"{self.mesh.control_plane.api}/meshes/default/traffic-routes/led"
        self._settle(httpx.put(url, json=document))
        try:
            yield
        finally:
            self._settle(httpx.delete(url))
        assert rejected(self.client) == []

    def _settle(self, written: httpx.Response) -> None:
        assert written.status_code in (200, 201), written.text
        report = self.mesh.control_plane.converge(int(written.headers["X-Kumafast-Revision"]))
        assert report["is_converged"], report


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Routed]:
    mesh = Mesh(tmp_path_factory.mktemp("routes"), envoy_binary, uses_delta=True)
    with mesh.ending:
        yield Routed(mesh)


def test_a_split_of_90_to_10_is_one_within_six_sigma(routed: Routed) -> None:
    split = [{"weight": 90, "destination": V1}, {"weight": 10, "destination": V2}]
    with routed.route(split=split), httpx.Client(timeout=5) as client:
        url = f"http://127.0.0.1:{routed.port}/"
        answers = Counter(client.get(url).json()["instance"] for _ in range(REQUESTS))
    assert answers.total() == REQUESTS
    assert abs(answers["echo-2"] - 0.1 * REQUESTS) < 6 * math.sqrt(REQUESTS * 0.1 * 0.9)


def test_requests_go_by_path_and_header_and_all_else_as_before(routed: Routed) -> None:
    rules = [
        {"match": {"path": {"prefix": "/v2"}, "method": {"exact": "GET"}}, "destination": V2},
        {"match": {"headers": {"x-canary": {"regex": "yes|true"}}}, "destination": V2},
    ]
    with routed.route(destination=V1, http=rules):
        assert {routed.instance("/") for _ in range(10)} == {"echo-1"}
        assert {routed.instance("/v2/a") for _ in range(10)} == {"echo-2"}
        assert {routed.instance("/", **{"x-canary": "true"}) for _ in range(10)} == {"echo-2"}
        assert routed.instance("/", **{"x-canary": "truly"}) == "echo-1"
    assert {routed.instance("/") for _ in range(40)} == {"echo-1", "echo-2"}


def test_what_a_rule_changes_the_service_and_the_client_see(routed: Routed) -> None:
    change = {
        "path": {"rewritePrefix": "/new"},
        "host": {"value": "backend.example"},
        "requestHeaders": {"add": [{"name": "x-added", "value": "1"}], "remove": [{"name": "x-removed"}]},
        "responseHeaders": {"add": [{"name": "x-answer", "value": "2"}], "remove": [{"name": "server"}]},
    }
    rule = {"match": {"path": {"prefix": "/old"}}, "modify": change, "destination": {"kuma.io/service": "*"}}
    with routed.route(destination=ECHO, http=[rule]):
        answer = routed.get("/old/page", **{"x-removed": "0"})
        seen = answer.json()
        assert seen["path"] == "/new/page"
        assert seen["headers"]["host"] == "backend.example"
        assert seen["headers"]["x-added"] == "1"
        assert "x-removed" not in seen["headers"]
        assert answer.headers["x-answer"] == "2"
        other = routed.get("/other", **{"x-removed": "0"})
        assert other.json()["headers"]["x-removed"] == "0"
        assert "x-answer" not in other.headers
