"""diff, apply --dry-run and delete --dry-run against the real API on a memory store: what they say, what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click
import pytest
from tests.cli.conftest import Api
from typer.testing import CliRunner, Result

from kumafast.cli.foresight import Foresight
from kumafast.cli.main import app

Command = Callable[..., Result]


def dataplane(name: str, service: str, *, port: int = 8080, reaches: Sequence[str] = ()) -> str:
    outbound = [{"port": 10_000 + n, "tags": {"kuma.io/service": other}} for n, other in enumerate(reaches)]
    inbound = [{"port": port, "tags": {"kuma.io/service": service, "kuma.io/protocol": "http"}}]
    networking = {"address": "127.0.0.1", "inbound": inbound, "outbound": outbound}
    return json.dumps({"type": "Dataplane", "mesh": "default", "name": name, "networking": networking})


def timeout(connect: str = "10s", **over: Any) -> str:
    ends = {end: [{"match": {"kuma.io/service": "*"}}] for end in ("sources", "destinations")}
    return json.dumps({"type": "Timeout", "name": "slow", **ends, "conf": {"connectTimeout": connect}, **over})


def stored(api: Api) -> dict[str, list[Any]]:
    return {kind: list(api.run(api.store.list(kind)).items) for kind in ("Mesh", "Dataplane", "Timeout")}


@pytest.fixture
def mesh(kumafast: Command) -> None:
    documents = [
        dataplane("web", "web", port=8080),
        *(dataplane(f"c{n}", "c", port=9_000 + n, reaches=["web"]) for n in range(6)),
    ]
    assert kumafast("apply", "-f", "-", stdin="\n---\n".join(documents)).exit_code == 0


DIFF = """\
Timeout slow would be created
6 of 7 proxies would get something else (0 connected)

6 proxies: c0, c1, c2 and 3 more
  Cluster web
    connectTimeout: 5s → 10s
"""


def test_diff_says_which_proxies_and_what_and_stores_nothing(kumafast: Command, api: Api, mesh: None) -> None:
    before = stored(api)
    result = kumafast("diff", "-f", "-", stdin=timeout())
    assert (result.stdout, result.stderr, result.exit_code) == (DIFF, "", 0)
    assert kumafast("apply", "--dry-run", "-f", "-", stdin=timeout()).stdout == DIFF
    whole = kumafast("diff", "--verbose", "-f", "-", stdin=timeout())
    assert "6 proxies: c0, c1, c2, c3, c4, c5\n" in whole.stdout
    assert stored(api) == before


UNFIT = """
type: ProxyTemplate
mesh: default
name: t
selectors: [{match: {kuma.io/service: c}}]
conf:
  imports: [default-proxy]
  modifications:
  - networkFilter:
      operation: patch
      match: {name: envoy.filters.network.http_connection_manager}
      value: |
        name: a
        typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"""


def test_diff_says_who_would_keep_what_it_has_and_why(kumafast: Command, api: Api, mesh: None) -> None:
    result = kumafast("diff", "-f", "-", stdin=UNFIT)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:5] == [
        "ProxyTemplate t would be created",
        "no proxy would get anything else",
        "",
        "6 proxies would keep what they have: c0, c1, c2 and 3 more",
        "  ProxyTemplate t cannot be applied to 6 Listeners: inbound:<address>:9000, inbound:<address>:9001, "
        "inbound:<address>:9002 and 3 more",
    ]
    assert lines[5].startswith("    modifications[0].networkFilter: envoy.filters.network.http_connection_manager is ")
    [failed] = json.loads(kumafast("diff", "-o", "json", "-f", "-", stdin=UNFIT).stdout)["failed"]
    assert (failed["proxies"], len(failed["resources"])) == (6, 6)
    assert failed["policies"] == [{"type": "ProxyTemplate", "mesh": "default", "name": "t"}]


def test_exit_code_is_asked_for_as_with_diff_tools(kumafast: Command, mesh: None) -> None:
    assert kumafast("diff", "--exit-code", "-f", "-", stdin=timeout()).exit_code == 1
    assert kumafast("apply", "-f", "-", stdin=timeout()).exit_code == 0
    result = kumafast("diff", "--exit-code", "-f", "-", stdin=timeout())
    assert result.exit_code == 0
    assert result.stdout == "Timeout slow would not change\nno proxy would get anything else\n"


def test_a_deletion_can_be_tried(kumafast: Command, api: Api, mesh: None) -> None:
    kumafast("apply", "-f", "-", stdin=timeout())
    before = stored(api)
    result = kumafast("delete", "timeout", "slow", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "Timeout slow would be deleted"
    assert "    connectTimeout: 10s → 5s" in result.stdout.splitlines()
    assert stored(api) == before
    assert kumafast("delete", "timeout", "none", "--dry-run").exit_code == 1


def test_json_is_the_whole_answer(kumafast: Command, mesh: None) -> None:
    result = kumafast("diff", "-o", "json", "-f", "-", stdin=timeout())
    answer = json.loads(result.stdout)
    assert [entry["name"] for entry in answer["proxies"]["names"]] == [f"c{n}" for n in range(6)]
    assert answer["groups"][0]["edits"][0]["differences"] == [
        {"path": "connectTimeout", "before": "5s", "after": "10s"}
    ]


def test_what_is_refused_names_the_document(kumafast: Command, mesh: None) -> None:
    text = f"{timeout()}\n---\n{timeout(mesh='nowhere')}"
    result = kumafast("diff", "-f", "-", stdin=text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "  standard input, document 2: mesh: mesh of name nowhere is not found" in result.stderr.splitlines()
    warned = kumafast("diff", "-f", "-", stdin=timeout(colour="red"))
    assert warned.stderr == "warning: standard input, document 1: colour: unknown field, ignored\n"


def test_a_mesh_comes_with_what_it_begins_with(kumafast: Command) -> None:
    result = kumafast("diff", "-f", "-", stdin="type: Mesh\nname: payments\n")
    lines = result.stdout.splitlines()
    assert lines[0] == "Mesh payments would be created"
    assert "mesh-timeout-all-payments would be created along" in result.stdout
    assert lines[-1] == "no proxy would get anything else"


def test_a_server_that_is_away_is_told_of_once() -> None:
    text = f"{timeout()}\n---\n{timeout(name='other')}"
    result = CliRunner().invoke(app, ["--api", "http://127.0.0.1:1", "diff", "-f", "-"], input=text)
    assert result.exit_code == 1
    assert result.stderr.count("cannot reach the control plane") == 1


def answer(*edits: dict[str, Any], names: int = 5_000) -> Foresight:
    proxies = [{"mesh": "default", "name": f"client-{number:05}"} for number in range(names)]
    group = {"proxies": names, "names": proxies, "edits": list(edits)}
    counts = {"affected": names, "connected": 12, "total": 10_000, "names": proxies}
    left_out = {"proxies": 17, "edits": 0}
    return Foresight({"resources": [], "proxies": counts, "groups": [group], "leftOut": left_out})


LONG = {"typedConfig": {"@type": "type.googleapis.com/" + "envoy.extensions." * 6, "rules": list(range(30))}}


def test_lines_fit_a_terminal_and_nothing_is_lost_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = "filterChains[0].filters[envoy.filters.network.http_connection_manager].typedConfig.routeConfig.timeout"
    differences = [
        {"path": path, "before": "15s", "after": "3s"},
        {"path": path, "before": None, "after": LONG},
        {"path": path, "before": LONG, "after": LONG},
        *({"path": f"a[{number}]", "before": 1, "after": 2} for number in range(20)),
    ]
    edit = {"kind": "changed", "typeUrl": "x/envoy.Listener", "resources": ["a", "b"], "differences": differences}
    added = {"kind": "added", "typeUrl": "x/envoy.Cluster", "resources": ["web"], "content": LONG}
    secret = {"kind": "changed", "typeUrl": "x/envoy.Secret", "resources": ["mesh_ca"]}
    text = answer(edit, added, secret).text()
    assert (
        max(
            map(
                len,
                text.replace("\x1b[31m", "")
                .replace("\x1b[32m", "")
                .replace("\x1b[0m", "")
                .replace("\x1b[1m", "")
                .splitlines(),
            )
        )
        <= 80
    )
    assert "5,000 of 10,000 proxies would get something else (12 connected)" in text
    for told in (
        "and 4,997 more",
        "17 more differences",
        "more lines",
        "(its content is not shown)",
        "17 more proxies",
    ):
        assert told in text
    whole = answer(edit, added, secret).text(is_whole=True)
    assert "--verbose" not in whole
    assert "client-04999" in whole
    assert whole.count(path) == 4


def test_an_answer_about_one_proxy_is_in_the_singular() -> None:
    edit = {"kind": "removed", "typeUrl": "x/envoy.Cluster", "resources": ["web"], "content": {}}
    assert "1 proxy: client-00000" in click.unstyle(answer(edit, names=1).text())
