"""A delegated gateway: a process of one's own takes requests from outside and sends them into a mesh with TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, free_port, rejected, wait_until

pytestmark = pytest.mark.envoy

SECURED = {
    "type": "Mesh",
    "name": "default",
    "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
}
EDGE = {"kuma.io/service": "edge"}


@contextmanager
def proxy(outbound: int) -> Iterator[int]:
    """Somebody's gateway: it passes requests on to an outbound; the port on which it listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = httpx.get(f"http://127.0.0.1:{outbound}{self.path}", timeout=5)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def permission(source: str) -> dict[str, Any]:
    return {
        "type": "TrafficPermission",
        "mesh": "default",
        "name": "p",
        "sources": [{"match": {"kuma.io/service": source}}],
        "destinations": [{"match": ECHO}],
    }


def test_what_comes_through_ones_own_gateway_has_its_identity(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    mesh.control_plane.settle("PUT", f"{mesh.control_plane.api}/meshes/default", SECURED)
    mesh.echo("echo-1")
    port = free_port()
    sidecar = mesh.sidecar(
        "edge-1", gateway={"type": "DELEGATED", "tags": EDGE}, outbound=[{"port": port, "tags": ECHO}]
    )
    url = f"{mesh.control_plane.api}/meshes/default/traffic-permissions/p"
    with proxy(port) as outside:

        def ask() -> httpx.Response:
            return httpx.get(f"http://127.0.0.1:{outside}/from/outside", timeout=5)

        wait_until(lambda: ask().status_code == 403, "nobody is permitted")
        mesh.control_plane.settle("PUT", url, permission("web"))
        # A connection of the listener before may end just then.
        assert ask().status_code in (403, 503)
        mesh.control_plane.settle("PUT", url, permission("edge"))
        answer = wait_until(lambda: (found := ask()).status_code == 200 and found, "the gateway is permitted").json()
        assert answer["path"] == "/from/outside"
        assert "URI=spiffe://default/edge" in answer["headers"]["x-forwarded-client-cert"]
    url = f"{mesh.control_plane.api}/meshes/default/dataplanes/_overview?gateway=delegated"
    [item] = mesh.control_plane.get(url)["items"]
    assert (item["name"], item["labels"]["kuma.io/proxy-type"]) == ("edge-1", "gateway")
    assert rejected(sidecar) == []
