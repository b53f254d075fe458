"""Generation is a function: equal parts give equal bytes, in every process, and what differs in a part shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import timedelta
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generation.scenarios import SCENARIOS, messages, parts

from kumafast.generation.generate import generate, generator_name
from kumafast.generation.policies.mesh_timeout import InboundTimeouts, OutboundTimeouts
from kumafast.generation.proxy import (
    AdminInterface,
    Destination,
    Endpoint,
    EndpointSet,
    Inbound,
    Outbound,
    Part,
    Tags,
    TransparentProxy,
)
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.resource import CLUSTER, XdsResource

# Machines are shared: how long one example takes says nothing.
_patient = settings(deadline=None)

_words = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=12)
_ports = st.integers(1, 65535)
_addresses = st.ip_addresses().map(str)
_tags: st.SearchStrategy[Tags] = st.dictionaries(_words, _words, max_size=4).map(
    lambda tags: tuple(sorted(tags.items()))
)
# http2 is left out: towards other sidecars it is the same as http.
_http = st.sampled_from(["http", "grpc"])

_limits = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650))
_inbounds = st.builds(
    Inbound,
    address=_addresses,
    port=_ports,
    service_address=_addresses,
    service_port=_ports,
    service=_words,
    protocol=_http,
    tags=_tags,
    binds_to_port=st.booleans(),
    reuses_port=st.booleans(),
    effects=st.tuples(st.builds(InboundTimeouts, request=_limits, connect=_limits, idle=_limits)),
)
_outbounds = st.builds(
    Outbound,
    address=_addresses,
    port=_ports,
    service=_words,
    protocol=_http,
    tags=_tags,
    cluster_name=_words,
    binds_to_port=st.booleans(),
    reuses_port=st.booleans(),
    effects=st.tuples(st.builds(OutboundTimeouts, request=_limits, stream_idle=_limits, request_headers=_limits)),
)
_endpoints = st.builds(
    Endpoint,
    address=_addresses,
    port=_ports,
    tags=_tags,
    labels=_tags,
    zone=st.sampled_from(["", "east", "west"]),
    weight=st.integers(1, 100),
)


def _in_order(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(sorted(endpoints, key=lambda endpoint: (endpoint.address, endpoint.port)))


_endpoint_sets = st.builds(
    EndpointSet,
    cluster_name=_words,
    endpoints=st.lists(_endpoints, max_size=8, unique_by=lambda e: (e.address, e.port)).map(_in_order),
)
_transparents = st.builds(
    TransparentProxy,
    redirect_port_inbound=_ports,
    redirect_port_outbound=_ports,
    has_ipv6=st.booleans(),
    reuses_port=st.booleans(),
)
# The kinds of part of which every field shows in what is generated.
_telling_parts: st.SearchStrategy[Part] = st.one_of(_inbounds, _outbounds, _endpoint_sets, _transparents)


def _with(part: Part, **values: Any) -> Part:
    changed: Any = replace(part, **values)
    assert isinstance(changed, type(part))
    return changed


def _encoded(part: Part) -> list[tuple[XdsResource, bytes]]:
    return [(resource, resource.body) for resource in map(encode, generate(part))]


@_patient
@given(_telling_parts)
def test_equal_parts_give_equal_bytes(part: Part) -> None:
    assert _encoded(part) == _encoded(replace(part))


@pytest.mark.parametrize("kind", [_inbounds, _outbounds, _endpoint_sets, _transparents], ids=lambda kind: None)
@_patient
@given(data=st.data())
def test_every_field_that_differs_shows(kind: st.SearchStrategy[Part], data: st.DataObject) -> None:
    one, other = data.draw(kind), data.draw(kind)
    field = data.draw(st.sampled_from([field.name for field in fields(one) if field.init]))
    changed = _with(one, **{field: getattr(other, field)})
    assert (_encoded(one) == _encoded(changed)) == (one == changed)


@_patient
@given(_endpoints, _endpoints, st.data())
def test_every_field_of_an_endpoint_that_differs_shows(one: Endpoint, other: Endpoint, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from([field.name for field in fields(one) if field.init]))
    values: dict[str, Any] = {field: getattr(other, field)}
    changed = replace(one, **values)
    sets = [EndpointSet(cluster_name="backend", endpoints=(endpoint,)) for endpoint in (one, changed)]
    assert (_encoded(sets[0]) == _encoded(sets[1])) == (one == changed)


@_patient
@given(_endpoint_sets)
def test_a_load_assignment_holds_each_endpoint_once_by_zone_in_order(endpoint_set: EndpointSet) -> None:
    (assignment,) = generate(endpoint_set)
    expected = [
        (zone, endpoint.address, endpoint.port, endpoint.weight)
        for zone in ("", "east", "west")
        for endpoint in endpoint_set.endpoints
        if endpoint.zone == zone
    ]
    found = [
        (locality.locality.zone, at.address, at.port_value, lb_endpoint.load_balancing_weight.value)
        for locality in assignment.endpoints  # type: ignore[attr-defined]
        for lb_endpoint in locality.lb_endpoints
        for at in [lb_endpoint.endpoint.address.socket_address]
    ]
    assert found == expected


@_patient
@given(_inbounds)
def test_only_redirected_traffic_to_another_address_comes_from_the_sidecars_own(inbound: Inbound) -> None:
    cluster, _ = generate(inbound)
    address = ip_address(inbound.service_address)
    source = cluster.upstream_bind_config.source_address.address  # type: ignore[attr-defined]
    if inbound.binds_to_port or address.is_loopback:
        assert source == ""
    else:
        assert source == ("127.0.0.6" if address.version == 4 else "::6")


def test_names_are_unique_within_all_scenarios() -> None:
    for scenario in SCENARIOS:
        keys = [(resource.type_url, resource.name) for resource in map(encode, messages(scenario))]
        assert len(keys) == len(set(keys)), scenario


def test_protocols_that_envoy_cannot_read_are_bytes_alike() -> None:
    (inbound,) = parts("inbound-tcp")
    bodies = {encode(generate(_with(inbound, protocol=p))[1]).body for p in ("tcp", "tls", "kafka", "unknown", "")}
    assert len(bodies) == 1


def test_a_direction_that_is_not_redirected_has_neither_listener_nor_cluster() -> None:
    transparent = TransparentProxy(redirect_port_inbound=0, redirect_port_outbound=15001, has_ipv6=True)
    assert [encode(message).name for message in generate(transparent)] == [
        *["outbound:passthrough:ipv4", "outbound:passthrough:ipv6"] * 2
    ]


def test_http2_is_spoken_to_a_workload_that_speaks_it() -> None:
    (inbound,) = parts("inbound-http")
    bodies = {p: encode(generate(_with(inbound, protocol=p))[0]).body for p in ("http", "http2", "grpc")}
    assert bodies["http2"] == bodies["grpc"]
    assert bodies["http"] != bodies["http2"]


def test_a_proxy_without_admin_interface_has_none() -> None:
    assert generate(AdminInterface(socket_path=None, address=None, port=None, readiness_port=None)) == ()


def test_every_kind_of_part_has_a_generator_of_its_own_name() -> None:
    kinds = {type(part): generator_name(part) for scenario in SCENARIOS for part in parts(scenario)}
    assert set(kinds) == set(get_args(Part))
    assert kinds[Destination] == "destination"
    assert all(one != other for one, other in combinations(kinds.values(), 2))


def test_clusters_come_before_the_listeners_that_need_them() -> None:
    for scenario in SCENARIOS:
        for part in parts(scenario):
            is_cluster = [encode(message).type_url == CLUSTER for message in generate(part)]
            assert is_cluster == sorted(is_cluster, reverse=True)


_PROGRAM = """
from tests.generation.scenarios import SCENARIOS, messages
from kumafast.snapshot.encoding import encode
for scenario in SCENARIOS:
    for message in messages(scenario):
        print(encode(message).version)
"""


def test_versions_are_the_same_in_every_process() -> None:
    def versions(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _PROGRAM]
        root = Path(__file__).parents[2]
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout

    ours = "".join(f"{encode(message).version}\n" for scenario in SCENARIOS for message in messages(scenario))
    assert versions("1") == versions("2") == ours
