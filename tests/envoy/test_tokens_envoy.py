"""Dataplane tokens with real Envoys: who has none is told what to do; keys rotate unseen; who is revoked is out."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from tests.envoy.harness import ControlPlane, EchoService, Sidecar, free_port, get, rejected, wait_until
from typer.testing import CliRunner

from kumafast.cli.main import app
from kumafast.identity.signing_keys import create_signing_key

pytestmark = pytest.mark.envoy


class TokenMesh:
    """A control plane that requires tokens, and sidecars with and without."""

    def __init__(self, directory: Path, envoy: str, ending: ExitStack) -> None:
        self.directory = directory
        self.envoy = envoy
        self.ending = ending
        self.control_plane = ControlPlane(directory, "--dp-auth", "token", "--log-level", "debug").start()
        ending.callback(self.control_plane.stop)

    def token(self, *arguments: str) -> Path:
        """A file with a token of `kumafast generate dataplane-token`."""
        result = CliRunner().invoke(app, ["--api", self.control_plane.api, "generate", "dataplane-token", *arguments])
        assert result.exit_code == 0, result.output
        file = self.directory / f"token-{len(list(self.directory.glob('token-*')))}"
        file.write_text(result.stdout)
        return file

    def sidecar(self, name: str, *flags: str, inbound: int, service_port: int, outbound: int = 0) -> Sidecar:
        """A sidecar of a service of its own name, with an outbound to echo where a port is given."""
        tags = {"kuma.io/service": name, "kuma.io/protocol": "http"}
        networking: dict[str, Any] = {
            "address": "127.0.0.1",
            "inbound": [{"port": inbound, "servicePort": service_port, "tags": tags}],
        }
        if outbound:
            networking["outbound"] = [{"port": outbound, "tags": {"kuma.io/service": "echo"}}]
        document = {"type": "Dataplane", "mesh": "default", "name": name, "networking": networking}
        sidecar = Sidecar(self.directory, self.control_plane, document, envoy=self.envoy, flags=flags)
        self.ending.callback(sidecar.stop)
        return sidecar

    def put_secret(self, name: str, content: bytes) -> None:
        document = {"type": "Secret", "mesh": "default", "name": name, "data": base64.b64encode(content).decode()}
        answer = httpx.put(f"{self.control_plane.api}/meshes/default/secrets/{name}", json=document)
        assert answer.status_code in (200, 201), answer.text

    def delete_secret(self, name: str) -> None:
        assert httpx.delete(f"{self.control_plane.api}/meshes/default/secrets/{name}").status_code == 200

    def streams(self, name: str) -> tuple[int, bool]:
        """How many streams a dataplane has had, and whether one of them is there."""
        insight = self.control_plane.overview("default", name).get("dataplaneInsight", {})
        subscriptions = insight.get("subscriptions", [])
        return len(subscriptions), any("disconnectTime" not in each for each in subscriptions)


@pytest.fixture
def mesh(tmp_path: Path, envoy_binary: str) -> Iterator[TokenMesh]:
    with ExitStack() as ending:
        yield TokenMesh(tmp_path, envoy_binary, ending)


def test_from_a_first_token_to_a_revoked_one(mesh: TokenMesh) -> None:
    service = EchoService("echo-1")
    mesh.ending.callback(service.stop)
    inbound, outbound = free_port(), free_port()
    first = mesh.token("--name", "echo")
    echo = mesh.sidecar("echo", "--token-file", str(first), inbound=inbound, service_port=service.port).wait_ready()
    by_tag = mesh.token("--tag", "kuma.io/service=web")
    mesh.sidecar(
        "web", "--token-file", str(by_tag), "--sotw", inbound=free_port(), service_port=free_port(), outbound=outbound
    ).wait_ready()
    wait_until(lambda: mesh.streams("echo") == (1, True), "it is online")
    wait_until(lambda: get(outbound).status_code == 200, "requests get through")

    # A new key signs from now on; who came with the old one stays.
    mesh.put_secret("dataplane-token-signing-key-default-2", create_signing_key())
    second = wait_until(lambda: _signed_with(mesh.token("--name", "late"), "2"), "the new key signs")
    mesh.sidecar(
        "late", "--token-file", str(second), inbound=free_port(), service_port=free_port(), outbound=free_port()
    ).wait_ready()
    wait_until(lambda: mesh.streams("late") == (1, True), "the newcomer is online")
    assert mesh.streams("echo") == mesh.streams("web") == (1, True)

    # Out, and not in again; what it had is what it runs on.
    revocations = "dataplane-token-revocations-default"
    mesh.put_secret(revocations, _identifier(first).encode())
    wait_until(lambda: not mesh.streams("echo")[1], "it is out", timeout_s=5)
    assert mesh.streams("web") == mesh.streams("late") == (1, True)
    assert get(outbound).status_code == 200
    wait_until(lambda: "has been revoked" in echo.process.log.read_text(), "its Envoy is told why")

    mesh.delete_secret(revocations)
    wait_until(lambda: mesh.streams("echo")[1], "it comes back by itself")
    assert rejected(echo) == []

    mesh.control_plane.stop()
    log = (mesh.directory / "control-plane.log").read_text()
    for file in (first, by_tag, second):
        # No token in any log, nor its signature.
        signature = file.read_text().strip().rpartition(".")[2]
        assert signature not in log
        assert signature not in echo.process.log.read_text()


def _identifier(token: Path) -> str:
    identifier: str = jwt.decode(token.read_text().strip(), options={"verify_signature": False})["jti"]
    return identifier


def _signed_with(token: Path, kid: str) -> Path | None:
    return token if jwt.get_unverified_header(token.read_text().strip())["kid"] == kid else None


def test_who_has_no_token_is_told_what_to_do(mesh: TokenMesh) -> None:
    wrong = mesh.token("--name", "somebody-else")
    for name, flags, hint in (
        ("bare", (), "kumafast generate dataplane-token"),
        ("wrong", ("--token-file", str(wrong)), "the token is for dataplane somebody-else"),
    ):
        refused = mesh.sidecar(name, *flags, inbound=free_port(), service_port=free_port())
        refused.process.child.wait(30)
        assert refused.process.child.returncode == 1
        said = refused.process.log.read_text()
        assert hint in said
        assert "Traceback" not in said
        assert httpx.get(f"{mesh.control_plane.api}/meshes/default/dataplanes/{name}").status_code == 404
