"""Endpoints spliced from bytes are what protobuf writes for all of them, byte for byte, whatever came and went."""

from __future__ import annotations

import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from hypothesis import given
from hypothesis import strategies as st

from kumafast.generation.endpoints import lb_endpoint, load_assignment, order
from kumafast.generation.proxy import Endpoint, EndpointSet
from kumafast.snapshot import EndpointEntry, LoadAssignment
from kumafast.snapshot.load_assignment import Place

_tags = st.lists(st.tuples(st.sampled_from(["version", "env", "é"]), st.sampled_from(["", "1", "2"])), max_size=2).map(
    lambda pairs: tuple(sorted(dict(pairs).items()))
)
_endpoints = st.builds(
    Endpoint,
    address=st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.10", "::1"]),
    port=st.sampled_from([1, 80, 300, 65535]),
    tags=_tags,
    labels=_tags,
    zone=st.sampled_from(["", "east", "west", "z" * 200]),
    weight=st.sampled_from([1, 7]),
)


def entry(endpoint: Endpoint) -> EndpointEntry:
    return EndpointEntry.of(zone=endpoint.zone, order=order(endpoint), lb_endpoint=lb_endpoint(endpoint))


def by_protobuf(cluster_name: str, endpoints: list[Endpoint]) -> bytes:
    part = EndpointSet(cluster_name=cluster_name, endpoints=tuple(sorted(endpoints, key=order)))
    body: bytes = load_assignment(part).SerializeToString(deterministic=True)
    return body


def spliced(assignment: LoadAssignment) -> bytes:
    (resource,) = assignment.layer()
    return resource.body


@given(
    cluster_name=st.sampled_from(["backend", "b" * 300]),
    batches=st.lists(st.tuples(st.lists(_endpoints, max_size=20), st.sets(st.integers(0, 60))), max_size=6),
)
def test_any_comings_and_goings_give_the_bytes_of_protobuf(
    cluster_name: str, batches: list[tuple[list[Endpoint], set[int]]]
) -> None:
    assignment = LoadAssignment(cluster_name)
    held: list[Endpoint] = []
    for added, gone in batches:
        removed = [endpoint for number, endpoint in enumerate(held) if number in gone]
        held = [endpoint for number, endpoint in enumerate(held) if number not in gone] + added
        assignment.alter([entry(endpoint) for endpoint in removed], [entry(endpoint) for endpoint in added])
        assert spliced(assignment) == by_protobuf(cluster_name, held)


_places = st.tuples(
    st.sampled_from(["", "east"]), st.sampled_from(["", "rack=1"]), st.integers(0, 2), st.sampled_from([0, 1, 900])
)


def placed_by_protobuf(
    cluster_name: str, held: list[tuple[Endpoint, Place]], overprovisioning: int
) -> endpoint_pb2.ClusterLoadAssignment:
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster_name)
    for place in sorted({place for _, place in held}):
        zone, sub_zone, priority, weight = place
        locality = assignment.endpoints.add(priority=priority)
        if zone or sub_zone:
            locality.locality.zone, locality.locality.sub_zone = zone, sub_zone
        if weight:
            locality.load_balancing_weight.value = weight
        for endpoint in sorted((each for each, where in held if where == place), key=order):
            locality.lb_endpoints.add().MergeFromString(lb_endpoint(endpoint))
    if overprovisioning:
        assignment.policy.overprovisioning_factor.value = overprovisioning
    return assignment


@given(
    st.dictionaries(_endpoints, st.none() | _places, max_size=20),
    st.sets(st.integers(0, 20)),
    st.sampled_from([0, 140, 200]),
)
def test_who_sees_endpoints_in_places_of_their_own_gets_the_bytes_of_protobuf_too(
    places: dict[Endpoint, Place | None], gone: set[int], overprovisioning: int
) -> None:
    by_order = {order(endpoint): place for endpoint, place in places.items()}
    assignment = LoadAssignment("backend", place=lambda entry: by_order[entry.order], overprovisioning=overprovisioning)
    # Where two have one order in different zones, one place is known for both.
    known = {endpoint: by_order[order(endpoint)] for endpoint in places}
    held = [(endpoint, place) for endpoint, place in known.items() if place is not None]
    assignment.alter([], [entry(endpoint) for endpoint in known])
    expected = placed_by_protobuf("backend", held, overprovisioning)
    assert spliced(assignment) == expected.SerializeToString(deterministic=True)
    assert spliced(assignment.copy()) == spliced(assignment)
    leaving = [endpoint for number, endpoint in enumerate(known) if number in gone]
    assignment.alter([entry(endpoint) for endpoint in leaving], [])
    rest = [(endpoint, place) for endpoint, place in held if endpoint not in leaving]
    expected = placed_by_protobuf("backend", rest, overprovisioning)
    assert spliced(assignment) == expected.SerializeToString(deterministic=True)


def test_single_changes_of_a_large_service_keep_its_order() -> None:
    endpoints = [
        Endpoint(address=f"10.0.{number >> 8}.{number & 255}", port=80, tags=(), labels=(), zone=f"z{number % 3}")
        for number in range(1_000)
    ]
    assignment = LoadAssignment("backend")
    assignment.alter([], [entry(endpoint) for endpoint in endpoints[100:]])
    for endpoint in endpoints[:100]:
        assignment.alter([], [entry(endpoint)])
    assert spliced(assignment) == by_protobuf("backend", endpoints)
    for endpoint in endpoints[::7]:
        assignment.alter([entry(endpoint)], [])
    assert spliced(assignment) == by_protobuf("backend", [e for n, e in enumerate(endpoints) if n % 7])


def test_what_is_not_there_cannot_be_taken_away() -> None:
    here = Endpoint(address="10.0.0.1", port=80, tags=(), labels=(), zone="east")
    assignment = LoadAssignment("backend")
    assignment.alter([], [entry(here)])
    before = spliced(assignment)
    for port, zone in [(81, "east"), (80, "west")]:
        elsewhere = Endpoint(address="10.0.0.1", port=port, tags=(), labels=(), zone=zone)
        with pytest.raises(KeyError, match="no such endpoint"):
            assignment.alter([entry(elsewhere)], [])
    assert spliced(assignment) == before
