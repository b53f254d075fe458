"""From Envoy's messages to bytes with names and versions: the only place of this stage that knows protobuf.

In: a protobuf message that is a resource. Out: `XdsResource`, and back. Never: what the message says beyond its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from kumafast.snapshot.resource import CLUSTER, LISTENER, XdsResource

_TYPE_URL_PREFIX = "type.googleapis.com/"
# A ClusterLoadAssignment has no name of its own: it goes by its cluster's.
_NAME_FIELDS = ("name", "cluster_name")

_DECODED: Mapping[str, type[Message]] = {CLUSTER: cluster_pb2.Cluster, LISTENER: listener_pb2.Listener}


def encode(message: Message) -> XdsResource:
    """The resource as it goes over the wire. Equal messages give equal bytes, so an equal version, in every process.

    Raises ValueError for a message that has no name, as nobody could subscribe to it.
    """
    field, type_url = _kind(message.DESCRIPTOR)
    name = getattr(message, field)
    if not name:
        raise ValueError(f"a {message.DESCRIPTOR.full_name} without a name cannot be sent")
    # Without `deterministic` the order of map entries is left to chance, and with it the version.
    return XdsResource(type_url, name, message.SerializeToString(deterministic=True))


@cache
def _kind(descriptor: Descriptor) -> tuple[str, str]:
    """The field that resources of a kind are named by, and their type URL."""
    for field in _NAME_FIELDS:
        if field in descriptor.fields_by_name:
            return field, _TYPE_URL_PREFIX + descriptor.full_name
    raise ValueError(f"{descriptor.full_name} is not a resource: it has no field for a name")


def decode(resource: XdsResource) -> Message:
    """The message of a cluster or listener, a new one each time; KeyError for other types."""
    return _DECODED[resource.type_url].FromString(resource.body)
