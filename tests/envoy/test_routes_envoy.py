"""Routes seen in traffic: shares of a split, requests that go elsewhere, and what their service is told."""

from __future__ import annotations

import base64
import math
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, EchoService, Mesh, Sidecar, rejected, wait_until

from kumafast.identity.authority import create_authority
from kumafast.identity.server_certificate import write_server_certificate

pytestmark = pytest.mark.envoy

REQUESTS = 2_000
BILLING = {"kuma.io/service": "billing"}
FAILED_VERIFY = "cluster.billing.ssl.fail_verify_error"
V1, V2 = {**ECHO, "version": "1"}, {**ECHO, "version": "2"}


class Routed:
    """A client of a service in two versions."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._http = httpx.Client(timeout=5)
        self.services = {version: mesh.echo(f"echo-{version}", version=version)[0] for version in ("1", "2")}
        self.client: Sidecar
        self.client, (self.port, self.outside) = mesh.client("web-1", ECHO, BILLING)
        wait_until(lambda: self.get("/").status_code == 200, "the service answers")

    def get(self, path: str, headers: Mapping[str, str] = MappingProxyType({}), *, port: int = 0) -> httpx.Response:
        """One request on a connection of its own: those that are open stay with the listener that took them."""
        url = f"http://127.0.0.1:{port or self.port}{path}"
        return self._http.get(url, headers={"connection": "close", **headers})

    def instance(self, path: str, **headers: str) -> str:
        """Who answers a request."""
        name: str = self.get(path, headers).json()["instance"]
        return name

    @contextmanager
    def route(self, **conf: Any) -> Iterator[None]:
        """Lead the client so while in the block."""
        document = {
            "type": "TrafficRoute",
            "mesh": "default",
            "name": "led",
            "sources": [{"match": {"kuma.io/service": "web-1"}}],
            "destinations": [{"match": ECHO}],
            "conf": conf,
        }
        with self.written("traffic-routes", document):
            yield

    @contextmanager
    def external(self, address: str, **tls: Any) -> Iterator[None]:
        """Have a service outside of the mesh while in the block."""
        networking = {"address": address, **({"tls": {"enabled": True, **tls}} if tls else {})}
        tags = {**BILLING, "kuma.io/protocol": "http"}
        document = {"type": "ExternalService", "mesh": "default", "name": "es", "networking": networking, "tags": tags}
        with self.written("external-services", document):
            yield

    @contextmanager
    def secret(self, name: str, content: bytes, *, keeps: bool = False) -> Iterator[None]:
        """Have a secret while in the block, or from then on."""
        document = {"type": "Secret", "mesh": "default", "name": name, "data": base64.b64encode(content).decode()}
        with self.written("secrets", document, keeps=keeps):
            yield

    @contextmanager
    def written(self, path: str, document: dict[str, Any], *, keeps: bool = False) -> Iterator[None]:
        """Have a resource while in the block, or from then on."""
        url = f"{self.mesh.control_plane.api}/meshes/default/{path}/{document['name']}"
        self._settle(httpx.put(url, json=document))
        try:
            yield
        finally:
            if not keeps:
                self._settle(httpx.delete(url))
        assert rejected(self.client) == []

    def _settle(self, written: httpx.Response) -> None:
        assert written.status_code in (200, 201), written.text
        report = self.mesh.control_plane.converge(int(written.headers["X-Kumafast-Revision"]))
        assert report["is_converged"], report


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory, envoy_binary: str) -> Iterator[Routed]:
    mesh = Mesh(tmp_path_factory.mktemp("routes"), envoy_binary, uses_delta=True)
    with mesh.ending:
        yield Routed(mesh)


def test_a_split_of_90_to_10_is_one_within_six_sigma(routed: Routed) -> None:
    split = [{"weight": 90, "destination": V1}, {"weight": 10, "destination": V2}]
    with routed.route(split=split), httpx.Client(timeout=5) as client:
        url = f"http://127.0.0.1:{routed.port}/"
        answers = Counter(client.get(url).json()["instance"] for _ in range(REQUESTS))
    assert answers.total() == REQUESTS
    assert abs(answers["echo-2"] - 0.1 * REQUESTS) < 6 * math.sqrt(REQUESTS * 0.1 * 0.9)


def test_requests_go_by_path_and_header_and_all_else_as_before(routed: Routed) -> None:
    rules = [
        {"match": {"path": {"prefix": "/v2"}, "method": {"exact": "GET"}}, "destination": V2},
        {"match": {"headers": {"x-canary": {"regex": "yes|true"}}}, "destination": V2},
    ]
    with routed.route(destination=V1, http=rules):
        assert {routed.instance("/") for _ in range(10)} == {"echo-1"}
        assert {routed.instance("/v2/a") for _ in range(10)} == {"echo-2"}
        assert {routed.instance("/", **{"x-canary": "true"}) for _ in range(10)} == {"echo-2"}
        assert routed.instance("/", **{"x-canary": "truly"}) == "echo-1"
    assert {routed.instance("/") for _ in range(40)} == {"echo-1", "echo-2"}


def test_what_a_rule_changes_the_service_and_the_client_see(routed: Routed) -> None:
    change = {
        "path": {"rewritePrefix": "/new"},
        "host": {"value": "backend.example"},
        "requestHeaders": {"add": [{"name": "x-added", "value": "1"}], "remove": [{"name": "x-removed"}]},
        "responseHeaders": {"add": [{"name": "x-answer", "value": "2"}], "remove": [{"name": "server"}]},
    }
    rule = {"match": {"path": {"prefix": "/old"}}, "modify": change, "destination": {"kuma.io/service": "*"}}
    with routed.route(destination=ECHO, http=[rule]):
        answer = routed.get("/old/page", {"x-removed": "0"})
        seen = answer.json()
        assert seen["path"] == "/new/page"
        assert seen["headers"]["host"] == "backend.example"
        assert seen["headers"]["x-added"] == "1"
        assert "x-removed" not in seen["headers"]
        assert answer.headers["x-answer"] == "2"
        other = routed.get("/other", {"x-removed": "0"})
        assert other.json()["headers"]["x-removed"] == "0"
        assert "x-answer" not in other.headers


def answer(routed: Routed) -> dict[str, Any]:
    """What the service outside says, once it is reached."""
    response = wait_until(
        lambda: reply if (reply := routed.get("/", port=routed.outside)).status_code == 200 else None, "it is reached"
    )
    body: dict[str, Any] = response.json()
    return body


@contextmanager
def serving(name: str, tls: ssl.SSLContext | None = None) -> Iterator[EchoService]:
    service = EchoService(name, tls=tls)
    try:
        yield service
    finally:
        service.stop()


def test_a_service_outside_is_reached_by_its_address_and_by_its_name(routed: Routed) -> None:
    with serving("outside") as service:
        with routed.external(f"127.0.0.1:{service.port}"):
            assert answer(routed)["instance"] == "outside"
        with routed.external(f"localhost:{service.port}"):
            seen = answer(routed)
            # A name of the mesh means nothing there.
            assert (seen["instance"], seen["headers"]["host"]) == ("outside", "localhost")


def test_a_service_outside_is_reached_by_those_alone_who_have_a_permission(routed: Routed) -> None:
    def permission(source: str) -> dict[str, Any]:
        ends = {"sources": [{"match": {"kuma.io/service": source}}], "destinations": [{"match": BILLING}]}
        return {"type": "TrafficPermission", "mesh": "default", "name": source, **ends}

    with serving("outside") as service, routed.external(f"127.0.0.1:{service.port}"):
        assert answer(routed)["instance"] == "outside"
        with routed.written("traffic-permissions", permission("somebody-else")):
            assert routed.get("/", port=routed.outside).status_code == 503
            with routed.written("traffic-permissions", permission("web-1")):
                assert answer(routed)["instance"] == "outside"
            assert routed.get("/", port=routed.outside).status_code == 503
            # It is about what is outside, and this mesh has no TLS to keep anybody from what is inside.
            assert routed.get("/").status_code == 200
        assert answer(routed)["instance"] == "outside"


def test_what_is_sent_outside_is_limited_where_it_is_sent(routed: Routed) -> None:
    limit: dict[str, Any] = {
        "type": "RateLimit",
        "mesh": "default",
        "name": "outward",
        "sources": [{"match": {"kuma.io/service": "web-1"}}],
        "destinations": [{"match": BILLING}],
        "conf": {
            "http": {"requests": 3, "interval": "60s", "onRateLimit": {"headers": [{"key": "x-by", "value": "us"}]}}
        },
    }
    with serving("outside") as service, routed.external(f"127.0.0.1:{service.port}"):
        assert answer(routed)["instance"] == "outside"
        answered = service.answered
        with routed.written("rate-limits", limit):
            replies = [routed.get("/", port=routed.outside) for _ in range(8)]
            refused = [reply for reply in replies if reply.status_code == 429]
            # A minute has not passed: what is left after three is refused, and never leaves the sidecar.
            assert [reply.status_code for reply in replies[:3]] == [200] * 3
            assert len(refused) == 5
            assert {reply.headers["x-by"] for reply in refused} == {"us"}
            assert service.answered == answered + 3
            assert {routed.get("/").status_code for _ in range(6)} == {200}
        assert routed.get("/", port=routed.outside).status_code == 200


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for a name that is its own authority, and its key."""
    files = folder / "certificate.pem", folder / "key.pem"
    folder.mkdir()
    write_server_certificate(certificate=files[0], key=files[1], names=[name])
    return files


def test_a_service_outside_is_reached_by_tls_and_nobody_else_in_its_place(routed: Routed, tmp_path: Path) -> None:
    own, others = (certificate(tmp_path / name, "localhost") for name in ("own", "others"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*own)
    with serving("secured", server) as service:
        address = f"localhost:{service.port}"
        with routed.secret("ca", own[0].read_bytes()), routed.external(address, caCert={"secret": "ca"}):
            assert answer(routed)["instance"] == "secured"
            # Another authority under the same name, and the connections that are there are not used any more.
            with routed.secret("ca", others[0].read_bytes(), keeps=True):
                wait_until(lambda: routed.get("/", port=routed.outside).status_code == 503, "it is refused")
                wait_until(lambda: routed.client.stats(FAILED_VERIFY)[FAILED_VERIFY], "its certificate is refused")
        with routed.external(address, caCert={"inlineString": own[0].read_text()}, serverName="elsewhere"):
            assert routed.get("/", port=routed.outside).status_code == 503
        with routed.external(f"127.0.0.1:{service.port}", caCert={"inlineString": own[0].read_text()}):
            assert routed.get("/", port=routed.outside).status_code == 503
        # In plaintext it does not understand.
        with routed.external(address):
            assert routed.get("/", port=routed.outside).status_code in (502, 503)


def test_a_service_outside_that_wants_a_certificate_is_shown_one(routed: Routed, tmp_path: Path) -> None:
    own = certificate(tmp_path / "own", "localhost")
    pair = create_authority("client", now=datetime.now(UTC))
    (tmp_path / "client.pem").write_bytes(pair.certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*own)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(tmp_path / "client.pem")
    shown = {"clientCert": {"secret": "client"}, "clientKey": {"secret": "client-key"}}
    with (
        serving("choosy", server) as service,
        routed.secret("client", pair.certificate),
        routed.secret("client-key", pair.key),
    ):
        address, known = f"localhost:{service.port}", {"caCert": {"inlineString": own[0].read_text()}}
        with routed.external(address, **known, **shown):
            assert answer(routed)["instance"] == "choosy"
        with routed.external(address, **known):
            assert routed.get("/", port=routed.outside).status_code == 503
