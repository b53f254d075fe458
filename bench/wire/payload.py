"""What the wire's benchmark sends: endpoints of 2 KB, nodes as Envoy describes itself, and the floor's ready bytes.

In: sizes. Out: serialised messages, the same for the same sizes. Never: anything that a server could answer with less.
"""

from __future__ import annotations

import struct
from pathlib import Path

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message

TYPE_URL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
SHARED, OWN = "backend", "own"
VARIANTS = 3
"""So many contents of the shared resource take turns, so that each push is a change."""

# Some 24 bytes each: 2 KB in all.
_ENDPOINTS = 84
_EXTENSION_CATEGORIES = ("envoy.filters.http", "envoy.filters.network", "envoy.access_loggers", "envoy.clusters")


def _bytes_of(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def load_assignment(name: str, variant: int, endpoints: int = _ENDPOINTS) -> bytes:
    """A `ClusterLoadAssignment` of so many endpoints; variants differ in every address and not in size."""
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    locality = assignment.endpoints.add()
    locality.locality.zone = "zone-a"
    for at in range(endpoints):
        address = locality.lb_endpoints.add().endpoint.address.socket_address
        address.address, address.port_value = f"10.{variant % 200 + 10}.{at // 90}.{at % 90 + 10}", 8080
    return _bytes_of(assignment)


def node_id(number: int) -> str:
    """The id of the load client's node with this number."""
    return f"mesh.sidecar-{number:06}"


def node(size: int) -> bytes:
    """An Envoy's node of about `size` bytes; most of a real one is the list of its extensions."""
    described = base_pb2.Node(id=node_id(0), cluster="mesh", user_agent_name="envoy")
    described.user_agent_build_version.version.major_number = 1
    described.user_agent_build_version.version.minor_number = 40
    described.metadata.update({"dataplane.proxyType": "dataplane", "dynamicMetadata": {"version": "1.0"}})
    described.locality.zone = "zone-a"
    at = 0
    while described.ByteSize() < size:
        category = _EXTENSION_CATEGORIES[at % len(_EXTENSION_CATEGORIES)]
        extension = described.extensions.add(category=category, name=f"{category}.extension_{at}")
        extension.type_urls.append(f"{category}.extension_{at}.v3.Configuration")
        at += 1
    return _bytes_of(described)


def response(name: str, body: bytes, *, version: str) -> bytes:
    """A `DeltaDiscoveryResponse` with this resource, without a nonce: that is appended for each stream."""
    message = discovery_pb2.DeltaDiscoveryResponse(system_version_info=version, type_url=TYPE_URL)
    resource = message.resources.add(name=name, version=version)
    resource.resource.type_url, resource.resource.value = TYPE_URL, body
    return _bytes_of(message)


def nonce_field(nonce: str) -> bytes:
    """What makes a response this one: its nonce, as the field that is appended."""
    return _bytes_of(discovery_pb2.DeltaDiscoveryResponse(nonce=nonce))


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _push(variant: int) -> bytes:
    body = response(SHARED, load_assignment(SHARED, variant), version=f"{variant:032}") + nonce_field(f"{variant:016}")
    return _frame(0, 0, 1, b"\0" + struct.pack(">I", len(body)) + body)


def write_floor_files(folder: Path) -> tuple[Path, Path]:
    """What the floor sends first, and as a push: bytes that the load client takes for a server's."""
    settings, acknowledged = _frame(4, 0, 0, b""), _frame(4, 1, 0, b"")
    # :status 200, then content-type as a literal without indexing (index 31 of the static table).
    headers = _frame(1, 4, 1, b"\x88\x0f\x10\x10application/grpc")
    opening, push = folder / "floor-opening", folder / "floor-push"
    opening.write_bytes(settings + acknowledged + headers + _push(0))
    push.write_bytes(_push(1))
    return opening, push
