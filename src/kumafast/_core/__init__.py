"""The compiled core's face: tag selectors, policy matching, digests and version maps; the wire and who stands where.

In: tags, selectors, ids chosen by the caller, bytes. Out: which selector matches which id, what changed, what is sent.
Never: resources, policies, Envoy messages. The core knows tags, numbers and octets only.
"""

from kumafast._core.channels import Poller
from kumafast._core.cycles import untrack, untrack_value
from kumafast._core.digests import SnapshotDigest, changed_snapshots, digest
from kumafast._core.requests import NAMES_MAX, NODE_BYTES_MAX, VersionReader, cut_field, join_texts, request_excess
from kumafast._core.selectors import IdSet, Matches, SelectorSet, TagIndex, TagSelector, TagSet, live_tags
from kumafast._core.streams import Move, Standing, Stream, Streams, Tally, Target
from kumafast._core.tls import HAS_TLS, TlsContext, TlsTransport, plain_socket
from kumafast._core.transport import (
    BUSY,
    END,
    HALF_CLOSE,
    HTTP_REQUEST,
    IDLE,
    MESSAGE,
    OWING,
    REQUEST,
    RESET,
    Connection,
    Payload,
    Protocol,
    push,
)
from kumafast._core.turns import Turns
from kumafast._core.versions import diff_versions, forget_names

__all__ = [
    "BUSY",
    "END",
    "HALF_CLOSE",
    "HAS_TLS",
    "HTTP_REQUEST",
    "IDLE",
    "MESSAGE",
    "NAMES_MAX",
    "NODE_BYTES_MAX",
    "OWING",
    "REQUEST",
    "RESET",
    "Connection",
    "IdSet",
    "Matches",
    "Move",
    "Payload",
    "Poller",
    "Protocol",
    "SelectorSet",
    "SnapshotDigest",
    "Standing",
    "Stream",
    "Streams",
    "TagIndex",
    "TagSelector",
    "TagSet",
    "Tally",
    "Target",
    "TlsContext",
    "TlsTransport",
    "Turns",
    "VersionReader",
    "changed_snapshots",
    "cut_field",
    "diff_versions",
    "digest",
    "forget_names",
    "join_texts",
    "live_tags",
    "plain_socket",
    "push",
    "request_excess",
    "untrack",
    "untrack_value",
]
