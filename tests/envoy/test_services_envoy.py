"""Services seen in traffic: by references of outbounds, within the mesh and outside, in plaintext and by TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.envoy.harness import EchoService, Mesh, Sidecar, rejected, wait_until
from tests.envoy.test_mtls import EVERYBODY, secured, write
from tests.envoy.test_routes_envoy import certificate, serving
from tests.ports import free_port

pytestmark = pytest.mark.envoy

BACKEND = {"selector": {"dataplaneTags": {"app": "backend"}}}


class Referring:
    """A client with a reference to one service of each kind, and two workloads that may be instances."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._http = httpx.Client(timeout=5)
        self.instances: dict[str, EchoService] = {}
        for name in ("b-1", "b-2"):
            self.instances[name], _ = mesh.echo(name, service="legacy", app="backend")
        self.ports = {kind: free_port() for kind in ("MeshService", "MeshMultiZoneService", "MeshExternalService")}
        outbound = [
            {"port": port, "backendRef": {"kind": kind, "name": "backend", "port": 80}}
            for kind, port in self.ports.items()
        ]
        inbound = [{"port": free_port(), "servicePort": free_port(), "tags": {"kuma.io/service": "web"}}]
        self.client: Sidecar = mesh.sidecar("web-1", inbound=inbound, outbound=outbound)

    def get(self, kind: str = "MeshService", path: str = "/") -> httpx.Response:
        """One request on a connection of its own: those that are open stay with the listener that took them."""
        return self._http.get(f"http://127.0.0.1:{self.ports[kind]}{path}", headers={"connection": "close"})

    def answers(self, kind: str = "MeshService") -> set[str]:
        """Who answers some requests, once the listener is there; nobody where one fails."""
        found = [self.get(kind) for _ in range(20)]
        if any(each.status_code != 200 for each in found):
            return set()
        return {each.json()["instance"] for each in found}

    @contextmanager
    def written(self, kind: str, name: str = "backend", **fields: Any) -> Iterator[None]:
        """Have a resource while in the block."""
        url = f"{self.mesh.control_plane.api}/meshes/default/{kind.lower()}s/{name}"
        self._settle(httpx.put(url, json={"type": kind, "mesh": "default", "name": name, **fields}))
        try:
            yield
        finally:
            self._settle(httpx.delete(url))
        assert rejected(self.client) == []

    def service(self, instance: str = "b-1", **spec: Any) -> Any:
        """A service of which both are instances, by the port of one."""
        port = {"port": 80, "targetPort": self.mesh.inbound_ports[instance], "appProtocol": "http", "name": "http"}
        return self.written("MeshService", labels={"app": "backend"}, spec={**BACKEND, "ports": [port], **spec})

    def _settle(self, written: httpx.Response) -> None:
        assert written.status_code in (200, 201), written.text
        report = self.mesh.control_plane.converge(int(written.headers["X-Kumafast-Revision"]))
        assert report["is_converged"], report


@pytest.fixture(scope="module")
def referring(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Referring]:
    mesh = Mesh(tmp_path_factory.mktemp("services"), envoy_binary, uses_delta=True)
    with mesh.ending:
        yield Referring(mesh)


def test_a_service_is_reached_at_its_instances_by_their_port(referring: Referring) -> None:
    with pytest.raises(httpx.TransportError):
        referring.get()
    with referring.service("b-1"):
        assert wait_until(referring.answers, "it answers") == {"b-1"}
    with referring.service("b-2"):
        assert wait_until(referring.answers, "it answers") == {"b-2"}


def test_listeners_and_clusters_go_by_identifiers_for_who_asks_for_that(referring: Referring) -> None:
    mesh, port = referring.mesh, free_port()
    outbound = [{"port": port, "backendRef": {"kind": "MeshService", "name": "backend", "port": 80}}]
    inbound = [{"port": free_port(), "servicePort": free_port(), "name": "main", "tags": {"kuma.io/service": "web"}}]
    mesh.flags = ("--unified-naming",)
    unified = mesh.sidecar("web-2", inbound=inbound, outbound=outbound)
    mesh.flags = ()
    backend = "kri_msvc_default_default__backend_http"
    count = f"cluster.{backend}.upstream_rq_200"

    def answer() -> str:
        found = httpx.get(f"http://127.0.0.1:{port}/")
        return found.json()["instance"] if found.status_code == 200 else ""

    try:
        with referring.service("b-1"):
            assert wait_until(answer, "it answers") == "b-1"
            assert unified.stats(f"^{count}$")[count] > 0
            names = {line.partition("::")[0] for line in unified.admin("/listeners").splitlines()}
            assert names == {"self_inbound_dp_main", backend}
            assert wait_until(referring.answers, "who does not ask is served too") == {"b-1"}
        with referring.service("b-2"):
            assert wait_until(answer, "it answers") == "b-2"
        # Under another name a listener takes over where the one before it stands.
        networking = {"address": "127.0.0.1", "inbound": [{**inbound[0], "name": "other"}], "outbound": outbound}
        document = {"type": "Dataplane", "mesh": "default", "name": "web-2", "networking": networking}
        assert mesh.control_plane.converge(mesh.control_plane.put(document))["is_converged"]
        assert "self_inbound_dp_other" in unified.admin("/listeners")
        assert rejected(unified) == []
    finally:
        unified.stop()


def test_a_timeout_for_a_port_of_a_service_cuts_its_requests_off(referring: Referring) -> None:
    target = {"kind": "MeshService", "name": "backend", "sectionName": "http"}
    impatient = {"to": [{"targetRef": target, "default": {"http": {"requestTimeout": "300ms"}}}]}
    with referring.service():
        wait_until(referring.answers, "it answers")
        with referring.written("MeshTimeout", "impatient", spec=impatient):
            assert referring.get(path="/slow").status_code == 504
            assert referring.get().status_code == 200
        assert referring.get(path="/slow").status_code == 200


def led(*rules: dict[str, Any], to: str = "backend") -> dict[str, Any]:
    """A route of requests to the service."""
    ref = {"kind": "MeshService", "name": to}
    return {"targetRef": {"kind": "Mesh"}, "to": [{"targetRef": ref, "rules": list(rules)}]}


def rule(path: str, *refs: dict[str, Any], **default: Any) -> dict[str, Any]:
    refs_of = {"backendRefs": list(refs)} if refs else {}
    return {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "default": {**refs_of, **default}}


def port(name: str, kind: str = "MeshService", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "port": 80, **fields}


def test_routes_of_a_service_lead_to_ports_of_others(referring: Referring) -> None:
    mesh = referring.mesh
    other = {"port": 80, "targetPort": mesh.inbound_ports["b-2"], "appProtocol": "http"}

    def by_path(path: str) -> str:
        answer = referring.get(path=path)
        return str(answer.json()["instance"]) if answer.status_code == 200 else ""

    with referring.service("b-1"), referring.written("MeshHTTPRoute", "led", spec=led(rule("/other", port("other")))):
        # There is no such service yet: the rule says nothing of where requests go.
        wait_until(lambda: by_path("/other") == "b-1", "it answers itself")
        with referring.written("MeshService", "other", spec={**BACKEND, "ports": [other]}):
            wait_until(lambda: by_path("/other") == "b-2", "the other one answers")
            assert by_path("/") == "b-1"
        wait_until(lambda: by_path("/other") == "b-1", "it answers itself again")


def test_routes_split_between_services_and_copy_to_them(referring: Referring, tmp_path: Path) -> None:
    other = {"port": 80, "targetPort": referring.mesh.inbound_ports["b-2"], "appProtocol": "http"}
    mirror = {"type": "RequestMirror", "requestMirror": {"percentage": 100, "backendRef": port("other")}}
    with serving("outside") as outside:
        beyond = {
            "match": {"port": 80, "protocol": "http"},
            "endpoints": [{"address": "127.0.0.1", "port": outside.port}],
        }
        split = (port("other", weight=1), port("beyond", "MeshExternalService", weight=1))
        rules = (rule("/split", *split), rule("/copied", filters=[mirror]))
        with (
            referring.service("b-1"),
            referring.written("MeshService", "other", spec={**BACKEND, "ports": [other]}),
            referring.written("MeshExternalService", "beyond", spec=beyond),
            referring.written("MeshHTTPRoute", "led", spec=led(*rules)),
        ):

            def answers() -> set[str]:
                found = [referring.get(path="/split") for _ in range(20)]
                return {each.json()["instance"] for each in found if each.status_code == 200}

            wait_until(lambda: answers() == {"b-2", "outside"}, "both answer")
            before = referring.instances["b-2"].answered
            assert referring.get(path="/copied").json()["instance"] == "b-1"
            wait_until(lambda: referring.instances["b-2"].answered > before, "a copy arrives")


def test_connections_to_a_service_are_led_to_another(referring: Referring) -> None:
    other = {"port": 80, "targetPort": referring.mesh.inbound_ports["b-2"], "appProtocol": "http"}
    spec = {
        "targetRef": {"kind": "Mesh"},
        "to": [
            {
                "targetRef": {"kind": "MeshService", "name": "backend", "sectionName": "http"},
                "rules": [{"default": {"backendRefs": [port("other")]}}],
            }
        ],
    }
    with (
        referring.service("b-1"),
        referring.written("MeshService", "other", spec={**BACKEND, "ports": [other]}),
        referring.written("MeshTCPRoute", "led", spec=spec),
    ):
        assert wait_until(referring.answers, "it answers") == {"b-2"}


def test_a_service_of_several_zones_is_reached_at_all_that_it_is_made_of(referring: Referring) -> None:
    several = {"selector": {"meshService": {"matchLabels": {"app": "backend"}}}}
    ports = [{"port": 80, "appProtocol": "http"}]
    other = {"port": 80, "targetPort": referring.mesh.inbound_ports["b-2"]}
    with (
        referring.service("b-1"),
        referring.written("MeshMultiZoneService", spec={**several, "ports": ports}),
        referring.written("MeshService", "more", labels={"app": "backend"}, spec={**BACKEND, "ports": [other]}),
    ):
        wait_until(lambda: referring.answers("MeshMultiZoneService") == {"b-1", "b-2"}, "both answer")


def test_a_service_outside_is_reached_by_tls_and_nobody_else_in_its_place(referring: Referring, tmp_path: Path) -> None:
    own, others = (certificate(tmp_path / name, "localhost") for name in ("own", "others"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*own)

    def outside(port: int, **verification: Any) -> Any:
        spec = {
            "match": {"port": 80, "protocol": "http"},
            "endpoints": [{"address": "localhost", "port": port}],
            "tls": {"enabled": True, "version": {"min": "TLS12", "max": "TLS13"}, "verification": verification},
        }
        return referring.written("MeshExternalService", spec=spec)

    def is_refused() -> bool:
        return referring.get("MeshExternalService").status_code == 503

    known = {"caCert": {"inlineString": own[0].read_text()}}
    with serving("outside", server) as service:
        with outside(service.port, **known):
            assert wait_until(lambda: referring.answers("MeshExternalService"), "it answers") == {"outside"}
            assert referring.get("MeshExternalService").json()["headers"]["host"] == "localhost"
        with outside(service.port, caCert={"inlineString": others[0].read_text()}):
            wait_until(is_refused, "another authority is refused")
        with outside(service.port, **known, subjectAltNames=[{"type": "Exact", "value": "elsewhere"}]):
            wait_until(is_refused, "another name is refused")
        with outside(service.port, **known, subjectAltNames=[{"type": "Prefix", "value": "local"}]):
            assert wait_until(lambda: referring.answers("MeshExternalService"), "it answers") == {"outside"}
        with outside(service.port, mode="SkipAll"):
            assert wait_until(lambda: referring.answers("MeshExternalService"), "it answers") == {"outside"}


def test_by_mutual_tls_an_instance_is_taken_as_what_its_certificate_says(referring: Referring) -> None:
    mesh = referring.mesh
    with referring.service("b-1"):
        wait_until(referring.answers, "it answers")
        write(mesh, EVERYBODY)
        write(mesh, secured("ca-1", enabled="ca-1"))
        assert wait_until(referring.answers, "it answers by TLS") == {"b-1"}
        cluster = "cluster.default_backend__default_msvc_80"
        assert referring.client.stats(f"{cluster}.ssl.handshake")[f"{cluster}.ssl.handshake"] > 0
        service = httpx.get(f"{mesh.control_plane.api}/meshes/default/meshservices/backend").json()
        assert service["spec"]["identities"] == [{"type": "ServiceTag", "value": "legacy"}]
        assert service["status"]["dataplaneProxies"]["total"] == 2
        wait_until(lambda: _tls_status(mesh) == "Ready", "all instances are known to have certificates")
    write(mesh, {"type": "Mesh", "name": "default"})


def _tls_status(mesh: Mesh) -> str:
    service = httpx.get(f"{mesh.control_plane.api}/meshes/default/meshservices/backend").json()
    status: str = service["status"]["tls"]["status"]
    return status
