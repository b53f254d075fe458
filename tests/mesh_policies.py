"""Policies with a targetRef, as the API stores them, and random ones for histories.

In: what a test is about. Out: resources. Never: a policy that validation would refuse.
"""

from __future__ import annotations

import random
from typing import Any

from kumafast.resources import Resource, parse, validate

MESH = {"kind": "Mesh"}


def mesh_policy(
    kind: str, name: str, *, mesh: str = "default", labels: dict[str, str] | None = None, **spec: Any
) -> Resource:
    """A policy of a kind; `from` is `from_`."""
    written = {key.rstrip("_"): value for key, value in spec.items()}
    return parse({"type": kind, "mesh": mesh, "name": name, "labels": labels or {}, "spec": written})


def to_service(name: str, default: object) -> dict[str, Any]:
    """What holds for requests to a service, or to any."""
    return {"targetRef": MESH if name == "*" else {"kind": "MeshService", "name": name}, "default": default}


def random_top(rng: random.Random) -> dict[str, Any]:
    """Whom a policy is for: anybody that the other random resources may be."""
    return rng.choice(
        [
            MESH,
            {"kind": "Mesh", "proxyTypes": ["Gateway"]},
            {"kind": "Mesh", "proxyTypes": ["Sidecar"]},
            {"kind": "MeshSubset", "tags": {"version": "1"}},
            {"kind": "MeshService", "name": "a"},
            {"kind": "MeshServiceSubset", "name": "b", "tags": {"version": "2"}},
            {"kind": "Dataplane", "name": f"dp-{rng.randrange(6)}"},
            {"kind": "Dataplane", "labels": {"team": "x"}},
            {"kind": "Dataplane", "sectionName": "80"},
            {"kind": "MeshGateway", "name": f"gw-{rng.randrange(3)}", "tags": rng.choice([{}, {"port": "one"}])},
            {"kind": "MeshHTTPRoute", "name": "p1"},
        ]
    )


_RECORDS = {"type": "OpenTelemetry", "openTelemetry": {"endpoint": "127.0.0.1:4317", "body": "%KUMA_MESH%"}}
_SPANS = {"type": "OpenTelemetry", "openTelemetry": {"endpoint": "127.0.0.1:4317"}}
# What each kind may say of requests to services.
_ABOUT_SERVICES: dict[str, tuple[Any, ...]] = {
    "MeshAccessLog": (
        {"backends": [{"type": "File", "file": {"path": "/tmp/a.log"}}]},
        {"backends": [{"type": "Tcp", "tcp": {"address": "127.0.0.1:5000"}}, _RECORDS]},
        {"backends": [_RECORDS]},
        {"backends": []},
    ),
    "MeshCircuitBreaker": (
        {"connectionLimits": {"maxRequests": 1}},
        {"outlierDetection": {"detectors": {"totalFailures": {"consecutive": 1}}}},
        {"outlierDetection": {"disabled": True, "detectors": {"totalFailures": {}}}},
    ),
    "MeshHealthCheck": ({"tcp": {}}, {"http": {"path": "/"}}, {"interval": "1s", "http": {"disabled": True}}),
    "MeshLoadBalancingStrategy": (
        {"loadBalancer": {"type": "Random"}},
        {"localityAwareness": {"disabled": True}, "hashPolicies": [{"type": "Header", "header": {"name": "x"}}]},
        {"localityAwareness": {"localZone": {"affinityTags": [{"key": "version"}, {"key": "kuma.io/protocol"}]}}},
        {"localityAwareness": {"crossZone": {"failover": [{"to": {"type": "Only", "zones": ["west"]}}]}}},
    ),
    "MeshRetry": (
        {"http": {"numRetries": 1}},
        {"http": {"retryOn": ["5xx"]}, "tcp": {"maxConnectAttempt": 2}},
        {"grpc": {"numRetries": 0}},
    ),
}
# And of what proxies take.
_ABOUT_INBOUNDS: dict[str, tuple[Any, ...]] = {
    "MeshAccessLog": _ABOUT_SERVICES["MeshAccessLog"],
    "MeshCircuitBreaker": _ABOUT_SERVICES["MeshCircuitBreaker"],
    "MeshFaultInjection": (
        {"http": [{"abort": {"httpStatus": 503, "percentage": "0.5"}}]},
        {"http": [{"delay": {"value": "1s", "percentage": 1}}, {"abort": {"httpStatus": 500, "percentage": 1}}]},
        {"http": []},
    ),
    "MeshRateLimit": (
        {"local": {"http": {"requestRate": {"num": 1, "interval": "1s"}}}},
        {"local": {"tcp": {"connectionRate": {"num": 1, "interval": "1s"}}}},
        {"local": {"http": {"disabled": True}}},
    ),
    "MeshTLS": ({"mode": "Permissive"}, {"mode": "Strict"}, {"tlsVersion": {"min": "TLS13"}}),
}
_HAVE_MATCHES = ("MeshAccessLog", "MeshFaultInjection", "MeshRateLimit")
_SOURCES = {
    "MeshFaultInjection": (MESH, {"kind": "MeshService", "name": "a"}, {"kind": "MeshSubset", "tags": {"version": "1"}})
}
_MATCHES: tuple[list[dict[str, Any]], ...] = (
    [],
    [{"spiffeID": {"type": "Exact", "value": "spiffe://default/a"}}],
    [{"spiffeID": {"type": "Prefix", "value": "spiffe://default/"}}, {"sni": {"type": "Exact", "value": "a"}}],
)


def _random_inbound(rng: random.Random, kind: str) -> dict[str, Any]:
    conf = rng.choice(_ABOUT_INBOUNDS[kind])
    if rng.random() < 0.5:
        return {"from": [{"targetRef": rng.choice(_SOURCES.get(kind, (MESH,))), "default": conf}]}
    matches = {"matches": rng.choice(_MATCHES)} if kind in _HAVE_MATCHES else {}
    return {"rules": [{"default": conf, **matches}]}


# And of proxies as a whole: what can be done to whatever there is.
_ABOUT_PROXIES: dict[str, tuple[Any, ...]] = {
    "MeshMetric": (
        {"backends": [{"type": "Prometheus", "prometheus": {"port": 5670}}]},
        {"backends": [{"type": "Prometheus", "prometheus": {"clientId": "x", "tls": {"mode": "ActiveMTLSBackend"}}}]},
        {"backends": [{"type": "OpenTelemetry", "openTelemetry": {"endpoint": "127.0.0.1:4317"}}]},
        {"sidecar": {"profiles": {"appendProfiles": [{"name": "All"}]}}, "applications": [{"port": 8080}]},
        {"backends": []},
    ),
    "MeshPassthrough": (
        {"passthroughMode": "All"},
        {"passthroughMode": "None"},
        {"appendMatch": [{"type": "Domain", "value": "a.test", "port": 80, "protocol": "http"}]},
        {"appendMatch": [{"type": "CIDR", "value": "10.0.0.0/8", "protocol": "tcp"}]},
    ),
    "MeshTrace": (
        {"backends": [{"type": "Zipkin", "zipkin": {"url": "http://127.0.0.1:9411/api/v2/spans"}}]},
        {"backends": [_SPANS], "sampling": {"overall": "0.5"}},
        {"backends": [], "tags": [{"name": "team", "literal": "x"}]},
    ),
    "MeshProxyPatch": tuple(
        {"appendModifications": [modification]}
        for modification in (
            {"cluster": {"operation": "Patch", "match": {"origin": "outbound"}, "value": "connectTimeout: 3s"}},
            {"cluster": {"operation": "Remove", "match": {"name": "a"}}},
            {"listener": {"operation": "Patch", "jsonPatches": [{"op": "add", "path": "/statPrefix", "value": "x"}]}},
            {"virtualHost": {"operation": "Remove", "match": {"name": "b"}}},
        )
    ),
}


def random_mesh_policy(rng: random.Random, name: str, mesh: str) -> Resource:
    """A policy for anybody and about anything."""
    return next(policy for policy in iter(lambda: _any_policy(rng, name, mesh), None) if not validate(policy))


def _any_policy(rng: random.Random, name: str, mesh: str) -> Resource:
    if rng.random() < 0.2:
        kind = rng.choice(sorted(_ABOUT_PROXIES))
        top = next(each for each in iter(lambda: random_top(rng), None) if "sectionName" not in each)
        return mesh_policy(kind, name, mesh=mesh, targetRef=top, default=rng.choice(_ABOUT_PROXIES[kind]))
    kind = rng.choice(sorted({*_ABOUT_SERVICES, *_ABOUT_INBOUNDS}))
    labels = rng.choice([{}, {}, {"kuma.io/effect": "shadow"}])
    spec: dict[str, Any] = {"targetRef": random_top(rng)}
    if kind not in _ABOUT_SERVICES or (kind in _ABOUT_INBOUNDS and rng.random() < 0.5):
        spec |= _random_inbound(rng, kind)
    else:
        services = rng.sample(["*", "a", "b", "c"], rng.randrange(1, 3))
        spec["to"] = [to_service(service, rng.choice(_ABOUT_SERVICES[kind])) for service in services]
    return mesh_policy(kind, name, mesh=mesh, labels=labels, **spec)
