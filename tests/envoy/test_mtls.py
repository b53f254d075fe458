"""Mutual TLS between real sidecars: closed to plaintext; certificates and authorities change without a loss."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import httpx
import pytest
from cryptography import x509
from tests.envoy.harness import ECHO, Mesh, Traffic, rejected, wait_until

pytestmark = pytest.mark.envoy

_OPEN = {"type": "Mesh", "name": "default"}
# A mesh with TLS lets nobody connect who is not let.
EVERYBODY = {
    "type": "TrafficPermission",
    "mesh": "default",
    "name": "everybody",
    "sources": [{"match": {"kuma.io/service": "*"}}],
    "destinations": [{"match": {"kuma.io/service": "*"}}],
}


def secured(*backends: str, enabled: str, mode: str = "STRICT", life: str = "24h") -> dict[str, Any]:
    """A mesh with TLS by one of these builtin authorities."""
    listed = [
        {"name": name, "type": "builtin", "mode": mode, "dpCert": {"rotation": {"expiration": life}}}
        for name in backends
    ]
    return {**_OPEN, "mtls": {"enabledBackend": enabled, "backends": listed}}


def write(mesh: Mesh, document: dict[str, Any]) -> float:
    """Write a mesh or a permission and wait until every Envoy runs it; how many seconds that took."""
    started = time.monotonic()
    within = f"/{document['mesh']}/traffic-permissions" if document["type"] == "TrafficPermission" else ""
    answer = httpx.put(f"{mesh.control_plane.api}/meshes{within}/{document['name']}", json=document)
    assert answer.status_code in (200, 201), answer.text
    report = mesh.control_plane.converge(int(answer.headers["X-Kumafast-Revision"]))
    assert report["is_converged"], report
    return time.monotonic() - started


def speaks_plaintext(port: int) -> bool:
    """Whether an HTTP request without TLS is answered at a sidecar's port."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def certificate_at(port: int) -> x509.Certificate | None:
    """The certificate that a sidecar shows before it asks for the client's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["kuma"])
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=2) as raw,
            context.wrap_socket(raw) as secured_socket,
        ):
            shown = secured_socket.getpeercert(binary_form=True)
    except OSError:
        return None
    return None if shown is None else x509.load_der_x509_certificate(shown)


def test_a_mesh_with_tls_is_closed_to_whoever_has_no_certificate(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    _, echo = mesh.echo("echo-1")
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/").status_code == 200, "the service answers")
    inbound = mesh.inbound_ports["echo-1"]
    assert speaks_plaintext(inbound)
    write(mesh, EVERYBODY)
    write(mesh, secured("ca-1", enabled="ca-1"))
    wait_until(lambda: not speaks_plaintext(inbound), "plaintext is refused")
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/").status_code == 200, "the service answers over TLS")
    answer = httpx.get(f"http://127.0.0.1:{port}/")
    assert "URI=spiffe://default/web-1" in answer.json()["headers"]["x-forwarded-client-cert"]
    shown = certificate_at(inbound)
    assert shown is not None
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "spiffe://default/echo" in names.get_values_for_type(x509.UniformResourceIdentifier)
    wait_until(lambda: issued_backend(mesh, "web-1") == "ca-1", "the overview tells of the certificate")
    write(mesh, _OPEN)
    wait_until(lambda: speaks_plaintext(inbound), "the mesh is open again")
    assert rejected(client) == rejected(echo) == []


def test_from_open_to_strict_and_to_another_authority_nothing_is_lost(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    mesh.echo("echo-1")
    _, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/").status_code == 200, "the service answers")
    inbound = mesh.inbound_ports["echo-1"]
    issuers: list[str] = []
    write(mesh, EVERYBODY)
    with Traffic(port).running() as traffic:
        write(mesh, secured("ca-1", enabled="ca-1", mode="PERMISSIVE", life="8s"))
        wait_until(lambda: is_secured(port), "clients use TLS")
        assert speaks_plaintext(inbound)
        write(mesh, secured("ca-1", enabled="ca-1", life="8s"))
        wait_until(lambda: not speaks_plaintext(inbound), "plaintext is refused")
        first = certificate_at(inbound)
        assert first is not None
        issuers.append(first.issuer.rfc4514_string())
        # The old authority is taken out in the same write.
        write(mesh, secured("ca-2", enabled="ca-2", life="8s"))
        wait_until(lambda: issuer_at(inbound) not in (None, issuers[0]), "the new authority signs")
        # Two lives of a certificate, with replacements in between.
        time.sleep(13)
        last = certificate_at(inbound)
        assert last is not None
        assert last.serial_number != first.serial_number
    assert traffic.failures == []
    assert len(traffic.answers) > 100


def issued_backend(mesh: Mesh, name: str) -> str | None:
    """The backend that a proxy has its certificate from, as the overview shows it."""
    shown = mesh.control_plane.overview("default", name)["dataplaneInsight"].get("mTLS", {}).get("issuedBackend")
    return None if shown is None else str(shown)


def is_secured(port: int) -> bool:
    """Whether the service sees a certificate of its client."""
    answer = httpx.get(f"http://127.0.0.1:{port}/")
    return "URI=spiffe://" in answer.json()["headers"].get("x-forwarded-client-cert", "")


def issuer_at(port: int) -> str | None:
    """Who signed the certificate that a sidecar shows."""
    shown = certificate_at(port)
    return None if shown is None else shown.issuer.rfc4514_string()
