"""Gateways and their routes as values, for tests of any stage.

In: what a test is about. Out: resources. Never: an assertion.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kumafast.resources import Dataplane, Resource, Secret, parse


def gateway_dataplane(
    name: str = "edge-1",
    *,
    mesh: str = "default",
    address: str = "127.0.0.1",
    service: str = "edge",
    labels: dict[str, str] | None = None,
    **tags: str,
) -> Dataplane:
    """A built-in gateway of a service."""
    gateway = {"type": "BUILTIN", "tags": {"kuma.io/service": service, **tags}}
    fields = {"name": name, "mesh": mesh, "labels": labels or {}}
    resource = parse({"type": "Dataplane", **fields, "networking": {"address": address, "gateway": gateway}})
    assert isinstance(resource, Dataplane)
    return resource


def mesh_gateway(
    *listeners: dict[str, Any],
    name: str = "edge",
    mesh: str = "default",
    match: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> Resource:
    """A MeshGateway with these listeners, which are for HTTP on port 8080 unless they say otherwise."""
    several = [{"port": 8080, "protocol": "HTTP", **each} for each in listeners or ({},)]
    selectors = [{"match": {"kuma.io/service": "edge", **(match or {})}}]
    fields = {"name": name, "mesh": mesh, "selectors": selectors, "tags": tags or {}}
    return parse({"type": "MeshGateway", **fields, "conf": {"listeners": several}})


def terminate(secret: str = "edge-cert") -> dict[str, Any]:
    """TLS that ends at the gateway."""
    return {"mode": "TERMINATE", "certificates": [{"secret": secret}]}


def gateway_route(
    *rules: dict[str, Any],
    name: str = "r",
    mesh: str = "default",
    hostnames: Iterable[str] = (),
    match: dict[str, str] | None = None,
) -> Resource:
    """A MeshGatewayRoute of HTTP; without rules all goes to `backend`."""
    http = {"hostnames": list(hostnames), "rules": list(rules) or [rule("/", to("backend"))]}
    selectors = [{"match": {"kuma.io/service": "edge", **(match or {})}}]
    return parse(
        {"type": "MeshGatewayRoute", "name": name, "mesh": mesh, "selectors": selectors, "conf": {"http": http}}
    )


def tcp_route(*backends: dict[str, Any], name: str = "t", match: dict[str, str] | None = None) -> Resource:
    """A MeshGatewayRoute of connections."""
    selectors = [{"match": {"kuma.io/service": "edge", **(match or {})}}]
    conf = {"tcp": {"rules": [{"backends": list(backends)}]}}
    return parse({"type": "MeshGatewayRoute", "name": name, "mesh": "default", "selectors": selectors, "conf": conf})


def rule(prefix: str, *backends: dict[str, Any], filters: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """Requests of paths that begin so, to some backends."""
    path = {"match": "PREFIX", "value": prefix}
    return {"matches": [{"path": path}], "filters": list(filters), "backends": list(backends)}


def to(service: str, weight: int = 1, **tags: str) -> dict[str, Any]:
    """A backend with its share."""
    return {"weight": weight, "destination": {"kuma.io/service": service, **tags}}


def targeted_route(
    *rules: dict[str, Any],
    name: str = "hr",
    hostnames: Iterable[str] = (),
    gateway: str = "edge",
    tags: dict[str, str] | None = None,
) -> Resource:
    """A MeshHTTPRoute for a MeshGateway."""
    item = {"targetRef": {"kind": "Mesh"}, "hostnames": list(hostnames), "rules": list(rules)}
    top = {"kind": "MeshGateway", "name": gateway, **({"tags": tags} if tags else {})}
    return parse({"type": "MeshHTTPRoute", "name": name, "mesh": "default", "spec": {"targetRef": top, "to": [item]}})


def targeted_rule(prefix: str, *services: str, filters: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """A rule of such a route."""
    refs = [{"kind": "MeshService", "name": service} for service in services]
    default = {"filters": list(filters), **({"backendRefs": refs} if refs else {})}
    return {"matches": [{"path": {"type": "PathPrefix", "value": prefix}}], "default": default}


def for_gateway(kind: str, *, name: str = "p", tags: dict[str, str] | None = None, **spec: Any) -> Resource:
    """A policy with a targetRef for the MeshGateway `edge`, or for those of its listeners that have some tags."""
    top = {"kind": "MeshGateway", "name": "edge", **({"tags": tags} if tags else {})}
    return parse({"type": kind, "name": name, "mesh": "default", "spec": {"targetRef": top, **spec}})


def certificate_secret(name: str = "edge-cert", *, hostname: str = "edge.example.com") -> Secret:
    """A secret with a certificate for a host name, which is its own authority, and its key."""
    return Secret(name=name, mesh="default", data=base64.b64encode(certificate(hostname)).decode())


def certificate(hostname: str) -> bytes:
    """A certificate for a host name, which is its own authority, and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM) + private
