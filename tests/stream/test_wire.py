"""What goes over the wire means to protobuf's own library what was meant; what comes is read as it reads it."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles import field_naive

from kumafast._core import cut_field
from kumafast.snapshot import XdsResource
from kumafast.snapshot.node import Node
from kumafast.stream import wire
from kumafast.stream.messages import ProtocolError, Request, Response, Variant

TEXT = st.text(max_size=200)
RESOURCES = st.lists(st.builds(XdsResource, TEXT, TEXT, st.binary(max_size=300), version=TEXT), max_size=4)


@given(TEXT, TEXT, TEXT, RESOURCES, st.lists(TEXT, max_size=4), TEXT)
def test_responses_mean_what_protobuf_would_write(
    type_url: str, version: str, nonce: str, resources: list[XdsResource], removed: list[str], instance_id: str
) -> None:
    delta = discovery_pb2.DeltaDiscoveryResponse(
        type_url=type_url, system_version_info=version, nonce=nonce, removed_resources=removed
    )
    sotw = discovery_pb2.DiscoveryResponse(type_url=type_url, version_info=version, nonce=nonce)
    for message in (delta, sotw):
        message.control_plane.identifier = instance_id
        message.control_plane.SetInParent()
    for item in resources:
        body = any_pb2.Any(type_url=item.type_url, value=item.body)
        delta.resources.add(name=item.name, version=item.version, resource=body)
        sotw.resources.append(body)
    for _ in range(2):  # The second time from what was kept of the first.
        encoded = wire.encode(
            Response(type_url, version, nonce, resources, removed), Variant.DELTA, instance_id=instance_id
        )
        assert discovery_pb2.DeltaDiscoveryResponse.FromString(encoded) == delta
        assert len(encoded) == delta.ByteSize()
        encoded = wire.encode(Response(type_url, version, nonce, resources), Variant.SOTW, instance_id=instance_id)
        assert discovery_pb2.DiscoveryResponse.FromString(encoded) == sotw
        assert len(encoded) == sotw.ByteSize()


@given(TEXT, st.lists(TEXT, max_size=5), TEXT, TEXT, st.none() | TEXT)
def test_sotw_requests(type_url: str, names: list[str], version: str, nonce: str, error: str | None) -> None:
    message = discovery_pb2.DiscoveryRequest(
        type_url=type_url, resource_names=names, version_info=version, response_nonce=nonce
    )
    message.node.id = "n"
    if error is not None:
        message.error_detail.message = error
        message.error_detail.SetInParent()
    data = message.SerializeToString()
    node, rest = cut_field(data, 2)
    assert wire.decode_node(node or b"") == wire.find_node(data, Variant.SOTW) == Node(id="n")
    assert (
        wire.decode(rest, Variant.SOTW)
        == wire.decode(data, Variant.SOTW)
        == Request(
            type_url=type_url,
            names=tuple(names),
            version=version,
            nonce=nonce,
            error=error,
        )
    )


@given(TEXT, st.lists(TEXT, max_size=5), st.lists(TEXT, max_size=5), st.dictionaries(TEXT, TEXT))
def test_delta_requests(nonce: str, subscribe: list[str], unsubscribe: list[str], versions: dict[str, str]) -> None:
    message = discovery_pb2.DeltaDiscoveryRequest(
        type_url="t",
        resource_names_subscribe=subscribe,
        resource_names_unsubscribe=unsubscribe,
        initial_resource_versions=versions,
        response_nonce=nonce,
    )
    message.node.cluster = "c"
    data = message.SerializeToString()
    node, rest = cut_field(data, 1)
    assert wire.decode_node(node or b"") == wire.find_node(data, Variant.DELTA) == Node(id="", cluster="c")
    assert (
        wire.decode(rest, Variant.DELTA)
        == wire.decode(data, Variant.DELTA)
        == Request(
            type_url="t",
            subscribe=tuple(subscribe),
            unsubscribe=tuple(unsubscribe),
            initial_versions=versions,
            nonce=nonce,
        )
    )


def test_node_is_read_as_plain_values() -> None:
    message = discovery_pb2.DeltaDiscoveryRequest(type_url="t")
    message.node.id = "default.web-1"
    message.node.user_agent_name = "envoy"
    message.node.user_agent_build_version.version.major_number = 1
    message.node.user_agent_build_version.version.minor_number = 40
    message.node.metadata.update({"a": {"b": [1, "x", None, True]}, "nan": float("nan"), "empty": {}})
    node = wire.find_node(message.SerializeToString(), Variant.DELTA)
    assert node is not None
    assert (node.id, node.user_agent_name, node.user_agent_version) == ("default.web-1", "envoy", "1.40.0")
    assert node.metadata["a"] == {"b": [1.0, "x", None, True]}
    assert node.metadata["empty"] == {}
    assert str(node.metadata["nan"]) == "nan"
    message.node.user_agent_version = "2"
    node = wire.find_node(message.SerializeToString(), Variant.DELTA)
    assert node is not None
    assert node.user_agent_version == "2"


@pytest.mark.parametrize("variant", Variant)
def test_later_nodes_are_not_looked_at(variant: Variant) -> None:
    """A node of 61 kB comes with every ACK of some clients: skipping it is not parsing it (rules 2, 6)."""
    kind = discovery_pb2.DiscoveryRequest if variant is Variant.SOTW else discovery_pb2.DeltaDiscoveryRequest
    message = kind(type_url="t", response_nonce="7")
    message.node.extensions.add(name="\u00e4" * 30_000)
    data = message.SerializeToString()
    # Broken inside the node, where only a parser would notice.
    broken = data.replace("\u00e4".encode(), b"\xff\xff")
    node, rest = cut_field(broken, 2 if variant is Variant.SOTW else 1)
    assert wire.decode(rest, variant) == Request(type_url="t", nonce="7")
    with pytest.raises(ProtocolError):
        wire.find_node(broken, variant)
    with pytest.raises(ProtocolError):
        wire.decode_node(node or b"")


@given(st.binary(max_size=60), st.sampled_from(Variant))
def test_any_bytes_are_a_request_or_a_protocol_error(data: bytes, variant: Variant) -> None:
    """Fuzzed bytes end in nothing else (rule 55)."""
    for read in (wire.decode, wire.find_node, lambda data, _: wire.decode_node(data)):
        with suppress(ProtocolError):
            read(data, variant)


FIELDS = st.builds(
    lambda number, content: bytes((number << 3 | 2, len(content))) + content, st.integers(1, 6), st.binary(max_size=20)
)


@given(st.lists(FIELDS | st.binary(max_size=12), max_size=7).map(b"".join), st.integers(1, 6))
def test_field_is_cut_out_as_the_long_way_would(data: bytes, number: int) -> None:
    assert cut_field(data, number) == field_naive.cut_field(data, number)


def test_deeply_nested_metadata_is_refused_or_read() -> None:
    message = discovery_pb2.DeltaDiscoveryRequest()
    value = message.node.metadata.fields["deep"]
    for _ in range(30):
        value = value.struct_value.fields["x"]
    value.bool_value = True
    assert wire.find_node(message.SerializeToString(), Variant.DELTA) is not None


def test_endless_varint_costs_nothing() -> None:
    began = time.perf_counter()
    with pytest.raises(ProtocolError):
        wire.decode(cut_field(b"\x80" * 5_000_000, 1)[1], Variant.DELTA)
    assert time.perf_counter() - began < 1
