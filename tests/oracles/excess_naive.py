"""What a discovery request has too much of, by parsing it first."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2

NAMES_MAX = 20_000
VERSIONS_MAX = 131_072
TEXT_BYTES_MAX = 4096
NODE_BYTES_MAX = 256 << 10
ERROR_BYTES_MAX = 1 << 20


def is_too_much(data: bytes, *, is_delta: bool) -> bool:
    """Whether any count or size passes its limit; `data` must be well formed, with each single field once."""
    kind = discovery_pb2.DeltaDiscoveryRequest if is_delta else discovery_pb2.DiscoveryRequest
    request = kind.FromString(data)
    names: list[str] = (
        [*request.resource_names_subscribe, *request.resource_names_unsubscribe]
        if is_delta
        else list(request.resource_names)
    )
    texts = [request.type_url, request.response_nonce, *names]
    if not is_delta:
        texts.append(request.version_info)
    versions: dict[str, str] = dict(request.initial_resource_versions) if is_delta else {}
    # An entry of a map has two texts, each with a key and a length before it.
    entries = [len(name.encode()) + len(version.encode()) for name, version in versions.items()]
    return (
        len(names) > NAMES_MAX
        or len(versions) > VERSIONS_MAX
        or any(len(text.encode()) > TEXT_BYTES_MAX for text in texts)
        or any(size + 6 > TEXT_BYTES_MAX for size in entries)
        or len(request.node.SerializeToString()) > NODE_BYTES_MAX
        or len(request.error_detail.SerializeToString()) > ERROR_BYTES_MAX
    )
