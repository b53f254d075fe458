"""What has changed: Envoy's messages as bytes with versions, layers of them, snapshots, and who is told.

In: messages that `generation` made. Out: `XdsResource`, `Layer`, `Snapshot`, `SnapshotCache`.
Never: why a resource is as it is, or who is connected.
"""

from kumafast.snapshot.cache import SnapshotCache
from kumafast.snapshot.layer import LateLayer, Layer
from kumafast.snapshot.load_assignment import EndpointEntry, LoadAssignment
from kumafast.snapshot.resource import LateResource, TypeUrl, Version, XdsResource
from kumafast.snapshot.snapshot import Snapshot

__all__ = [
    "EndpointEntry",
    "LateLayer",
    "LateResource",
    "Layer",
    "LoadAssignment",
    "Snapshot",
    "SnapshotCache",
    "TypeUrl",
    "Version",
    "XdsResource",
]
