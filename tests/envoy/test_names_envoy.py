"""Names seen in traffic: the sidecar's DNS answers with an address, and a request to that address arrives.

No traffic is redirected here. The addresses come from the loopback network, and a template has Envoy bind the ports at
them that a redirected connection would be handed to: from there on it is what a redirected request meets.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.envoy.dns_client import NXDOMAIN, lookup
from tests.envoy.harness import EchoService, Mesh, Sidecar, free_port, rejected, wait_until

pytestmark = pytest.mark.envoy

SERVICE_PORT = free_port()
NETWORK = "127.64.0.0/16"
BINDS: dict[str, Any] = {
    "type": "ProxyTemplate",
    "mesh": "default",
    "name": "binds",
    "selectors": [{"match": {"kuma.io/service": "web"}}],
    "conf": {
        "imports": ["default-proxy"],
        "modifications": [
            {"listener": {"operation": "patch", "match": {"origin": "outbound"}, "value": "bindToPort: true"}}
        ],
    },
}


class Named:
    """A client whose sidecar answers for names, and a service in two versions."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        for version in ("1", "2"):
            mesh.echo(f"echo-{version}", version=version)
        self.dns_port = free_port()
        self.write("proxytemplates", BINDS)
        self.client = self._client()

    def _client(self) -> Sidecar:
        inbound = {"port": free_port(), "servicePort": free_port(), "tags": {"kuma.io/service": "web"}}
        proxying = {"redirectPortInbound": free_port(), "redirectPortOutbound": free_port()}
        networking = {"address": "127.0.0.1", "inbound": [inbound], "transparentProxying": proxying}
        sidecar = Sidecar(
            self.mesh.directory,
            self.mesh.control_plane,
            {"type": "Dataplane", "mesh": "default", "name": "web-1", "networking": networking},
            envoy=self.mesh.envoy,
            flags=(*self.mesh.flags, "--dns-port", str(self.dns_port)),
        )
        self.mesh.ending.callback(sidecar.stop)
        return sidecar.wait_ready()

    def address(self, name: str) -> str:
        """The address of a name, once there is one."""

        def found() -> str:
            with contextlib.suppress(OSError):
                _, addresses = lookup(self.dns_port, name)
                return addresses[0] if addresses else ""
            return ""

        answer: str = wait_until(found, f"{name} has an address")
        return answer

    def is_unknown(self, name: str) -> bool:
        """Whether a name is said not to be there."""
        return lookup(self.dns_port, name) == (NXDOMAIN, [])

    def get(self, name: str, port: int) -> httpx.Response:
        """One request to a name, as whoever asks the sidecar's DNS makes it."""
        url = f"http://{self.address(name)}:{port}/"
        return httpx.get(url, headers={"host": f"{name}:{port}", "connection": "close"}, timeout=5)

    def instances(self, name: str, port: int, *, expected: set[str]) -> set[str]:
        """Who answers to a name, once it is those who are expected, and then for a while."""

        def answers() -> set[str]:
            replies = [self.get(name, port) for _ in range(8)]
            return {reply.json()["instance"] for reply in replies if reply.status_code == 200}

        wait_until(lambda: answers() == expected, f"{expected} answer to {name}:{port}")
        return answers()

    def write(self, path: str, document: dict[str, Any]) -> None:
        """Put a resource; every Envoy has it then."""
        url = f"{self.mesh.control_plane.api}/meshes/default/{path}/{document['name']}"
        self.settle(httpx.put(url, json={"mesh": "default", **document}))

    def delete(self, path: str, name: str) -> None:
        """Delete a resource; every Envoy has let it go then."""
        self.settle(httpx.delete(f"{self.mesh.control_plane.api}/meshes/default/{path}/{name}"))

    def settle(self, written: httpx.Response) -> None:
        """Wait until every Envoy has what was written."""
        assert written.status_code in (200, 201), written.text
        assert "warnings" not in written.json()
        report = self.mesh.control_plane.converge(int(written.headers["X-Kumafast-Revision"]))
        assert report["is_converged"], report


@pytest.fixture(scope="module", params=["delta", "sotw"])
def named(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, envoy_binary: str
) -> Iterator[Named]:
    flags = (
        *("--dns-server-cidr", NETWORK, "--dns-server-service-vip-port", str(SERVICE_PORT)),
        *("--ipam-mesh-service-cidr", "127.65.0.0/16", "--ipam-mesh-external-service-cidr", "127.66.0.0/16"),
        *("--ipam-mesh-multi-zone-service-cidr", "127.67.0.0/16"),
    )
    directory: Path = tmp_path_factory.mktemp("names")
    mesh = Mesh(directory, envoy_binary, uses_delta=request.param == "delta", control_plane_flags=flags)
    with mesh.ending:
        yield Named(mesh)


def test_a_service_is_reached_by_its_name_and_no_other_name_is_known(named: Named) -> None:
    assert named.address("echo.mesh").startswith("127.64.")
    assert named.instances("echo.mesh", SERVICE_PORT, expected={"echo-1", "echo-2"}) == {"echo-1", "echo-2"}
    assert named.is_unknown("nobody.mesh")
    assert rejected(named.client) == []


def test_a_virtual_outbound_names_a_version_and_a_port(named: Named) -> None:
    port = free_port()
    parameters = [{"name": "service", "tagKey": "kuma.io/service"}, {"name": "version"}]
    conf = {"host": "v{{.version}}.{{.service}}.versions", "port": str(port), "parameters": parameters}
    selectors = [{"match": {"kuma.io/service": "*", "version": "*"}}]
    named.write(
        "virtual-outbounds", {"name": "versions", "type": "VirtualOutbound", "selectors": selectors, "conf": conf}
    )
    assert named.instances("v1.echo.versions", port, expected={"echo-1"}) == {"echo-1"}
    assert named.instances("v2.echo.versions", port, expected={"echo-2"}) == {"echo-2"}
    addresses = {named.address(name) for name in ("v1.echo.versions", "v2.echo.versions", "echo.mesh")}
    assert len(addresses) == 3
    named.delete("virtual-outbounds", "versions")
    wait_until(lambda: named.is_unknown("v1.echo.versions"), "the name is gone")
    assert named.get("echo.mesh", SERVICE_PORT).status_code == 200
    assert rejected(named.client) == []


def test_services_of_every_kind_are_reached_by_their_names(named: Named) -> None:
    outside = EchoService("outside")
    named.mesh.ending.callback(outside.stop)
    port = free_port()
    selector = {"dataplaneTags": {"version": "1"}}
    ports = [{"port": port, "targetPort": named.mesh.inbound_ports["echo-1"], "appProtocol": "http"}]
    several = {"selector": {"meshService": {"matchLabels": {"app": "echo"}}}, "ports": [{"port": port}]}
    own = {"match": {"port": port, "protocol": "http"}, "endpoints": [{"address": "127.0.0.1", "port": outside.port}]}
    for kind, labels, spec in (
        ("MeshService", {"app": "echo"}, {"selector": selector, "ports": ports}),
        ("MeshMultiZoneService", {}, several),
        ("MeshExternalService", {}, own),
    ):
        named.write(f"{kind.lower()}s", {"type": kind, "name": "first", "labels": labels, "spec": spec})
    answering = {
        "first.svc.mesh.local": ("127.65.", "echo-1"),
        "first.in.all.zones": ("127.67.", "echo-1"),
        "first.extsvc.mesh.local": ("127.66.", "outside"),
    }
    generator = {"selector": {"meshMultiZoneService": {}}, "template": "{{ .Name }}.in.all.zones"}
    url = f"{named.mesh.control_plane.api}/hostnamegenerators/zones"
    named.settle(httpx.put(url, json={"type": "HostnameGenerator", "name": "zones", "spec": generator}))
    for name, (network, instance) in answering.items():
        assert named.address(name).startswith(network)
        assert named.instances(name, port, expected={instance}) == {instance}
    before = {name: named.address(name) for name in answering}
    named.mesh.control_plane.stop(signal.SIGKILL)
    named.mesh.control_plane.start()
    assert named.get("first.svc.mesh.local", port).status_code == 200
    assert {name: named.address(name) for name in answering} == before
    named.settle(httpx.delete(url))
    wait_until(lambda: named.is_unknown("first.in.all.zones"), "the name goes with its generator")
    for kind in ("meshservices", "meshmultizoneservices", "meshexternalservices"):
        named.delete(kind, "first")
    wait_until(lambda: all(named.is_unknown(name) for name in answering), "the names go with the services")
    assert rejected(named.client) == []


def test_services_are_made_from_dataplanes_where_the_mesh_says_so(named: Named) -> None:
    name, port = "echo.svc.mesh.local", named.mesh.inbound_ports["echo-1"]
    assert named.is_unknown(name)
    url = f"{named.mesh.control_plane.api}/meshes/default"
    mesh = httpx.get(url).json()
    named.settle(httpx.put(url, json={**mesh, "meshServices": {"mode": "Everywhere"}}))
    # Its instances are those that listen on the port of the first one.
    assert named.instances(name, port, expected={"echo-1"}) == {"echo-1"}
    named.settle(httpx.put(url, json=mesh))
    wait_until(lambda: named.is_unknown(name), "the service goes")
    assert rejected(named.client) == []


def test_a_name_keeps_its_address_over_a_killed_control_plane_and_a_service_that_comes_again(named: Named) -> None:
    service = EchoService("late-1")
    named.mesh.ending.callback(service.stop)
    inbound = {
        "port": free_port(),
        "servicePort": service.port,
        "tags": {"kuma.io/service": "late", "kuma.io/protocol": "http"},
    }
    sidecar = named.mesh.sidecar("late-1", inbound=[inbound])
    before = {name: named.address(name) for name in ("echo.mesh", "late.mesh")}
    assert named.instances("late.mesh", SERVICE_PORT, expected={"late-1"}) == {"late-1"}
    named.mesh.control_plane.stop(signal.SIGKILL)
    named.mesh.control_plane.start()
    # What runs goes on, and is what is there after the start.
    assert named.get("late.mesh", SERVICE_PORT).status_code == 200
    sidecar.stop()
    named.mesh.control_plane.delete("default", "late-1")
    wait_until(lambda: named.is_unknown("late.mesh"), "the name goes with its service")
    named.mesh.sidecar("late-1", inbound=[{**inbound, "port": free_port()}])
    assert {name: named.address(name) for name in before} == before
    assert named.instances("late.mesh", SERVICE_PORT, expected={"late-1"}) == {"late-1"}
    assert rejected(named.client) == []
