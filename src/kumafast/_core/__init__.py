"""The compiled core's face: tag selectors, policy matching, digests and version maps.

In: tags, selectors, ids chosen by the caller, encoded bytes. Out: which selector matches which id, what changed.
Never: resources, policies, Envoy messages, sockets. The core knows tags and numbers only.
"""

from kumafast._core.cycles import untrack
from kumafast._core.digests import SnapshotDigest, changed_snapshots, digest
from kumafast._core.requests import request_excess
from kumafast._core.selectors import IdSet, Matches, SelectorSet, TagIndex, TagSelector, TagSet, live_tags
from kumafast._core.tls import HAS_TLS, TlsContext, TlsTransport
from kumafast._core.transport import (
    END,
    HALF_CLOSE,
    HTTP_REQUEST,
    MESSAGE,
    REQUEST,
    RESET,
    Connection,
    Payload,
    push,
)
from kumafast._core.versions import diff_versions

__all__ = [
    "END",
    "HALF_CLOSE",
    "HAS_TLS",
    "HTTP_REQUEST",
    "MESSAGE",
    "REQUEST",
    "RESET",
    "Connection",
    "IdSet",
    "Matches",
    "Payload",
    "SelectorSet",
    "SnapshotDigest",
    "TagIndex",
    "TagSelector",
    "TagSet",
    "TlsContext",
    "TlsTransport",
    "changed_snapshots",
    "diff_versions",
    "digest",
    "live_tags",
    "push",
    "request_excess",
    "untrack",
]
