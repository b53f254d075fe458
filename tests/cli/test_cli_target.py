"""Which control plane is spoken to, and what is said when it is not there or is something else."""

from __future__ import annotations

import socket

import httpx
import pytest
from tests.cli.conftest import Api
from typer.testing import CliRunner

from kumafast import __version__
from kumafast.cli.client import ApiClient
from kumafast.cli.failure import CommandError
from kumafast.cli.main import app

NOWHERE = "http://127.0.0.1:1"


def client(handler: httpx.MockTransport) -> ApiClient:
    return ApiClient("http://control-plane", transport=handler)


def test_the_flag_after_the_command_wins_over_the_one_before_it_and_over_the_variable(api: Api) -> None:
    env = {"KUMAFAST_API": NOWHERE}
    for arguments in (["--api", api.url, "get", "meshes"], ["--api", NOWHERE, "get", "meshes", "--api", api.url]):
        assert CliRunner().invoke(app, arguments, env=env).exit_code == 0
    assert CliRunner().invoke(app, ["get", "meshes"], env={"KUMAFAST_API": api.url}).exit_code == 0
    assert CliRunner().invoke(app, ["get", "meshes"], env=env).exit_code == 1


def test_every_option_has_a_variable(api: Api) -> None:
    env = {"KUMAFAST_API": api.url, "KUMAFAST_GET_OUTPUT": "json"}
    assert CliRunner().invoke(app, ["get", "meshes"], env=env).stdout.startswith("{")
    assert CliRunner().invoke(app, ["get", "meshes", "-o", "table"], env=env).stdout.startswith("NAME")


def test_a_control_plane_that_is_not_there_is_one_sentence() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        result = CliRunner().invoke(app, ["--api", url, "get", "meshes"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: cannot reach the control plane at {url} (")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["127.0.0.1:5681", "ftp://x", "http://", ""])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(CommandError, match="is not the address of an API"):
        ApiClient(address)


def test_something_else_behind_the_address() -> None:
    with (
        client(httpx.MockTransport(lambda request: httpx.Response(200, text="hello"))) as there,
        pytest.raises(CommandError, match="did not answer with a JSON object"),
    ):
        there.kinds()
    with (
        client(httpx.MockTransport(lambda request: httpx.Response(502, text="Bad Gateway"))) as there,
        pytest.raises(CommandError, match="GET /_resources: status 502 Bad Gateway"),
    ):
        there.kinds()


def test_errors_of_older_servers_are_understood() -> None:
    body = {
        "title": "Could not process a resource",
        "details": "Resource is not valid",
        "causes": [{"field": "f", "message": "m"}],
    }
    with (
        client(httpx.MockTransport(lambda request: httpx.Response(400, json=body))) as there,
        pytest.raises(CommandError, match=r"^Could not process a resource \(Resource is not valid\)$") as caught,
    ):
        there.put("/meshes/x", {})
    assert caught.value.details == ("f: m",)


def test_requests_say_who_asks() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"items": [], "next": None})

    with client(httpx.MockTransport(answer)) as there:
        assert there.items("/meshes", {"tag": ["a:1", "b:2"]}) == []
    assert seen[0].headers["user-agent"] == f"kumafast/{__version__}"
    assert seen[0].url.params.get_list("tag") == ["a:1", "b:2"]


def test_a_server_whose_pages_lead_in_a_circle_is_left() -> None:
    page = {"items": [{"name": "x"}], "next": "http://elsewhere/meshes?offset=1&size=1"}
    with client(httpx.MockTransport(lambda request: httpx.Response(200, json=page))) as there:
        assert len(there.items("/meshes")) == 2


@pytest.mark.parametrize(
    "arguments", [["get"], ["nonsense"], ["get", "meshes", "-o", "xml"], ["apply"], ["run", "--api-port", "x"]]
)
def test_usage_errors_exit_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"kumafast {__version__}\n")


@pytest.mark.parametrize(
    "command",
    [
        *("", "run", "apply", "get", "delete", "inspect", "inspect dataplanes", "inspect dataplane"),
        *("dataplane", "dataplane run", "envoy", "envoy install", "envoy path", "demo"),
    ],
)
def test_everything_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
    assert "\x1b" not in result.stdout
