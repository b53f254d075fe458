"""Logs, traces and templates seen in traffic: a line appears, spans arrive, a patch lands and leaves no trace."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, EchoService, Mesh, Sidecar, rejected, wait_until

pytestmark = pytest.mark.envoy

# Envoy writes a log when 64 KiB have come together, or after ten seconds.
_PADDING = "x" * 8192


class Collector:
    """Takes spans as Zipkin does."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = b""
                # Envoy sends them in chunks.
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                if self.path == "/api/v2/spans":
                    spans.extend(json.loads(body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Silence."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop taking."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Observed:
    """A client and a service whose logs and traces have somewhere to go."""

    mesh: Mesh
    service: EchoService
    client: Sidecar
    port: int
    log: Path
    collector: Collector

    def write(self, path: str, document: dict[str, Any] | None) -> None:
        """Put or delete a policy, and wait until all Envoys run what follows from it."""
        url = f"{self.mesh.control_plane.api}/meshes/default/{path}"
        response = httpx.delete(url) if document is None else httpx.put(url, json=document)
        assert response.status_code in (200, 201), response.text
        revision = int(response.headers["X-Kumafast-Revision"])
        report = self.mesh.control_plane.converge(revision)
        assert report["is_converged"], report

    def logged(self) -> str:
        """What the log holds by now."""
        return self.log.read_text() if self.log.exists() else ""

    def refused(self) -> tuple[dict[str, int], list[str]]:
        """What the client's Envoy has refused by now, each as often as it has, and which of it stands."""
        return self.client.stats("update_rejected|init_fetch_timeout"), rejected(self.client)

    def get(self, headers: dict[str, str] | None = None) -> httpx.Response:
        """One request on a connection of its own."""
        return httpx.get(f"http://127.0.0.1:{self.port}/", headers=headers, timeout=5)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Observed]:
    directory = tmp_path_factory.mktemp("observed")
    mesh = Mesh(directory, envoy_binary, uses_delta=True)
    mesh.flags = ("--concurrency", "1")
    with mesh.ending:
        collector = Collector()
        mesh.ending.callback(collector.stop)
        log = directory / "access.log"
        line = f"%KUMA_MESH% %KUMA_SOURCE_SERVICE%->%KUMA_DESTINATION_SERVICE% %RESPONSE_CODE% {_PADDING}"
        file = {"name": "file", "type": "file", "format": line, "conf": {"path": str(log)}}
        zipkin = {"name": "spans", "type": "zipkin", "conf": {"url": f"http://127.0.0.1:{collector.port}/api/v2/spans"}}
        mesh.control_plane.put(
            {
                "type": "Mesh",
                "name": "default",
                "logging": {"backends": [file]},
                "tracing": {"defaultBackend": "spans", "backends": [zipkin]},
            }
        )
        service, _ = mesh.echo("echo-1")
        client, (port,) = mesh.client("web-1", ECHO)
        found = Observed(mesh, service, client, port, log, collector)
        wait_until(lambda: found.get().status_code == 200, "the service answers")
        yield found


def test_a_log_has_a_line_for_each_request(observed: Observed) -> None:
    policy = {
        "type": "TrafficLog",
        "mesh": "default",
        "name": "all",
        "sources": [{"match": {"kuma.io/service": "*"}}],
        "destinations": [{"match": {"kuma.io/service": "*"}}],
        "conf": {"backend": "file"},
    }
    refused, logged = observed.refused(), observed.logged()
    observed.get()
    assert observed.logged() == logged
    observed.write("traffic-logs/all", policy)
    for _ in range(10):
        assert observed.get().status_code == 200
    wait_until(lambda: observed.logged() != logged, "the log is written")
    lines = observed.logged().removeprefix(logged).splitlines()
    assert {line.removesuffix(_PADDING) for line in lines if line.endswith(_PADDING)} == {"default web-1->echo 200 "}
    observed.write("traffic-logs/all", None)
    assert observed.refused() == refused


def test_spans_of_both_ends_arrive(observed: Observed) -> None:
    policy = {
        "type": "TrafficTrace",
        "mesh": "default",
        "name": "all",
        "selectors": [{"match": {"kuma.io/service": "*"}}],
    }
    observed.write("traffic-traces/all", policy)

    def have_arrived() -> bool:
        # Envoy sends five together.
        for _ in range(5):
            observed.get()
        found = {span["localEndpoint"]["serviceName"] for span in observed.collector.spans}
        return found == {"web-1", "echo"}

    wait_until(have_arrived, "spans of both sidecars arrive")
    by_trace: dict[str, set[str]] = {}
    for span in observed.collector.spans:
        by_trace.setdefault(span["traceId"], set()).add(span["localEndpoint"]["serviceName"])
    assert {"web-1", "echo"} in by_trace.values()
    observed.write("traffic-traces/all", None)
    assert "tracing:spans" not in observed.client.admin("/clusters")


def template(*modifications: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "ProxyTemplate",
        "mesh": "default",
        "name": "mine",
        "selectors": [{"match": {"kuma.io/service": "web-1"}}],
        "conf": {"imports": ["default-proxy"], "modifications": list(modifications)},
    }


PATCHED = template(
    {"cluster": {"operation": "patch", "match": {"name": "echo"}, "value": "connectTimeout: 3.5s"}},
    {
        "virtualHost": {
            "operation": "patch",
            "match": {"origin": "outbound", "routeConfigurationName": "outbound:echo"},
            "value": "requestHeadersToAdd: [{header: {key: x-template, value: landed}}]",
        }
    },
)


def configuration(sidecar: Sidecar) -> list[tuple[str, str]]:
    """The active clusters and listeners with the versions that they were sent with."""
    found = []
    for part in sidecar.config_dump()["configs"]:
        for entry in part.get("dynamic_active_clusters", []):
            found.append((entry["cluster"]["name"], entry["version_info"]))
        for entry in part.get("dynamic_listeners", []):
            found.append((entry["name"], entry["active_state"]["version_info"]))
    return sorted(found)


def connect_timeout(sidecar: Sidecar) -> str:
    clusters = [
        entry["cluster"]
        for part in sidecar.config_dump()["configs"]
        for entry in part.get("dynamic_active_clusters", [])
    ]
    (timeout,) = (str(cluster["connect_timeout"]) for cluster in clusters if cluster["name"] == "echo")
    return timeout


def test_a_template_lands_and_leaves_no_trace(observed: Observed) -> None:
    before, refused = configuration(observed.client), observed.refused()
    assert "x-template" not in observed.get().json()["headers"]
    assert connect_timeout(observed.client) == "5s"
    observed.write("proxytemplates/mine", PATCHED)
    assert observed.get().json()["headers"]["x-template"] == "landed"
    assert connect_timeout(observed.client) == "3.500s"
    assert configuration(observed.client) != before
    observed.write("proxytemplates/mine", None)
    assert "x-template" not in observed.get().json()["headers"]
    assert configuration(observed.client) == before
    assert observed.refused() == refused


def test_a_template_that_envoy_refuses_leaves_what_there_was(observed: Observed) -> None:
    observed.write("proxytemplates/mine", PATCHED)
    # Nothing may come after the router.
    late = {
        "operation": "addLast",
        "match": {"origin": "outbound"},
        "value": "{name: late, typedConfig: "
        "{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}",
    }
    url = f"{observed.mesh.control_plane.api}/meshes/default/proxytemplates/mine"
    refused = template({"httpFilter": late})
    response = httpx.put(url, json=refused)
    report = observed.mesh.control_plane.converge(int(response.headers["X-Kumafast-Revision"]))
    assert not report["is_converged"]
    assert "router" in json.dumps(report)
    assert observed.get().json()["headers"]["x-template"] == "landed"
    observed.write("proxytemplates/mine", None)
    assert "x-template" not in observed.get().json()["headers"]
