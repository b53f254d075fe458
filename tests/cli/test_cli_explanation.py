"""inspect dataplane --type policies|config|resources, inspect POLICY: what a person reads at two widths."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from tests.builders import dataplane, inbound, outbound
from tests.cli.conftest import Api
from typer.testing import Result

from kumafast.insights import Rejection
from kumafast.rejections import Cause
from kumafast.resources import Mesh, ResourceKey, initial_resources, parse, with_defaults
from kumafast.snapshot.node import Node
from kumafast.templates import Failure

Command = Callable[..., Result]


def timeout(name: str, source: str, destination: str = "*") -> dict[str, Any]:
    sides = {
        "sources": [{"match": {"kuma.io/service": source}}],
        "destinations": [{"match": {"kuma.io/service": destination}}],
    }
    return {"type": "Timeout", "mesh": "default", "name": name, **sides, "conf": {"connectTimeout": "9s"}}


def mesh_timeout(name: str, top: dict[str, Any], **limits: Any) -> dict[str, Any]:
    to = [{"targetRef": {"kind": "Mesh"}, "default": limits}]
    return {"type": "MeshTimeout", "mesh": "default", "name": name, "spec": {"targetRef": top, "to": to}}


@pytest.fixture
def scene(api: Api) -> Api:
    """Three webs that reach an echo, under the mesh's defaults."""
    api.run(api.store.put(dataplane("echo-1", inbound=[inbound(17001, tags={"kuma.io/service": "echo"})])))
    for number in (1, 2, 3):
        web = dataplane(
            f"web-{number}",
            inbound=[inbound(17002, tags={"kuma.io/service": "web"})],
            outbound=[outbound(10080, "echo")],
        )
        api.run(api.store.put(with_defaults(web, zone="default")))
    for initial in initial_resources(Mesh(name="default"), zone="default"):
        api.run(api.store.put(initial))
    return api


def add(api: Api, *documents: dict[str, Any]) -> None:
    for document in documents:
        api.run(api.store.put(with_defaults(parse(document), zone="default")))


def test_the_policies_of_a_dataplane(kumafast: Command, scene: Api) -> None:
    add(
        scene,
        mesh_timeout("web-limits", {"kind": "MeshSubset", "tags": {"kuma.io/service": "web"}}, idleTimeout="2s"),
        timeout("old", "web"),
    )
    shown = kumafast("inspect", "dataplane", "web-1", "--type", "policies", env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert shown.stdout == (
        "web-1 in mesh default\n"
        "├── inbound 17002 (127.0.0.1:17002, service web)\n"
        "│   └── MeshTimeout\n"
        "│       └── connectionTimeout        10s      mesh-timeout-all-default\n"
        "│           idleTimeout              2h0m0s   mesh-timeout-all-default\n"
        "│           http.requestTimeout      0s       mesh-timeout-all-default\n"
        "│           http.streamIdleTimeout   1h0m0s   mesh-timeout-all-default\n"
        "│           http.maxStreamDuration   0s       mesh-timeout-all-default\n"
        "└── outbound echo (127.0.0.1:10080)\n"
        "    ├── MeshTimeout\n"
        "    │   ├── idleTimeout              2s      web-limits\n"
        "    │   │   connectionTimeout        5s      mesh-timeout-all-default\n"
        "    │   │   http.requestTimeout      15s     mesh-timeout-all-default\n"
        "    │   │   http.streamIdleTimeout   30m0s   mesh-timeout-all-default\n"
        "    │   └── mesh-timeout-all-default: applies in part\n"
        "    │       └── idleTimeout: lost to web-limits (kind MeshSubset outweighs Mesh)\n"
        "    ├── Timeout: silenced (MeshTimeout is the newer form, and web-limits was\n"
        "    │   written by a user)\n"
        "    │   └── not in force: old\n"
        "    ├── MeshCircuitBreaker\n"
        "    │   └── connectionLimits.maxConnec…   1024   mesh-circuit-breaker-all-defau…\n"
        "    │       connectionLimits.maxPendin…   1024   mesh-circuit-breaker-all-defau…\n"
        "    │       connectionLimits.maxRetries   3      mesh-circuit-breaker-all-defau…\n"
        "    │       connectionLimits.maxReques…   1024   mesh-circuit-breaker-all-defau…\n"
        "    └── MeshRetry\n"
        "        └── tcp.maxConnectAttempt       5       mesh-retry-all-default\n"
        "            http.numRetries             5       mesh-retry-all-default\n"
        "            http.perTryTimeout          16s     mesh-retry-all-default\n"
        "            http.backOff.baseInterval   25ms    mesh-retry-all-default\n"
        "            http.backOff.maxInterval    250ms   mesh-retry-all-default\n"
        "            grpc.numRetries             5       mesh-retry-all-default\n"
        "            grpc.perTryTimeout          16s     mesh-retry-all-default\n"
        "            grpc.backOff.baseInterval   25ms    mesh-retry-all-default\n"
        "            grpc.backOff.maxInterval    250ms   mesh-retry-all-default\n"
    )
    wide = kumafast("inspect", "dataplane", "web-1", "--type", "policies", env={"COLUMNS": "120"}).stdout
    assert "    ├── Timeout: silenced (MeshTimeout is the newer form, and web-limits was written by a user)\n" in wide
    # Neither is a control code in what a pipe is given, nor is a line wider than the terminal.
    assert "\x1b" not in shown.stdout + wide
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_a_policy_and_those_that_it_is_for(kumafast: Command, scene: Api) -> None:
    narrow = timeout("narrow", "web")
    add(scene, timeout("wide", "*"), narrow)
    scene.run(scene.store.delete(parse(mesh_timeout("mesh-timeout-all-default", {})).key))
    assert kumafast("inspect", "timeout", "wide").stdout == (
        "Timeout wide in mesh default\n"
        "├── 3 dataplanes: web-1, web-2, web-3\n"
        "│   └── outbound echo: outweighed\n"
        "│       └── lost to narrow (more specific source: 1 tag without * against 0)\n"
        "└── echo-1: no inbound or outbound that it is about\n"
    )
    assert (
        "│   └── outbound echo: applies\n│       └── connectTimeout   9s\n"
        in kumafast("inspect", "timeouts", "narrow").stdout
    )


def test_a_policy_says_who_refuses_what_it_makes(kumafast: Command, scene: Api) -> None:
    add(scene, timeout("mine", "web"), timeout("another", "web"))
    type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    scene.rejected = tuple(Rejection(f"default.web-{n}", type_url, "no such thing") for n in range(12))
    scene.cause = Cause(("echo",), (ResourceKey("Timeout", "default", "mine"),))
    shown = kumafast("inspect", "timeout", "mine").stdout.splitlines()
    start = shown.index("refused now, so that what was there before goes on:")
    assert shown[start + 1 : start + 3] == [
        "  default.web-0 rejected Cluster: no such thing",
        "    echo is made by Timeout mine",
    ]
    # Ten of them are enough for a person.
    assert (len(shown) - start - 2, shown[-1]) == (20, "  and 2 more proxies")
    assert "refused" not in kumafast("inspect", "timeout", "another").stdout
    scene.rejected = ()
    assert "refused" not in kumafast("inspect", "timeout", "mine").stdout


def test_a_template_that_cannot_be_applied_says_so(kumafast: Command, scene: Api) -> None:
    selectors = [{"match": {"kuma.io/service": "web"}}]
    step = {"networkFilter": {"operation": "patch", "match": {"name": "x"}, "value": "name: x"}}
    conf = {"imports": ["default-proxy"], "modifications": [step]}
    add(scene, {"type": "ProxyTemplate", "mesh": "default", "name": "t", "selectors": selectors, "conf": conf})
    policy = ResourceKey("ProxyTemplate", "default", "t")
    failure = Failure("modifications[0].networkFilter: no", "x/envoy.Listener", "outbound:127.0.0.1:10080", (policy,))
    scene.rejected = (Rejection("default.web-2", failure.type_url, failure.message, failure),)
    scene.cause = Cause(("outbound:127.0.0.1:10080",), (policy,))
    told = [
        "refused now, so that what was there before goes on:",
        "  default.web-2 keeps what it has: modifications[0].networkFilter: no",
        "    so ProxyTemplate t cannot be applied to Listener outbound:127.0.0.1:10080",
    ]
    assert kumafast("inspect", "proxytemplate", "t").stdout.splitlines()[-3:] == told
    assert kumafast("inspect", "dataplane", "web-2").stdout.splitlines()[-3:] == told
    assert "refused" not in kumafast("inspect", "dataplane", "web-1").stdout


def test_only_the_default_is_silenced(kumafast: Command, scene: Api) -> None:
    add(scene, timeout("mine", "web"))
    shown = kumafast("inspect", "mt", "mesh-timeout-all-default", env={"COLUMNS": "120"}).stdout
    assert (
        "    └── outbound echo: silenced\n"
        "        └── Timeout mine is heard instead (all of this came with the mesh, and Timeout mine was written by a "
        "user)\n"
    ) in shown


def test_a_shadow_says_that_it_is_one(kumafast: Command, scene: Api) -> None:
    shadow = mesh_timeout("dark", {"kind": "Dataplane", "name": "web-1"}, idleTimeout="1s")
    add(scene, {**shadow, "labels": {"kuma.io/effect": "shadow"}})
    shown = kumafast("inspect", "meshtimeout", "dark", env={"COLUMNS": "120"}).stdout
    assert shown == (
        "MeshTimeout dark in mesh default\n"
        "├── a shadow, not in force; it would be for web-1\n"
        "└── what it would change: kumafast inspect dataplane NAME --type config --shadow\n"
    )


def test_a_policy_for_many_is_shown_in_part(kumafast: Command, scene: Api) -> None:
    for number in range(120):
        scene.run(scene.store.put(dataplane(f"more-{number:03}", inbound=[inbound(17002)])))
    shown = kumafast("inspect", "mt", "mesh-timeout-all-default")
    assert shown.stdout.splitlines()[-1] == "└── and 24 dataplanes more; with -o json all are there"
    assert "├── 99 dataplanes: more-000, more-001, more-002 and 96 more\n" in shown.stdout
    whole = json.loads(kumafast("inspect", "mt", "mesh-timeout-all-default", "-o", "json").stdout)
    assert (whole["total"], len(whole["items"])) == (124, 124)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_answers_as_they_are(kumafast: Command, scene: Api, form: str) -> None:
    read = json.loads if form == "json" else yaml.safe_load
    shown = read(kumafast("inspect", "dataplane", "web-1", "--type", "policies", "-o", form).stdout)
    assert [subject["name"] for subject in shown["subjects"]] == ["17002", "echo"]
    shown = read(kumafast("inspect", "mt", "mesh-timeout-all-default", "-o", form).stdout)
    assert (shown["total"], [item["name"] for item in shown["items"]]) == (4, ["echo-1", "web-1", "web-2", "web-3"])


@pytest.fixture
def connected(scene: Api) -> Api:
    async def connect() -> None:
        await scene.reconciler.load()
        scene.reconciler.connect("stream-1", Node("default.web-1"))

    scene.run(connect())
    return scene


def test_the_configuration_of_a_proxy(kumafast: Command, connected: Api) -> None:
    config = json.loads(kumafast("inspect", "dataplane", "web-1", "--type", "config").stdout)
    assert "echo" in config["xds"]["type.googleapis.com/envoy.config.cluster.v3.Cluster"]
    lines = kumafast("inspect", "dataplane", "web-1", "--type", "resources").stdout.splitlines()
    assert lines[0].split() == ["TYPE", "NAME"]
    assert ["Listener", "outbound:127.0.0.1:10080"] in [line.split() for line in lines[1:]]

    shadow = ("inspect", "dataplane", "web-1", "--type", "config", "--shadow")
    assert kumafast(*shadow).stdout == "the shadow policies would change nothing\n"
    dark = mesh_timeout("dark", {"kind": "Mesh"}, connectionTimeout="77s")
    add(connected, {**dark, "labels": {"kuma.io/effect": "shadow"}})
    assert kumafast(*shadow).stdout == '- Cluster/echo/connectTimeout: "5s"\n+ Cluster/echo/connectTimeout: "77s"\n'


def test_what_cannot_be_looked_at(kumafast: Command, scene: Api) -> None:
    def refused(*arguments: str) -> str:
        result = kumafast("inspect", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        return result.stderr

    assert "web-1 is not connected, so it has no configuration" in refused("dataplane", "web-1", "--type", "config")
    assert refused("timeout", "none") == "error: there is no Timeout none in mesh default\n"
    assert "Mesh is no policy" in refused("mesh", "default")
    assert "there is no type 'nonsense'" in refused("nonsense", "x")
    assert "it goes with --type config" in refused("dataplane", "web-1", "--shadow")
    assert kumafast("inspect", "timeout").exit_code == 2


def test_lists_stand_in_lines_of_their_own(kumafast: Command, scene: Api) -> None:
    legs = [
        {"weight": 90, "destination": {"kuma.io/service": "echo", "version": "v1"}},
        {"weight": 10, "destination": {"kuma.io/service": "echo", "version": "v2"}},
    ]
    route = timeout("split", "web", "echo") | {"type": "TrafficRoute", "conf": {"split": legs}}
    add(scene, route)
    shown = kumafast("inspect", "trafficroute", "split", env={"COLUMNS": "80"}).stdout
    assert (
        "│       └── split   - weight: 90\n"
        "│                     destination: {kuma.io/service: echo, version: v1}\n"
        "│                   - weight: 10\n"
        "│                     destination: {kuma.io/service: echo, version: v2}\n"
    ) in shown
