"""Random permissions, dataplanes and clients that meet often: few services, few tags, few identities.

In: a random generator. Out: permissions of both families, dataplanes, clients. Never: a permission that validation
would refuse to be stored.
"""

from __future__ import annotations

import random
from typing import Any, cast

from tests.oracles.permissions_naive import Client

from kumafast.resources import Dataplane, Resource, parse, validate

SERVICES = ("a", "b", "c")
_ACTIONS = ("Allow", "Deny", "AllowWithShadowDeny")


def _tags(rng: random.Random, *, wildcards: bool = False) -> dict[str, str]:
    stars = ["*"] if wildcards else []
    tags = {"kuma.io/service": rng.choice([*SERVICES, *stars])} if rng.random() < 0.7 else {}
    for key in ("version", "kuma.io/zone"):
        if rng.random() < 0.35:
            tags[key] = rng.choice(["1", "2", *stars])
    return tags or {"version": "1"}


def client(rng: random.Random, *, inbounds: int = 2) -> Client:
    """Somebody with one inbound or more."""
    count = rng.randint(1, inbounds)
    tags = tuple({**_tags(rng), "kuma.io/service": rng.choice(SERVICES)} for _ in range(count))
    return Client(tags, rng.choice(["", "web.example", "db.example"]))


def dataplane(rng: random.Random) -> Dataplane:
    """A sidecar with one inbound or two, of HTTP or not."""
    inbound: list[dict[str, Any]] = []
    for number in range(rng.randint(1, 2)):
        tags = {**_tags(rng), "kuma.io/service": rng.choice(SERVICES), "kuma.io/protocol": rng.choice(["http", "tcp"])}
        inbound.append({"port": 80 + number, "name": rng.choice(["", "web"]), "tags": tags})
    fields = {"name": "dp-1", "mesh": "default", "labels": {"team": "x"}}
    return cast(
        Dataplane, parse({"type": "Dataplane", **fields, "networking": {"address": "10.0.0.1", "inbound": inbound}})
    )


def permission(rng: random.Random, name: str) -> Resource:
    """A TrafficPermission; one in five in the form of 0.1.0, with a rule or several."""

    def side() -> list[dict[str, Any]]:
        return [{"match": _tags(rng, wildcards=True)} for _ in range(rng.randint(1, 2))]

    rules = [{"sources": side(), "destinations": side()} for _ in range(rng.randint(1, 3))]
    fields: dict[str, Any] = {"rules": rules} if rng.random() < 0.2 else rules[0]
    return _valid({"type": "TrafficPermission", "mesh": "default", "name": name, **fields})


def mesh_permission(rng: random.Random, name: str) -> Resource:
    """A MeshTrafficPermission with sources or rules."""
    top = rng.choice(
        [
            {"kind": "Mesh"},
            {"kind": "Mesh", "proxyTypes": ["Gateway"]},
            {"kind": "MeshSubset", "tags": {"version": "1"}},
            {"kind": "MeshService", "name": rng.choice(SERVICES)},
            {"kind": "Dataplane", "labels": {"team": rng.choice("xy")}},
            {"kind": "Dataplane", "sectionName": rng.choice(["web", "80"])},
        ]
    )
    spec: dict[str, Any] = {"targetRef": top}
    if rng.random() < 0.6:
        spec["from"] = items(rng, rng.randint(1, 3))
    else:
        spec["rules"] = [{"default": _rule(rng)} for _ in range(rng.randint(1, 2))]
    labels = {"kuma.io/effect": "shadow"} if rng.random() < 0.05 else {}
    return _valid({"type": "MeshTrafficPermission", "mesh": "default", "name": name, "labels": labels, "spec": spec})


def items(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Sources, each with what happens to those that it names."""
    return [{"targetRef": _source(rng), "default": {"action": rng.choice(_ACTIONS)}} for _ in range(count)]


def _source(rng: random.Random) -> dict[str, Any]:
    tags = _tags(rng)
    service = tags.pop("kuma.io/service", "")
    if rng.random() < 0.25:
        return {"kind": "Mesh"}
    if service and tags:
        return {"kind": "MeshServiceSubset", "name": service, "tags": tags}
    return {"kind": "MeshService", "name": service} if service else {"kind": "MeshSubset", "tags": tags}


def _rule(rng: random.Random) -> dict[str, Any]:
    names = rng.sample(["deny", "allow", "allowWithShadowDeny"], rng.randint(1, 2))
    return {name: [_match(rng) for _ in range(rng.randint(1, 2))] for name in names}


def _match(rng: random.Random) -> dict[str, Any]:
    exact = {"type": "Exact", "value": f"spiffe://default/{rng.choice(SERVICES)}"}
    prefix = {"type": "Prefix", "value": rng.choice(["spiffe://default/", "spiffe://default/a", "spiffe://other/"])}
    match: dict[str, Any] = {}
    if rng.random() < 0.9:
        match["spiffeID"] = exact if rng.random() < 0.7 else prefix
    if rng.random() < 0.2:
        match["sni"] = {"type": "Exact", "value": rng.choice(["web.example", "db.example"])}
    return match


def _valid(document: dict[str, Any]) -> Resource:
    resource = parse(document)
    assert validate(resource) == ()
    return resource
