"""MeshAccessLog and MeshTrace seen in traffic: lines, records and spans arrive, of those that they are for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from tests.envoy.harness import Mesh, rejected, wait_until
from tests.envoy.test_guards import Scene, get
from tests.envoy.test_mesh_guards import ECHO_REF, TO_ECHO, WEB, identity, secured
from tests.envoy.test_observing import Collector

pytestmark = pytest.mark.envoy

# Envoy writes a log when 64 KiB have come together, or after ten seconds.
_PADDING = "x" * 8192
_LOGS = "opentelemetry.proto.collector.logs.v1.LogsService"
_TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"


class OtelCollector:
    """Takes records and spans as OpenTelemetry's collector does."""

    def __init__(self) -> None:
        self.records: list[tuple[str, dict[str, str]]] = []
        """Bodies and attributes."""
        self.services: set[str] = set()
        """Of the spans."""
        self._server = grpc.server(ThreadPoolExecutor(2))
        logs = grpc.unary_unary_rpc_method_handler(
            self._take_records,
            request_deserializer=logs_service_pb2.ExportLogsServiceRequest.FromString,
            response_serializer=logs_service_pb2.ExportLogsServiceResponse.SerializeToString,
        )
        spans = grpc.unary_unary_rpc_method_handler(
            self._take_spans,
            request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
            response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(_LOGS, {"Export": logs}),
                grpc.method_handlers_generic_handler(_TRACES, {"Export": spans}),
            )
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _take_records(self, request: Any, context: object) -> Any:
        for resource in request.resource_logs:
            for library in resource.instrumentation_library_logs:
                for record in library.logs:
                    attributes = {each.key: each.value.string_value for each in record.attributes}
                    self.records.append((record.body.string_value, attributes))
        return logs_service_pb2.ExportLogsServiceResponse()

    def _take_spans(self, request: Any, context: object) -> Any:
        for resource in request.resource_spans:
            said = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(said["service.name"])
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        """Stop taking."""
        self._server.stop(None).wait()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Scene]:
    """One for all: each test leaves it as it was."""
    directory: Path = tmp_path_factory.mktemp("mesh-observing")
    mesh = Mesh(directory, envoy_binary, uses_delta=True)
    mesh.flags = ("--concurrency", "1")
    with mesh.ending:
        scene = Scene(mesh)
        yield scene
        assert rejected(scene.server) == rejected(scene.web) == rejected(scene.job) == []


@pytest.fixture(scope="module")
def otel() -> Iterator[OtelCollector]:
    collector = OtelCollector()
    yield collector
    collector.stop()


def lines(path: Path, said: str) -> dict[str, Any]:
    """A conf that has lines go to a file."""
    plain = f"{said} {_PADDING}"
    return {"backends": [{"type": "File", "file": {"path": str(path), "format": {"type": "Plain", "plain": plain}}}]}


def logged(path: Path) -> set[str]:
    """What whole lines in a file say."""
    written = path.read_text().splitlines() if path.exists() else []
    return {line.removesuffix(f" {_PADDING}") for line in written if line.endswith(_PADDING)}


SERVICES = "%KUMA_MESH% %KUMA_SOURCE_SERVICE%->%KUMA_DESTINATION_SERVICE% %RESPONSE_CODE%"


def test_lines_at_both_ends(scene: Scene, tmp_path: Path) -> None:
    sent, taken = tmp_path / "sent", tmp_path / "taken"
    to = [{"targetRef": TO_ECHO, "default": lines(sent, SERVICES)}]
    policies = scene.control_plane.policy
    with policies("meshaccesslogs", type="MeshAccessLog", spec={"targetRef": WEB, "to": to}):
        for _ in range(10):
            get(scene.web_port)
            get(scene.job_port)
        wait_until(lambda: logged(sent), "the client's lines are written")
    rules = [{"default": lines(taken, SERVICES)}]
    with policies("meshaccesslogs", type="MeshAccessLog", spec={"targetRef": ECHO_REF, "rules": rules}):
        for _ in range(10):
            get(scene.job_port)
        wait_until(lambda: logged(taken), "the service's lines are written")
    assert logged(sent) == {"default web-1->echo 200"}
    # Who sends is not known without a certificate.
    assert logged(taken) == {"default unknown->echo 200"}


def test_lines_of_who_has_a_certificate(scene: Scene, tmp_path: Path) -> None:
    everybody, web, asked = tmp_path / "everybody", tmp_path / "web", tmp_path / "asked"
    rules = [
        {"default": lines(everybody, SERVICES)},
        {"matches": [identity("web-1")], "default": lines(web, "web")},
        {"matches": [{"sni": {"type": "Exact", "value": "nobody"}}], "default": lines(asked, "asked")},
    ]
    with (
        secured(scene),
        scene.control_plane.policy(
            "meshaccesslogs", type="MeshAccessLog", spec={"targetRef": ECHO_REF, "rules": rules}
        ),
    ):
        for _ in range(10):
            get(scene.job_port)
        wait_until(lambda: logged(everybody), "lines are written")
        assert not logged(web)
        for _ in range(10):
            get(scene.web_port)
        wait_until(lambda: logged(web), "the client's lines are written")
    assert not asked.exists() or not asked.read_text()


def test_records_of_one_client_arrive(scene: Scene, otel: OtelCollector) -> None:
    section = {
        "endpoint": f"127.0.0.1:{otel.port}",
        "body": "%KUMA_SOURCE_SERVICE% asks for %REQ(:PATH)%",
        "attributes": [{"key": "to", "value": "%KUMA_DESTINATION_SERVICE%"}],
    }
    to = [{"targetRef": TO_ECHO, "default": {"backends": [{"type": "OpenTelemetry", "openTelemetry": section}]}}]
    cluster = f"meshaccesslog:opentelemetry:127.0.0.1:{otel.port}"
    with scene.control_plane.policy("meshaccesslogs", type="MeshAccessLog", spec={"targetRef": WEB, "to": to}):
        assert cluster in scene.web.admin("/clusters")
        assert cluster not in scene.job.admin("/clusters")
        get(scene.web_port, "/a")
        get(scene.job_port, "/b")
        wait_until(lambda: otel.records, "a record arrives")
    assert otel.records == [("web-1 asks for /a", {"to": "echo"})]
    assert cluster not in scene.web.admin("/clusters")


def traced(scene: Scene, backend: dict[str, Any], **said: Any) -> Any:
    """A MeshTrace for all proxies."""
    spec = {"targetRef": {"kind": "Mesh"}, "default": {"backends": [backend], **said}}
    return scene.control_plane.policy("meshtraces", type="MeshTrace", spec=spec)


def test_spans_of_both_ends_arrive_with_their_tags(scene: Scene) -> None:
    collector = Collector()
    url = f"http://127.0.0.1:{collector.port}/api/v2/spans"
    tags = [
        {"name": "team", "literal": "core"},
        {"name": "env", "header": {"name": "x-env", "default": "prod"}},
    ]

    def services() -> set[str]:
        # Envoy sends five together.
        for _ in range(5):
            get(scene.web_port, headers={"x-env": "test"})
        return {span["localEndpoint"]["serviceName"] for span in collector.spans}

    try:
        with traced(scene, {"type": "Zipkin", "zipkin": {"url": url}}, tags=tags):
            wait_until(lambda: services() == {"web-1", "echo"}, "spans of both sidecars arrive")
            assert "meshtrace:zipkin" in scene.web.admin("/clusters")
        said = {(span["tags"]["team"], span["tags"]["env"]) for span in collector.spans}
        assert said == {("core", "test")}
        assert "meshtrace:zipkin" not in scene.web.admin("/clusters")
    finally:
        collector.stop()


def test_spans_of_opentelemetry_bear_the_service_of_the_proxy(scene: Scene, otel: OtelCollector) -> None:
    backend = {"type": "OpenTelemetry", "openTelemetry": {"endpoint": f"127.0.0.1:{otel.port}"}}

    def services() -> set[str]:
        for _ in range(5):
            get(scene.web_port)
        return otel.services

    with traced(scene, backend):
        wait_until(lambda: services() == {"web-1", "echo"}, "spans of both sidecars arrive")


def test_with_no_share_nothing_is_traced(scene: Scene) -> None:
    collector = Collector()
    url = f"http://127.0.0.1:{collector.port}/api/v2/spans"
    try:
        with traced(scene, {"type": "Zipkin", "zipkin": {"url": url}}, sampling={"overall": 0}):
            for _ in range(20):
                get(scene.web_port)
        # Spans that there were went out with the listener.
        assert collector.spans == []
    finally:
        collector.stop()
