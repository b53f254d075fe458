"""MeshMetric seen by those who ask: metrics of sidecars and workloads, as selected, on a port and at a collector."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from tests.envoy.harness import Mesh, free_port, rejected, wait_until
from tests.envoy.test_guards import Scene, get
from tests.envoy.test_mesh_guards import secured

pytestmark = pytest.mark.envoy

_METRICS = "opentelemetry.proto.collector.metrics.v1.MetricsService"
_OF_WORKLOAD = "# TYPE carts_sold counter\ncarts_sold 41\n"


class MetricsCollector:
    """Takes metrics as OpenTelemetry's collector does: values by name and the service that they are of."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], float] = {}
        self._server = grpc.server(ThreadPoolExecutor(2))
        export = grpc.unary_unary_rpc_method_handler(
            self._take,
            request_deserializer=metrics_service_pb2.ExportMetricsServiceRequest.FromString,
            response_serializer=metrics_service_pb2.ExportMetricsServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_METRICS, {"Export": export}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _take(self, request: Any, context: object) -> Any:
        for resource in request.resource_metrics:
            for library in resource.instrumentation_library_metrics:
                for metric in library.metrics:
                    for point in [*metric.sum.data_points, *metric.gauge.data_points]:
                        said = {each.key: each.value.string_value for each in point.attributes}
                        self.values[metric.name, said["kuma_io_service"]] = point.as_double
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def stop(self) -> None:
        """Stop taking."""
        self._server.stop(None).wait()


@pytest.fixture
def workload() -> Iterator[int]:
    """The port of a workload that has a metric."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = _OF_WORKLOAD.encode()
            self.send_response(200 if self.path == "/own" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Scene]:
    """One for all: each test leaves it as it was."""
    directory: Path = tmp_path_factory.mktemp("mesh-metrics")
    mesh = Mesh(directory, envoy_binary, uses_delta=True)
    certificate = mesh.control_plane.ca_file
    files = ("--metrics-cert-file", str(certificate), "--metrics-key-file", str(certificate.with_suffix(".key")))
    mesh.flags = ("--concurrency", "1", *files)
    with mesh.ending:
        scene = Scene(mesh)
        yield scene
        assert rejected(scene.server) == rejected(scene.web) == rejected(scene.job) == []


def publishing(port: int, *, tls: str = "Disabled", **conf: Any) -> dict[str, Any]:
    """A MeshMetric for the client's sidecar, with a port for Prometheus."""
    backend = {"type": "Prometheus", "prometheus": {"port": port, "path": "/metrics", "tls": {"mode": tls}}}
    return for_web({"backends": [backend], **conf})


def for_web(conf: dict[str, Any]) -> dict[str, Any]:
    """A MeshMetric for the client's sidecar."""
    top = {"kind": "MeshService", "name": "web-1"}
    return {"type": "MeshMetric", "spec": {"targetRef": top, "default": conf}}


def scrape(port: int) -> dict[str, str]:
    """What a sidecar answers: values by name and labels."""
    response = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in response.text.splitlines() if line and not line.startswith("#")]
    return {key: value for key, _, value in (line.rpartition(" ") for line in lines)}


REQUESTS = 'envoy_cluster_upstream_rq_total{envoy_cluster_name="echo",kuma_io_mesh_traffic="true"}'


def test_the_sidecar_answers_for_itself_and_its_workload(scene: Scene, workload: int) -> None:
    port = free_port()
    with scene.control_plane.policy(
        "meshmetrics", **publishing(port, applications=[{"path": "/own", "port": workload}])
    ):
        before = int(scrape(port)[REQUESTS])
        assert [get(scene.web_port).status_code for _ in range(3)] == [200] * 3
        now = scrape(port)
        assert int(now[REQUESTS]) == before + 3
        assert now["carts_sold"] == "41"
        # The basic profile: nothing of the proxy's own clusters, nothing of how it is doing inside.
        assert not [name for name in now if "ads_cluster" in name or "_kuma" in name or "assignment_stale" in name]
    with pytest.raises(httpx.TransportError):
        scrape(port)


def test_profiles_and_selectors_decide_what_is_published(scene: Scene) -> None:
    port = free_port()
    profiles = {
        "appendProfiles": [{"name": "None"}],
        "include": [{"type": "Regex", "match": "^envoy_cluster_upstream_rq_(total|xx)$"}],
    }
    with scene.control_plane.policy("meshmetrics", **publishing(port, sidecar={"profiles": profiles})):
        names = {key.partition("{")[0] for key in scrape(port)}
        assert names == {"envoy_cluster_upstream_rq_total", "envoy_cluster_upstream_rq_xx"}
    everything = {"profiles": {"appendProfiles": [{"name": "All"}]}, "includeUnused": True}
    everything["profiles"]["exclude"] = [{"type": "Prefix", "match": "envoy_server"}]  # type: ignore[index]
    with scene.control_plane.policy("meshmetrics", **publishing(port, sidecar=everything)):
        now = scrape(port)
        unused = 'envoy_cluster_upstream_cx_protocol_error{envoy_cluster_name="echo",kuma_io_mesh_traffic="true"}'
        assert now[unused] == "0"
        assert 'envoy_cluster_membership_total{envoy_cluster_name="ads_cluster"}' in now
        assert not [name for name in now if name.startswith("envoy_server")]


def test_a_workload_that_is_away_takes_nothing_else_along(scene: Scene) -> None:
    port, away = free_port(), free_port()
    with scene.control_plane.policy("meshmetrics", **publishing(port, applications=[{"port": away}])):
        assert REQUESTS in scrape(port)


def test_metrics_arrive_at_a_collector(scene: Scene) -> None:
    collector = MetricsCollector()
    about = {"endpoint": f"127.0.0.1:{collector.port}", "refreshInterval": "1s"}
    conf = {"backends": [{"type": "OpenTelemetry", "openTelemetry": about}]}
    try:
        with scene.control_plane.policy("meshmetrics", **for_web(conf)):
            key = ("envoy_cluster_upstream_rq_total", "web-1")
            wait_until(lambda: key in collector.values, "the first metrics arrive")
            before = collector.values[key]
            assert get(scene.web_port).status_code == 200
            wait_until(lambda: collector.values[key] > before, "a request is counted there")
    finally:
        collector.stop()


def test_a_port_may_show_a_certificate_of_the_host(scene: Scene) -> None:
    port = free_port()
    with scene.control_plane.policy("meshmetrics", **publishing(port, tls="ProvidedTLS")):
        known = ssl.create_default_context(cafile=str(scene.control_plane.ca_file))
        answer = httpx.get(f"https://127.0.0.1:{port}/metrics", verify=known, timeout=20)
        assert REQUESTS in answer.text
        with pytest.raises(httpx.TransportError):
            scrape(port)


def test_a_port_may_ask_for_certificates_of_the_mesh(scene: Scene, tmp_path: Path) -> None:
    port = free_port()
    with secured(scene), scene.control_plane.policy("meshmetrics", **publishing(port, tls="ActiveMTLSBackend")):
        # The proxy's own host needs none: whoever listens there shares its address.
        assert REQUESTS in scrape(port)
        listener = "_kuma_metrics_prometheus_default-backend"
        assert scene.web.stats(f"http.{listener}.downstream_cx_total")[f"http.{listener}.downstream_cx_total"] >= 1
        other = httpx.HTTPTransport(local_address="127.0.0.9")
        with httpx.Client(transport=other) as client, pytest.raises(httpx.TransportError):
            client.get(f"http://127.0.0.1:{port}/metrics")
