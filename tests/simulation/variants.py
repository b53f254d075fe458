"""Resources of random histories, each by a number: the same in every process.

In: numbers. Out: dataplanes, policies, services, gateways. Never: what happens to them.
"""

from __future__ import annotations

import random
from functools import cache

from tests.random_resources import random_external_service, random_policy, random_virtual_outbound
from tests.simulation.gateways import random_attachment, random_gateway
from tests.simulation.services import random_reachable, random_reference, random_service

from kumafast.resources import Dataplane, Resource, parse

MESHES = ("default", "other")
NAMES = tuple(f"dp-{number}" for number in range(6))
HOSTS = ("a.example", "b.example")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")

SERVICES: tuple[dict[str, str], ...] = (
    {"kuma.io/service": "a"},
    {"kuma.io/service": "b"},
    {"kuma.io/service": "a", "version": "1"},
    {"kuma.io/service": "b", "version": "2"},
    {"kuma.io/service": "c", "kuma.io/zone": "east"},
    {"kuma.io/service": "b", "version": "1"},
)
INBOUND_TAGS: tuple[dict[str, str], ...] = (
    *SERVICES[:5],
    {"kuma.io/service": "a", "kuma.io/protocol": "http"},
    {"kuma.io/service": "a", "kuma.io/protocol": "grpc", "version": "1"},
    {"kuma.io/service": "b", "kuma.io/zone": "west", "version": "1"},
)
VARIANTS = 150
POLICIES = 400
"""So many that every kind is among them several times."""


@cache
def variant(mesh: str, name: str, number: int) -> Dataplane:
    """One of `VARIANTS` dataplanes of a name; the same in every process."""
    rng = random.Random(f"{name} {number}")
    inbound = [
        {
            "port": port,
            "name": rng.choice(["", "main"]),
            "tags": rng.choice(INBOUND_TAGS),
            "state": rng.choice(["Ready", "Ready", "Ready", "NotReady", "Ignored"]),
        }
        for port in rng.sample([80, 81], rng.choice([0, 1, 1, 1, 2]))
    ]
    outbound = [
        {"port": 10_000 + index, "tags": tags} for index, tags in enumerate(rng.sample(SERVICES, rng.randrange(4)))
    ]
    outbound += [
        {"port": 11_000 + index, "backendRef": random_reference(rng)} for index in range(rng.choice([0, 0, 1, 2]))
    ]
    is_gateway = rng.random() < 0.12
    networking: dict[str, object] = {
        "address": rng.choice([*ADDRESSES, *ADDRESSES, *HOSTS]),
        **({"gateway": random_gateway(rng)} if is_gateway else {"inbound": inbound, "outbound": outbound}),
    }
    if rng.random() < 0.1:
        networking["advertisedAddress"] = rng.choice([*ADDRESSES, *HOSTS])
    if rng.random() < 0.4:
        services = rng.choice([[], [], ["a"], ["b", "c"], ["outside"]])
        proxying = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001, "reachableServices": services}
        networking["transparentProxying"] = proxying
        if rng.random() < 0.4:
            proxying["reachableBackends"] = {"refs": [random_reachable(rng) for _ in range(rng.choice([0, 1, 2]))]}
    labels = rng.choice([{}, {}, {"team": "x"}])
    resource = parse({"type": "Dataplane", "mesh": mesh, "name": name, "labels": labels, "networking": networking})
    assert isinstance(resource, Dataplane)
    return resource


@cache
def policy(mesh: str, number: int) -> Resource:
    """One of `POLICIES` policies of a mesh; the same in every process."""
    return random_policy(random.Random(number), mesh)


@cache
def outside(mesh: str, number: int) -> Resource:
    """One of `VARIANTS` external services of a mesh; the same in every process."""
    return random_external_service(random.Random(number), mesh)


@cache
def served(mesh: str, number: int) -> Resource:
    """One of `VARIANTS` services of a mesh; the same in every process."""
    return random_service(random.Random(number), mesh)


@cache
def attachment(mesh: str, number: int) -> Resource:
    """One of `VARIANTS` MeshGateways and routes for them of a mesh; the same in every process."""
    return random_attachment(random.Random(number), mesh)


@cache
def naming(mesh: str, number: int) -> Resource:
    """One of `VARIANTS` VirtualOutbounds of a mesh; the same in every process."""
    return random_virtual_outbound(random.Random(number), mesh)
