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
    # What does not change of it while it lasts, as insights show it: what a node says of itself can be long, and is
    # checked once.
    _shown: Subscription | None = None
    _of_proxy: DataplaneInsight | None = None

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
        if self._shown is None:
            self._shown = Subscription(
                id=self.id,
                control_plane_instance_id=self.instance_id,
                connect_time=self.connect_time,
                version=_version(self.node.metadata.get("version")),
            )
        return self._shown.model_copy(update={"disconnect_time": self.disconnect_time, "status": status})

    def insight(self, *, mesh: str, name: str, subscriptions: tuple[Subscription, ...]) -> DataplaneInsight:
        """The insight of its proxy, with these subscriptions."""
        if self._of_proxy is None:
            self._of_proxy = DataplaneInsight(mesh=mesh, name=name, metadata=dict(self.node.metadata))
        return self._of_proxy.model_copy(update={"subscriptions": subscriptions})


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
    subscriptions = (*kept, *open_now)
    if streams:
        return streams[-1].insight(mesh=mesh, name=name, subscriptions=subscriptions)
    metadata = None if before is None or before.metadata is None else dict(before.metadata)
    return DataplaneInsight(mesh=mesh, name=name, subscriptions=subscriptions, metadata=metadata)


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)
