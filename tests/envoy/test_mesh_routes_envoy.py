"""Routes with a targetRef seen in traffic: requests by what they are, copies, answers in place of the service's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.envoy.harness import Mesh, wait_until
from tests.envoy.test_routes_envoy import REQUESTS, Routed

pytestmark = pytest.mark.envoy

ECHO = {"kind": "MeshService", "name": "echo"}
CONNECTIONS = "tcp.echo.downstream_cx_total"
HTTP, TCP = ("MeshHTTPRoute", "meshhttproutes"), ("MeshTCPRoute", "meshtcproutes")


def version(number: str, weight: int = 1) -> dict[str, Any]:
    return {"kind": "MeshServiceSubset", "name": "echo", "tags": {"version": number}, "weight": weight}


def rule(match: dict[str, Any], *refs: dict[str, Any], filters: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    default = {**({"backendRefs": list(refs)} if refs else {}), **({"filters": list(filters)} if filters else {})}
    return {"matches": [match], "default": default}


def path(value: str, kind: str = "PathPrefix") -> dict[str, Any]:
    return {"path": {"type": kind, "value": value}}


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Routed]:
    mesh = Mesh(tmp_path_factory.mktemp("mesh-routes"), envoy_binary, uses_delta=True)
    with mesh.ending:
        yield Routed(mesh)


@contextmanager
def route(routed: Routed, *rules: dict[str, Any], kind: tuple[str, str] = HTTP, name: str = "led") -> Iterator[None]:
    """Have a route of the client's requests to the service while in the block."""
    top = {"kind": "MeshService", "name": "web-1"}
    spec = {"targetRef": top, "to": [{"targetRef": ECHO, "rules": list(rules)}]}
    with routed.written(kind[1], {"type": kind[0], "mesh": "default", "name": name, "spec": spec}):
        yield


def test_requests_are_split_as_weights_say_within_six_sigma(routed: Routed) -> None:
    canary = rule(path("/"), version("1", 90), version("2", 10))
    with route(routed, canary), httpx.Client(timeout=5) as client:
        url = f"http://127.0.0.1:{routed.port}/"
        answers = Counter(client.get(url).json()["instance"] for _ in range(REQUESTS))
    assert answers.total() == REQUESTS
    assert abs(answers["echo-2"] - 0.1 * REQUESTS) < 6 * math.sqrt(REQUESTS * 0.1 * 0.9)


def test_the_most_specific_match_counts_wherever_it_stands(routed: Routed) -> None:
    headers = [
        {"name": "x-canary", "type": "RegularExpression", "value": "yes|true"},
        {"name": "x-no", "type": "Absent"},
    ]
    rules = (
        rule(path("/v"), version("1")),
        rule(path("/v/exact", "Exact"), version("2")),
        rule({**path("/v"), "queryParams": [{"type": "Exact", "name": "q", "value": "2"}]}, version("2")),
        rule({**path("/v"), "headers": headers}, version("2")),
    )
    with route(routed, *rules):
        assert {routed.instance("/v") for _ in range(10)} == {"echo-1"}
        assert {routed.instance("/v/any?q=1") for _ in range(10)} == {"echo-1"}
        assert {routed.instance("/v/exact") for _ in range(10)} == {"echo-2"}
        assert {routed.instance("/v/any?q=2") for _ in range(10)} == {"echo-2"}
        assert {routed.instance("/v", **{"x-canary": "true"}) for _ in range(10)} == {"echo-2"}
        assert routed.instance("/v", **{"x-canary": "true", "x-no": "1"}) == "echo-1"
        # A prefix is one in whole segments.
        assert {routed.instance("/visible") for _ in range(40)} == {"echo-1", "echo-2"}


def test_what_a_rule_changes_the_service_and_the_client_see(routed: Routed) -> None:
    filters = (
        {
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {
                "set": [{"name": "x-set", "value": "1"}],
                "add": [{"name": "x-add", "value": "2"}],
                "remove": ["x-gone"],
            },
        },
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-answer", "value": "3"}]}},
        {
            "type": "URLRewrite",
            "urlRewrite": {
                "hostname": "backend.example",
                "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"},
            },
        },
    )
    with route(routed, rule(path("/old"), filters=filters)):
        answer = routed.get("/old/page", {"x-set": "0", "x-gone": "0"})
        seen = answer.json()
        assert (seen["path"], seen["headers"]["host"]) == ("/new/page", "backend.example")
        assert (seen["headers"]["x-set"], seen["headers"]["x-add"]) == ("1", "2")
        assert "x-gone" not in seen["headers"]
        assert answer.headers["x-answer"] == "3"
        assert routed.get("/old").json()["path"] == "/new"
        assert routed.get("/older").json()["path"] == "/older"


def test_a_client_is_sent_elsewhere(routed: Routed) -> None:
    redirect = {
        "scheme": "https",
        "hostname": "elsewhere.example",
        "port": 8443,
        "statusCode": 307,
        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/there"},
    }
    with route(routed, rule(path("/moved"), filters=({"type": "RequestRedirect", "requestRedirect": redirect},))):
        answer = routed.get("/moved/page")
        assert (answer.status_code, answer.headers["location"]) == (307, "https://elsewhere.example:8443/there/page")
        assert routed.get("/").status_code == 200


def test_copies_of_requests_go_to_another_version(routed: Routed) -> None:
    mirror = {
        "type": "RequestMirror",
        "requestMirror": {"backendRef": {k: v for k, v in version("2").items() if k != "weight"}},
    }
    with route(routed, rule(path("/"), version("1"), filters=(mirror,))):
        before = routed.services["2"].answered
        assert {routed.instance("/") for _ in range(20)} == {"echo-1"}
        wait_until(lambda: routed.services["2"].answered >= before + 20, "the copies arrive")


def test_connections_are_led_without_a_look_at_the_requests(routed: Routed) -> None:
    with route(routed, {"default": {"backendRefs": [version("2")]}}, kind=TCP):
        before = routed.client.stats(CONNECTIONS).get(CONNECTIONS, 0)
        assert {routed.instance("/") for _ in range(10)} == {"echo-2"}
        assert routed.client.stats(CONNECTIONS)[CONNECTIONS] - before == 10
        with route(routed, rule(path("/a"), version("1")), name="requests"):
            assert {routed.instance("/a") for _ in range(10)} == {"echo-1"}


def test_a_timeout_for_a_route_cuts_off_its_requests_alone(routed: Routed) -> None:
    def status(asked: str) -> int:
        return httpx.get(f"http://127.0.0.1:{routed.port}{asked}", timeout=5).status_code

    to = [{"targetRef": {"kind": "MeshHTTPRoute", "name": "led"}, "default": {"http": {"requestTimeout": "300ms"}}}]
    impatient = {"type": "MeshTimeout", "mesh": "default", "name": "impatient", "spec": {"to": to}}
    with route(routed, rule(path("/slow", "Exact"), version("1"))), routed.written("meshtimeouts", impatient):
        wait_until(lambda: status("/slow") == 504, "its requests are cut off")
        assert status("/slow-too") == 200
        assert status("/") == 200
