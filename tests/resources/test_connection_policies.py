"""Policies with sources and destinations come back as written, whatever way their values were spelled."""

from __future__ import annotations

from typing import Any

import pytest
from tests.resources.bad_policies import conf, policy, retry

from kumafast.resources import parse, to_document, validate

CHECK = {"interval": "10s", "timeout": "2s", "unhealthyThreshold": 3, "healthyThreshold": 1}


def shown(document: dict[str, Any]) -> Any:
    """The conf of a good document as the API shows it."""
    resource = parse(document)
    assert validate(resource) == ()
    assert parse(to_document(resource)) == resource
    return to_document(resource)["conf"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"healthyPanicThreshold": 50.0}, {"healthyPanicThreshold": 50}),
        ({"healthyPanicThreshold": 0}, {"healthyPanicThreshold": 0}),
        ({"healthyPanicThreshold": 33.3}, {"healthyPanicThreshold": 33.3}),
        ({"initialJitter": "1m", "intervalJitter": "300ms"}, {"initialJitter": "60s", "intervalJitter": "0.300s"}),
        ({"intervalJitterPercent": 0, "eventLogPath": ""}, {}),
        (
            {"failTrafficOnPanic": False, "reuseConnection": True},
            {"failTrafficOnPanic": False, "reuseConnection": True},
        ),
        # Of either alphabet, with or without padding.
        ({"tcp": {"send": "-_8", "receive": ["Zm8=", "Zm8"]}}, {"tcp": {"send": "+/8=", "receive": ["Zm8=", "Zm8="]}}),
        ({"tcp": {}}, {"tcp": {}}),
        (
            {"http": {"path": "/", "expectedStatuses": [100, 599]}},
            {"http": {"path": "/", "expectedStatuses": [100, 599]}},
        ),
    ],
)
def test_health_checks(written: dict[str, Any], expected: dict[str, Any]) -> None:
    assert shown(conf("HealthCheck", **written)) == {**CHECK, **expected}


@pytest.mark.parametrize(
    "written",
    [
        {"thresholds": {"maxConnections": 0}},
        {"detectors": {"standardDeviation": {"factor": 1.9, "minimumHosts": 0}}},
        {
            "splitExternalAndLocalErrors": True,
            "interval": "5s",
            "maxEjectionPercent": 100,
            "detectors": {"failure": {}},
        },
    ],
)
def test_circuit_breakers(written: dict[str, Any]) -> None:
    assert shown(policy("CircuitBreaker", conf=written)) == written


@pytest.mark.parametrize(
    "written",
    [
        retry("http", retryOn=["retriable_status_codes"], retriableStatusCodes=[0, 600]),
        retry("http", retriableMethods=["GET", "GET"]),
        retry("grpc", backOff={"baseInterval": "1s", "maxInterval": "1s"}),
        retry("tcp", maxConnectAttempts=1),
    ],
)
def test_retries(written: dict[str, Any]) -> None:
    assert shown(written) == written["conf"]


def test_fields_are_also_known_by_their_names_in_protobuf() -> None:
    written = {"interval": "10s", "timeout": "2s", "unhealthy_threshold": 3, "healthy_threshold": 1}
    assert shown(policy("HealthCheck", conf=written)) == CHECK
