"""From Envoy's messages to bytes with names and versions: the only place of this stage that knows protobuf.

In: a protobuf message that is a resource. Out: `XdsResource`. Never: what the message says beyond its name.
"""

from __future__ import annotations

from google.protobuf.message import Message

from kumafast.snapshot.resource import XdsResource

_TYPE_URL_PREFIX = "type.googleapis.com/"
# A ClusterLoadAssignment has no name of its own: it goes by its cluster's.
_NAME_FIELDS = ("name", "cluster_name")


def encode(message: Message) -> XdsResource:
    """The resource as it goes over the wire. Equal messages give equal bytes, so an equal version, in every process.

    Raises ValueError for a message that has no name, as nobody could subscribe to it.
    """
    descriptor = message.DESCRIPTOR
    for field in _NAME_FIELDS:
        if field in descriptor.fields_by_name:
            name = getattr(message, field)
            break
    else:
        raise ValueError(f"{descriptor.full_name} is not a resource: it has no field for a name")
    if not name:
        raise ValueError(f"a {descriptor.full_name} without a name cannot be sent")
    # Without `deterministic` the order of map entries is left to chance, and with it the version.
    return XdsResource(_TYPE_URL_PREFIX + descriptor.full_name, name, message.SerializeToString(deterministic=True))
