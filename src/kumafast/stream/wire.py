"""Requests from bytes and responses to bytes: the only file of the stream that knows protobuf.

In: the bytes of one message. Out: `Request`; the bytes of a response, joined from fragments that were encoded once.
Never: state; the place of a node in a request, which the core finds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import struct_pb2
from google.protobuf.message import DecodeError

from kumafast._core import NODE_BYTES_MAX, VersionReader, join_texts, request_excess
from kumafast.snapshot import framing
from kumafast.snapshot.node import Node
from kumafast.stream.messages import ProtocolError, Request, Response, Variant

# `response_nonce`, `initial_resource_versions` and `removed_resources` in envoy/service/discovery/v3/discovery.proto.
DELTA_NONCE_FIELD = 6
_VERSIONS_FIELD = 5
_REMOVED_FIELD = 6


def decode(data: bytes, variant: Variant) -> Request:
    """One request of a client, but for its node. Raises `ProtocolError` for bytes that are not one, or ask too much."""
    request = RequestReader(data, variant).read(len(data))
    assert request is not None
    return request


class RequestReader:
    """Reads one request, some of its fields at a time. What it raises is as for `decode`.

    >>> message = discovery_pb2.DeltaDiscoveryRequest(type_url="t", initial_resource_versions={"a": "1", "b": "1"})
    >>> reader = RequestReader(message.SerializeToString(), Variant.DELTA)
    >>> reader.read(2), reader.read(1000).initial_versions == {"a": "1", "b": "1"}
    (None, True)
    """

    def __init__(self, data: bytes, variant: Variant) -> None:
        if excess := request_excess(data, is_delta=variant is Variant.DELTA):
            raise ProtocolError(f"a request with {excess}")
        self._variant = variant
        self._data = data
        self._versions = VersionReader(data, _VERSIONS_FIELD) if variant is Variant.DELTA else None

    def read(self, count: int) -> Request | None:
        """Read so many fields more; the request, once that was all of them. In SotW, which has no versions, all is."""
        try:
            if self._versions is None:
                return _sotw_request(discovery_pb2.DiscoveryRequest.FromString(self._data))
            if not self._versions.read(count):
                return None
            message = discovery_pb2.DeltaDiscoveryRequest.FromString(bytes(self._versions.rest))
            return _delta_request(message, self._versions.versions)
        except (DecodeError, ValueError, RecursionError) as error:
            raise ProtocolError(f"not a {self._variant.value} discovery request: {error}") from error

    def find_node(self) -> bytes:
        """The node of a request that was read, wherever it stands in it; empty where it has none."""
        if self._versions is None:
            node = discovery_pb2.DiscoveryRequest.FromString(self._data).node
        else:
            node = discovery_pb2.DeltaDiscoveryRequest.FromString(bytes(self._versions.rest)).node
        return bytes(node.SerializeToString())


def decode_node(data: bytes) -> Node:
    """A node that was found in a request. Raises `ProtocolError` for bytes that are not one, or too many."""
    if len(data) > NODE_BYTES_MAX:
        raise ProtocolError("a node of too many bytes")
    try:
        return _node(base_pb2.Node.FromString(data))
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a node: {error}") from error


def find_node(data: bytes, variant: Variant) -> Node | None:
    """The node of a request, wherever it stands in it; None where it has none. Raises `ProtocolError` as `decode`."""
    kind = discovery_pb2.DiscoveryRequest if variant is Variant.SOTW else discovery_pb2.DeltaDiscoveryRequest
    if excess := request_excess(data, is_delta=variant is Variant.DELTA):
        raise ProtocolError(f"a request with {excess}")
    try:
        message = kind.FromString(data)
        return _node(message.node) if message.HasField("node") else None
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a {variant.value} discovery request: {error}") from error


def _sotw_request(message: discovery_pb2.DiscoveryRequest) -> Request:
    return Request(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        version=message.version_info,
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
    )


def _delta_request(message: discovery_pb2.DeltaDiscoveryRequest, versions: Mapping[str, str]) -> Request:
    return Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=versions,
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
    )


def encode(response: Response, variant: Variant, *, instance_id: str) -> bytes:
    """The bytes of a response, as protobuf's own library would read them; the resources' bodies are copied once."""
    is_sotw = variant is Variant.SOTW
    # version_info and system_version_info are field 1, type_url is 4 and nonce is 5 in both messages.
    parts = [framing.text(1, response.version)]
    for resource in response.resources:
        parts.append(resource.sotw_head if is_sotw else resource.delta_head)
        parts.append(resource.body)
    parts.append(_type_field(response.type_url))
    parts.append(framing.text(5, response.nonce))
    if response.removed and not is_sotw:
        parts.append(join_texts(_REMOVED_FIELD, response.removed))
    parts.append(_control_plane_field(is_sotw, instance_id))
    return b"".join(parts)


@lru_cache(256)
def _type_field(type_url: str) -> bytes:
    return framing.text(4, type_url)


@lru_cache(16)
def _control_plane_field(is_sotw: bool, instance_id: str) -> bytes:
    control_plane = framing.text(1, instance_id)
    return framing.opening(6 if is_sotw else 7, len(control_plane)) + control_plane


def _node(node: base_pb2.Node) -> Node:
    version = node.user_agent_version
    if not version and node.HasField("user_agent_build_version"):
        number = node.user_agent_build_version.version
        version = f"{number.major_number}.{number.minor_number}.{number.patch}"
    return Node(
        id=node.id,
        cluster=node.cluster,
        metadata={key: _plain(value) for key, value in node.metadata.fields.items()},
        user_agent_name=node.user_agent_name,
        user_agent_version=version,
    )


def _plain(value: struct_pb2.Value) -> object:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: _plain(inner) for key, inner in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(inner) for inner in value.list_value.values]
    if kind is None or kind == "null_value":
        return None
    plain: object = getattr(value, kind)
    return plain
