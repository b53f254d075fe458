"""Built-in gateways seen in traffic: by host name and path, by SNI, shares, filters, policies, and edits under load."""

from __future__ import annotations

import base64
import socket
import ssl
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from tests.envoy.harness import EchoService, Mesh, Sidecar, free_port, rejected, wait_until
from tests.gateways import certificate, rule, targeted_rule, to

pytestmark = pytest.mark.envoy

REQUESTS = 400
SELECTORS = [{"match": {"kuma.io/service": "edge"}}]
HTTP_ONLY = [{"match": {"kuma.io/service": "edge", "port": "http"}}]


class Edge:
    """A gateway before two services, which have sidecars."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.http, self.https, self.tcp = free_port(), free_port(), free_port()
        self.authorities = {name: certificate(name) for name in ("a.example.com", "b.example.com")}
        for name, content in self.authorities.items():
            data = base64.b64encode(content).decode()
            self.write("secrets", name.partition(".")[0], type="Secret", data=data)
        secured = [
            {"port": self.https, "protocol": "HTTPS", "hostname": name, "tls": _ended(name.partition(".")[0])}
            for name in self.authorities
        ]
        listeners = [
            {"port": self.http, "protocol": "HTTP", "tags": {"port": "http"}},
            *secured,
            {"port": self.tcp, "protocol": "TCP", "tags": {"port": "tcp"}},
        ]
        self.write("meshgateways", "edge", selectors=SELECTORS, conf={"listeners": listeners})
        self.services: dict[str, EchoService] = {}
        for name in ("one", "two"):
            self.services[name], _ = mesh.echo(name, service=name)
        self.envoy: Sidecar = mesh.sidecar("edge-1", gateway={"type": "BUILTIN", "tags": {"kuma.io/service": "edge"}})

    def write(self, path: str, name: str, **fields: Any) -> None:
        """Write a resource, and wait until all Envoys run it."""
        kinds = {"meshgateways": "MeshGateway", "meshgatewayroutes": "MeshGatewayRoute", "secrets": "Secret"}
        document = {"type": kinds.get(path, ""), "mesh": "default", "name": name, **fields}
        self.mesh.control_plane.settle("PUT", self._url(path, name), document)

    def route(self, *rules: dict[str, Any], name: str = "r", hostnames: tuple[str, ...] = ()) -> None:
        """Lead requests of all listeners so."""
        http = {"hostnames": list(hostnames), "rules": list(rules)}
        self.write("meshgatewayroutes", name, selectors=SELECTORS, conf={"http": http})

    def delete(self, path: str, name: str) -> None:
        """Delete a resource, and wait until all Envoys are without it."""
        self.mesh.control_plane.settle("DELETE", self._url(path, name))

    def _url(self, path: str, name: str) -> str:
        return f"{self.mesh.control_plane.api}/meshes/default/{path}/{name}"

    def get(
        self, path: str = "/", host: str = "any.example.com", headers: Mapping[str, str] = MappingProxyType({})
    ) -> httpx.Response:
        """One request by HTTP on a connection of its own."""
        url = f"http://127.0.0.1:{self.http}{path}"
        return httpx.get(url, headers={"host": host, "connection": "close", **headers}, timeout=5)

    def instance(self, path: str = "/", host: str = "any.example.com") -> str:
        """Who answers a request."""
        answer = self.get(path, host)
        assert answer.status_code == 200, answer.text
        name: str = answer.json()["instance"]
        return name

    def get_secured(self, name: str) -> tuple[str, bytes]:
        """Whose certificate a client is shown that asks for a name, and the head of the answer."""
        context = ssl.create_default_context(cadata=self.authorities[name].decode().partition("-----BEGIN PRIV")[0])
        with (
            socket.create_connection(("127.0.0.1", self.https), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=name) as secured,
        ):
            secured.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            shown = secured.getpeercert()
            assert shown is not None
            answer = b"".join(iter(lambda: secured.recv(65536), b""))
            return str(dict(shown["subject"][0])["commonName"]), answer  # type: ignore[arg-type]

    def answers(self, status: int) -> bool:
        """Whether requests come to be answered so."""
        return bool(wait_until(lambda: self.get().status_code == status, f"requests are answered with {status}"))

    def is_routed(self, path: str = "/") -> bool:
        """Whether a request gets an answer of a service."""
        return self.get(path).status_code == 200


def _ended(secret: str) -> dict[str, Any]:
    return {"mode": "TERMINATE", "certificates": [{"secret": secret}]}


@pytest.fixture
def edge(mesh: Mesh) -> Edge:
    return Edge(mesh)


@pytest.fixture
def delta_edge(delta_mesh: Mesh) -> Edge:
    return Edge(delta_mesh)


def test_requests_by_host_path_and_filters(edge: Edge) -> None:
    answer = edge.get()
    assert (answer.status_code, "No routes match" in answer.text) == (404, True)
    filters = [{"requestHeader": {"set": [{"name": "x-edge", "value": "here"}], "remove": ["x-secret"]}}]
    filters += [{"responseHeader": {"add": [{"name": "x-answer", "value": "yes"}]}}]
    redirect = {"scheme": "https", "hostname": "b.example.com", "port": 8443, "status_code": 301}
    edge.route(
        rule("/", to("one")),
        rule("/two", to("two"), filters=[*filters, {"rewrite": {"replacePrefixMatch": "/"}}]),
        rule("/away", filters=[{"redirect": redirect}]),
        hostnames=("*.example.com",),
    )
    edge.route(rule("/", to("two")), name="exact", hostnames=("two.example.com",))
    assert [edge.instance(), edge.instance("/twofold"), edge.instance("/two/a")] == ["one", "one", "two"]
    assert edge.instance("/", "two.example.com") == "two"
    assert edge.get("/", "example.org").status_code == 404
    answer = edge.get("/two/a", headers={"x-secret": "s"})
    told = answer.json()
    assert (told["path"], told["headers"]["x-edge"], "x-secret" in told["headers"]) == ("/a", "here", False)
    assert answer.headers["x-answer"] == "yes"
    away = edge.get("/away")
    assert (away.status_code, away.headers["location"]) == (301, "https://b.example.com:8443/away")
    assert rejected(edge.envoy) == []


def test_tls_ends_by_the_name_that_is_asked_for_and_tcp_goes_on(edge: Edge) -> None:
    edge.route(rule("/", to("one")), hostnames=("a.example.com",))
    edge.route(rule("/", to("two")), name="b", hostnames=("b.example.com",))
    for host, service in (("a.example.com", "one"), ("b.example.com", "two")):
        name, answer = edge.get_secured(host)
        assert name == host
        assert b'"instance": "%s"' % service.encode() in answer
        assert b"strict-transport-security: max-age=31536000" in answer.lower()
    # Another certificate takes the place of the first, without a new listener.
    edge.authorities["a.example.com"] = certificate("a.example.com")
    edge.write("secrets", "a", data=base64.b64encode(edge.authorities["a.example.com"]).decode())
    assert wait_until(lambda: _verifies(edge, "a.example.com"), "the new certificate is shown")
    edge.write("meshgatewayroutes", "t", selectors=SELECTORS, conf={"tcp": {"rules": [{"backends": [to("two")]}]}})
    answer = wait_until(lambda: httpx.get(f"http://127.0.0.1:{edge.tcp}/", timeout=5), "TCP is served")
    assert answer.json()["instance"] == "two"
    assert rejected(edge.envoy) == []


def _verifies(edge: Edge, name: str) -> bool:
    try:
        return edge.get_secured(name)[0] == name
    except ssl.SSLError:
        return False


def test_shares_with_tls_in_the_mesh_and_permissions(delta_edge: Edge) -> None:
    edge = delta_edge
    backend = {"name": "ca-1", "type": "builtin"}
    edge.mesh.control_plane.settle(
        "PUT",
        f"{edge.mesh.control_plane.api}/meshes/default",
        {"type": "Mesh", "name": "default", "mtls": {"enabledBackend": "ca-1", "backends": [backend]}},
    )
    edge.route(rule("/", to("one", 3), to("two", 1)))
    assert wait_until(lambda: edge.get().status_code == 403, "nobody may come")
    permission = {
        "sources": [{"match": {"kuma.io/service": "edge"}}],
        "destinations": [{"match": {"kuma.io/service": "*"}}],
    }
    with edge.mesh.control_plane.policy("traffic-permissions", type="TrafficPermission", **permission):
        # A connection that was open ends with its next answer, which is still by the old rule: each worker has its own.
        wait_until(lambda: all(edge.is_routed() for _ in range(40)), "the gateway may come to both")
        found = (edge.get() for _ in range(REQUESTS))
        answers = [answer.json() for answer in found if answer.status_code == 200]
        assert len(answers) > 0.95 * REQUESTS
        shares = Counter(answer["instance"] for answer in answers)
        assert 0.62 < shares["one"] / len(answers) < 0.88
        shown = answers[0]["headers"]["x-forwarded-client-cert"]
        assert "URI=spiffe://default/edge" in shown
    assert wait_until(lambda: edge.get().status_code == 403, "the permission is gone")


def test_policies_of_listeners(delta_edge: Edge) -> None:
    edge = delta_edge
    edge.route(rule("/", to("one")))
    policy = edge.mesh.control_plane.policy
    top = {"kind": "MeshGateway", "name": "edge", "tags": {"port": "http"}}
    to_all = {"kind": "Mesh"}
    assert edge.get("/slow").status_code == 200

    def spec(default: dict[str, Any]) -> dict[str, Any]:
        return {"targetRef": top, "to": [{"targetRef": to_all, "default": default}]}

    with policy("meshtimeouts", type="MeshTimeout", spec=spec({"http": {"requestTimeout": "200ms"}})):
        assert edge.get("/slow").status_code == 504
    fault = {"http": [{"abort": {"httpStatus": 418, "percentage": "100"}}]}
    with policy("meshfaultinjections", type="MeshFaultInjection", spec=spec(fault)):
        # Another listener takes the place of the first once it is warm.
        assert edge.answers(418)
    limit = {"local": {"http": {"requestRate": {"num": 1, "interval": "1h"}, "onRateLimit": {"status": 423}}}}
    with policy("meshratelimits", type="MeshRateLimit", spec=spec(limit)):
        assert edge.answers(423)
    assert edge.answers(200)
    edge.services["one"].failures.extend([503])
    with policy("meshretries", type="MeshRetry", spec=spec({"http": {"numRetries": 2, "retryOn": ["5xx"]}})):
        assert edge.get().status_code == 200
        assert not edge.services["one"].failures
    log = edge.mesh.directory / "edge.log"
    form = {"type": "Plain", "plain": "%KUMA_SOURCE_SERVICE% %RESPONSE_CODE%"}
    backends = {"backends": [{"type": "File", "file": {"path": str(log), "format": form}}]}
    with policy("meshaccesslogs", type="MeshAccessLog", spec=spec(backends)):
        wait_until(lambda: edge.is_routed() and log.exists() and "edge 200\n" in log.read_text(), "lines are written")
    assert edge.is_routed("/slow")
    older = {
        "sources": [{"match": {"kuma.io/service": "edge"}}],
        "destinations": [{"match": {"kuma.io/service": "one"}}],
    }
    with policy("timeouts", type="Timeout", **older, conf={"http": {"requestTimeout": "0.2s"}}):
        assert edge.get("/slow").status_code == 504
    assert edge.is_routed("/slow")
    assert rejected(edge.envoy) == []


def test_a_targeted_route_takes_over_and_an_edit_fails_no_request(delta_edge: Edge) -> None:
    edge = delta_edge
    edge.route(rule("/", to("one")))
    before = edge.envoy.config_dump()
    spec = {
        "targetRef": {"kind": "MeshGateway", "name": "edge"},
        "to": [{"targetRef": {"kind": "Mesh"}, "rules": [targeted_rule("/", "two")]}],
    }
    listeners = edge.envoy.stats("listener_manager.listener_modified")
    failures, answers = [], Counter[str]()
    with httpx.Client(timeout=5) as client:

        def ask() -> None:
            answer = client.get(f"http://127.0.0.1:{edge.http}/")
            if answer.status_code != 200:
                failures.append(answer.text)
            else:
                answers[answer.json()["instance"]] += 1

        for number in range(10):
            url = f"{edge.mesh.control_plane.api}/meshes/default/meshhttproutes/hr"
            document = {"type": "MeshHTTPRoute", "mesh": "default", "name": "hr", "spec": spec}
            method = "PUT" if number % 2 == 0 else "DELETE"
            httpx.request(method, url, json=document if method == "PUT" else None).raise_for_status()
            for _ in range(30):
                ask()
        edge.route(rule("/", to("one")), name="r2")
        ask()
    assert failures == []
    assert set(answers) == {"one", "two"}
    edge.delete("meshgatewayroutes", "r2")
    assert edge.instance() == "one"
    assert edge.envoy.stats("listener_manager.listener_modified") == listeners
    assert _routes(edge.envoy.config_dump()) == _routes(before)


def _routes(dump: dict[str, Any]) -> list[Any]:
    configs = [each for each in dump["configs"] if "RoutesConfigDump" in each["@type"]]
    dynamic = [each["route_config"] for config in configs for each in config.get("dynamic_route_configs", ())]
    return sorted(dynamic, key=lambda each: str(each["name"]))


def test_a_limit_of_connections(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    port = free_port()
    listener = {"port": port, "protocol": "HTTP", "resources": {"connectionLimit": 1}}
    document = {"type": "MeshGateway", "mesh": "default", "name": "edge", "selectors": SELECTORS}
    url = f"{mesh.control_plane.api}/meshes/default/meshgateways/edge"
    gateway = mesh.sidecar("edge-1", gateway={"type": "BUILTIN", "tags": {"kuma.io/service": "edge"}})
    mesh.control_plane.settle("PUT", url, {**document, "conf": {"listeners": [listener]}})
    overflow = rf"listener.127.0.0.1_{port}.downstream_cx_overflow"
    with httpx.Client(timeout=5) as held:
        assert held.get(f"http://127.0.0.1:{port}/").status_code == 404
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
        assert wait_until(lambda: sum(gateway.stats(overflow).values()), "one was too many")
    # It is closed, and a limit that is gone holds nobody.
    mesh.control_plane.settle("PUT", url, {**document, "conf": {"listeners": [{"port": port, "protocol": "HTTP"}]}})
    with httpx.Client(timeout=5) as held, httpx.Client(timeout=5) as other:
        assert [client.get(f"http://127.0.0.1:{port}/").status_code for client in (held, other)] == [404, 404]
    assert rejected(gateway) == []
