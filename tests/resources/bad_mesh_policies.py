"""Policies with a targetRef that must be refused for what they say; `test_positions` has whom they are for.

In: nothing. Out: `BAD_MESH_POLICIES`, in the form of `BAD_DOCUMENTS`. Never: policies that are merely unusual.
"""

from __future__ import annotations

from typing import Any

from tests.resources.document_forms import NUMBER, TEXT, BadDocument, invalid, malformed

COUNT = "must be a whole number between 0 and 4294967295"
INT32 = "must be a whole number of 32 bits"
DURATION = "must be a duration such as 300ms, 15s or 1h30m"
DECIMAL = "must be a whole number, or a decimal number as a text"
POSITIVE = "must be greater than zero when defined"
POSITIVE_COUNT = "must be greater than 0"
DEFINED = "must be defined"
NOT_EMPTY = "must not be empty"
PERCENT = "must be in inclusive range [0.0, 100.0]"
WHOLE_PERCENT = "must be in inclusive range [0, 100]"
STATUS = "must be in inclusive range [100, 599]"
HEADER_NAME = "in body should match '^[a-z0-9!#$%&'*+\\-.^_\\x60|~]+$'"

MESH = {"kind": "Mesh"}


def to(kind: str, default: object) -> dict[str, Any]:
    """A policy of a kind for all that all proxies send."""
    spec = {"targetRef": MESH, "to": [{"targetRef": MESH, "default": default}]}
    return {"type": kind, "mesh": "default", "name": "p", "spec": spec}


def rules(kind: str, default: object, *matches: object) -> dict[str, Any]:
    """A policy of a kind for all that a dataplane takes, or for what matches."""
    rule = {"default": default, **({"matches": list(matches)} if matches else {})}
    spec = {"targetRef": {"kind": "Dataplane"}, "rules": [rule]}
    return {"type": kind, "mesh": "default", "name": "p", "spec": spec}


def retry(section: str, **fields: Any) -> dict[str, Any]:
    return to("MeshRetry", {section: fields})


_RETRY = "spec.to[0].default.conf"

_RETRIES: list[BadDocument] = [
    invalid(
        "mesh-retry-nothing",
        to("MeshRetry", {}),
        (_RETRY, "at least one of the 'tcp', 'http', 'grpc' must be specified"),
    ),
    invalid(
        "mesh-retry-no-default",
        to("MeshRetry", None),
        (_RETRY, "at least one of the 'tcp', 'http', 'grpc' must be specified"),
    ),
    invalid(
        "mesh-retry-empty-sections",
        to("MeshRetry", {"tcp": {}, "http": {}, "grpc": {}}),
        (f"{_RETRY}.tcp", NOT_EMPTY),
        (f"{_RETRY}.http", NOT_EMPTY),
        (f"{_RETRY}.grpc", NOT_EMPTY),
    ),
    invalid(
        "mesh-retry-attempts-alone",
        retry("http", hostSelectionMaxAttempts=2),
        (f"{_RETRY}.http", NOT_EMPTY),
    ),
    invalid(
        "mesh-retry-no-attempt",
        retry("tcp", maxConnectAttempt=0),
        (f"{_RETRY}.tcp.maxConnectAttempt", POSITIVE_COUNT),
    ),
    invalid(
        "mesh-retry-reasons",
        retry("http", retryOn=["WRONG_VALUE", "5XX", "reset", 123, "952", "5xx", 503, "HttpMethodGet"]),
        (f"{_RETRY}.http.retryOn[0]", "unknown item 'WRONG_VALUE'"),
        (f"{_RETRY}.http.retryOn[1]", "unknown item '5XX'"),
        (f"{_RETRY}.http.retryOn[2]", "unknown item 'reset'"),
        (f"{_RETRY}.http.retryOn[3]", "unknown item '123'"),
        (f"{_RETRY}.http.retryOn[4]", "unknown item '952'"),
    ),
    invalid(
        "mesh-retry-grpc-reasons",
        retry("grpc", retryOn=[500, "reset", "Canceled"]),
        (f"{_RETRY}.grpc.retryOn[0]", "unknown item '500'"),
        (f"{_RETRY}.grpc.retryOn[1]", "unknown item 'reset'"),
    ),
    invalid(
        "mesh-retry-back-off",
        to("MeshRetry", {"http": {"backOff": {}}, "grpc": {"backOff": {"baseInterval": "0s", "maxInterval": "-1s"}}}),
        (f"{_RETRY}.http.backOff", NOT_EMPTY),
        (f"{_RETRY}.grpc.backOff.baseInterval", POSITIVE),
        (f"{_RETRY}.grpc.backOff.maxInterval", POSITIVE),
    ),
    invalid(
        "mesh-retry-back-off-longest",
        retry("http", backOff={"baseInterval": "2s", "maxInterval": "1s"}),
        (f"{_RETRY}.http.backOff.maxInterval", "has to be at least as long as baseInterval"),
    ),
    invalid(
        "mesh-retry-rate-limited",
        retry("http", rateLimitedBackOff={"maxInterval": "0s", "resetHeaders": [{"format": "Seconds"}]}),
        (f"{_RETRY}.http.rateLimitedBackOff.maxInterval", "must be defined and greater than zero"),
        (f"{_RETRY}.http.rateLimitedBackOff.resetHeaders[0].name", DEFINED),
    ),
    invalid(
        "mesh-retry-rate-limited-by-nothing",
        retry("grpc", rateLimitedBackOff={}),
        (f"{_RETRY}.grpc.rateLimitedBackOff.resetHeaders", DEFINED),
    ),
    invalid(
        "mesh-retry-hosts",
        retry(
            "http",
            hostSelection=[
                {"predicate": "OmitHostsWithTags"},
                {"predicate": "OmitPreviousPriorities", "updateFrequency": 0},
                {"predicate": "OmitPreviousHosts"},
                {"predicate": "OmitPreviousPriorities"},
                {"predicate": "OmitNobody"},
            ],
        ),
        (f"{_RETRY}.http.hostSelection[0].tags", DEFINED),
        (f"{_RETRY}.http.hostSelection[1].updateFrequency", "must be defined and greater than zero"),
        (f"{_RETRY}.http.hostSelection[3].predicate", "OmitPreviousPriorities must only be specified once"),
        (f"{_RETRY}.http.hostSelection[4].predicate", "unknown predicate type 'OmitNobody'"),
    ),
    invalid(
        "mesh-retry-headers",
        retry("http", retriableRequestHeaders=[{"name": "X-A"}, {"name": "a" * 257}], retriableResponseHeaders=[{}]),
        (f"{_RETRY}.http.retriableResponseHeaders[0].name", "in body should be at least 1 chars long"),
        (f"{_RETRY}.http.retriableRequestHeaders[0].name", HEADER_NAME),
        (f"{_RETRY}.http.retriableRequestHeaders[1].name", "in body should be at most 256 chars long"),
    ),
    malformed(
        "mesh-retry-interval", retry("http", perTryTimeout="soon"), ("spec.to[0].default.http.perTryTimeout", DURATION)
    ),
    malformed("mesh-retry-count", retry("http", numRetries=-1), ("spec.to[0].default.http.numRetries", COUNT)),
    malformed("mesh-retry-reason", retry("http", retryOn=[True]), ("spec.to[0].default.http.retryOn[0]", TEXT)),
]

_BREAK = "spec.to[0].default"
_OUTLIERS = f"{_BREAK}.outlierDetection"
_NO_BREAKER = "at least one of: 'connectionLimits' or 'outlierDetection' should be configured"
_LIMITS = ("maxConnections", "maxConnectionPools", "maxPendingRequests", "maxRetries", "maxRequests")


def outliers(**fields: Any) -> dict[str, Any]:
    return to("MeshCircuitBreaker", {"outlierDetection": fields})


_BREAKERS: list[BadDocument] = [
    invalid("mesh-breaker-nothing", to("MeshCircuitBreaker", {}), (_BREAK, _NO_BREAKER)),
    invalid("mesh-breaker-rule", rules("MeshCircuitBreaker", {}), ("spec.rules[0].default", _NO_BREAKER)),
    invalid(
        "mesh-breaker-limits",
        to("MeshCircuitBreaker", {"connectionLimits": dict.fromkeys(_LIMITS, 0)}),
        *((f"{_BREAK}.connectionLimits.{name}", POSITIVE_COUNT) for name in _LIMITS),
    ),
    invalid("mesh-breaker-no-detectors", outliers(disabled=True), (f"{_OUTLIERS}.detectors", DEFINED)),
    invalid(
        "mesh-breaker-empty-detectors",
        outliers(detectors={}),
        (
            f"{_OUTLIERS}.detectors",
            "must have at least one defined: totalFailures, gatewayFailures, localOriginFailures, successRate, "
            "failurePercentage",
        ),
    ),
    invalid(
        "mesh-breaker-zeros",
        outliers(
            interval="0s",
            baseEjectionTime="0s",
            maxEjectionPercent=0,
            detectors={
                "totalFailures": {"consecutive": 0},
                "gatewayFailures": {"consecutive": 0},
                "localOriginFailures": {"consecutive": 0},
                "successRate": {"minimumHosts": 0, "requestVolume": 0, "standardDeviationFactor": 0},
                "failurePercentage": {"minimumHosts": 0, "requestVolume": 0, "threshold": 0},
            },
        ),
        (f"{_OUTLIERS}.interval", POSITIVE),
        (f"{_OUTLIERS}.baseEjectionTime", POSITIVE),
        (f"{_OUTLIERS}.detectors.totalFailures.consecutive", POSITIVE_COUNT),
        (f"{_OUTLIERS}.detectors.gatewayFailures.consecutive", POSITIVE_COUNT),
        (f"{_OUTLIERS}.detectors.localOriginFailures.consecutive", POSITIVE_COUNT),
        (f"{_OUTLIERS}.detectors.successRate.minimumHosts", POSITIVE_COUNT),
        (f"{_OUTLIERS}.detectors.successRate.requestVolume", POSITIVE_COUNT),
        (f"{_OUTLIERS}.detectors.successRate.standardDeviationFactor", POSITIVE_COUNT),
        (f"{_OUTLIERS}.detectors.failurePercentage.minimumHosts", POSITIVE_COUNT),
        (f"{_OUTLIERS}.detectors.failurePercentage.requestVolume", POSITIVE_COUNT),
    ),
    invalid(
        "mesh-breaker-percentages",
        outliers(
            maxEjectionPercent=101,
            healthyPanicThreshold="100.1",
            detectors={"failurePercentage": {"threshold": 101}, "successRate": {"standardDeviationFactor": "xyz"}},
        ),
        (f"{_OUTLIERS}.maxEjectionPercent", WHOLE_PERCENT),
        (f"{_OUTLIERS}.detectors.successRate.standardDeviationFactor", "invalid number"),
        (f"{_OUTLIERS}.detectors.failurePercentage.threshold", WHOLE_PERCENT),
        (f"{_OUTLIERS}.healthyPanicThreshold", PERCENT),
    ),
    invalid(
        "mesh-breaker-factor",
        outliers(detectors={"successRate": {"standardDeviationFactor": "1e9"}}),
        (f"{_OUTLIERS}.detectors.successRate.standardDeviationFactor", "must be at most 4294967"),
    ),
    malformed(
        "mesh-breaker-factor-decimal",
        outliers(detectors={"successRate": {"standardDeviationFactor": 1.9}}),
        (f"{_OUTLIERS}.detectors.successRate.standardDeviationFactor", DECIMAL),
    ),
    malformed("mesh-breaker-interval", outliers(interval=5), (f"{_OUTLIERS}.interval", TEXT)),
]

_CHECK = "spec.to[0].default"


def check(**fields: Any) -> dict[str, Any]:
    return to("MeshHealthCheck", {"tcp": {}, **fields})


_CHECKS: list[BadDocument] = [
    invalid(
        "mesh-check-nothing", to("MeshHealthCheck", {}), (_CHECK, "must have at least one defined: http, tcp, grpc")
    ),
    invalid(
        "mesh-check-zeros",
        check(
            interval="0s",
            timeout="-2s",
            unhealthyThreshold=-3,
            healthyThreshold=0,
            initialJitter="0s",
            intervalJitter="0s",
            noTrafficInterval="0s",
        ),
        (f"{_CHECK}.interval", POSITIVE),
        (f"{_CHECK}.timeout", POSITIVE),
        (f"{_CHECK}.unhealthyThreshold", POSITIVE),
        (f"{_CHECK}.healthyThreshold", POSITIVE),
        (f"{_CHECK}.initialJitter", POSITIVE),
        (f"{_CHECK}.intervalJitter", POSITIVE),
        (f"{_CHECK}.noTrafficInterval", POSITIVE),
    ),
    invalid(
        "mesh-check-percentages",
        check(intervalJitterPercent=110, healthyPanicThreshold=101),
        (f"{_CHECK}.intervalJitterPercent", WHOLE_PERCENT),
        (f"{_CHECK}.healthyPanicThreshold", PERCENT),
    ),
    invalid(
        "mesh-check-panic-text",
        check(healthyPanicThreshold="many"),
        (f"{_CHECK}.healthyPanicThreshold", "string must be a valid number"),
    ),
    invalid(
        "mesh-check-log",
        check(eventLogPath="#no-path"),
        (f"{_CHECK}.eventLogPath", "must be a valid path when defined"),
    ),
    invalid(
        "mesh-check-http",
        check(http={"path": "", "expectedStatuses": [99, 200, 600], "requestHeadersToAdd": {"set": [{"name": "A b"}]}}),
        (f"{_CHECK}.http.path", DEFINED),
        (f"{_CHECK}.http.expectedStatuses[0]", STATUS),
        (f"{_CHECK}.http.expectedStatuses[2]", STATUS),
        (f"{_CHECK}.http.requestHeadersToAdd.set[0].name", HEADER_NAME),
    ),
    malformed("mesh-check-threshold", check(healthyThreshold=2**31), (f"{_CHECK}.healthyThreshold", INT32)),
    malformed("mesh-check-threshold-text", check(healthyThreshold="1"), (f"{_CHECK}.healthyThreshold", NUMBER)),
    malformed("mesh-check-send", check(tcp={"send": "!"}), (f"{_CHECK}.tcp.send", "must be bytes in base64")),
]

_LIMIT = "spec.rules[0].default.local"
_SENDER = {"spiffeID": {"type": "Exact", "value": "spiffe://default/web"}}


def limit(local: object, *matches: object) -> dict[str, Any]:
    return rules("MeshRateLimit", {"local": local}, *matches)


_RATE_LIMITS: list[BadDocument] = [
    invalid("mesh-limit-nothing", rules("MeshRateLimit", {}), (_LIMIT, DEFINED)),
    invalid("mesh-limit-empty", limit({}), (_LIMIT, "must have at least one defined: tcp, http")),
    invalid(
        "mesh-limit-empty-sections",
        limit({"http": {}, "tcp": {}}),
        (f"{_LIMIT}.http", "must have at least one defined: disabled, requestRate, onRateLimit"),
        (f"{_LIMIT}.tcp", "must have at least one defined: disabled, connectionRate"),
    ),
    invalid(
        "mesh-limit-rates",
        limit(
            {
                "http": {"requestRate": {"num": 0, "interval": "49ms"}, "onRateLimit": {"status": 0}},
                "tcp": {"connectionRate": {"interval": "50ms"}},
            }
        ),
        (f"{_LIMIT}.http.requestRate.num", POSITIVE_COUNT),
        (f"{_LIMIT}.http.requestRate.interval", "must be greater than: 50ms"),
        (f"{_LIMIT}.http.onRateLimit.status", POSITIVE_COUNT),
        (f"{_LIMIT}.tcp.connectionRate.num", POSITIVE_COUNT),
        (f"{_LIMIT}.tcp.connectionRate.interval", "must be greater than: 50ms"),
    ),
    invalid(
        "mesh-limit-headers",
        limit({"http": {"onRateLimit": {"headers": {"add": [{"name": "X", "value": "1"}]}}}}),
        (f"{_LIMIT}.http.onRateLimit.headers.add[0].name", HEADER_NAME),
    ),
    invalid(
        "mesh-limit-connections-of-a-sender",
        limit({"tcp": {"connectionRate": {"num": 1, "interval": "1s"}}}, _SENDER),
        (
            f"{_LIMIT}.tcp",
            "can't be specified when matches contain spiffeID because this field cannot be conditioned on source "
            "identity",
        ),
    ),
    invalid(
        "mesh-limit-matches",
        limit({"http": {"disabled": True}}, {"spiffeID": {"type": "Exact", "value": "web"}}, {"sni": {}}),
        ("spec.rules[0].matches[0].spiffeID", "must be a valid Spiffe ID: scheme is missing or invalid"),
        ("spec.rules[0].matches[1].sni.type", "must be set"),
        ("spec.rules[0].matches[1].sni.value", "must be set"),
    ),
    malformed(
        "mesh-limit-interval",
        limit({"tcp": {"connectionRate": {"num": 1, "interval": "1"}}}),
        (f"{_LIMIT}.tcp.connectionRate.interval", DURATION),
    ),
]

_FAULT = "spec.rules[0].default.http"


def faults(*http: object) -> dict[str, Any]:
    return rules("MeshFaultInjection", {"http": list(http)})


_MESH_FAULTS: list[BadDocument] = [
    invalid(
        "mesh-fault-values",
        faults(
            {"abort": {"httpStatus": 677, "percentage": 111}},
            {"delay": {"value": "-5s", "percentage": 1111}},
            {"responseBandwidth": {"limit": "1000", "percentage": 1111}},
        ),
        (f"{_FAULT}.abort[0].httpStatus", STATUS),
        (f"{_FAULT}.abort[0].percentage", PERCENT),
        (f"{_FAULT}.delay[1].value", "must not be negative when defined"),
        (f"{_FAULT}.delay[1].percentage", PERCENT),
        (f"{_FAULT}.responseBandwidth[2].responseBandwidth", "must be in kbps/Mbps/Gbps units"),
        (f"{_FAULT}.responseBandwidth[2].percentage", PERCENT),
    ),
    invalid(
        "mesh-fault-empty",
        faults({"abort": {}}, {"delay": {}}, {"responseBandwidth": {}}),
        (f"{_FAULT}.abort[0].httpStatus", STATUS),
        (f"{_FAULT}.responseBandwidth[2].responseBandwidth", DEFINED),
    ),
    invalid(
        "mesh-fault-percentage",
        faults({"responseBandwidth": {"limit": "1 Gbps", "percentage": "xyz"}}),
        (f"{_FAULT}.responseBandwidth[0].percentage", "string must be a valid number"),
    ),
    invalid(
        "mesh-fault-no-answer",
        faults({"abort": {"httpStatus": 101, "percentage": 1}}),
        (f"{_FAULT}.abort[0].httpStatus", "must be at least 200"),
    ),
    invalid(
        "mesh-fault-matches",
        rules("MeshFaultInjection", {"http": []}, {"spiffeID": {"type": "Prefix", "value": "not-valid"}}),
        ("spec.rules[0].matches[0].spiffeID", "must be a valid Spiffe ID: scheme is missing or invalid"),
    ),
    malformed(
        "mesh-fault-decimal",
        faults({"abort": {"httpStatus": 503, "percentage": 0.5}}),
        (f"{_FAULT}[0].abort.percentage", DECIMAL),
    ),
]

BAD_MESH_POLICIES: list[BadDocument] = [*_RETRIES, *_BREAKERS, *_CHECKS, *_RATE_LIMITS, *_MESH_FAULTS]
