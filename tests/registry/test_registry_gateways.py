"""Gateways in the registry: a change names those for whom it counts and nobody else, in a mesh of whatever size."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from tests.gateways import certificate_secret, gateway_dataplane, gateway_route, mesh_gateway, rule, terminate, to
from tests.pipeline import dataplane, service
from tests.simulation.gateways import random_attachment, random_gateway

from kumafast.registry import DataplaneId, Registry
from kumafast.registry.gateways import Gateway
from kumafast.resources import Dataplane, Mesh, Resource, ResourceKey, parse
from kumafast.store import Change, StoredResource

NAMES = tuple(f"edge-{number}" for number in range(5))
CHANGES = 120
NOW = datetime(2027, 1, 1, tzinfo=UTC)


def change(resource: Resource, number: int = 0) -> Change:
    """A resource that is written, each of a greater number later."""
    moment = NOW + timedelta(seconds=number)
    return Change(resource.key, StoredResource(resource, 1, moment, moment))


def random_dataplane(rng: random.Random) -> Dataplane:
    gateway = {**random_gateway(rng), "type": "DELEGATED" if rng.random() < 0.2 else "BUILTIN"}
    networking = {"address": "10.0.0.1", "gateway": gateway}
    fields = {"name": rng.choice(NAMES), "mesh": "default", "labels": rng.choice([{}, {"team": "x"}])}
    resource = parse({"type": "Dataplane", **fields, "networking": networking})
    assert isinstance(resource, Dataplane)
    return resource


def gateways(registry: Registry) -> dict[str, Gateway | None]:
    state = registry.state("default")
    return {name: None if state is None else state.gateways.get(name) for name in NAMES}


def reached(registry: Registry) -> dict[str, set[str]]:
    """By destination, who reaches it."""
    found: dict[str, set[str]] = {}
    for gateway in gateways(registry).values():
        for destination in () if gateway is None else gateway.destinations:
            found[repr(destination)] = {each.name for each in registry.consumers("default", destination)}
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_change_names_those_for_whom_it_counts(seed: int) -> None:
    rng = random.Random(seed)
    registry, held = Registry(), dict[ResourceKey, Change]()
    for number in range(CHANGES):
        made = random_dataplane(rng) if rng.random() < 0.2 else random_attachment(rng, "default")
        written = change(made, number) if rng.random() < 0.8 else Change(made.key, None)
        if written.stored is None:
            held.pop(made.key, None)
        else:
            held[made.key] = written
        before = gateways(registry)
        affected = registry.apply([written])
        after = gateways(registry)
        touched = {name for name in NAMES if before[name] != after[name]}
        own = {made.name} if isinstance(made, Dataplane) else set()
        assert {each.name for each in affected.proxies} - own == touched - own
        assert not affected.bound
    fresh = Registry()
    fresh.apply(rng.sample(list(held.values()), len(held)))
    assert gateways(fresh) == gateways(registry)
    assert reached(fresh) == reached(registry)


def touched_by(registry: Registry, *resources: Resource | ResourceKey) -> list[set[str]]:
    """Whom each of several changes, one after the other, touches."""
    found = []
    for number, each in enumerate(resources, 1):
        written = Change(each, None) if isinstance(each, ResourceKey) else change(each, number)
        affected = registry.apply([written])
        found.append({dataplane_id.name for dataplane_id in (*affected.proxies, *affected.bound)})
    return found


def a_mesh_of(sidecars: int) -> Registry:
    """A mesh with two gateways of a service among sidecars that reach each other."""
    registry = Registry()

    def resources() -> Iterable[Resource]:
        yield Mesh(name="default")
        for number in range(sidecars):
            tags, reaches = service(f"s-{number % 50}"), [service(f"s-{(number + 1) % 50}")]
            yield dataplane(f"dp-{number}", tags=tags, reaches=reaches)
        yield gateway_dataplane("edge-1")
        yield gateway_dataplane("edge-2", version="2")
        yield gateway_dataplane("gate-1", service="gate")

    registry.apply([change(each) for each in resources()])
    return registry


@pytest.mark.parametrize("sidecars", [100, 5_000])
def test_it_is_the_same_in_a_mesh_of_any_size(sidecars: int) -> None:
    registry = a_mesh_of(sidecars)
    secured = {"port": 8443, "protocol": "HTTPS", "tls": terminate()}
    only_second = mesh_gateway(secured, name="second", match={"version": "2"})
    route = gateway_route(rule("/", to("s-1")))
    both, first, second, nobody = {"edge-1", "edge-2"}, {"edge-1"}, {"edge-2"}, set[str]()
    found = touched_by(
        registry,
        mesh_gateway(),
        route,
        route,
        gateway_route(rule("/", to("s-2"))),
        only_second,
        certificate_secret(),
        certificate_secret("another"),
        mesh_gateway({"port": 8081}),
        only_second.key,
        route.key,
        mesh_gateway().key,
    )
    assert found == [both, both, nobody, both, second, second, nobody, first, second, both, both]
    assert DataplaneId("default", "dp-1") in set(registry.consumers("default", (("kuma.io/service", "s-2"),)))
