"""Who may reach external services: as the rules word it, whatever came before and in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracles.external_naive import may_reach
from tests.pipeline import dataplane, external_service, service, traffic_permission

from kumafast.registry import DataplaneId, Registry
from kumafast.resources import Dataplane, ExternalService, Resource, ResourceKey
from kumafast.resources.policies.traffic_permission import TrafficPermission
from kumafast.store import Change, StoredResource

START = datetime(2027, 1, 1, tzinfo=UTC)
PROXIES: tuple[Dataplane, ...] = (
    dataplane("a", tags=service("a")),
    dataplane("a-1", tags=service("a", version="1")),
    dataplane("b", tags=service("b")),
    dataplane("bare"),
)
OUTSIDE = (service("x"), service("x", region="eu"), service("y", region="us"))

_values = st.sampled_from(["a", "b", "x", "y", "*"])
_selectors = st.builds(
    lambda name, rest: {"kuma.io/service": name, **rest},
    _values,
    st.dictionaries(st.sampled_from(["version", "region"]), st.sampled_from(["1", "eu", "*"]), max_size=1),
)
_permissions = st.builds(
    lambda name, sources, destinations, age: (name, sources, destinations, age),
    st.sampled_from(["p1", "p2", "p3", "p4"]),
    st.lists(_selectors, min_size=1, max_size=2),
    st.lists(_selectors, min_size=1, max_size=2),
    st.integers(0, 2),
)
_steps = st.lists(st.one_of(_permissions, st.sampled_from(["p1", "p2", "p3", "p4"])), max_size=8)


def change(resource: Resource, created: datetime = START) -> Change:
    return Change(resource.key, StoredResource(resource, 1, created, created))


@settings(deadline=None, max_examples=300)
@given(_steps)
def test_the_most_specific_permission_says_who_may(steps: list[Any]) -> None:
    registry = Registry()
    outside = [external_service(f"es-{number}", "192.0.2.1:80", tags) for number, tags in enumerate(OUTSIDE)]
    registry.apply([change(each) for each in (*PROXIES, *outside)])
    held: dict[str, tuple[TrafficPermission, datetime]] = {}
    for step in steps:
        if isinstance(step, str):
            held.pop(step, None)
            registry.apply([Change(ResourceKey("TrafficPermission", "default", step), None)])
            continue
        name, sources, destinations, age = step
        permission = traffic_permission(name, sources=sources, destinations=destinations)
        assert isinstance(permission, TrafficPermission)
        held[name] = permission, START + timedelta(seconds=age)
        registry.apply([change(*held[name])])
    for proxy in PROXIES:
        permitted = registry.permitted(DataplaneId("default", proxy.name))
        inbounds = [inbound.tags for inbound in proxy.inbounds]
        for each in outside:
            assert isinstance(each, ExternalService)
            expected = may_reach(list(held.values()), each.tags, inbounds)
            # Whoever has no inbounds is nobody that a permission could name.
            assert (each.name in permitted) == expected
