"""What each client of the xDS server was sent, took and refused: the one place that follows streams and forgets none.

In: events of streams (it is a `NodeObserver`). Out: for each stream and for each node what stands with every type.
Never: the store, a decision about what is sent; more for an event than a look-up and a few numbers.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from kumafast.snapshot import Snapshot
from kumafast.snapshot.node import Node, key_of

GONE_MAX = 1024
"""Nodes without a stream whose status is kept; the one that went first is forgotten first."""

TYPES_MAX = 64
"""Types of which a node's ended streams are remembered; a stream itself may ask for as many."""

ERROR_CHARACTERS_MAX = 4096
"""How much of a client's error is kept: it may be as long as a request."""


class Answer(enum.Enum):
    """What became of the newest response of a type."""

    AWAITED = "awaited"
    TAKEN = "acknowledged"
    REFUSED = "rejected"


@dataclass(slots=True)
class TypeStatus:
    """One type: counts of responses and their bytes, versions (empty where there was none yet), seconds since 1970."""

    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0
    bytes: int = 0
    sent_version: str = ""
    sent_at: float = 0.0
    acknowledged_version: str = ""
    acknowledged_at: float = 0.0
    rejected_version: str = ""
    rejected_at: float = 0.0
    error: str = ""
    """Why `rejected_version` was refused; it stays when a later version is taken."""
    answer: Answer = Answer.AWAITED

    @property
    def is_taken(self) -> bool:
        """Whether the newest response has been acknowledged."""
        return self.answer is Answer.TAKEN

    @property
    def is_refused(self) -> bool:
        """Whether the newest response has been rejected."""
        return self.answer is Answer.REFUSED

    @property
    def changed_at(self) -> float:
        """When the last of all that happened."""
        return max(self.sent_at, self.acknowledged_at, self.rejected_at)

    def followed_by(self, later: TypeStatus) -> TypeStatus:
        """The status over two streams: what was counted adds up, of the rest the newer counts."""
        both = TypeStatus(answer=(self if self.changed_at > later.changed_at else later).answer)
        for name in ("sent", "acknowledged", "rejected", "bytes"):
            setattr(both, name, getattr(self, name) + getattr(later, name))
        for kind, names in _TOGETHER.items():
            newer = self if getattr(self, f"{kind}_at") > getattr(later, f"{kind}_at") else later
            for name in names:
                setattr(both, name, getattr(newer, name))
        return both


_TOGETHER = {
    "sent": ("sent_version", "sent_at"),
    "acknowledged": ("acknowledged_version", "acknowledged_at"),
    "rejected": ("rejected_version", "rejected_at", "error"),
}


@dataclass(slots=True)
class StreamStatus:
    """One stream, from its first request to its end. `types` are by type URL."""

    id: str
    node: Node
    connected_at: float
    types: dict[str, TypeStatus] = field(default_factory=dict)
    updated_at: float | None = None
    disconnected_at: float | None = None
    last_refused: str = ""
    """The type that was refused last."""
    synced: Snapshot | None = None
    """The last snapshot of which the client has acknowledged all."""
    shown: object | None = None
    """What does not change of it as somebody shows it: what a node says of itself can be long, and is checked once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStatus:
    """One node over all its streams, as it stands when it is asked for."""

    key: str
    """Under which its snapshot is: its id, else its cluster, else `*`."""
    node: Node
    streams: int
    connected_at: float | None
    """Since when it has had a stream without a break; None while it has none."""
    disconnected_at: float | None
    types: Mapping[str, TypeStatus]
    synced: Snapshot | None


@dataclass(slots=True)
class _Client:
    node: Node
    streams: dict[str, StreamStatus] = field(default_factory=dict)
    connected_at: float | None = None
    disconnected_at: float | None = None
    past: dict[str, TypeStatus] | None = None


class Clients:
    """Follows all streams of one server. What a node did on earlier streams counts on: its ACK holds after a reconnect.

    >>> clients = Clients()
    >>> clients.stream_opened("s", Node("web-1"))
    >>> clients.response_sent("s", "type.googleapis.com/x", "7", 100)
    >>> clients.response_acknowledged("s", "type.googleapis.com/x", "7")
    >>> [(client.key, client.types["type.googleapis.com/x"].acknowledged_version) for client in clients]
    [('web-1', '7')]
    """

    def __init__(self, *, gone_max: int = GONE_MAX, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives the seconds since 1970."""
        self._gone_max = gone_max
        self._clock = clock
        self._streams: dict[str, StreamStatus] = {}
        self._clients: dict[str, _Client] = {}
        # The keys of those without a stream, in the order in which they went.
        self._gone: dict[str, None] = {}

    # The stream's NodeObserver.

    def stream_opened(self, stream_id: str, node: Node) -> None:
        """A stream has named its node."""
        stream = self._streams[stream_id] = StreamStatus(stream_id, node, self._clock())
        key = key_of(node)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client(node)
        if not client.streams:
            self._gone.pop(key, None)
            client.connected_at, client.disconnected_at = stream.connected_at, None
        client.node = node
        client.streams[stream_id] = stream

    def response_sent(self, stream_id: str, type_url: str, version: str, size: int) -> None:
        """A response of `size` bytes went out."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        status = stream.types.get(type_url)
        if status is None:
            status = stream.types[type_url] = TypeStatus()
        status.sent += 1
        status.bytes += size
        status.sent_version = version
        status.answer = Answer.AWAITED
        status.sent_at = stream.updated_at = self._clock()

    def response_acknowledged(self, stream_id: str, type_url: str, version: str) -> None:
        """The client took a response."""
        stream = self._streams.get(stream_id)
        if stream is None or (status := stream.types.get(type_url)) is None:
            return
        status.acknowledged += 1
        status.acknowledged_version = version
        status.answer = Answer.TAKEN
        status.acknowledged_at = stream.updated_at = self._clock()

    def response_rejected(self, stream_id: str, type_url: str, version: str, message: str) -> None:
        """The client refused a response."""
        stream = self._streams.get(stream_id)
        if stream is None or (status := stream.types.get(type_url)) is None:
            return
        status.rejected += 1
        status.rejected_version = version
        status.error = message[:ERROR_CHARACTERS_MAX]
        status.answer = Answer.REFUSED
        status.rejected_at = stream.updated_at = self._clock()
        stream.last_refused = type_url

    def stream_synced(self, stream_id: str, snapshot: Snapshot) -> None:
        """The client has acknowledged all of a snapshot."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.synced = snapshot

    def stream_closed(self, stream_id: str) -> None:
        """A stream has ended."""
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return
        stream.disconnected_at = self._clock()
        stream.synced = None
        key = key_of(stream.node)
        client = self._clients[key]
        del client.streams[stream_id]
        client.past = _merged(client.past or {}, stream.types)
        for type_url in tuple(client.past)[:-TYPES_MAX]:
            del client.past[type_url]
        if not client.streams:
            client.connected_at, client.disconnected_at = None, stream.disconnected_at
            self._gone[key] = None
            if len(self._gone) > self._gone_max:
                first = next(iter(self._gone))
                del self._gone[first], self._clients[first]

    # For those who look.

    def stream(self, stream_id: str) -> StreamStatus | None:
        """The status of an open stream; it changes as the stream goes on."""
        return self._streams.get(stream_id)

    def client(self, key: str) -> ClientStatus | None:
        """The status of a node; None for one that has not been here, or not for long."""
        client = self._clients.get(key)
        if client is None:
            return None
        types: Mapping[str, TypeStatus] = client.past or {}
        for stream in client.streams.values():
            types = _merged(types, stream.types) if types else stream.types
        synced = [stream.synced for stream in client.streams.values() if stream.synced is not None]
        return ClientStatus(
            key=key,
            node=client.node,
            streams=len(client.streams),
            connected_at=client.connected_at,
            disconnected_at=client.disconnected_at,
            types=types,
            synced=synced[-1] if synced else None,
        )

    def __iter__(self) -> Iterator[ClientStatus]:
        """All nodes in the order of their first stream. Others may come and go while one is looked at."""
        for key in tuple(self._clients):
            status = self.client(key)
            if status is not None:
                yield status

    def __len__(self) -> int:
        return len(self._clients)


def _merged(before: Mapping[str, TypeStatus], later: Mapping[str, TypeStatus]) -> dict[str, TypeStatus]:
    merged = {type_url: status for type_url, status in before.items() if type_url not in later}
    for type_url, status in later.items():
        known = before.get(type_url)
        merged[type_url] = status if known is None else known.followed_by(status)
    return merged
