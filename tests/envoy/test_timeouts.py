"""Timeouts seen in traffic: a slow request is cut off by either kind of policy, and goes through again without it."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, rejected, wait_until

pytestmark = pytest.mark.envoy

MESH_TIMEOUT = {
    "type": "MeshTimeout",
    "mesh": "default",
    "name": "impatient",
    "spec": {
        "targetRef": {"kind": "MeshService", "name": "web-1"},
        "to": [
            {
                "targetRef": {"kind": "MeshService", "name": "echo"},
                "default": {"http": {"requestTimeout": "300ms"}},
            }
        ],
    },
}
TIMEOUT = {
    "type": "Timeout",
    "mesh": "default",
    "name": "impatient",
    "sources": [{"match": {"kuma.io/service": "web-1"}}],
    "destinations": [{"match": {"kuma.io/service": "echo"}}],
    "conf": {"http": {"requestTimeout": "300ms"}},
}


@pytest.mark.parametrize(
    ("path", "document"),
    [("meshtimeouts", MESH_TIMEOUT), ("timeouts", TIMEOUT)],
    ids=["MeshTimeout", "Timeout"],
)
def test_a_slow_request_is_cut_off_while_there_is_a_timeout(
    delta_mesh: Mesh, path: str, document: dict[str, Any]
) -> None:
    mesh = delta_mesh
    mesh.echo("echo-1")
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: get(port).status_code == 200, "the service answers")
    assert get(port, "/slow").status_code == 200
    url = f"{mesh.control_plane.api}/meshes/default/{path}/impatient"
    settle(mesh, httpx.put(url, json=document))
    started = time.monotonic()
    assert get(port, "/slow").status_code == 504
    assert 0.25 < time.monotonic() - started < 0.9
    assert get(port).status_code == 200
    assert client.stats("^cluster.echo.upstream_rq_timeout$")["cluster.echo.upstream_rq_timeout"] == 1
    settle(mesh, httpx.delete(url))
    assert get(port, "/slow").status_code == 200
    assert rejected(client) == []


def get(port: int, path: str = "/") -> httpx.Response:
    """One request on a connection of its own: those that are open stay with the listener that took them."""
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5)


def settle(mesh: Mesh, written: httpx.Response) -> None:
    """Wait until all Envoys run what was written; the two of these tests do."""
    assert written.status_code in (200, 201), written.text
    report = mesh.control_plane.converge(int(written.headers["X-Kumafast-Revision"]))
    assert report["is_converged"], report
