"""Resources by chance: whatever may be about the services a, b and c, about parts of them, and about none.

In: a random generator. Out: resources that can be stored. Never: one that depends on anything else.
"""

from __future__ import annotations

import random
from typing import Any

from tests.mesh_policies import random_mesh_policy, random_top
from tests.pipeline import (
    HTTP,
    backend,
    connection_policy,
    external_service,
    mesh_route,
    mesh_timeout,
    mesh_traffic_permission,
    of_dataplanes,
    path,
    service,
    split,
    to_everything,
    traffic_log,
    traffic_route,
    virtual_outbound,
)

from kumafast.resources import Resource

_LUA = """
name: envoy.filters.http.lua
typedConfig:
  '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
  defaultSourceCode: {inlineString: "function envoy_on_request(handle) end"}
"""


_UNFIT = """
name: any
typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"""


def _random_template(rng: random.Random, name: str, mesh: str, selectors: list[dict[str, str]]) -> Resource:
    """A template that can be applied to whatever there is, or, of every fifth, to what has no TCP proxy alone."""
    match = rng.choice([{}, {"origin": "outbound"}, {"origin": "inbound"}, {"name": "a"}, {"name": "localhost:80"}])
    changes = [
        {"cluster": {"operation": "patch", "match": match, "value": f"connectTimeout: {rng.randrange(1, 4)}s"}},
        {"cluster": {"operation": "remove", "match": {"name": rng.choice("abc")}}},
        {"cluster": {"operation": "add", "value": f"{{name: {rng.choice('abz')}, type: STATIC}}"}},
        {
            "listener": {
                "operation": "patch",
                "match": {"tags": service("a")},
                "value": "continueOnListenerFiltersTimeout: true",
            }
        },
        {"httpFilter": {"operation": "addFirst", "match": {"origin": "outbound"}, "value": _LUA}},
        {"virtualHost": {"operation": "remove", "match": {"name": "b"}}},
    ]
    unfit = {"name": "envoy.filters.network.tcp_proxy", "origin": rng.choice(["inbound", "outbound", ""])}
    broken = [{"networkFilter": {"operation": "patch", "match": unfit, "value": _UNFIT}}]
    raw = "'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\nname: b\ntype: STATIC\n"
    resources = [{"name": "b", "version": "v1", "resource": raw}]
    return of_dataplanes(
        "ProxyTemplate",
        name,
        mesh=mesh,
        selectors=selectors,
        imports=[rng.choice(["default-proxy", "default-proxy", "gateway-proxy", "ingress-proxy"])],
        resources=rng.choice([[], [], resources]),
        modifications=[*rng.sample(changes, rng.randrange(4)), *(broken if rng.random() < 0.2 else [])],
    )


def _random_observer(rng: random.Random, name: str, mesh: str) -> Resource:
    matches = [service("*"), service("a"), service("a", version="1"), {"version": "*"}]
    backend = rng.choice(["", "one", "two", "missing"])
    if rng.random() < 0.5:
        destinations = rng.sample(["*", "a", "b", "pass_through"], 2)
        return traffic_log(
            name, mesh=mesh, sources=rng.sample(matches[:3], 2), destinations=destinations, backend=backend
        )
    everybody: list[dict[str, str]] = [{}]
    chosen = rng.choice([[], everybody, rng.sample(matches, 2), rng.sample(matches, 1)])
    if rng.random() < 0.5:
        return _random_template(rng, name, mesh, chosen)
    return of_dataplanes("TrafficTrace", name, mesh=mesh, selectors=chosen, backend=backend)


_CHECK = {"interval": "1s", "timeout": "1s", "unhealthyThreshold": 1, "healthyThreshold": 1}


# For services that somebody reaches: kinds, and what each may say.
_ABOUT_SERVICES: dict[str, tuple[dict[str, Any], ...]] = {
    "CircuitBreaker": ({"detectors": {"totalErrors": {}}}, {"thresholds": {"maxRequests": 1}}),
    "HealthCheck": (_CHECK, {**_CHECK, "http": {"path": "/"}}),
    "Retry": ({"http": {"numRetries": 1}}, {"tcp": {"maxConnectAttempts": 2}}, {"grpc": {"numRetries": 1}}),
    "Timeout": tuple({"http": {"requestTimeout": limit}} for limit in ("1s", "2s", "15s")),
}


# For inbounds: those that let in, refuse or count requests by who sends them.
_ABOUT_INBOUNDS: dict[str, tuple[dict[str, Any], ...]] = {
    "FaultInjection": (
        {"abort": {"percentage": 1, "httpStatus": 503}},
        {"delay": {"percentage": 0.5, "value": "1s"}},
    ),
    "RateLimit": tuple({"http": {"requests": requests, "interval": "1s"}} for requests in (1, 2)),
    "TrafficPermission": ({},),
}


def random_connection_policy(rng: random.Random, mesh: str) -> Resource:
    """A policy with sources and destinations."""
    name = f"p{rng.randrange(3)}"
    matches = [service("*"), service("a"), service("a", version="1"), service("b", version="*")]
    sources = rng.sample(matches, 2)
    if rng.random() < 0.4:
        confs, destinations = _ABOUT_INBOUNDS, rng.sample(matches, 2)
    else:
        confs, destinations = _ABOUT_SERVICES, [service(each) for each in rng.sample(["*", "a", "b", "c"], 2)]
    kind = rng.choice(sorted(confs))
    conf = rng.choice(confs[kind])
    return connection_policy(kind, name, mesh=mesh, sources=sources, destinations=destinations, conf=conf)


def _random_route(rng: random.Random, name: str, mesh: str) -> Resource:
    """A route for anybody, from any service to any, also to those that nobody serves."""
    matches = [service("*"), service("a"), service("a", version="1"), service("b", version="*")]
    targets = [*matches, service("*", version="1"), service("*", version="*"), service("c"), service("outside")]
    halves = split((1, rng.choice(targets)), (rng.choice([0, 1, 9]), rng.choice(targets)))
    conf: dict[str, Any] = rng.choice([{"destination": rng.choice(targets)}, {"split": halves}])
    if rng.random() < 0.3:
        match = rng.choice([{"path": {"prefix": "/v1"}}, {"headers": {"x": {"exact": "1"}}}])
        conf["http"] = [{"match": match, "destination": rng.choice(targets)}]
    if rng.random() < 0.3:
        conf["loadBalancer"] = rng.choice([{"roundRobin": {}}, {"random": {}}, {"leastRequest": {}}])
    return traffic_route(
        name, mesh=mesh, sources=rng.sample(matches, 2), destinations=rng.sample(["*", "a", "b", "c"], 2), **conf
    )


def _random_mesh_route(rng: random.Random, name: str, mesh: str) -> Resource:
    """A route with a targetRef for anybody, to any services and parts of them, also to those that nobody serves."""
    top = rng.choice([{"kind": "Mesh"}, {"kind": "MeshService", "name": "a"}, {"kind": "Dataplane", "name": "dp-1"}])
    targets = [backend("a"), backend("b", 9), backend("a", 3, version="1"), backend("c", 0), backend("outside")]
    targets += [random_named(rng) for _ in range(3)]
    chosen = rng.sample(targets, rng.choice([1, 2]))
    about: dict[str, Any] = rng.choice(
        [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "s-0"}, {"name": "s-1"}, {}]
    )
    if not about:
        about = rng.choice([{"labels": {"app": "x"}}, {"name": "s-0", "sectionName": "http"}])
    if rng.random() < 0.4:
        return mesh_route("MeshTCPRoute", name, mesh=mesh, about=about, top=top, backends=chosen)
    mirrored = rng.choice([{"kind": "MeshService", "name": "b"}, {"kind": "MeshService", "name": "s-1", "port": 8080}])
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": mirrored}}
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "elsewhere.example"}}
    defaults = [{"backendRefs": chosen}, {"filters": [mirror]}, {"filters": [redirect]}, {}]
    matches = [path("/"), path("/v1"), path("/v1", "Exact"), {"method": "GET"}]
    rules = [{"matches": rng.sample(matches, 1), "default": rng.choice(defaults)} for _ in range(rng.randrange(1, 3))]
    return mesh_route(name=name, mesh=mesh, about=about, top=top, rules=rules)


def random_named(rng: random.Random) -> dict[str, Any]:
    """A port of a service that a route leads to, which may be there."""
    kind = rng.choice(["MeshService", "MeshService", "MeshMultiZoneService", "MeshExternalService"])
    return {
        "kind": kind,
        "name": f"s-{rng.randrange(3)}",
        "port": rng.choice([8080, 8081]),
        "weight": rng.choice([1, 2]),
    }


def random_external_service(rng: random.Random, mesh: str) -> Resource:
    """Something outside of the mesh, by an address or a name, whose secret may be there."""
    tags = rng.choice([service("a"), service("b", version="1"), service("c", **HTTP), service("outside", version="1")])
    tls = rng.choice([None, None, {}, {"caCert": {"secret": "ca"}}, {"caCert": {"inlineString": "authority"}}])
    address = rng.choice(["192.0.2.1:80", "192.0.2.2:443", "example.com:443"])
    return external_service(f"outside-{rng.randrange(3)}", address, tags, mesh=mesh, tls=tls)


def random_virtual_outbound(rng: random.Random, mesh: str) -> Resource:
    """A name for some of the services that there may be, also one that several of them share or that none can have."""
    matches = [service("*"), service("a"), service("b", version="*"), {"version": "*"}]
    host = rng.choice(["{{.service}}.here", "{{.v}}.{{.service}}.here", "one.here", "{{.v}}"])
    port = rng.choice(["80", "8080", "{{.v}}"])
    return virtual_outbound(f"v{rng.randrange(3)}", host, port, mesh=mesh, match=rng.sample(matches, 2), v="version")


def random_policy(rng: random.Random, mesh: str) -> Resource:
    """A policy of either family, for anybody and about anything that the other random resources may be."""
    name, limit = f"p{rng.randrange(3)}", rng.choice(["1s", "2s", "15s"])
    if rng.random() < 0.35:
        return random_mesh_policy(rng, name, mesh)
    if rng.random() < 0.25:
        return _random_observer(rng, name, mesh)
    if rng.random() < 0.3:
        return (_random_route if rng.random() < 0.5 else _random_mesh_route)(rng, name, mesh)
    if rng.random() < 0.5:
        return random_connection_policy(rng, mesh)
    top = random_top(rng)
    everything = {"targetRef": {"kind": "Mesh"}, "default": {"idleTimeout": limit, "connectionTimeout": limit}}
    to = rng.choice(
        [
            [],
            [everything],
            to_everything(limit, "MeshService", name=rng.choice("abc")),
            to_everything(limit, "MeshService", name="s-0", sectionName=rng.choice(["http", "8080"])),
            to_everything(limit, rng.choice(["MeshService", "MeshExternalService"]), name=f"s-{rng.randrange(3)}"),
            to_everything(limit, rng.choice(["MeshService", "MeshMultiZoneService"]), labels={"app": "x"}),
            to_everything(limit, "MeshHTTPRoute", name=f"p{rng.randrange(3)}"),
        ]
    )
    labels = rng.choice([{}, {}, {"kuma.io/effect": "shadow"}])
    if rng.random() < 0.2:
        item = {"targetRef": {"kind": "MeshService", "name": "a"}, "default": {"action": rng.choice(["Allow", "Deny"])}}
        return mesh_traffic_permission(name, mesh=mesh, labels=labels, targetRef=top, **{"from": [item]})
    return mesh_timeout(
        name, mesh=mesh, labels=labels, targetRef=top, to=to, **{"from": rng.choice([[], [everything]])}
    )
