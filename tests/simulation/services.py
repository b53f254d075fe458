"""Random services, and references to them.

In: a source of chance. Out: resources and parts of dataplanes. Never: an assertion of what is right.
"""

from __future__ import annotations

import random
from typing import Any

from kumafast.resources import Resource, parse


def random_service(rng: random.Random, mesh: str) -> Resource:
    """A service of the mesh, one made of such, or one outside, whose secret may be there."""
    labels = rng.choice([{}, {"app": "x"}, {"app": "x", "tier": "1"}, {"app": "y"}])
    ports = [
        {
            "port": port,
            "targetPort": rng.choice([80, 81, "main"]),
            "name": rng.choice(["http", "admin"]),
            "appProtocol": rng.choice(["http", "tcp", "grpc"]),
        }
        for port in rng.sample([8080, 8081], rng.choice([0, 1, 2, 2]))
    ]
    kind = rng.choice(["MeshService"] * 3 + ["MeshMultiZoneService", "MeshExternalService"])
    spec: dict[str, Any] = {"ports": ports}
    if kind == "MeshService":
        spec["selector"] = rng.choice(
            [
                {"dataplaneTags": {"kuma.io/service": "a"}},
                {"dataplaneTags": {"kuma.io/service": "b", "version": "1"}},
                {"dataplaneRef": {"name": f"dp-{rng.randrange(6)}"}},
                {"dataplaneLabels": {"matchLabels": {"team": "x"}}},
                {},
            ]
        )
    elif kind == "MeshMultiZoneService":
        spec["selector"] = {"meshService": {"matchLabels": rng.choice([{"app": "x"}, {"tier": "1"}])}}
    else:
        tls = rng.choice([None, {"enabled": True, "verification": {"caCert": {"secret": "ca"}}}])
        endpoint = {"address": rng.choice(["192.0.2.1", "example.com"]), "port": 443}
        match = {"port": 8080, "protocol": rng.choice(["http", "tcp"])}
        spec = {"match": match, "endpoints": [endpoint], **({} if tls is None else {"tls": tls})}
    document = {"type": kind, "mesh": mesh, "name": f"s-{rng.randrange(3)}", "labels": labels, "spec": spec}
    return parse(document)


def random_reference(rng: random.Random) -> dict[str, Any]:
    """Of an outbound, to what `random_service` may make."""
    kind = rng.choice(["MeshService", "MeshService", "MeshMultiZoneService", "MeshExternalService"])
    if rng.random() < 0.3:
        return {"kind": kind, "labels": rng.choice([{"app": "x"}, {"app": "y"}]), "port": 8080}
    return {"kind": kind, "name": f"s-{rng.randrange(3)}", "port": rng.choice([8080, 8080, 8081])}


def random_reachable(rng: random.Random) -> dict[str, Any]:
    """Of `reachableBackends`, to what `random_service` may make, with or without its port."""
    found = random_reference(rng)
    if rng.random() < 0.5:
        del found["port"]
    return found


def random_generator(rng: random.Random) -> Resource:
    """Of host names, which services may have in common."""
    kind = rng.choice(["meshService", "meshService", "meshExternalService", "meshMultiZoneService"])
    template = rng.choice(["{{ .Name }}.local", "{{ .Name }}.{{ .Mesh }}", '{{ label "app" }}.local', "same.local"])
    selector = {kind: {"matchLabels": rng.choice([{}, {}, {"app": "x"}])}}
    spec = {"selector": selector, "template": template}
    return parse({"type": "HostnameGenerator", "name": f"g-{rng.randrange(3)}", "spec": spec})
