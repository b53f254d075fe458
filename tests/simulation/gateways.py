"""Random gateways, what is attached to their listeners, and their certificates, whole and broken.

In: a source of chance. Out: resources and parts of dataplanes. Never: an assertion of what is right.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from tests.gateways import certificate

from kumafast.resources import Resource, Secret, parse, secret_data

SECRETS = ("shown-1", "shown-2")
SECRET_FORMS = 4
_HOSTNAMES = ("", "*", "a.example.com", "*.example.com", "*.a.example.com", "b.example.org")
_TAGS: tuple[dict[str, str], ...] = ({}, {"port": "one"}, {"port": "two"})


def random_gateway(rng: random.Random) -> dict[str, Any]:
    """What makes a dataplane a built-in gateway."""
    version = rng.choice([{}, {"version": "1"}, {"version": "2"}])
    return {"type": "BUILTIN", "tags": {"kuma.io/service": rng.choice(["edge", "edge", "gate"]), **version}}


def random_attachment(rng: random.Random, mesh: str) -> Resource:
    """A MeshGateway, or a route that may be for one."""
    make = rng.choice([_gateway, _gateway, _route, _route, _targeted])
    return make(rng, mesh)


def _named(rng: random.Random, kind: str, mesh: str) -> dict[str, Any]:
    return {"type": kind, "mesh": mesh, "name": f"gw-{rng.randrange(3)}"}


def _selectors(rng: random.Random, *more: dict[str, str]) -> list[dict[str, Any]]:
    services = rng.sample(["edge", "gate", "*"], rng.choice([1, 1, 2]))
    return [{"match": {"kuma.io/service": service, **(rng.choice(more) if more else {})}} for service in services]


def _gateway(rng: random.Random, mesh: str) -> Resource:
    listeners = []
    for port in rng.sample([8080, 8443, 9000], rng.choice([1, 2, 3])):
        protocol = rng.choice(["HTTP", "HTTP", "HTTPS", "TCP", "TLS"])
        for hostname in rng.sample(_HOSTNAMES[1:], rng.choice([1, 1, 2, 3])):
            mode = rng.choice(["TERMINATE", "TERMINATE", "PASSTHROUGH"]) if protocol == "TLS" else "TERMINATE"
            certificates = [{"secret": rng.choice(SECRETS)}] if mode == "TERMINATE" else []
            tls = {"tls": {"mode": mode, "certificates": certificates}} if protocol in ("HTTPS", "TLS") else {}
            limit = {"resources": {"connectionLimit": 10}} if port == 9000 else {}
            named = {"hostname": hostname, "tags": rng.choice(_TAGS)}
            listeners.append({"port": port, "protocol": protocol, **named, **tls, **limit})
    return parse(
        {
            **_named(rng, "MeshGateway", mesh),
            "selectors": _selectors(rng, {}, {"version": "1"}, {"version": "*"}),
            "tags": rng.choice([{}, {"team": "x"}]),
            "conf": {"listeners": listeners},
        }
    )


def _route(rng: random.Random, mesh: str) -> Resource:
    backends = [
        {"weight": rng.randrange(3), "destination": {"kuma.io/service": service, **rng.choice([{}, {"version": "1"}])}}
        for service in rng.sample(["a", "b", "c", "outside"], rng.choice([1, 1, 2]))
    ]
    selectors = _selectors(rng, *_TAGS, {"team": "x"})
    if rng.random() < 0.3:
        conf: dict[str, Any] = {"tcp": {"rules": [{"backends": backends}]}}
    else:
        path = {"match": rng.choice(["EXACT", "PREFIX", "REGEX"]), "value": rng.choice(["/", "/a", "/a/b"])}
        filters = rng.choice([[], [{"requestHeader": {"remove": ["x"]}}], [{"rewrite": {"replaceFull": "/"}}]])
        rules = [{"matches": [{"path": path}], "filters": filters, "backends": backends}]
        if rng.random() < 0.3:
            redirect = {"scheme": "https", "hostname": "example.org", "status_code": 307}
            rules.append({"matches": [{"method": "POST"}], "filters": [{"redirect": redirect}]})
        conf = {"http": {"hostnames": rng.sample(_HOSTNAMES[1:], rng.choice([0, 0, 1, 2])), "rules": rules}}
    return parse({**_named(rng, "MeshGatewayRoute", mesh), "selectors": selectors, "conf": conf})


def _targeted(rng: random.Random, mesh: str) -> Resource:
    top = {"kind": "MeshGateway", "name": f"gw-{rng.randrange(3)}", "tags": rng.choice(_TAGS)}
    refs = [{"kind": "MeshService", "name": name, "weight": 1} for name in rng.sample(["a", "b"], rng.choice([1, 2]))]
    default: dict[str, Any] = {"backendRefs": refs}
    to: dict[str, Any] = {"targetRef": {"kind": "Mesh"}}
    kind = rng.choice(["MeshHTTPRoute", "MeshHTTPRoute", "MeshTCPRoute"])
    if kind == "MeshHTTPRoute":
        path = {"type": "PathPrefix", "value": rng.choice(["/", "/a"])}
        to["rules"] = [{"matches": [{"path": path}], "default": default}]
        to["hostnames"] = rng.sample(_HOSTNAMES[1:], rng.choice([0, 0, 1]))
    else:
        to["rules"] = [{"default": default}]
    # Among all other routes of the mesh.
    named = {"type": kind, "mesh": mesh, "name": f"for-gateways-{rng.randrange(2)}"}
    return parse({**named, "spec": {"targetRef": top, "to": [to]}})


@cache
def _certificate(number: int) -> bytes:
    # Not the same in every process, but nothing depends on what is in it.
    return certificate(f"{number}.example.com")


def shown(mesh: str, name: str, form: int) -> Secret:
    """A secret of one of `SECRET_FORMS`: two certificates, one that lacks its key, and none."""
    content = (_certificate(1), _certificate(2), _certificate(1).partition(b"-----BEGIN PRIV")[0], b"none")[form]
    return Secret(mesh=mesh, name=name, data=secret_data(content))
