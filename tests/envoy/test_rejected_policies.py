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


def test_a_bad_patch_is_refused_by_envoy_and_what_ran_before_goes_on(mesh: Mesh) -> None:
    mesh.echo("echo-1")
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: get(port).status_code == 200, "the service answers")
    assert kumafast(mesh, "apply", "--wait", "-f", "-", stdin=TIMEOUT).exit_code == 0
    # Each field is as Envoy's definitions want it; that they do not go together is known to Envoy alone.
    patch = modify("cluster", "patch", "type: ORIGINAL_DST", name="echo")
    foreseen = kumafast(mesh, "diff", "-f", "-", stdin=patch)
    assert "1 of 2 proxies would get something else" in foreseen.stdout

    refused = kumafast(mesh, "apply", "--wait", "-f", "-", stdin=patch)
    assert (refused.exit_code, refused.stdout) == (1, "ProxyTemplate patch created\n")
    words = "LB policy ROUND_ROBIN is not valid for Cluster type ORIGINAL_DST"
    made = "echo is made by ProxyTemplate patch"
    assert "default.web-1 rejected Cluster: " in refused.stderr
    assert words in refused.stderr
    assert made in refused.stderr
    assert [get(port).status_code for _ in range(5)] == [200] * 5
    assert '"EDS"' in json.dumps(client.config_dump())
    status = kumafast(mesh, "inspect", "dataplane", "web-1").stdout
    assert words in status
    assert made in status
    shown = kumafast(mesh, "inspect", "proxytemplate", "patch").stdout
    assert words in shown
    assert made in shown
    [item] = rejections(mesh)
    assert (item["node"], item["resources"], item["is_sent"]) == ("default.web-1", ["echo"], True)

    # What concerns others is not held up by it, and is no failure of theirs.
    other = {**TIMEOUT, "name": "other", "sources": [{"match": {"kuma.io/service": "nobody"}}]}
    assert kumafast(mesh, "apply", "--wait", "-f", "-", stdin=other).exit_code == 0

    assert kumafast(mesh, "delete", "proxytemplate", "patch", "--wait").exit_code == 0
    assert rejections(mesh) == []
    assert words not in kumafast(mesh, "inspect", "dataplane", "web-1").stdout.partition("refused now")[2]
    limit = {**TIMEOUT, "conf": {"connectTimeout": "3s"}}
    assert kumafast(mesh, "apply", "--wait", "-f", "-", stdin=limit).exit_code == 0
    assert get(port).status_code == 200


def test_a_template_that_cannot_be_applied_is_named_and_what_ran_before_goes_on(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    mesh.echo("echo-1")
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: get(port).status_code == 200, "the service answers")
    assert kumafast(mesh, "apply", "--wait", "-f", "-", stdin=TIMEOUT).exit_code == 0
    listener = next(name for name in listeners(client) if name.startswith("inbound:"))
    before = listeners(client)
    router = "{name: a, typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
    unfit = modify("networkFilter", "patch", router, name="envoy.filters.network.tcp_proxy")
    why = "modifications[0].networkFilter: envoy.filters.network.tcp_proxy is configured by"
    blamed = f"ProxyTemplate patch cannot be applied to Listener {listener}"

    foreseen = kumafast(mesh, "diff", "-f", "-", stdin=unfit).stdout
    assert "1 proxy would keep what it has: web-1" in foreseen
    assert blamed in foreseen
    assert why in foreseen
    refused = kumafast(mesh, "apply", "--wait", "-f", "-", stdin=unfit)
    assert (refused.exit_code, refused.stdout) == (1, "ProxyTemplate patch created\n")
    for text in (
        refused.stderr,
        kumafast(mesh, "inspect", "dataplane", "web-1").stdout,
        kumafast(mesh, "inspect", "proxytemplate", "patch").stdout,
    ):
        assert f"default.web-1 keeps what it has: {why}" in text
        assert blamed in text
    [item] = rejections(mesh)
    assert (item["resources"], item["is_sent"]) == ([listener], False)
    assert item["policies"] == [{"type": "ProxyTemplate", "mesh": "default", "name": "patch"}]
    failure = wait_until(lambda: insight(mesh, "web-1").get("failure"), "the status says so")
    assert failure["message"].startswith(why)
    assert (failure["resource"], failure["policies"]) == (listener, item["policies"])

    # What ran before goes on, and endpoints go on to follow.
    assert listeners(client) == before
    second, _ = mesh.echo("echo-2")
    wait_until(lambda: get(port).status_code == 200 and second.answered, "the second instance answers")

    assert kumafast(mesh, "delete", "proxytemplate", "patch", "--wait").exit_code == 0
    assert rejections(mesh) == []
    wait_until(lambda: "failure" not in insight(mesh, "web-1"), "the status says that it is over")
    limit = {**TIMEOUT, "conf": {"connectTimeout": "3s"}}
    assert (
        kumafast(mesh, "apply", "--wait", "-f", "-", stdin=limit)
        .stdout.splitlines()[-1]
        .startswith("acknowledged by 1 proxy")
    )


def modify(kind: str, operation: str, value: str, **match: str) -> dict[str, Any]:
    """A template for the client with one step."""
    steps = [{kind: {"operation": operation, "match": match, "value": value}}]
    return {
        "type": "ProxyTemplate",
        "mesh": "default",
        "name": "patch",
        "selectors": [{"match": {"kuma.io/service": "web-1"}}],
        "conf": {"imports": ["default-proxy"], "modifications": steps},
    }


def insight(mesh: Mesh, name: str) -> dict[str, Any]:
    found: dict[str, Any] = mesh.control_plane.overview("default", name)["dataplaneInsight"]
    return found


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
