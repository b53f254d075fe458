"""Policies with sources and destinations that must be refused, and with what.

In: nothing. Out: `BAD_POLICIES`, in the form of `BAD_DOCUMENTS`. Never: policies that are merely unusual.
"""

from __future__ import annotations

from typing import Any

from tests.resources.document_forms import ABSENT, NUMBER, TEXT, BadDocument, invalid, malformed, with_fields

WEB = [{"match": {"kuma.io/service": "web"}}]
BACKEND = [{"match": {"kuma.io/service": "backend"}}]
NO_ELEMENT = "must have at least one element"
NO_TAG = "must have at least one tag"
NO_SERVICE = 'mandatory tag "kuma.io/service" is missing'
ONE_TAG = 'must consist of exactly one tag "kuma.io/service"'
TAG_NAME = "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores"
SELECTOR_VALUE = 'tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be "*"'
POSITIVE = "must have a positive value"
RETRY_POSITIVE = "has to be greater than 0"
RETRY_POSITIVE_IF_SET = "has to be greater than 0 when defined"
PERCENT = "has to be in [0.0 - 100.0] range"
COUNT = "must be a whole number between 0 and 4294967295"
DURATION = "must be a duration such as 300ms, 15s or 1h30m"
NO_BREAKER = "must have at least one of the detector or threshold configured"

_GOOD: dict[str, dict[str, Any]] = {
    "FaultInjection": {"abort": {"percentage": 1, "httpStatus": 503}},
    "RateLimit": {"http": {"requests": 1, "interval": "1s"}},
    "CircuitBreaker": {"detectors": {"totalErrors": {}}},
    "HealthCheck": {"interval": "10s", "timeout": "2s", "unhealthyThreshold": 3, "healthyThreshold": 1},
    "Retry": {"http": {"numRetries": 1}},
    "Timeout": {"connectTimeout": "1s"},
    "TrafficRoute": {"destination": {"kuma.io/service": "backend"}},
}


def policy(kind: str, **over: Any) -> dict[str, Any]:
    """A good policy of a kind with some fields replaced."""
    fields = {"type": kind, "mesh": "default", "name": "p", "sources": WEB, "destinations": BACKEND}
    return with_fields({**fields, "conf": _GOOD[kind]}, **over)


def conf(kind: str, **over: Any) -> dict[str, Any]:
    """A good policy of a kind with some fields of its conf replaced."""
    return policy(kind, conf=with_fields(_GOOD[kind], **over))


def retry(section: str, **fields: Any) -> dict[str, Any]:
    """A Retry with one section."""
    return policy("Retry", conf={section: fields})


def _of_selectors(kind: str) -> list[BadDocument]:
    """What is wrong with whom a policy between services is for."""
    where = kind.lower()
    return [
        invalid(f"{where}-no-sources", policy(kind, sources=ABSENT), ("sources", NO_ELEMENT)),
        invalid(f"{where}-no-destinations", policy(kind, destinations=[]), ("destinations", NO_ELEMENT)),
        invalid(
            f"{where}-nothing",
            policy(kind, sources=[], destinations=None),
            ("sources", NO_ELEMENT),
            ("destinations", NO_ELEMENT),
        ),
        invalid(
            f"{where}-empty-source",
            policy(kind, sources=[*WEB, {"match": {}}]),
            ("sources[1].match", NO_TAG),
            ("sources[1].match", NO_SERVICE),
        ),
        invalid(
            f"{where}-source-without-service",
            policy(kind, sources=[{"match": {"version": "1"}}]),
            ("sources[0].match", NO_SERVICE),
        ),
        invalid(
            f"{where}-source-tags",
            policy(kind, sources=[{"match": {"kuma.io/service": "", "a b": "c d"}}]),
            ('sources[0].match["a b"]', TAG_NAME),
            ('sources[0].match["a b"]', SELECTOR_VALUE),
            ('sources[0].match["kuma.io/service"]', "tag value must be non-empty"),
        ),
        invalid(
            f"{where}-destination-with-another-tag",
            policy(kind, destinations=[{"match": {"kuma.io/service": "a", "version": "1"}}]),
            ("destinations[0].match", ONE_TAG),
            ('destinations[0].match["version"]', 'tag "version" is not allowed'),
        ),
        invalid(
            f"{where}-destination-without-service",
            policy(kind, destinations=[{"match": {"version": "1"}}]),
            ("destinations[0].match", ONE_TAG),
            ('destinations[0].match["version"]', 'tag "version" is not allowed'),
            ("destinations[0].match", NO_SERVICE),
        ),
        invalid(
            f"{where}-empty-destination",
            policy(kind, destinations=[{"match": {}}]),
            ("destinations[0].match", ONE_TAG),
            ("destinations[0].match", NO_SERVICE),
        ),
        malformed(f"{where}-sources-text", policy(kind, sources="web"), ("sources", "must be a list")),
        malformed(f"{where}-conf-list", policy(kind, conf=[]), ("conf", "must be an object")),
    ]


_HEALTH_CHECKS: list[BadDocument] = [
    invalid("health-check-no-conf", policy("HealthCheck", conf=ABSENT), ("conf", "has to be defined")),
    invalid(
        "health-check-empty-conf",
        policy("HealthCheck", conf={}),
        ("conf.interval", POSITIVE),
        ("conf.timeout", POSITIVE),
        ("conf.unhealthyThreshold", POSITIVE),
        ("conf.healthyThreshold", POSITIVE),
    ),
    invalid(
        "health-check-zeros",
        conf(
            "HealthCheck",
            interval="0s",
            timeout="-1s",
            unhealthyThreshold=0,
            initialJitter="0s",
            intervalJitter="0s",
            noTrafficInterval="0s",
        ),
        ("conf.interval", POSITIVE),
        ("conf.timeout", POSITIVE),
        ("conf.unhealthyThreshold", POSITIVE),
        ("conf.initialJitter", POSITIVE),
        ("conf.intervalJitter", POSITIVE),
        ("conf.noTrafficInterval", POSITIVE),
    ),
    invalid(
        "health-check-panic",
        conf("HealthCheck", healthyPanicThreshold=100.1),
        ("conf.healthyPanicThreshold", "must be in range [0.0 - 100.0]"),
    ),
    invalid(
        "health-check-panic-negative",
        conf("HealthCheck", healthyPanicThreshold=-1),
        ("conf.healthyPanicThreshold", "must be in range [0.0 - 100.0]"),
    ),
    invalid(
        "health-check-both-protocols",
        conf("HealthCheck", tcp={}, http={"path": "/"}),
        ("conf", "http and tcp cannot be defined at the same time"),
    ),
    invalid(
        "health-check-http",
        conf(
            "HealthCheck",
            http={
                "expectedStatuses": [99, 200, 600],
                "requestHeadersToAdd": [{"append": True}, {"header": {"value": "a"}}, {"header": {"key": "a"}}],
            },
        ),
        ("conf.http.path", "has to be defined and cannot be empty"),
        ("conf.http.expectedStatuses[0]", "must be in range [100, 600)"),
        ("conf.http.expectedStatuses[2]", "must be in range [100, 600)"),
        ("conf.http.requestHeadersToAdd[0].header", "has to be defined"),
        ("conf.http.requestHeadersToAdd[1].header.key", "cannot be empty"),
    ),
    malformed("health-check-interval", conf("HealthCheck", interval="soon"), ("conf.interval", DURATION)),
    malformed("health-check-interval-number", conf("HealthCheck", interval=10), ("conf.interval", TEXT)),
    malformed("health-check-threshold", conf("HealthCheck", healthyThreshold=-1), ("conf.healthyThreshold", COUNT)),
    malformed(
        "health-check-jitter", conf("HealthCheck", intervalJitterPercent=2**32), ("conf.intervalJitterPercent", COUNT)
    ),
    malformed(
        "health-check-flag",
        conf("HealthCheck", reuseConnection="no"),
        ("conf.reuseConnection", "must be true or false"),
    ),
    malformed(
        "health-check-panic-text",
        conf("HealthCheck", healthyPanicThreshold="50"),
        ("conf.healthyPanicThreshold", "must be a number"),
    ),
    malformed(
        "health-check-send", conf("HealthCheck", tcp={"send": "a b"}), ("conf.tcp.send", "must be bytes in base64")
    ),
    malformed(
        "health-check-receive",
        conf("HealthCheck", tcp={"receive": ["Zm9v", "!"]}),
        ("conf.tcp.receive[1]", "must be bytes in base64"),
    ),
]

_CIRCUIT_BREAKERS: list[BadDocument] = [
    invalid("circuit-breaker-no-conf", policy("CircuitBreaker", conf=ABSENT), ("conf", NO_BREAKER)),
    invalid("circuit-breaker-interval-alone", policy("CircuitBreaker", conf={"interval": "1s"}), ("conf", NO_BREAKER)),
    invalid(
        "circuit-breaker-both-empty",
        policy("CircuitBreaker", conf={"detectors": {}, "thresholds": {}}),
        ("conf", NO_BREAKER),
    ),
    invalid("circuit-breaker-no-limit", conf("CircuitBreaker", thresholds={}), ("conf.thresholds", "can't be empty")),
    invalid(
        "circuit-breaker-no-detector",
        conf("CircuitBreaker", detectors={}, thresholds={"maxRetries": 1}),
        ("conf.detectors", "can't be empty"),
    ),
    invalid(
        "circuit-breaker-percentages",
        conf("CircuitBreaker", maxEjectionPercent=101, detectors={"failure": {"threshold": 101}}),
        ("conf.maxEjectionPercent", PERCENT),
        ("conf.detectors.failure.threshold", PERCENT),
    ),
    invalid(
        "circuit-breaker-times",
        conf("CircuitBreaker", interval="0s", baseEjectionTime="-5s"),
        ("conf.interval", POSITIVE),
        ("conf.baseEjectionTime", POSITIVE),
    ),
    invalid(
        "circuit-breaker-factor",
        conf("CircuitBreaker", detectors={"standardDeviation": {"factor": -1.5}}),
        ("conf.detectors.standardDeviation.factor", "must be a number between 0 and 4294967"),
    ),
    malformed(
        "circuit-breaker-consecutive",
        conf("CircuitBreaker", detectors={"totalErrors": {"consecutive": 1.5}}),
        ("conf.detectors.totalErrors.consecutive", NUMBER),
    ),
    malformed(
        "circuit-breaker-connections",
        conf("CircuitBreaker", thresholds={"maxConnections": -1}),
        ("conf.thresholds.maxConnections", COUNT),
    ),
    malformed(
        "circuit-breaker-split",
        conf("CircuitBreaker", splitExternalAndLocalErrors=1),
        ("conf.splitExternalAndLocalErrors", "must be true or false"),
    ),
]

_RETRIES: list[BadDocument] = [
    invalid("retry-no-conf", policy("Retry", conf=ABSENT), ("conf", "has to be defined")),
    invalid("retry-no-protocol", policy("Retry", conf={}), ("conf", "missing protocol [grpc|http|tcp] configuration")),
    invalid(
        "retry-empty-sections",
        policy("Retry", conf={"http": {}, "grpc": {}, "tcp": {}}),
        ("conf.http", "field cannot be empty"),
        ("conf.grpc", "field cannot be empty"),
        ("conf.tcp.maxConnectAttempts", RETRY_POSITIVE),
    ),
    invalid(
        "retry-zeros",
        retry("http", numRetries=0, perTryTimeout="0s", backOff={"baseInterval": "0s", "maxInterval": "0s"}),
        ("conf.http.numRetries", RETRY_POSITIVE_IF_SET),
        ("conf.http.perTryTimeout", RETRY_POSITIVE_IF_SET),
        ("conf.http.backOff.baseInterval", RETRY_POSITIVE),
    ),
    invalid("retry-back-off", retry("grpc", backOff={}), ("conf.grpc.backOff.baseInterval", "has to be defined")),
    invalid(
        "retry-back-off-longest",
        retry("grpc", backOff={"baseInterval": "1s", "maxInterval": "0s"}),
        ("conf.grpc.backOff.maxInterval", RETRY_POSITIVE_IF_SET),
    ),
    invalid(
        "retry-back-off-shrinks",
        retry("http", backOff={"baseInterval": "1s", "maxInterval": "500ms"}),
        ("conf.http.backOff.maxInterval", "has to be at least as long as baseInterval"),
    ),
    invalid(
        "retry-no-method",
        retry("http", retriableMethods=["GET", "NONE"]),
        ("conf.http.retriableMethods[1]", "field cannot be empty"),
    ),
    invalid(
        "retry-no-codes",
        retry("http", retryOn=["reset", "retriable_status_codes"], retriableStatusCodes=[]),
        ("conf.http.retryOn[1]", "retriableStatusCodes cannot be empty when this option is specified"),
    ),
    invalid(
        "retry-repeated",
        retry("grpc", retryOn=["unavailable", "cancelled", "unavailable", "cancelled", "cancelled"], numRetries=0),
        ("conf.grpc.retryOn", 'repeated value "cancelled" at indexes [1, 3, 4]'),
        ("conf.grpc.retryOn", 'repeated value "unavailable" at indexes [0, 2]'),
        ("conf.grpc.numRetries", RETRY_POSITIVE_IF_SET),
    ),
    malformed(
        "retry-method",
        retry("http", retriableMethods=["get"]),
        (
            "conf.http.retriableMethods[0]",
            "must be one of 'NONE', 'CONNECT', 'DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT' or 'TRACE'",
        ),
    ),
    malformed(
        "retry-reason",
        retry("grpc", retryOn=["5xx"]),
        (
            "conf.grpc.retryOn[0]",
            "must be one of 'cancelled', 'deadline_exceeded', 'internal', 'resource_exhausted' or 'unavailable'",
        ),
    ),
    malformed("retry-count", retry("http", numRetries="3"), ("conf.http.numRetries", NUMBER)),
]

_TIMEOUTS: list[BadDocument] = [
    invalid("timeout-no-conf", policy("Timeout", conf=ABSENT), ("conf", "has to be defined")),
    invalid(
        "timeout-empty-sections",
        policy("Timeout", conf={"tcp": {}, "http": {}, "grpc": {}}),
        *((f"conf.{each}", "at least one timeout in section has to be defined") for each in ("tcp", "http", "grpc")),
    ),
    invalid(
        "timeout-zeros",
        policy(
            "Timeout", conf={"connectTimeout": "0s", "tcp": {"idleTimeout": "-1s"}, "http": {"requestTimeout": "0s"}}
        ),
        ("conf.connectTimeout", POSITIVE),
        ("conf.tcp.idleTimeout", POSITIVE),
        ("conf.http.requestTimeout", POSITIVE),
    ),
    malformed("timeout-text", policy("Timeout", conf={"connectTimeout": "5"}), ("conf.connectTimeout", DURATION)),
]

HTTP_BACKEND = {"kuma.io/service": "backend", "kuma.io/protocol": "http"}
NO_FAULT = "must have at least one of the faults configured"
BANDWIDTH = "has to be in kbps/mbps/gbps units"
STATUS = "http status code is incorrect"
EMPTY = "cannot be empty"


def fault(**over: Any) -> dict[str, Any]:
    """A good FaultInjection with some fields replaced."""
    return policy("FaultInjection", **{"destinations": [{"match": HTTP_BACKEND}], **over})


def limit(**over: Any) -> dict[str, Any]:
    """A good RateLimit with some fields of its limit replaced."""
    return policy("RateLimit", conf={"http": with_fields(_GOOD["RateLimit"]["http"], **over)})


_FAULTS: list[BadDocument] = [
    invalid("fault-no-conf", fault(conf=ABSENT), ("conf", NO_FAULT)),
    invalid("fault-empty", fault(conf={"delay": {}, "abort": {}, "responseBandwidth": {}}), ("conf", NO_FAULT)),
    invalid("fault-no-sources", fault(sources=[]), ("sources", NO_ELEMENT)),
    invalid("fault-empty-source", fault(sources=[{"match": {}}]), ("sources[0].match", NO_TAG)),
    invalid(
        "fault-source-tags",
        fault(sources=[{"match": {"a/b": "c?"}}]),
        ('sources[0].match["a/b"]', SELECTOR_VALUE),
    ),
    invalid("fault-no-destinations", fault(destinations=ABSENT), ("destinations", NO_ELEMENT)),
    invalid(
        "fault-empty-destination",
        fault(destinations=[{"match": HTTP_BACKEND}, {"match": {}}]),
        ("destinations[1].match", NO_TAG),
        ("destinations[1].match", "protocol must be specified"),
    ),
    invalid("fault-no-protocol", fault(destinations=BACKEND), ("destinations[0].match", "protocol must be specified")),
    invalid(
        "fault-protocol",
        fault(destinations=[{"match": {"kuma.io/protocol": "tcp", "version": ""}}]),
        ('destinations[0].match["kuma.io/protocol"]', "must be one of the [http, http2, grpc]"),
        ('destinations[0].match["version"]', "tag value must be non-empty"),
    ),
    invalid(
        "fault-any-protocol",
        fault(destinations=[{"match": {"kuma.io/protocol": "*"}}]),
        ('destinations[0].match["kuma.io/protocol"]', "must be one of the [http, http2, grpc]"),
    ),
    invalid(
        "fault-halves",
        fault(conf={"delay": {"percentage": 1}, "abort": {"percentage": 1}, "responseBandwidth": {"percentage": 1}}),
        ("conf.delay.value", EMPTY),
        ("conf.abort.httpStatus", EMPTY),
        ("conf.responseBandwidth.limit", EMPTY),
    ),
    invalid(
        "fault-other-halves",
        fault(conf={"delay": {"value": "1s"}, "abort": {"httpStatus": 500}, "responseBandwidth": {"limit": "1kbps"}}),
        ("conf.delay.percentage", EMPTY),
        ("conf.abort.percentage", EMPTY),
        ("conf.responseBandwidth.percentage", EMPTY),
    ),
    invalid(
        "fault-percentages",
        fault(
            conf={
                "delay": {"percentage": -0.1, "value": "1s"},
                "abort": {"percentage": 100.1, "httpStatus": 500},
                "responseBandwidth": {"percentage": 101, "limit": "1kbps"},
            }
        ),
        ("conf.delay.percentage", PERCENT),
        ("conf.abort.percentage", PERCENT),
        ("conf.responseBandwidth.percentage", PERCENT),
    ),
    invalid("fault-no-delay", fault(conf={"delay": {"percentage": 1, "value": "0s"}}), ("conf.delay.value", POSITIVE)),
    *(
        invalid(
            f"fault-status-{status}",
            fault(conf={"abort": {"percentage": 1, "httpStatus": status}}),
            ("conf.abort.httpStatus", STATUS),
        )
        for status in (0, 100, 199, 306, 427, 600, 1234)
    ),
    *(
        invalid(
            f"fault-limit-{i}",
            fault(conf={"responseBandwidth": {"percentage": 1, "limit": text}}),
            ("conf.responseBandwidth.limit", BANDWIDTH),
        )
        for i, text in enumerate(["", "50", "kbps", "50mb", "50bps", "0kbps", "9" * 18 + "gbps", "50mbps!"])
    ),
    malformed(
        "fault-percentage-text",
        fault(conf={"abort": {"percentage": "1", "httpStatus": 500}}),
        ("conf.abort.percentage", "must be a number"),
    ),
    malformed(
        "fault-percentage-nan",
        fault(conf={"abort": {"percentage": float("nan"), "httpStatus": 500}}),
        ("conf.abort.percentage", "must be a number"),
    ),
    malformed("fault-status-text", fault(conf={"abort": {"httpStatus": "500"}}), ("conf.abort.httpStatus", NUMBER)),
]

_LIMITS: list[BadDocument] = [
    invalid("limit-no-conf", policy("RateLimit", conf=ABSENT), ("conf", "must have conf")),
    invalid(
        "limit-nothing",
        policy("RateLimit", sources=None, destinations=None, conf=None),
        ("sources", NO_ELEMENT),
        ("destinations", NO_ELEMENT),
        ("conf", "must have conf"),
    ),
    invalid(
        "limit-empty-selectors",
        policy("RateLimit", sources=[{"match": {}}], destinations=[{}]),
        ("sources[0].match", NO_TAG),
        ("destinations[0].match", NO_TAG),
    ),
    invalid(
        "limit-tags",
        policy("RateLimit", sources=[{"match": {"": "a"}}], destinations=[{"match": {"version": "1 2"}}]),
        ("sources[0].match", "tag name must be non-empty"),
        ('destinations[0].match["version"]', SELECTOR_VALUE),
    ),
    invalid(
        "limit-empty",
        policy("RateLimit", conf={"http": {}}),
        ("conf.http.requests", "requests must be set"),
        ("conf.http.interval", "interval must be set"),
    ),
    invalid("limit-no-requests", limit(requests=0), ("conf.http.requests", "requests must be set")),
    invalid("limit-interval", limit(interval="49ms"), ("conf.http.interval", "must be at least 50ms")),
    invalid("limit-interval-zero", limit(interval="0s"), ("conf.http.interval", "must be at least 50ms")),
    invalid(
        "limit-headers",
        limit(onRateLimit={"headers": [{"key": "a", "value": "b"}, {"key": "c"}, {"value": "d"}, {}]}),
        ('conf.http.onRateLimit.header["1"]', "value must be set"),
        ('conf.http.onRateLimit.header["2"]', "key must be set"),
        ('conf.http.onRateLimit.header["3"]', "key must be set"),
        ('conf.http.onRateLimit.header["3"]', "value must be set"),
    ),
    *(
        invalid(
            f"limit-status-{status}", limit(onRateLimit={"status": status}), ("conf.http.onRateLimit.status", STATUS)
        )
        for status in (1, 102, 418, 599)
    ),
    malformed("limit-requests-negative", limit(requests=-1), ("conf.http.requests", COUNT)),
    malformed("limit-requests-fraction", limit(requests=1.5), ("conf.http.requests", NUMBER)),
    malformed("limit-interval-text", limit(interval="second"), ("conf.http.interval", DURATION)),
    malformed(
        "limit-headers-object",
        limit(onRateLimit={"headers": {"a": "b"}}),
        ("conf.http.onRateLimit.headers", "must be a list"),
    ),
]

_BETWEEN_SERVICES = ("CircuitBreaker", "HealthCheck", "Retry", "Timeout", "TrafficRoute")

BAD_POLICIES: list[BadDocument] = [
    *(case for kind in _BETWEEN_SERVICES for case in _of_selectors(kind)),
    *_HEALTH_CHECKS,
    *_CIRCUIT_BREAKERS,
    *_RETRIES,
    *_TIMEOUTS,
    *_FAULTS,
    *_LIMITS,
]
