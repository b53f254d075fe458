"""How the mesh is secured, seen in traffic: plaintext for one workload and not for another, and the versions spoken."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import httpx
import pytest
from tests.envoy.harness import ECHO, Mesh, rejected, wait_until
from tests.envoy.test_mtls import EVERYBODY, secured, speaks_plaintext, write

pytestmark = pytest.mark.envoy

MESH = {"kind": "Mesh"}


def rules(top: dict[str, Any], **conf: Any) -> dict[str, Any]:
    return {"type": "MeshTLS", "spec": {"targetRef": top, "rules": [{"default": conf}]}}


def takes(port: int, version: ssl.TLSVersion) -> bool:
    """Whether a sidecar speaks a version of TLS; it asks for a certificate only after that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, context.wrap_socket(raw):
            return True
    except ssl.SSLError as error:
        # Up to TLS 1.2 a client learns within the handshake that its certificate is missed: the version is spoken.
        return "CERTIFICATE_REQUIRED" in str(error) or "HANDSHAKE_FAILURE" in str(error)


def has_certificate(port: int) -> bool:
    """Whether requests arrive, with the certificate of the client's sidecar."""
    answer = httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
    return answer.status_code == 200 and "URI=spiffe://" in answer.json()["headers"].get("x-forwarded-client-cert", "")


def test_plaintext_is_taken_by_whom_a_policy_says_and_old_versions_by_nobody(delta_mesh: Mesh) -> None:
    mesh = delta_mesh
    sidecars = [mesh.echo(name)[1] for name in ("echo-1", "echo-2")]
    client, (port,) = mesh.client("web-1", ECHO)
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/").status_code == 200, "the service answers")
    write(mesh, EVERYBODY)
    write(mesh, secured("ca-1", enabled="ca-1"))
    inbounds = [mesh.inbound_ports[name] for name in ("echo-1", "echo-2")]
    wait_until(lambda: not any(map(speaks_plaintext, inbounds)), "plaintext is refused")
    with mesh.control_plane.policy("meshtlses", **rules({"kind": "Dataplane", "name": "echo-2"}, mode="Permissive")):
        wait_until(lambda: speaks_plaintext(inbounds[1]), "plaintext is taken where the policy says")
        assert not speaks_plaintext(inbounds[0])
        assert all(has_certificate(port) for _ in range(10))
    wait_until(lambda: not speaks_plaintext(inbounds[1]), "plaintext is refused again")
    assert takes(inbounds[0], ssl.TLSVersion.TLSv1_2)
    with mesh.control_plane.policy("meshtlses", **rules(MESH, tlsVersion={"min": "TLS13"})):
        wait_until(lambda: not takes(inbounds[0], ssl.TLSVersion.TLSv1_2), "TLS 1.2 is no longer spoken")
        assert takes(inbounds[0], ssl.TLSVersion.TLSv1_3)
        wait_until(lambda: has_certificate(port), "the sidecars speak TLS 1.3")
    for each in (client, *sidecars):
        assert rejected(each) == []
