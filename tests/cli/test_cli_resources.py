"""apply, get and delete against the real API on a memory store."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.conftest import Api
from typer.testing import Result

from kumafast.insights import Rejection
from kumafast.rejections import Cause
from kumafast.resources import ResourceKey
from kumafast.templates import Failure

Command = Callable[..., Result]

ECHO = """
type: Dataplane
name: echo-1
networking:
  address: 127.0.0.1
  inbound:
  - {port: 17001, servicePort: 17101, tags: {kuma.io/service: echo, kuma.io/protocol: http, version: v1}}
"""


def stored(api: Api, kind: str) -> list[str]:
    return [item.resource.name for item in api.run(api.store.list(kind)).items]


def test_apply_creates_updates_and_leaves_alone(kumafast: Command) -> None:
    text = f"type: Mesh\nname: payments\n---\n{ECHO}"
    first = kumafast("apply", "-f", "-", stdin=text)
    assert (first.stdout, first.stderr, first.exit_code) == (
        "Mesh payments created\nDataplane echo-1 created\n",
        "",
        0,
    )
    assert kumafast("apply", "-f", "-", stdin=text).stdout == "Mesh payments unchanged\nDataplane echo-1 unchanged\n"
    changed = text.replace("version: v1", "version: v2")
    assert kumafast("apply", "-f", "-", stdin=changed).stdout == "Mesh payments unchanged\nDataplane echo-1 updated\n"


def test_apply_reads_files_directories_and_variables(kumafast: Command, api: Api, tmp_path: Path) -> None:
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "b.yaml").write_text("type: Mesh\nname: '{{team}}-b'\n")
    (tmp_path / "meshes" / "a.json").write_text(json.dumps({"type": "Mesh", "name": "{{team}}-a"}))
    (tmp_path / "one.yaml").write_text(ECHO)
    result = kumafast("apply", "-f", str(tmp_path / "meshes"), "-f", str(tmp_path / "one.yaml"), "-v", "team=red")
    assert result.stdout == "Mesh red-a created\nMesh red-b created\nDataplane echo-1 created\n"
    assert stored(api, "Mesh") == ["default", "red-a", "red-b"]


def test_nothing_is_applied_when_one_document_is_bad(kumafast: Command, api: Api, tmp_path: Path) -> None:
    bad = ECHO.replace("127.0.0.1", "0.0.0.0").replace("17001", "70000")
    file = tmp_path / "all.yaml"
    file.write_text(f"type: Mesh\nname: payments\n---\n{bad}---\ntype: Mesh\n---\nname: x\n")
    result = kumafast("apply", "-f", str(file))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: nothing was applied, since not everything is valid:",
        f"  {file}, document 2: networking.address: must not be 0.0.0.0 or ::",
        f"  {file}, document 2: networking.inbound[0].port: port must be in the range [1, 65535]",
        f"  {file}, document 3: name: must be text that says the resource's name",
        f"  {file}, document 4: type: must be text that says the resource's type",
    ]
    assert stored(api, "Mesh") == ["default"]


def test_what_only_the_server_can_refuse_names_the_document(kumafast: Command) -> None:
    result = kumafast("apply", "-f", "-", stdin=f"type: Mesh\nname: payments\n---\n{ECHO}mesh: missing\n")
    assert (result.exit_code, result.stdout) == (1, "Mesh payments created\n")
    assert "standard input, document 2: " in result.stderr
    assert "mesh: mesh of name missing is not found" in result.stderr


def test_unknown_types_and_empty_input_are_errors(kumafast: Command) -> None:
    unknown = kumafast("apply", "-f", "-", stdin="type: Cloud\nname: x\n")
    assert unknown.exit_code == 1
    assert "document 1: the control plane knows no type 'Cloud'; it knows: " in unknown.stderr
    assert "Dataplane, " in unknown.stderr
    assert "GlobalSecret, " in unknown.stderr
    empty = kumafast("apply", "-f", "-", stdin="---\n---\n")
    assert (empty.exit_code, empty.stderr) == (1, "error: there is nothing to apply: all documents are empty\n")


def test_warnings_of_the_server_go_to_stderr(kumafast: Command) -> None:
    result = kumafast("apply", "-f", "-", stdin="type: Mesh\nname: payments\ncolour: red\n")
    assert (result.exit_code, result.stdout) == (0, "Mesh payments created\n")
    assert result.stderr == "warning: standard input, document 1: colour: unknown field, ignored\n"


def test_wait_asks_for_the_newest_revision_and_says_how_many(kumafast: Command, api: Api) -> None:
    api.proxies = 3
    result = kumafast("apply", "--wait", "--timeout", "5s", "-f", "-", stdin=f"{ECHO}---\ntype: Mesh\nname: default\n")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "acknowledged by 3 proxies in 12 ms"
    assert api.waits == [(api.run(api.store.revision()), 5.0)]


def test_those_whom_any_of_the_documents_moved_are_counted(kumafast: Command, api: Api) -> None:
    mesh = "type: Mesh\nname: default\n"
    other = ECHO.replace("echo-1", "echo-2")
    assert kumafast("apply", "--wait", "-f", "-", stdin=f"{ECHO}---\n{other}").exit_code == 0
    revision = api.run(api.store.revision())
    assert (api.waits[-1][0], api.since) == (revision, revision - 1)
    # What is unchanged was written by an earlier command, and whom that moved does not count.
    third = ECHO.replace("echo-1", "echo-3")
    kumafast("apply", "--wait", "-f", "-", stdin=f"{mesh}---\n{ECHO}---\n{third}")
    assert (api.waits[-1][0], api.since) == (revision + 1, revision + 1)
    kumafast("apply", "--wait", "-f", "-", stdin=ECHO)
    assert (api.waits[-1][0], api.since) == (revision - 1, revision - 1)


def test_a_rejection_is_printed_with_envoys_words(kumafast: Command, api: Api) -> None:
    type_url = "type.googleapis.com/envoy.config.listener.v3.Listener"
    api.rejected, api.waiting = (Rejection("default.web-1", type_url, "bad port"),), ("default.web-2",)
    result = kumafast("apply", "--wait", "-f", "-", stdin=ECHO)
    assert (result.exit_code, result.stdout) == (1, "Dataplane echo-1 created\n")
    assert result.stderr.splitlines() == [
        "error: the change is stored, but an Envoy rejected it:",
        "  default.web-1 rejected Listener: bad port",
        "  default.web-2 has not acknowledged",
    ]


@pytest.mark.parametrize("resource", ["inbound:127.0.0.1:80", ""])
def test_what_cannot_be_applied_is_printed_with_the_policy_and_the_resource(
    kumafast: Command, api: Api, resource: str
) -> None:
    type_url = "type.googleapis.com/envoy.config.listener.v3.Listener" if resource else ""
    policy = ResourceKey("ProxyTemplate", "default", "t")
    failure = Failure("modifications[0].listener: no", type_url, resource, (policy,))
    api.rejected = (Rejection("default.web-1", type_url, failure.message, failure),)
    api.cause = Cause((resource,) if resource else (), (policy,))
    result = kumafast("apply", "--wait", "-f", "-", stdin=ECHO)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: the change is stored, but it cannot be applied:",
        "  default.web-1 keeps what it has: modifications[0].listener: no",
        f"    so ProxyTemplate t cannot be applied{f' to Listener {resource}' if resource else ''}",
    ]


def test_a_wait_without_end_names_who_is_missing(kumafast: Command, api: Api) -> None:
    kumafast("apply", "-f", "-", stdin=ECHO)
    api.waiting = ("default.web-1", "default.web-2")
    result = kumafast("delete", "dataplane", "echo-1", "--wait", "--timeout", "300ms")
    assert (result.exit_code, result.stdout) == (1, "Dataplane echo-1 deleted\n")
    assert result.stderr.splitlines() == [
        "error: the change is stored, but not every Envoy acknowledged it within 300ms:",
        "  default.web-1 has not acknowledged",
        "  default.web-2 has not acknowledged",
    ]


@pytest.mark.parametrize("timeout", ["5", "0s", "soon", "-1s"])
def test_a_bad_timeout_is_found_before_anything_is_written(kumafast: Command, api: Api, timeout: str) -> None:
    result = kumafast("apply", "--wait", f"--timeout={timeout}", "-f", "-", stdin=ECHO)
    assert (result.exit_code, stored(api, "Dataplane")) == (1, [])
    assert "is not a duration" in result.stderr


def test_get_prints_kumactls_tables(kumafast: Command) -> None:
    mesh = {
        "type": "Mesh",
        "name": "payments",
        "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
    }
    two = ECHO.replace("echo-1", "echo-2-with-a-long-name").replace("v1", "v2")
    kumafast("apply", "-f", "-", stdin="\n---\n".join([json.dumps(mesh), ECHO, two]))
    # They are as old as this machine is slow.
    aged = re.compile(r"\b[0-9]+s$", re.MULTILINE)
    assert aged.sub("0s", kumafast("get", "meshes").stdout) == (
        "NAME       mTLS           AGE\n"
        "default    off            0s\n"
        "payments   builtin/ca-1   0s\n"
    )  # fmt: skip
    tags = "kuma.io/protocol=http kuma.io/service=echo"
    lines = aged.sub("0s", kumafast("get", "dataplanes").stdout).splitlines()
    assert lines[0].split() == ["MESH", "NAME", "TAGS", "AGE"]
    zoneless = [line.replace(" kuma.io/zone=default", "") for line in lines[1:]]
    assert zoneless == [
        f"default   echo-1                    {tags} version=v1   0s",
        f"default   echo-2-with-a-long-name   {tags} version=v2   0s",
    ]


@pytest.mark.parametrize("word", ["dataplane", "dataplanes", "Dataplane", "dp", "DATA-PLANES"])
def test_a_type_has_many_spellings(kumafast: Command, word: str) -> None:
    kumafast("apply", "-f", "-", stdin=ECHO)
    result = kumafast("get", word, "echo-1", "-o", "json")
    item = json.loads(result.stdout)
    assert (item["type"], item["name"], item["mesh"]) == ("Dataplane", "echo-1", "default")
    assert item["networking"]["inbound"][0]["servicePort"] == 17101


def test_what_get_prints_can_be_applied(kumafast: Command) -> None:
    kumafast("apply", "-f", "-", stdin=ECHO)
    printed = kumafast("get", "dataplane", "echo-1", "-o", "yaml").stdout
    assert printed.startswith("type: Dataplane\nmesh: default\nname: echo-1\n")
    assert kumafast("apply", "-f", "-", stdin=printed).stdout == "Dataplane echo-1 unchanged\n"


def test_lists_follow_their_pages(kumafast: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kumafast.cli.client._PAGE_SIZE", 3)
    names = [f"mesh-{number:02}" for number in range(10)]
    kumafast("apply", "-f", "-", stdin="\n---\n".join(f"type: Mesh\nname: {name}" for name in names))
    found: dict[str, Any] = json.loads(kumafast("get", "meshes", "-o", "json").stdout)
    assert [item["name"] for item in found["items"]] == ["default", *names]
    assert (found["total"], found["next"]) == (11, None)


def test_get_and_delete_of_what_is_not_there(kumafast: Command) -> None:
    for arguments in (["get", "dataplane", "x"], ["delete", "dataplane", "x"]):
        result = kumafast(*arguments, "-m", "default")
        assert (result.exit_code, result.stderr) == (1, "error: there is no Dataplane x in mesh default\n")
    assert "there is no type 'cloud'; the control plane knows: " in kumafast("get", "cloud").stderr
    missing = kumafast("get", "dataplanes", "-m", "nowhere")
    assert missing.exit_code == 1
    assert "mesh of name nowhere is not found" in missing.stderr


def test_a_mesh_in_use_is_not_deleted(kumafast: Command, api: Api) -> None:
    kumafast("apply", "-f", "-", stdin=ECHO)
    result = kumafast("delete", "mesh", "default")
    assert result.exit_code == 1
    assert "there are still some dataplanes attached" in result.stderr
    assert kumafast("delete", "dp", "echo-1").stdout == "Dataplane echo-1 deleted\n"
    assert kumafast("delete", "mesh", "default").stdout == "Mesh default deleted\n"
    assert stored(api, "Mesh") == []


POLICIES = """
type: MeshTimeout
name: patient
spec:
  to: [{targetRef: {kind: MeshService, name: echo}, default: {http: {requestTimeout: 60s}}}]
---
type: Timeout
name: old
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: echo}}]
conf: {connectTimeout: 10s}
"""


def test_policies_are_resources_like_any_other(kumafast: Command) -> None:
    assert kumafast("apply", "-f", "-", stdin=POLICIES).stdout == "MeshTimeout patient created\nTimeout old created\n"
    assert (
        kumafast("apply", "-f", "-", stdin=POLICIES).stdout == "MeshTimeout patient unchanged\nTimeout old unchanged\n"
    )
    for word in ("meshtimeouts", "mesh-timeout", "mt", "MeshTimeout"):
        lines = kumafast("get", word).stdout.splitlines()
        assert [line.split()[:2] for line in lines] == [["MESH", "NAME"], ["default", "patient"]]
    assert [line.split()[:2] for line in kumafast("get", "timeouts").stdout.splitlines()][1:] == [["default", "old"]]
    shown = yaml.safe_load(kumafast("get", "mt", "patient", "-o", "yaml").stdout)
    assert shown["spec"]["to"][0]["default"] == {"http": {"requestTimeout": "1m0s"}}
    assert kumafast("delete", "meshtimeout", "patient").stdout == "MeshTimeout patient deleted\n"
