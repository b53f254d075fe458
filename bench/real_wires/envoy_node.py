"""How an Envoy describes itself: 60 KB, most of them the list of its extensions.

In: what differs from node to node. Out: a serialised `Node`, all of it but the id, which thousands can share.
Never: Envoy; `record_node` has asked it once, and written down what it said.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envoy.config.core.v3 import base_pb2

RECORDED = Path(__file__).with_name("envoy_node.binpb.gz")
_ID, _NODE = 0x0A, 0x0A
"""Of `Node.id` and of `DeltaDiscoveryRequest.node`: field 1, a length, bytes."""


def described(metadata: Mapping[str, Any], *, cluster: str = "") -> bytes:
    """What all nodes with this metadata have in common, for `with_node`."""
    node = base_pb2.Node.FromString(gzip.decompress(RECORDED.read_bytes()))
    node.cluster = cluster
    node.metadata.update(metadata)
    common: bytes = node.SerializeToString(deterministic=True)
    return common


def with_node(request: bytes, node_id: str, common: bytes) -> bytes:
    """A serialised `DeltaDiscoveryRequest` that has no node, with one."""
    name = node_id.encode()
    node = _field(_ID, name) + common
    return _field(_NODE, node) + request


def _field(tag: int, value: bytes) -> bytes:
    size, length = len(value), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes((tag, *length)) + value
