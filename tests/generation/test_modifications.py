"""What steps of a template do to resources, one by one and in any order; golden cases show the whole of each kind."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from kumafast.errors import ModificationError
from kumafast.generation.modifications import ADDED, RAW, Modification, Template, added, merge, modified
from kumafast.generation.policies.proxy_template import modifications

Cluster: TypeAlias = cluster_pb2.Cluster
ROUTER = "{name: b, typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
Filter: TypeAlias = listener_components_pb2.Filter


def template(*steps: Mapping[str, Any], imports: Sequence[str] = ("default-proxy",)) -> Template:
    return modifications({"imports": list(imports), "modifications": list(steps)})


def cluster(name: str, *, seconds: int = 1) -> Cluster:
    return Cluster(name=name, connect_timeout={"seconds": seconds})


def tcp_filter(name: str = "envoy.filters.network.tcp_proxy", **fields: Any) -> Filter:
    made = Filter(name=name)
    made.typed_config.Pack(tcp_proxy_pb2.TcpProxy(**fields))
    return made


def test_a_patch_replaces_durations_and_values_and_adds_to_lists() -> None:
    message = Cluster(
        name="a",
        connect_timeout={"nanos": 250_000_000},
        health_checks=[{"timeout": {"seconds": 1}}],
        common_lb_config={"update_merge_window": {"nanos": 5}, "healthy_panic_threshold": {"value": 5}},
    )
    patch = Cluster(
        connect_timeout={"seconds": 5},
        health_checks=[{"timeout": {"seconds": 2}}],
        common_lb_config={"update_merge_window": {"seconds": 1}},
    )
    merge(message, patch)
    assert message.connect_timeout.ToMilliseconds() == 5_000
    assert [check.timeout.seconds for check in message.health_checks] == [1, 2]
    assert message.common_lb_config.update_merge_window.ToNanoseconds() == 1_000_000_000
    assert message.common_lb_config.healthy_panic_threshold.value == 5
    assert message.name == "a"


def test_a_patch_of_one_of_several_fields_takes_the_place_of_the_other() -> None:
    route = route_components_pb2.Route(route={"cluster": "a"})
    merge(route, route_components_pb2.Route(direct_response={"status": 503}))
    assert route.WhichOneof("action") == "direct_response"


def test_a_filter_of_another_type_cannot_be_patched() -> None:
    step = {
        "networkFilter": {
            "operation": "patch",
            "match": {"name": "envoy.filters.network.tcp_proxy"},
            "value": ROUTER,
        }
    }
    listener = listener_pb2.Listener(name="a", filter_chains=[{"filters": [tcp_filter()]}])
    with pytest.raises(ModificationError, match=r"modifications\[1\].networkFilter: .* is configured by .*TcpProxy"):
        modified(template({"cluster": {"operation": "remove"}}, step), "inbound", [listener])
    # Nothing is wrong where it matches nothing.
    assert modified(template(step), "inbound", [cluster("a")]) == (cluster("a"),)


def test_a_manager_of_requests_that_is_none_cannot_be_changed() -> None:
    odd = tcp_filter("envoy.filters.network.http_connection_manager")
    listener = listener_pb2.Listener(name="a", filter_chains=[{"filters": [odd]}])
    for kind in ("httpFilter", "virtualHost"):
        with pytest.raises(ModificationError, match="has a configuration of another type"):
            modified(template({kind: {"operation": "remove"}}), "inbound", [listener])


@pytest.mark.parametrize(
    ("operation", "name", "expected"),
    [
        ("addFirst", "", ["new", "a", "b", "b"]),
        ("addLast", "", ["a", "b", "b", "new"]),
        ("addBefore", "b", ["a", "new", "b", "b"]),
        ("addAfter", "b", ["a", "b", "new", "b"]),
        ("addAfter", "c", ["a", "b", "b"]),
        ("remove", "b", ["a"]),
        ("remove", "", []),
    ],
)
def test_filters_are_put_where_they_are_wanted(operation: str, name: str, expected: list[str]) -> None:
    chain = {"filters": [tcp_filter(each) for each in "abb"]}
    listener = listener_pb2.Listener(name="l", filter_chains=[chain, {"filters": [tcp_filter("z")]}])
    change = {"operation": operation, "match": {"name": name, "listenerName": "l"}, "value": "name: new"}
    (now,) = modified(template({"networkFilter": change}), "inbound", [listener])
    assert isinstance(now, listener_pb2.Listener)
    assert [each.name for each in now.filter_chains[0].filters] == expected


def test_a_filter_without_a_configuration_gets_that_of_the_patch() -> None:
    listener = listener_pb2.Listener(name="l", filter_chains=[{"filters": [Filter(name="a")]}])
    change = {"operation": "patch", "match": {"name": "a"}, "value": ROUTER}
    (now,) = modified(template({"networkFilter": change}), "inbound", [listener])
    assert isinstance(now, listener_pb2.Listener)
    assert now.filter_chains[0].filters[0].name == "a"
    assert now.filter_chains[0].filters[0].typed_config.Is(router_pb2.Router.DESCRIPTOR)


@pytest.mark.parametrize(
    ("imports", "kept"),
    [
        (["default-proxy"], {"admin", "inbound", "outbound", "secrets", "tracing", "transparent"}),
        (["ingress-proxy", "default-proxy"], {"admin", "inbound", "outbound", "secrets", "tracing", "transparent"}),
        (["gateway-proxy"], {"admin", "secrets", "tracing", "transparent"}),
        (["ingress-proxy"], {"admin", "secrets"}),
        ([], set()),
    ],
)
def test_profiles_say_what_a_proxy_keeps(imports: list[str], kept: set[str]) -> None:
    origins = ("admin", "transparent", "inbound", "outbound", "secrets", "tracing")
    assert {origin for origin in origins if template(imports=imports).keeps(origin)} == kept


def test_two_templates_are_one_after_the_other() -> None:
    first = template({"cluster": {"operation": "add", "value": "name: a"}}, imports=["gateway-proxy"])
    second = template({"cluster": {"operation": "patch", "value": "altStatName: b"}}, imports=["ingress-proxy"])
    both = first.then(second)
    assert [getattr(each, "alt_stat_name", "") for each in added(both)] == ["b"]
    assert both.keeps("admin")
    assert not both.keeps("tracing")
    assert not first.then(template()).keeps("inbound")
    assert not template().then(first).keeps("inbound")
    assert template(imports=[]).then(template(imports=["default-proxy"])).origins == frozenset()


# Origins are modified by themselves. The twin does it as Kuma does: over one set of all resources.

Placed: TypeAlias = tuple[str, Cluster]


def naive(resources: Sequence[Placed], wanted: Template) -> list[Placed]:
    held = {message.name: (origin, message) for origin, message in copy.deepcopy(list(resources))}
    for _, body in wanted.resources:
        raw = Cluster.FromString(body)
        held[raw.name] = (RAW, raw)
    for step in wanted.steps:
        value = Cluster.FromString(step.value)
        if step.operation == "add":
            held[value.name] = (ADDED, value)
            continue
        for name, (origin, message) in list(held.items()):
            if step.name in ("", name) and step.origin in ("", origin):
                if step.operation == "remove":
                    del held[name]
                else:
                    message.connect_timeout.CopyFrom(value.connect_timeout)
    return sorted(held.values(), key=lambda each: each[1].name)


_names = st.sampled_from(["a", "b", "c"])
_origins = st.sampled_from(["inbound", "outbound", RAW, ADDED, ""])
_bodies = st.builds(lambda name, seconds: cluster(name, seconds=seconds), _names, st.integers(1, 9))
_steps = st.builds(
    lambda operation, value, name, origin: Modification(
        "cluster",
        operation,
        origin="" if operation == "add" else origin,
        name="" if operation == "add" else name,
        value=value.SerializeToString()
        if operation == "add"
        else Cluster(connect_timeout=value.connect_timeout).SerializeToString(),
    ),
    st.sampled_from(["add", "patch", "remove"]),
    _bodies,
    _names | st.just(""),
    _origins,
)
_templates = st.builds(
    lambda raw, steps: Template(
        resources=tuple(("envoy.config.cluster.v3.Cluster", each.SerializeToString()) for each in raw),
        steps=tuple(steps),
    ),
    st.lists(_bodies, max_size=2, unique_by=lambda each: each.name),
    st.lists(_steps, max_size=5),
)
_resources = st.lists(
    st.tuples(st.sampled_from(["inbound", "outbound"]), _bodies), unique_by=lambda each: each[1].name, max_size=3
)


@settings(deadline=None, max_examples=500)
@given(_resources, _templates)
def test_origins_can_be_modified_by_themselves(resources: list[Placed], wanted: Template) -> None:
    expected = naive(resources, wanted)
    found: list[Any] = []
    for origin in ("inbound", "outbound"):
        mine = [message for each, message in resources if each == origin]
        before = [each.SerializeToString() for each in mine]
        is_concerned = wanted.concerns(origin, [("cluster", each.name) for each in mine])
        now = modified(wanted, origin, copy.deepcopy(mine))
        found += now
        # Who is not concerned is not looked at.
        assert is_concerned or [each.SerializeToString() for each in now] == before
    brought = added(wanted)
    assert wanted.adds or not brought
    assert sorted((*found, *brought), key=lambda each: each.name) == [message for _, message in expected]
