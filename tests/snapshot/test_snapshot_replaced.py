"""A snapshot that is made from another is what its layers say, whatever was looked at before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kumafast.snapshot import Layer, Snapshot, XdsResource
from kumafast.snapshot.resource import CLUSTER, ENDPOINT

_resources = st.builds(
    XdsResource, st.sampled_from([CLUSTER, ENDPOINT]), st.sampled_from("abc"), st.sampled_from([b"1", b"2"])
)
_layers = st.lists(_resources, max_size=3).map(Layer)


@given(
    layers=st.lists(_layers, min_size=1, max_size=5),
    changes=st.lists(st.dictionaries(st.integers(0, 4), _layers, max_size=3), max_size=4),
    looks=st.booleans(),
)
def test_it_equals_one_made_anew(layers: list[Layer], changes: list[dict[int, Layer]], looks: bool) -> None:
    snapshot = Snapshot(layers, default_version="7")
    for change in changes:
        if looks:
            for type_url in (CLUSTER, ENDPOINT):
                snapshot.digest(type_url)
                snapshot.resource_versions(type_url)
        before = {type_url: dict(snapshot.resources(type_url)) for type_url in (CLUSTER, ENDPOINT)}
        replaced = {place: layer for place, layer in change.items() if place < len(layers)}
        newer = snapshot.replaced(replaced)
        for type_url, resources in before.items():
            assert snapshot.resources(type_url) == resources
        anew = Snapshot(newer.layers, default_version="7")
        for type_url in (CLUSTER, ENDPOINT):
            assert list(newer.resources(type_url).items()) == list(anew.resources(type_url).items())
            assert newer.resource_versions(type_url) == anew.resource_versions(type_url)
            assert newer.digest(type_url) == anew.digest(type_url)
            assert newer.version(type_url) == "7"
        assert newer.has_content_of(anew)
        assert newer.has_content_of(snapshot) == Snapshot(newer.layers).has_content_of(Snapshot(snapshot.layers))
        snapshot = newer


def test_what_is_not_replaced_is_shared() -> None:
    cluster = Layer([XdsResource(CLUSTER, "a", b"1")])
    endpoints = [Layer([XdsResource(ENDPOINT, "a", body)]) for body in (b"1", b"2")]
    snapshot = Snapshot([cluster, endpoints[0]])
    newer = snapshot.replaced({1: endpoints[1]})
    assert newer.resources(CLUSTER) is snapshot.resources(CLUSTER)
    assert newer.layers == (cluster, endpoints[1])
