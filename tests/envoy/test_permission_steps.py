"""Permissions between real sidecars: closed without one, open to those whom it lets, closed when it is gone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, rejected, wait_until

pytestmark = [pytest.mark.envoy, pytest.mark.alone]

EFFECT_S = 2.0
"""Much more than it takes on a machine that has nothing else to do: 200 ms are aimed at."""

IN_A_ROW = 8
THREADS = os.cpu_count() or 1
"""An Envoy's, each with a connection of its own to the service."""

SECURED = {
    "type": "Mesh",
    "name": "default",
    "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
}


def traffic_permission(*services: str) -> dict[str, Any]:
    return {
        "type": "TrafficPermission",
        "mesh": "default",
        "name": "p",
        "sources": [{"match": {"kuma.io/service": service}} for service in services],
        "destinations": [{"match": {"kuma.io/service": "echo"}}],
    }


def listed(*sources: tuple[dict[str, Any], str]) -> dict[str, Any]:
    items = [{"targetRef": ref, "default": {"action": action}} for ref, action in sources]
    return {"type": "MeshTrafficPermission", "mesh": "default", "name": "p", "spec": {"from": items}}


def ruled(**matches: list[tuple[str, str]]) -> dict[str, Any]:
    default = {
        name: [{"spiffeID": {"type": kind, "value": value}} for kind, value in several]
        for name, several in matches.items()
    }
    return {"type": "MeshTrafficPermission", "mesh": "default", "name": "p", "spec": {"rules": [{"default": default}]}}


def status(port: int) -> int:
    """How a request ends: with a status, or with 0 where the connection does not come about."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", timeout=5).status_code
    except httpx.HTTPError:
        return 0


class Steps:
    """Two clients of a service in a mesh with TLS, and a permission that changes."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        _, self.echo = mesh.echo("echo-1")
        self.web, (self.web_port,) = mesh.client("web", ECHO)
        self.other, (self.other_port,) = mesh.client("other", ECHO)
        wait_until(lambda: self.statuses() == (200, 200), "the mesh is open")

    def statuses(self) -> tuple[int, int]:
        return status(self.web_port), status(self.other_port)

    def write(self, document: dict[str, Any]) -> None:
        kind = {"TrafficPermission": "traffic-permissions", "MeshTrafficPermission": "meshtrafficpermissions"}
        within = f"/default/{kind[document['type']]}" if document["type"] in kind else ""
        url = f"{self.mesh.control_plane.api}/meshes{within}/{document['name']}"
        self._taken(httpx.put(url, json=document))

    def delete(self, path: str) -> None:
        self._taken(httpx.delete(f"{self.mesh.control_plane.api}/meshes/default/{path}/p"))

    def _taken(self, answer: httpx.Response) -> None:
        """All sidecars have taken what was written, and soon."""
        assert answer.status_code in (200, 201), answer.text
        started = time.monotonic()
        report = self.mesh.control_plane.converge(int(answer.headers["X-Kumafast-Revision"]))
        taken = time.monotonic() - started
        assert report["is_converged"], report
        assert taken < EFFECT_S, f"{taken * 1000:.0f} ms"

    def until(self, web: int, other: int, what: str, *, strays: int | None = None) -> None:
        """Wait until requests of both end so, on each of their connections, but for so many at most that do not.

        An Envoy has connections for each of its threads, and those that were there end with their next answer.
        """
        in_a_row, stray = 0, [0, 0]

        def has_settled() -> bool:
            nonlocal in_a_row
            wrong = [found != wanted for found, wanted in zip(self.statuses(), (web, other), strict=True)]
            stray[:] = [count + is_wrong for count, is_wrong in zip(stray, wrong, strict=True)]
            in_a_row = 0 if any(wrong) else in_a_row + 1
            return in_a_row >= IN_A_ROW

        wait_until(has_settled, f"{what}: {(web, other)}")
        assert strays is None or max(stray) <= strays, f"{what}: {stray} answers by the old rule"


@pytest.fixture
def steps(delta_mesh: Mesh) -> Iterator[Steps]:
    steps = Steps(delta_mesh)
    steps.write(SECURED)
    steps.until(403, 403, "a mesh with TLS is closed")
    yield steps
    assert rejected(steps.echo) == rejected(steps.web) == rejected(steps.other) == []


def test_a_traffic_permission_opens_and_its_deletion_closes(steps: Steps) -> None:
    steps.write(traffic_permission("web"))
    steps.until(200, 503, "open to one of two", strays=THREADS)
    caller = httpx.get(f"http://127.0.0.1:{steps.web_port}/").json()["headers"]["x-forwarded-client-cert"]
    assert "URI=spiffe://default/web" in caller
    steps.delete("traffic-permissions")
    steps.until(403, 403, "closed again", strays=THREADS)


def test_mesh_traffic_permissions_in_every_form(steps: Steps) -> None:
    everybody: dict[str, Any] = {"kind": "Mesh"}
    steps.write(listed((everybody, "Allow"), ({"kind": "MeshService", "name": "other"}, "Deny")))
    steps.until(200, 403, "all but one")
    steps.write(listed((everybody, "Deny"), ({"kind": "MeshSubset", "tags": {"kuma.io/service": "other"}}, "Allow")))
    steps.until(403, 200, "one alone")
    # A certificate has several URIs, and Envoy's matchers see them as one text.
    steps.write(ruled(allow=[("Exact", "spiffe://default/web")]))
    steps.until(200, 403, "one by its exact name")
    steps.write(ruled(allow=[("Prefix", "spiffe://default/")], deny=[("Exact", "spiffe://default/web")]))
    steps.until(403, 200, "all by a prefix, but for one who is refused")
    steps.write(ruled(allow=[("Exact", "spiffe://default/we"), ("Prefix", "piffe://")][:1]))
    steps.until(403, 403, "nobody has that name")
    steps.write(ruled(allowWithShadowDeny=[("Exact", "spiffe://default/web")], allow=[("Prefix", "spiffe://")]))
    steps.until(200, 200, "on trial is let in")
    before = shadow_denied(steps)
    assert status(steps.other_port) == 200
    assert shadow_denied(steps) == before
    assert status(steps.web_port) == 200
    assert shadow_denied(steps) == before + 1
    # It silences the older family.
    steps.write(traffic_permission("nobody"))
    steps.until(200, 200, "the newer family counts")
    steps.delete("meshtrafficpermissions")
    steps.until(503, 503, "the older family counts, and names nobody who is there")


def shadow_denied(steps: Steps) -> int:
    """How many requests a trial run has refused."""
    return sum(
        value for name, value in steps.echo.stats("rbac.shadow_denied").items() if name.endswith("shadow_denied")
    )
