"""What the stream tells the layers below of its clients.

In: events of streams. Out: calls of a `NodeObserver`, which lower layers implement without knowing of gRPC.
Never: decisions; an observer cannot change what is sent.
"""

from __future__ import annotations

from typing import Protocol

from kumafast.snapshot.node import Node
from kumafast.snapshot.snapshot import Snapshot

__all__ = ["Node", "NodeObserver"]


class NodeObserver(Protocol):
    """Follows streams from their first request to their end. Calls come from the event loop and must be quick."""

    def stream_opened(self, stream_id: str, node: Node) -> None:
        """A stream has named its node; called once for each stream, before any other call about it."""

    def response_sent(self, stream_id: str, type_url: str, version: str, size: int) -> None:
        """A response of `size` bytes went out."""

    def response_acknowledged(self, stream_id: str, type_url: str, version: str) -> None:
        """The client took the last response of the type."""

    def response_rejected(self, stream_id: str, type_url: str, version: str, message: str) -> None:
        """The client refused the last response of the type, for the reason in `message`."""

    def stream_synced(self, stream_id: str, snapshot: Snapshot) -> None:
        """The client has acknowledged, for every type that it asked for, all that this snapshot holds for it."""

    def stream_closed(self, stream_id: str) -> None:
        """The stream has ended, for whatever reason; called once for each opened stream."""
