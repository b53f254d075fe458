"""Resources, snapshots and the cache: what is equal, what has moved, who is woken."""

from __future__ import annotations

import pytest
import xxhash
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from hypothesis import given
from hypothesis import strategies as st

from kumafast.snapshot import Layer, Snapshot, SnapshotCache, XdsResource
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.framing import varint
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER
from kumafast.snapshot.snapshot import digest_of

CONTENT = st.dictionaries(st.sampled_from("abcdef"), st.binary(max_size=2), max_size=5)


def snapshot_of(content: dict[str, bytes], type_url: str = CLUSTER) -> Snapshot:
    return Snapshot.of(*(XdsResource(type_url, name, body) for name, body in content.items()))


def test_version_is_the_digest_of_the_bytes() -> None:
    """One version, one content, on every instance and after every restart (rule 19)."""
    resource = XdsResource(CLUSTER, "a", b"body")
    assert resource.version == xxhash.xxh3_128_hexdigest(b"body")
    assert resource == XdsResource(CLUSTER, "a", b"body")
    assert hash(resource) == hash(XdsResource(CLUSTER, "a", b"body"))
    others = [
        XdsResource(CLUSTER, "a", b"other"),
        XdsResource(CLUSTER, "b", b"body"),
        XdsResource(ENDPOINT, "a", b"body"),
    ]
    assert resource not in others
    assert resource != "a"


def test_version_may_say_what_a_resource_is() -> None:
    assert XdsResource(CLUSTER, "a", b"1", version="ca") == XdsResource(CLUSTER, "a", b"2", version="ca")


def test_messages_are_encoded_with_their_names() -> None:
    cluster = cluster_pb2.Cluster(name="backend")
    assert (encode(cluster).type_url, encode(cluster).name) == (CLUSTER, "backend")
    assert cluster_pb2.Cluster.FromString(encode(cluster).body) == cluster
    assert encode(endpoint_pb2.ClusterLoadAssignment(cluster_name="backend")).name == "backend"
    with pytest.raises(ValueError, match="without a name"):
        encode(cluster_pb2.Cluster())
    with pytest.raises(ValueError, match="not a resource"):
        encode(address_pb2.Address())


@given(CONTENT, CONTENT)
def test_digests_are_equal_where_content_is(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    """A type's version belongs to its content, whatever the order and however it came about (rule 18)."""
    left, right = snapshot_of(one), snapshot_of(dict(reversed(other.items())))
    assert (left.version(CLUSTER) == right.version(CLUSTER)) == (one == other)
    assert left.has_content_of(right) == (one == other)
    assert right.has_content_of(left) == (one == other)
    assert left.version(LISTENER) == right.version(LISTENER)
    assert left.digest(CLUSTER) == digest_of(left.resources(CLUSTER))


def test_content_differs_by_type() -> None:
    assert not snapshot_of({"a": b""}).has_content_of(snapshot_of({"a": b""}, LISTENER))
    assert not snapshot_of({"a": b""}).has_content_of(Snapshot())


def test_later_layer_counts() -> None:
    shared = Layer([XdsResource(CLUSTER, "a", b"1"), XdsResource(CLUSTER, "b", b"1")])
    own = Layer([XdsResource(CLUSTER, "a", b"2"), XdsResource(ENDPOINT, "a", b"3")])
    snapshot = Snapshot([shared, own])
    assert {name: resource.body for name, resource in snapshot.resources(CLUSTER).items()} == {"a": b"2", "b": b"1"}
    assert set(snapshot.type_urls) == {CLUSTER, ENDPOINT}
    assert snapshot.resource_versions(CLUSTER) == {
        name: resource.version for name, resource in snapshot.resources(CLUSTER).items()
    }
    assert snapshot.has_content_of(Snapshot([shared, own]))
    assert not snapshot.has_content_of(Snapshot([own, shared]))


def test_versions_may_have_names() -> None:
    layer = Layer([XdsResource(CLUSTER, "a", b"1")])
    snapshot = Snapshot([layer], versions={CLUSTER: "9"}, default_version="7")
    assert (snapshot.version(CLUSTER), snapshot.version(ENDPOINT)) == ("9", "7")
    assert snapshot.digest(CLUSTER) == Snapshot([layer]).version(CLUSTER)
    assert snapshot.has_content_of(Snapshot([layer]))


def test_cache_wakes_those_whose_snapshot_has_moved() -> None:
    cache = SnapshotCache()
    woken: list[str] = []
    unwatch = cache.watch("a", lambda: woken.append("first"))
    cache.watch("a", lambda: woken.append("second"))
    cache.watch("b", lambda: woken.append("other"))
    first = snapshot_of({"x": b"1"})
    assert cache.get("a") is None
    assert cache.set("a", first)
    assert not cache.set("a", snapshot_of({"x": b"1"}))
    assert cache.get("a") is first
    assert woken == ["first", "second"]
    unwatch()
    unwatch()
    assert cache.set("a", snapshot_of({"x": b"2"}))
    assert woken == ["first", "second", "second"]
    cache.clear("a")
    cache.clear("a")
    assert cache.get("a") is None
    assert woken == ["first", "second", "second"]
    assert (len(cache), list(cache)) == (0, [])


def test_watcher_may_end_while_it_is_woken() -> None:
    cache = SnapshotCache()
    woken: list[str] = []

    def wake() -> None:
        woken.append("once")
        unwatch()

    unwatch = cache.watch("a", wake)
    cache.watch("a", lambda: woken.append("always"))
    cache.set("a", snapshot_of({"x": b"1"}))
    cache.set("a", snapshot_of({"x": b"2"}))
    assert woken == ["once", "always", "always"]


def test_equal_content_with_another_version_name_wakes_nobody() -> None:
    cache = SnapshotCache()
    woken: list[str] = []
    cache.watch("a", lambda: woken.append("woken"))
    layer = Layer([XdsResource(CLUSTER, "a", b"1")])
    assert cache.set("a", Snapshot([layer], default_version="1"))
    assert not cache.set("a", Snapshot([layer], default_version="2"))
    held = cache.get("a")
    assert held is not None
    assert held.version(CLUSTER) == "2"
    assert woken == ["woken"]


@given(st.integers(min_value=0, max_value=2**40))
def test_varint_reads_back(value: int) -> None:
    encoded = varint(value)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == value
    assert [byte >= 0x80 for byte in encoded] == [True] * (len(encoded) - 1) + [False]
