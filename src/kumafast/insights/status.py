"""The status of each connected proxy as a resource: what `Clients` counted, in the form of a `DataplaneInsight`.

In: the statuses of streams. Out: `DataplaneInsight` values. Never: the store, or a decision about what is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from pydantic import TypeAdapter, ValidationError

from kumafast.insights.clients import StreamStatus, TypeStatus
from kumafast.memo import remembered
from kumafast.resources import DataplaneInsight
from kumafast.resources.dataplane_insight import (
    LastError,
    PolicyKey,
    Responses,
    Subscription,
    SubscriptionStatus,
    TypeResponses,
    Unapplied,
    Version,
)
from kumafast.resources.fields import Loose
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, ROUTE
from kumafast.templates import Failure

# Kuma's insights count these four; all other types count in the total only.
_COUNTED: Mapping[str, str] = {"cds": CLUSTER, "eds": ENDPOINT, "lds": LISTENER, "rds": ROUTE}
_LOOSE: TypeAdapter[dict[str, Any]] = TypeAdapter(Loose)

SUBSCRIPTIONS_MAX = 2
"""Ended subscriptions that an insight keeps beside those that are open, as in Kuma."""

_COUNTS_MAX = 1_024

TYPE_URL_CHARACTERS_MAX = 255
"""How much of a type URL is stored: one that nobody knows may be as long as the client likes."""


def subscription(stream: StreamStatus, *, instance_id: str) -> Subscription:
    """A stream as an insight shows it."""
    types = stream.types
    refused = types.get(stream.last_refused)
    status = SubscriptionStatus(
        last_update_time=_time(stream.updated_at),
        total=_responses(types.values()),
        last_error=None if refused is None else _last_error(stream.last_refused, refused),
        types=tuple(_details(type_url, of_type) for type_url, of_type in types.items()),
        **{name: _responses([types[type_url]]) for name, type_url in _COUNTED.items() if type_url in types},
    ).lean()
    return Subscription(
        id=stream.id,
        control_plane_instance_id=instance_id,
        connect_time=_time(stream.connected_at),
        disconnect_time=_time(stream.disconnected_at),
        status=status,
        version=_node_of(stream).version,
    ).lean()


def _responses(types: Iterable[TypeStatus]) -> Responses:
    types = tuple(types)
    return _counts(
        sum(status.sent for status in types),
        sum(status.acknowledged for status in types),
        sum(status.rejected for status in types),
    )


@remembered(_COUNTS_MAX)
def _counts(sent: int, acknowledged: int, rejected: int) -> Responses:
    """One object for all that have the same: an insight has five, and most proxies were sent as much as others."""
    return Responses(responses_sent=sent, responses_acknowledged=acknowledged, responses_rejected=rejected).lean()


def _last_error(type_url: str, status: TypeStatus) -> LastError:
    return LastError(
        type_url=type_url[:TYPE_URL_CHARACTERS_MAX],
        version=status.rejected_version,
        message=status.error,
        time=_time(status.rejected_at),
    )


def _details(type_url: str, status: TypeStatus) -> TypeResponses:
    return TypeResponses(
        type_url=type_url[:TYPE_URL_CHARACTERS_MAX],
        responses_sent=status.sent,
        responses_acknowledged=status.acknowledged,
        responses_rejected=status.rejected,
        bytes_sent=status.bytes,
        sent_version=status.sent_version,
        acknowledged_version=status.acknowledged_version,
        rejected_version=status.rejected_version,
        rejected_time=_time(status.rejected_at or None),
        error=status.error,
    ).lean()


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


class _ShownNode(NamedTuple):
    metadata: dict[str, Any] | None
    version: Version | None


def _node_of(stream: StreamStatus) -> _ShownNode:
    if not isinstance(stream.shown, _ShownNode):
        stated = stream.node.metadata
        stream.shown = _ShownNode(_metadata(stated), _version(stated.get("version")))
    return stream.shown


def _metadata(stated: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a node says of itself; anybody may write what no store can hold, such as a number that is none."""
    try:
        return _LOOSE.validate_python(stated)
    except ValidationError:
        return None


def _version(stated: object) -> Version | None:
    """What a node says of its versions; what cannot be read is as good as nothing, since anybody may write it."""
    try:
        return None if stated is None else Version.model_validate(stated)
    except ValidationError:
        return None


class CertificateFacts(Protocol):
    """A certificate that a proxy runs with; the times are None where another instance issued it."""

    @property
    def backend(self) -> str: ...
    @property
    def issued_at(self) -> datetime | None: ...
    @property
    def expires_at(self) -> datetime | None: ...


def certified(certificate: CertificateFacts | None, before: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The part of an insight that is about TLS, in Kuma's form; None for a proxy without a certificate."""
    if certificate is None:
        return None
    if certificate.issued_at is None or certificate.expires_at is None:
        # It came with it from another instance, which has said when it was issued.
        return _LOOSE.validate_python({**(before or {}), "issuedBackend": certificate.backend})
    issued_at = _timestamp(certificate.issued_at)
    earlier = before or {}
    is_new = earlier.get("lastCertificateRegeneration") != issued_at
    return _LOOSE.validate_python(
        {
            "certificateExpirationTime": _timestamp(certificate.expires_at),
            "lastCertificateRegeneration": issued_at,
            "certificateRegenerations": int(earlier.get("certificateRegenerations", 0)) + is_new,
            "issuedBackend": certificate.backend,
            "supportedBackends": [certificate.backend],
        }
    )


def failed(failure: Failure | None) -> Unapplied | None:
    """The part of an insight that says why a proxy keeps what it has; None for one that does not."""
    if failure is None:
        return None
    return Unapplied(
        type_url=failure.type_url,
        resource=failure.resource,
        message=failure.message,
        policies=tuple(PolicyKey(**key._asdict()) for key in failure.policies),
    )


def _timestamp(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_elsewhere(subscription: Subscription, *, instance_id: str) -> bool:
    """Whether a stream is open at another instance."""
    return subscription.is_online and subscription.control_plane_instance_id != instance_id


def insight(
    *, mesh: str, name: str, streams: list[StreamStatus], instance_id: str, before: DataplaneInsight | None
) -> DataplaneInsight:
    """The insight of a proxy: its open streams, here and at other instances, and the newest of those that have ended.

    What another instance says of a stream of its own is left as it is.
    """
    shown = [(stream.disconnected_at, subscription(stream, instance_id=instance_id)) for stream in streams]
    open_now = [entry for ended_at, entry in shown if ended_at is None]
    ended_now = [entry for ended_at, entry in shown if ended_at is not None]
    known = {entry.id for _, entry in shown}
    earlier = [] if before is None else [old for old in before.subscriptions if old.id not in known]
    elsewhere = [old for old in earlier if is_elsewhere(old, instance_id=instance_id)]
    ended = [*(old for old in earlier if old not in elsewhere), *ended_now]
    open_count = len(elsewhere) + len(open_now)
    kept = ended[max(0, len(ended) - max(0, SUBSCRIPTIONS_MAX - open_count)) :]
    found = DataplaneInsight(mesh=mesh, name=name, subscriptions=(*kept, *elsewhere, *open_now))
    if open_now or (streams and not elsewhere):
        metadata = _node_of(streams[-1]).metadata
    else:
        metadata = None if before is None or before.metadata is None else _metadata(before.metadata)
    return found if metadata is None else found.model_copy(update={"metadata": metadata})
