"""Messages become resources: named, typed, and the same bytes whatever the order they were filled in."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from kumafast.snapshot.encoding import encode
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE, XdsResource

SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


@pytest.mark.parametrize(
    ("message", "type_url"),
    [
        (cluster_pb2.Cluster(name="a"), CLUSTER),
        (endpoint_pb2.ClusterLoadAssignment(cluster_name="a"), ENDPOINT),
        (listener_pb2.Listener(name="a"), LISTENER),
        (route_pb2.RouteConfiguration(name="a"), ROUTE),
        (secret_pb2.Secret(name="a"), SECRET),
    ],
)
def test_a_resource_has_the_type_and_the_name_of_its_message(message: Message, type_url: str) -> None:
    resource = encode(message)
    assert (resource.type_url, resource.name) == (type_url, "a")
    assert type(message).FromString(resource.body) == message


def test_the_order_in_which_a_map_was_filled_does_not_count() -> None:
    """Maps are written in one order, so that a version lasts over restarts (rule 19)."""
    keys = [f"key-{number}" for number in range(64)]

    def version(order: list[str]) -> str:
        struct = Struct(fields={key: Value(string_value=key) for key in order})
        metadata = base_pb2.Metadata(filter_metadata=dict.fromkeys(order, struct))
        return encode(cluster_pb2.Cluster(name="a", metadata=metadata)).version

    assert version(keys) == version(keys[::-1])


def test_other_content_has_another_version() -> None:
    versions = {encode(cluster_pb2.Cluster(name="a", alt_stat_name=name)).version for name in ("", "a", "b")}
    assert len(versions) == 3


def test_equal_messages_are_equal_resources() -> None:
    one, other = encode(cluster_pb2.Cluster(name="a")), encode(cluster_pb2.Cluster(name="a"))
    assert one == other
    assert one == XdsResource(CLUSTER, "a", one.body)


def test_a_message_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="without a name"):
        encode(cluster_pb2.Cluster())


def test_a_message_that_is_no_resource_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a resource"):
        encode(base_pb2.Metadata())
