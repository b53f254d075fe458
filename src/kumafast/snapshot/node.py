"""Envoy's identity on the wire: what a client says of itself when it opens a stream.

In: nothing. Out: `Node`, whose `id` is the key of a `SnapshotCache`. Never: trust; whether the client is who it says is
decided where it comes in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TAKES_DELTA = "kumafast.delta"
"""The key of a node's metadata under which our bootstrap says that its Envoy speaks delta."""


def dataplane_of(node_id: str) -> tuple[str, str] | None:
    """The mesh and name in a node id `<mesh>.<name>`, parted at the first dot as in Kuma; None where one is missing.

    >>> dataplane_of("default.web.1"), dataplane_of("web")
    (('default', 'web.1'), None)
    """
    mesh, _, name = node_id.partition(".")
    return (mesh, name) if mesh and name else None


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it named itself. `metadata` is the node's metadata as plain JSON values."""

    id: str
    cluster: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    user_agent_name: str = ""
    user_agent_version: str = ""


def key_of(node: Node) -> str:
    """The key of a node's snapshot: its id, else its cluster, else `*`."""
    return node.id or node.cluster or "*"
