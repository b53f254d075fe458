"""A collection holds what the assignment of the same endpoints does, whatever came and went, and knows what did."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kumafast.generation.endpoints import collection_assignment
from kumafast.snapshot import EndpointEntry, Layer, LoadAssignment
from kumafast.snapshot.collection import Collection, CollectionPointer

# Few contents, so that some endpoints are the same.
_entries = st.builds(
    lambda zone, number: EndpointEntry.of(zone=zone, order=number, lb_endpoint=b"%d" % number * (1 + number * 40)),
    st.sampled_from(["", "east", "z" * 200]),
    st.integers(0, 8),
)


def read(layer: Layer) -> tuple[CollectionPointer, list[Collection]]:
    pointer, *rest = layer
    assert isinstance(pointer, CollectionPointer)
    collections = [resource for resource in rest if isinstance(resource, Collection)]
    assert [collection.name for collection in collections] == list(pointer.collections)
    return pointer, collections


@given(st.lists(st.tuples(st.lists(_entries, max_size=6), st.sets(st.integers(0, 20))), max_size=8))
def test_any_comings_and_goings_are_those_of_a_fresh_one(batches: list[tuple[list[EndpointEntry], set[int]]]) -> None:
    kept = LoadAssignment("backend")
    held: list[EndpointEntry] = []
    before: dict[str, Collection] = {}
    for added, gone in batches:
        removed = [entry for number, entry in enumerate(held) if number in gone]
        held = [entry for number, entry in enumerate(held) if number not in gone] + added
        kept.alter(removed, added)
        pointer, collections = read(kept.collections(collection_assignment))
        fresh = LoadAssignment("backend")
        fresh.alter([], held)
        fresh_pointer, fresh_collections = read(fresh.collections(collection_assignment))
        assert (pointer.body, pointer.version) == (fresh_pointer.body, fresh_pointer.version)
        assert [(item.name, item.version, dict(item.members)) for item in collections] == [
            (item.name, item.version, dict(item.members)) for item in fresh_collections
        ]
        assert {body for item in collections for body in item.members.values()} == {item.lb_endpoint for item in held}
        for collection in collections:
            if collection.name in before:
                since = before[collection.name].members
                came, went = collection.since(since)
                assert set(came) == set(collection.members) - set(since)
                assert set(went) == set(since) - set(collection.members)
        before = {item.name: item for item in collections}


def test_one_change_of_a_large_collection_is_not_looked_for() -> None:
    assignment = LoadAssignment("backend")
    entries = [EndpointEntry.of(zone="", order=number, lb_endpoint=b"%d" % number) for number in range(1_000)]
    assignment.alter([], entries)
    _, (before,) = read(assignment.collections(collection_assignment))
    assignment.alter([entries[5]], [])
    _, (after,) = read(assignment.collections(collection_assignment))
    # Known from the change itself: no walk through the members.
    assert id(before.members) in after._differences
    came, went = after.since(before.members)
    assert (len(came), len(went)) == (0, 1)
