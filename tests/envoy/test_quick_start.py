"""The three steps of Kuma 0.1.0's documents with real Envoys: start, connect, secure; then who may, in its forms.

The documents stand in `tests/forms/quick-start` and are applied as they are, but that ports which nobody has take the
place of theirs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import httpx
import pytest
from tests.envoy.harness import EchoService, Mesh, Process, free_port, online, wait_until
from typer.testing import CliRunner

from kumafast.cli.main import app

pytestmark = pytest.mark.envoy

FORMS = Path(__file__).parent.parent / "forms" / "quick-start"


class Steps:
    """A user with the documents, the commands and a workload."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.workload = EchoService("echo-1")
        mesh.ending.callback(self.workload.stop)
        self.ports = {port: str(free_port()) for port in ("10000", "10001", "10002", "9001")}
        self.ports["9000"] = str(self.workload.port)

    def kumafast(self, *arguments: str, stdin: str | None = None) -> str:
        result = CliRunner().invoke(app, ["--api", self.mesh.control_plane.api, *arguments], input=stdin)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def apply(self, name: str) -> str:
        text = (FORMS / name).read_text()
        text = re.sub(rf"\b({'|'.join(self.ports)})\b", lambda port: self.ports[port[0]], text)
        return self.kumafast("apply", "--wait", "-f", "-", stdin=text)

    def run_dataplane(self, name: str) -> None:
        """`kuma-dp run`: the Envoy of a dataplane that is there."""
        control_plane = self.mesh.control_plane
        arguments = [sys.executable, "-m", "kumafast", "dataplane", "run", "--envoy", self.mesh.envoy]
        arguments += ["--cp-address", control_plane.dp.replace("grpc", "http", 1), "--name", name]
        arguments += ["--ca-cert-file", str(control_plane.ca_file)]
        process = Process(arguments, self.mesh.directory / f"{name}.log")
        self.mesh.ending.callback(process.stop)
        wait_until(lambda: online(self.mesh, name), f"{name} is online; see {process.log}")

    def answers(self, port: str) -> bool:
        """Whether a request to a port is answered by the workload, and not cut off."""
        try:
            response = httpx.get(f"http://127.0.0.1:{self.ports[port]}/hello", timeout=5)
        except httpx.TransportError:
            return False
        return bool(response.json()["path"] == "/hello")


def test_the_three_steps_of_0_1_0(delta_mesh: Mesh) -> None:
    # 1. The control plane runs, with its default mesh.
    steps = Steps(delta_mesh)
    assert "default" in steps.kumafast("get", "meshes")

    # 2. The data plane: what the sidecar takes comes to the workload.
    assert steps.apply("2-dataplane.yaml").startswith("Dataplane echo-1 created\n")
    steps.run_dataplane("echo-1")
    wait_until(lambda: steps.answers("10000"), "the sidecar passes requests on")

    # 3. Policies: with mutual TLS nobody without a certificate is answered any more.
    assert steps.apply("3-mesh.yaml").startswith("Mesh default updated\nacknowledged by 1 proxy in ")
    wait_until(lambda: not steps.answers("10000"), "plaintext is refused")
    assert not any(steps.answers("10000") for _ in range(5))
    assert "echo-1" in steps.kumafast("get", "dataplanes")
    _, line = steps.kumafast("inspect", "dataplanes").splitlines()
    assert line.split()[:2] == ["default", "echo-1"]
    assert "Online" in line
    shown = json.loads(steps.kumafast("inspect", "dataplanes", "-o", "json"))["items"]
    totals = shown[0]["dataplaneInsight"]["subscriptions"][-1]["status"]["total"]
    assert int(totals["responsesSent"]) >= 1
    assert "responsesRejected" not in totals

    # Who has a certificate is let in by a permission alone.
    steps.apply("4-client.yaml")
    steps.run_dataplane("client-1")
    assert not any(steps.answers("10002") for _ in range(5))
    steps.apply("5-permission.yaml")
    wait_until(lambda: steps.answers("10002"), "the client is permitted")
    assert not steps.answers("10000")
    steps.kumafast("delete", "trafficpermission", "client-to-echo", "--wait")
    wait_until(lambda: not steps.answers("10002"), "and is not any more")
