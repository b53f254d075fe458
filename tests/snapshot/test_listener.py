"""A listener that is put together from bytes is what protobuf writes."""

from __future__ import annotations

import pytest
from envoy.config.listener.v3 import listener_pb2

from kumafast.snapshot.encoding import encode
from kumafast.snapshot.listener import placed_listener

_REST = listener_pb2.Listener(
    filter_chains=[{"name": "chain"}], metadata={"filter_metadata": {"io.kuma.tags": {}}}, traffic_direction=1
)


@pytest.mark.parametrize("rest", [listener_pb2.Listener(), _REST], ids=["empty", "full"])
@pytest.mark.parametrize("port", [0, 1, 127, 128, 16_383, 16_384, 65_535])
@pytest.mark.parametrize(
    ("name", "address"),
    [("inbound:10.0.0.1:80", "10.0.0.1"), ("inbound:[::1]:80", "::1"), ("n" * 200, "a" * 300), ("é", "")],
)
def test_it_is_what_protobuf_writes(name: str, address: str, port: int, rest: listener_pb2.Listener) -> None:
    whole = listener_pb2.Listener(name=name)
    whole.address.socket_address.address = address
    whole.address.socket_address.port_value = port
    whole.MergeFrom(rest)
    placed, encoded = placed_listener(name, address, port, rest.SerializeToString(deterministic=True)), encode(whole)
    assert placed == encoded
    assert placed.body == encoded.body
