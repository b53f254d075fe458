"""A policy that Envoy refuses: what it ran before goes on, everybody who asks is told of the policy, and it goes."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, wait_until
from typer.testing import CliRunner, Result

from kumafast.cli.main import app

pytestmark = pytest.mark.envoy

# RE2, which Envoy has, knows no look-ahead.
ROUTE: dict[str, Any] = {
    "type": "TrafficRoute",
    "mesh": "default",
    "name": "ahead",
    "sources": [{"match": {"kuma.io/service": "web-1"}}],
    "destinations": [{"match": {"kuma.io/service": "echo"}}],
    "conf": {
        "http": [{"match": {"path": {"regex": "(?=x)"}}, "destination": {"kuma.io/service": "echo"}}],
        "destination": {"kuma.io/service": "echo"},
    },
}
# It has a share in the same listener, and is older.
TIMEOUT: dict[str, Any] = {
    "type": "Timeout",
    "mesh": "default",
    "name": "patient",
    "sources": [{"match": {"kuma.io/service": "*"}}],
    "destinations": [{"match": {"kuma.io/service": "echo"}}],
    "conf": {"http": {"requestTimeout": "9s"}},
}


def test_a_policy_that_envoy_refuses_is_named_and_can_be_taken_back(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    mesh.echo("echo-1")
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: get(port).status_code == 200, "the service answers")
    assert kumafast(mesh, "apply", "--wait", "-f", "-", stdin=TIMEOUT).exit_code == 0

    refused = kumafast(mesh, "apply", "--wait", "-f", "-", stdin=ROUTE)
    assert (refused.exit_code, refused.stdout) == (1, "TrafficRoute ahead created\n")
    assert "default.web-1 rejected Listener: " in refused.stderr
    assert "invalid perl operator" in refused.stderr
    listener = next(name for name in listeners(client) if name.startswith("outbound:"))
    made = f"{listener} is made by TrafficRoute ahead, Timeout patient"
    assert made in refused.stderr
    # The last good configuration goes on.
    assert get(port).status_code == 200

    status = kumafast(mesh, "inspect", "dataplane", "web-1").stdout
    assert "invalid perl operator" in status
    assert made in status
    assert "refused now" not in kumafast(mesh, "inspect", "dataplane", "echo-1").stdout
    [item] = rejections(mesh)
    assert item["resources"] == [listener]
    assert [key["name"] for key in item["policies"]] == ["ahead", "patient"]

    assert kumafast(mesh, "delete", "traffic-route", "ahead", "--wait").exit_code == 0
    assert rejections(mesh) == []
    assert "refused now" not in kumafast(mesh, "inspect", "dataplane", "web-1").stdout
    # And what comes next arrives.
    assert (
        kumafast(mesh, "apply", "--wait", "-f", "-", stdin={**TIMEOUT, "conf": {"connectTimeout": "3s"}}).exit_code == 0
    )
    assert get(port).status_code == 200


def kumafast(mesh: Mesh, *arguments: str, stdin: dict[str, Any] | None = None) -> Result:
    text = None if stdin is None else json.dumps(stdin)
    return CliRunner().invoke(app, ["--api", mesh.control_plane.api, *arguments], input=text)


def rejections(mesh: Mesh) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(f"{mesh.control_plane.api}/meshes/default/_rejections").json()["items"]
    return found


def listeners(client: Any) -> list[str]:
    return [entry["name"] for entry in json.loads(client.admin("/listeners?format=json"))["listener_statuses"]]


def get(port: int) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}/", timeout=10)
