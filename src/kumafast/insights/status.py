"""The status of each connected proxy, as counted from the events of its streams.

In: events of streams. Out: `DataplaneInsight` values. Never: the store, or a decision about what is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import ValidationError

from kumafast.resources import DataplaneInsight
from kumafast.resources.dataplane_insight import LastError, Responses, Subscription, SubscriptionStatus, Version
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE

# Kuma's insights count these four; all other types count in the total only.
_COUNTED: Mapping[str, str] = {CLUSTER: "cds", ENDPOINT: "eds", LISTENER: "lds", ROUTE: "rds"}

SUBSCRIPTIONS_MAX = 2
"""Ended subscriptions that an insight keeps beside those that are open, as in Kuma."""


@dataclass(slots=True)
class Counts:
    """Responses of one kind: sent, acknowledged, rejected."""

    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0

    def responses(self) -> Responses:
        """The counts as a resource holds them."""
        return Responses(
            responses_sent=self.sent, responses_acknowledged=self.acknowledged, responses_rejected=self.rejected
        )


@dataclass(slots=True)
class StreamStatus:
    """One stream from its start to its end."""

    id: str
    instance_id: str
    node: Node
    connect_time: datetime
    disconnect_time: datetime | None = None
    last_update_time: datetime | None = None
    last_error: LastError | None = None
    total: Counts = field(default_factory=Counts)
    by_type: dict[str, Counts] = field(default_factory=dict)
    has_arrived: bool = False
    """Whether its Envoy has taken listeners on this stream."""

    def count(self, type_url: str, change: Callable[[Counts], None]) -> None:
        """Count an event for a type and in total."""
        change(self.total)
        name = _COUNTED.get(type_url)
        if name is not None:
            change(self.by_type.setdefault(name, Counts()))

    def subscription(self) -> Subscription:
        """The stream as an insight shows it."""
        status = SubscriptionStatus(
            last_update_time=self.last_update_time,
            total=self.total.responses(),
            last_error=self.last_error,
            **{name: counts.responses() for name, counts in self.by_type.items()},
        )
        return Subscription(
            id=self.id,
            control_plane_instance_id=self.instance_id,
            connect_time=self.connect_time,
            disconnect_time=self.disconnect_time,
            status=status,
            version=_version(self.node.metadata.get("version")),
        )


def _version(stated: object) -> Version | None:
    """What a node says of its versions; what cannot be read is as good as nothing, since anybody may write it."""
    try:
        return None if stated is None else Version.model_validate(stated)
    except ValidationError:
        return None


def insight(*, mesh: str, name: str, streams: list[StreamStatus], before: DataplaneInsight | None) -> DataplaneInsight:
    """The insight of a proxy: its open streams, and the newest of those that have ended."""
    open_now = [stream.subscription() for stream in streams if stream.disconnect_time is None]
    ended_now = [stream.subscription() for stream in streams if stream.disconnect_time is not None]
    known = {subscription.id for subscription in (*open_now, *ended_now)}
    earlier = [] if before is None else [old for old in before.subscriptions if old.id not in known]
    ended = [*earlier, *ended_now]
    kept = ended[max(0, len(ended) - max(0, SUBSCRIPTIONS_MAX - len(open_now))) :]
    metadata = streams[-1].node.metadata if streams else (before.metadata if before is not None else None)
    return DataplaneInsight(
        mesh=mesh,
        name=name,
        subscriptions=(*kept, *open_now),
        metadata=None if metadata is None else dict(metadata),
    )


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
