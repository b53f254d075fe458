"""A snapshot that is made from another is what its layers say, whatever was looked at before."""

from __future__ import annotations

import gc

from hypothesis import given
from hypothesis import strategies as st

from kumafast.snapshot import Layer, Snapshot, XdsResource
from kumafast.snapshot import snapshot as snapshots
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER

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
        # Equal resources that are not the same, so that nothing is known of them.
        copies = [Layer(XdsResource(each.type_url, each.name, each.body) for each in layer) for layer in newer.layers]
        anew = Snapshot(copies, default_version="7")
        for type_url in (CLUSTER, ENDPOINT):
            assert list(newer.resources(type_url).items()) == list(anew.resources(type_url).items())
            assert newer.resource_versions(type_url) == anew.resource_versions(type_url)
            assert newer.digest(type_url) == anew.digest(type_url)
            assert newer.version(type_url) == "7"
        assert newer.has_content_of(anew)
        assert newer.has_content_of(snapshot) == Snapshot(copies).has_content_of(Snapshot(snapshot.layers))
        snapshot = newer


def test_what_is_not_replaced_is_shared() -> None:
    cluster = Layer([XdsResource(CLUSTER, "a", b"1")])
    endpoints = [Layer([XdsResource(ENDPOINT, "a", body)]) for body in (b"1", b"2")]
    snapshot = Snapshot([cluster, endpoints[0]])
    newer = snapshot.replaced({1: endpoints[1]})
    assert newer.resources(CLUSTER) is snapshot.resources(CLUSTER)
    assert newer.layers == (cluster, endpoints[1])


def test_proxies_with_the_same_resources_share_what_is_known_of_them() -> None:
    shared, clusters = XdsResource(CLUSTER, "a", b"1"), Layer([XdsResource(CLUSTER, "b", b"1")])
    own = [Layer([shared, XdsResource(LISTENER, name, b"1")]) for name in "cd"]
    one, other = (Snapshot([layer, clusters]) for layer in own)
    assert one.content(CLUSTER) is other.content(CLUSTER)
    assert one.content(LISTENER) is not other.content(LISTENER)
    newer = Layer([XdsResource(CLUSTER, "b", b"2")])
    changed = one.replaced({1: newer})
    assert changed.content(CLUSTER) is other.replaced({1: newer}).content(CLUSTER)
    # Whoever comes next finds it as well, by another way.
    assert Snapshot([own[0], newer]).content(CLUSTER) is changed.content(CLUSTER)
    # Equal resources that are others are not the same.
    assert one.replaced({1: Layer([XdsResource(CLUSTER, "b", b"2")])}).content(CLUSTER) is not changed.content(CLUSTER)


def test_shared_contents_go_with_the_last_who_has_them() -> None:
    # What other tests have left in cycles would go in between.
    gc.collect()
    known = len(snapshots._SHARED)
    snapshot = Snapshot([Layer([XdsResource(CLUSTER, "a", b"1")])])
    first = snapshot.content(CLUSTER)
    assert len(snapshots._SHARED) == known + 1
    for body in (b"2", b"3"):
        snapshot = snapshot.replaced({0: Layer([XdsResource(CLUSTER, "a", body)])})
    # The first is held, and holds none of those that followed it but the last.
    assert len(snapshots._SHARED) == known + 2
    del first, snapshot
    gc.collect()
    assert len(snapshots._SHARED) == known
