"""What a control plane has learnt of a dataplane's Envoy: who connected when, what it was sent, took and refused.

In: protobuf's JSON form, in which counters are text. Out: `DataplaneInsight`, with counters as numbers and times as
UTC datetimes. Never: written by users; the type is read-only over REST.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from kumafast.resources.fields import Flag, Loose, Text, Whole
from kumafast.resources.resource import Frozen, Resource, ResourceType, Scope

ONLINE = "Online"
OFFLINE = "Offline"


def _count(value: object) -> object:
    # Protobuf writes 64-bit numbers as text, since JSON's readers would round them.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _timestamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


Count = Annotated[Whole, BeforeValidator(_count), PlainSerializer(str)]
Time = Annotated[AwareDatetime, PlainSerializer(_timestamp)]


class Responses(Frozen):
    """Counts of what went to a client and what it made of it."""

    responses_sent: Count = 0
    responses_acknowledged: Count = 0
    responses_rejected: Count = 0


class TypeResponses(Responses):
    """One type on one stream, in full: kumafast's own addition. Versions are empty where there was none."""

    type_url: Text = ""
    bytes_sent: Count = 0
    sent_version: Text = ""
    acknowledged_version: Text = ""
    rejected_version: Text = ""
    rejected_time: Time | None = None
    error: Text = ""


class LastError(Frozen):
    """The last response that the client refused, in Envoy's words."""

    type_url: Text = ""
    version: Text = ""
    message: Text = ""
    time: Time | None = None


class SubscriptionStatus(Frozen):
    """Counts for all types and for each; `last_error` and `types` are kumafast's own additions."""

    last_update_time: Time | None = None
    total: Responses = Responses()
    cds: Responses = Responses()
    eds: Responses = Responses()
    lds: Responses = Responses()
    rds: Responses = Responses()
    last_error: LastError | None = None
    types: tuple[TypeResponses, ...] = ()

    @model_serializer(mode="wrap")
    def _with_all_types(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Kuma writes an empty object for a type of which nothing was sent, and its clients count on it.
        written = serialize(self)
        own = {name: written.pop(name) for name in ("lastError", "types") if name in written}
        document = {name: written.pop(name, {}) for name in ("total", "cds", "eds", "lds", "rds")}
        return {**written, **document, **own}


class KumaDpVersion(Frozen):
    """The launcher's version."""

    version: Text = ""
    git_tag: Text = ""
    git_commit: Text = ""
    build_date: Text = ""
    kuma_cp_compatible: Flag = False


class EnvoyVersion(Frozen):
    """Envoy's version."""

    version: Text = ""
    build: Text = ""
    kuma_dp_compatible: Flag = False


class Version(Frozen):
    """Versions of what runs beside the workload."""

    kuma_dp: KumaDpVersion | None = None
    envoy: EnvoyVersion | None = None
    dependencies: Loose | None = None


class Subscription(Frozen):
    """One stream of one Envoy, from its beginning to its end."""

    id: Text = ""
    control_plane_instance_id: Text = ""
    connect_time: Time | None = None
    disconnect_time: Time | None = None
    status: SubscriptionStatus = SubscriptionStatus()
    version: Version | None = None
    generation: Whole = 0

    @property
    def is_online(self) -> bool:
        """Whether the stream is open."""
        return self.connect_time is not None and self.disconnect_time is None


class PolicyKey(Frozen):
    """Where a policy stands."""

    type: Text = ""
    mesh: Text = ""
    name: Text = ""


class Unapplied(Frozen):
    """Why a proxy keeps what it has, though policies want something else: kumafast's own addition."""

    type_url: Text = ""
    resource: Text = ""
    message: Text = ""
    policies: tuple[PolicyKey, ...] = ()


class DataplaneInsight(Resource):
    """The status of the dataplane of the same mesh and name."""

    type: ClassVar[ResourceType] = ResourceType(
        name="DataplaneInsight",
        scope=Scope.MESH,
        path="dataplane-insights",
        singular="Dataplane Insight",
        plural="Dataplane Insights",
        is_read_only=True,
        owner="Dataplane",
    )

    subscriptions: tuple[Subscription, ...] = ()
    mtls: Loose | None = Field(default=None, alias="mTLS")
    metadata: Loose | None = None
    failure: Unapplied | None = None


def status(insight: DataplaneInsight | None) -> str:
    """`Online` while any stream of the dataplane is open, else `Offline`."""
    is_online = insight is not None and any(subscription.is_online for subscription in insight.subscriptions)
    return ONLINE if is_online else OFFLINE
