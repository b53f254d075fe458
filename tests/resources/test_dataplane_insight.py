"""Insights in the form in which a real Kuma 2.14 answers them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from kumafast.errors import MalformedResourceError
from kumafast.resources import DataplaneInsight, parse, status, to_document
from kumafast.resources.dataplane_insight import LastError, Responses, Subscription, SubscriptionStatus

CONNECTED = datetime(2026, 11, 23, 6, 39, 18, 543428, tzinfo=UTC)

ECHO: dict[str, Any] = {
    "type": "DataplaneInsight",
    "mesh": "default",
    "name": "echo-1",
    "subscriptions": [
        {
            "id": "cf09fc72",
            "controlPlaneInstanceId": "vm-f9ec",
            "connectTime": "2026-11-23T06:39:18.543428Z",
            "status": {
                "lastUpdateTime": "2026-11-23T06:39:18.954314Z",
                "total": {"responsesSent": "3", "responsesAcknowledged": "3"},
                "cds": {"responsesSent": "1", "responsesAcknowledged": "1"},
                "eds": {},
                "lds": {"responsesSent": "1", "responsesAcknowledged": "1"},
                "rds": {},
            },
            "version": {
                "kumaDp": {"version": "2.14.3", "gitTag": "v2.14.3", "kumaCpCompatible": True},
                "envoy": {"version": "1.40.0", "build": "9e55/1.40.0/Clean/RELEASE/BoringSSL"},
            },
        }
    ],
    "mTLS": {"certificateRegenerations": 1, "supportedBackends": ["ca-1"]},
    "metadata": {"features": ["feature-reuse-port"], "ipv6Enabled": True, "otel": {"logs": None}, "workdir": ""},
}


def _insight(document: dict[str, Any]) -> DataplaneInsight:
    resource = parse(document)
    assert isinstance(resource, DataplaneInsight)
    return resource


def test_round_trip() -> None:
    insight = _insight(ECHO)
    assert to_document(insight) == ECHO
    assert parse(to_document(insight)) == insight


def test_values_are_numbers_and_times() -> None:
    subscription = _insight(ECHO).subscriptions[0]
    assert subscription.connect_time == CONNECTED
    assert subscription.status.total == Responses(responses_sent=3, responses_acknowledged=3)
    assert subscription.status.eds.responses_sent == 0


def test_nanoseconds_are_read() -> None:
    document = {**ECHO, "subscriptions": [{"connectTime": "2026-11-23T06:39:18.543428676Z"}]}
    assert _insight(document).subscriptions[0].connect_time == CONNECTED


def test_times_are_written_in_utc() -> None:
    elsewhere = datetime(2026, 1, 31, 14, 0, tzinfo=timezone(timedelta(hours=2)))
    insight = DataplaneInsight(name="a", mesh="m", subscriptions=(Subscription(connect_time=elsewhere),))
    document: Any = to_document(insight)
    assert document["subscriptions"][0]["connectTime"] == "2026-01-31T12:00:00Z"


def test_last_error() -> None:
    error = LastError(type_url="t", version="v", message="bad cluster", time=CONNECTED)
    insight = DataplaneInsight(
        name="a", mesh="m", subscriptions=(Subscription(id="1", status=SubscriptionStatus(last_error=error)),)
    )
    document: Any = to_document(insight)
    assert document["subscriptions"][0]["status"] == {
        "total": {},
        "cds": {},
        "eds": {},
        "lds": {},
        "rds": {},
        "lastError": {
            "typeUrl": "t",
            "version": "v",
            "message": "bad cluster",
            "time": "2026-11-23T06:39:18.543428Z",
        },
    }
    assert parse(document) == insight


@pytest.mark.parametrize(
    ("subscriptions", "expected"),
    [
        ([], "Offline"),
        ([{}], "Offline"),
        ([{"connectTime": "2026-01-01T00:00:00Z"}], "Online"),
        ([{"connectTime": "2026-01-01T00:00:00Z", "disconnectTime": "2026-01-02T00:00:00Z"}], "Offline"),
        (
            [
                {"connectTime": "2026-01-01T00:00:00Z"},
                {"connectTime": "2026-01-01T00:00:00Z", "disconnectTime": "2026-01-02T00:00:00Z"},
            ],
            "Online",
        ),
    ],
)
def test_status(subscriptions: list[dict[str, Any]], expected: str) -> None:
    assert status(_insight({**ECHO, "subscriptions": subscriptions})) == expected


def test_status_of_a_dataplane_that_never_connected() -> None:
    assert status(None) == "Offline"


@pytest.mark.parametrize(
    ("subscription", "field", "message"),
    [
        ({"connectTime": "yesterday"}, "connectTime", "must be a time such as 2026-01-31T12:00:00Z"),
        ({"connectTime": "2026-01-31T12:00:00"}, "connectTime", "must be a time with a time zone"),
        (
            {"status": {"cds": {"responsesSent": "many"}}},
            "status.cds.responsesSent",
            "must be a whole number",
        ),
        ({"status": {"cds": {"responsesSent": 1.5}}}, "status.cds.responsesSent", "must be a whole number"),
    ],
)
def test_malformed(subscription: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(MalformedResourceError) as caught:
        parse({**ECHO, "subscriptions": [subscription]})
    assert [(v.field, v.message) for v in caught.value.violations] == [(f"subscriptions[0].{field}", message)]


def test_a_lean_value_is_equal_and_a_copy_of_it_is_its_own() -> None:
    one = Responses(responses_sent=3, responses_rejected=1).lean()
    other = Responses(responses_sent=4, responses_rejected=2).lean()
    assert one == Responses(responses_sent=3, responses_rejected=1)
    assert one.model_fields_set is other.model_fields_set
    copied = one.model_copy(update={"responses_acknowledged": 2})
    assert copied.model_fields_set == {"responses_sent", "responses_acknowledged", "responses_rejected"}
    assert one.model_fields_set == other.model_fields_set == {"responses_sent", "responses_rejected"}
