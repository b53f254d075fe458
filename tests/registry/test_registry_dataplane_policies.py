"""Policies of whole dataplanes, and those that read their Mesh: who has which, and whom a change touches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.matching.policy_worlds import EPOCH, dataplanes, times
from tests.oracles import policies_naive

from kumafast.matching import Setting
from kumafast.registry import DataplaneId, Registry
from kumafast.resources import Dataplane, Mesh, Resource, ResourceKey, parse
from kumafast.resources.dataplane_policy import DataplanePolicy
from kumafast.resources.policies.traffic_log import TrafficLog
from kumafast.resources.policies.traffic_trace import TrafficTrace
from kumafast.store import Change, StoredResource

_patient = settings(deadline=None, max_examples=300)
SERVICES = ("a", "b", "c", "pass_through")
Stored = tuple[Resource, datetime]

_matches: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"kuma.io/service": st.sampled_from(["a", "b", "*"])}, optional={"version": st.sampled_from(["1", "2", "*"])}
    ),
    st.just({"version": "*"}),
)
_selectors = st.lists(_matches.map(lambda match: {"match": match}), max_size=3)
_backends = st.sampled_from(["", "one", "two", "missing"])
_names = st.sampled_from(["p1", "p2", "p3"])


def trace(name: str, selectors: Sequence[Any], backend: str) -> Resource:
    return parse(
        {
            "type": "TrafficTrace",
            "mesh": "default",
            "name": name,
            "selectors": selectors,
            "conf": {"backend": backend},
        }
    )


def log(name: str, source: str, destination: str, backend: str) -> Resource:
    ends = {
        "sources": [{"match": {"kuma.io/service": source}}],
        "destinations": [{"match": {"kuma.io/service": destination}}],
    }
    return parse({"type": "TrafficLog", "mesh": "default", "name": name, "conf": {"backend": backend}, **ends})


_policies = st.lists(
    st.tuples(
        st.builds(trace, _names, _selectors, _backends)
        | st.builds(
            log, _names, st.sampled_from(["a", "*"]), st.sampled_from(["a", "b", "*", "pass_through"]), _backends
        ),
        times,
    ),
    max_size=4,
    unique_by=lambda each: each[0].key,
)
_file = st.sampled_from(["/a", "/b"]).map(lambda path: {"type": "file", "conf": {"path": path}})
_zipkin = st.sampled_from(["x", "y"]).map(lambda host: {"type": "zipkin", "conf": {"url": f"http://{host}:1/"}})


def _named(kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "defaultBackend": st.sampled_from(["", "one"]),
            "backends": st.tuples(kinds, kinds).map(lambda two: [{"name": "one", **two[0]}, {"name": "two", **two[1]}]),
        }
    )


_meshes = st.fixed_dictionaries(
    {"name": st.just("default")},
    optional={
        "logging": _named(_file),
        "tracing": _named(_zipkin),
        "labels": st.just({"team": "x"}),
        "routing": st.just({"zoneEgress": True}),
    },
).map(Mesh.model_validate)
_worlds = st.lists(dataplanes(st.sampled_from(["dp-1", "dp-2", "dp-3"])), unique_by=lambda each: each.name)


def change(resource: Resource, created: datetime = EPOCH) -> Change:
    return Change(resource.key, StoredResource(resource, 1, created, created))


def registry(mesh: Mesh | None, world: Sequence[Dataplane], policies: Sequence[Stored]) -> Registry:
    made = Registry()
    if mesh is not None:
        made.apply([change(mesh)])
    made.apply([*(change(policy, created) for policy, created in policies), *map(change, world)])
    return made


def outcomes(made: Registry, world: Sequence[Dataplane]) -> dict[str, list[tuple[Setting, ...]]]:
    found = {}
    for dataplane in world:
        bindings = made.bindings(DataplaneId("default", dataplane.name))
        reached = {outbound.service for outbound in dataplane.outbounds}
        found[dataplane.name] = [bindings.proxy, *(bindings.outbound(each) for each in SERVICES if each in reached)]
    return found


@_patient
@given(dataplanes(), _policies)
def test_the_trace_of_a_dataplane_is_that_of_the_contract(dataplane: Dataplane, policies: list[Stored]) -> None:
    mesh = Mesh.model_validate(
        {"name": "default", "tracing": {"backends": [{"name": name, "type": "zipkin"} for name in ("one", "two")]}}
    )
    traces = [cast(tuple[DataplanePolicy, datetime], each) for each in policies if isinstance(each[0], TrafficTrace)]
    winner = policies_naive.dataplane_winner(traces, dataplane)
    expected = []
    if winner is not None:
        assert isinstance(winner, TrafficTrace)
        backend = winner.settings_in(mesh).backend
        expected = [None if backend is None else backend.name]
    bindings = registry(mesh, [dataplane], policies).bindings(DataplaneId("default", dataplane.name))
    assert [each.conf.get("backend", {}).get("name") for each in bindings.proxy] == expected


@_patient
@given(_worlds, _policies, _meshes | st.none(), _meshes | st.none())
def test_a_change_of_the_mesh_touches_those_for_whom_it_counts(
    world: list[Dataplane], policies: list[Stored], before: Mesh | None, after: Mesh | None
) -> None:
    made = registry(before, world, policies)
    was = outcomes(made, world)
    key = ResourceKey("Mesh", "", "default")
    affected = made.apply([Change(key, None) if after is None else change(after)])
    now = outcomes(made, world)
    assert now == outcomes(registry(after, world, policies), world)
    assert {each.name for each in affected.bound} == {name for name in was if was[name] != now[name]}
    assert not affected.proxies


@_patient
@given(_worlds, _policies, _meshes, st.builds(trace, _names, _selectors, _backends), times, st.booleans())
def test_a_change_of_a_trace_touches_those_for_whom_it_counts(
    world: list[Dataplane], policies: list[Stored], mesh: Mesh, written: Resource, created: datetime, goes: bool
) -> None:
    made = registry(mesh, world, policies)
    was = outcomes(made, world)
    affected = made.apply([Change(written.key, None) if goes else change(written, created)])
    now = outcomes(made, world)
    assert {each.name for each in affected.bound} == {name for name in was if was[name] != now[name]}


def test_what_passes_through_is_a_destination_of_those_whose_traffic_is_redirected() -> None:
    mesh = Mesh.model_validate({"name": "default", "logging": {"backends": [{"name": "one", "type": "file"}]}})
    proxying = {"redirectPortInbound": 15006, "redirectPortOutbound": 15001}
    inbound = [{"port": 80, "tags": {"kuma.io/service": "a"}}]
    world = [
        cast(
            Dataplane,
            parse(
                {
                    "type": "Dataplane",
                    "mesh": "default",
                    "name": name,
                    "networking": {"address": "10.0.0.1", "inbound": inbound, **networking},
                }
            ),
        )
        for name, networking in (("redirected", {"transparentProxying": proxying}), ("plain", {}))
    ]
    made = registry(mesh, world, [])
    affected = made.apply([change(log("p1", "*", "pass_through", "one"))])
    assert {each.name for each in affected.bound} == {"redirected"}
    found = made.bindings(DataplaneId("default", "redirected")).outbound("pass_through")
    assert [each.kind for each in found] == [TrafficLog.type.name]
