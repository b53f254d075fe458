"""The pipeline without a network: a store, a reconciler that follows it, and resources to put there.

In: what a test is about. Out: snapshots, and how much was done for them. Never: an assertion of what is right.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from tests.mesh_policies import random_mesh_policy, random_top

from kumafast.identity.admission import admit
from kumafast.metrics import Metrics
from kumafast.preview import Preview, foresee
from kumafast.reconciler import Reconciler
from kumafast.rejections import Cause, Refusal
from kumafast.resources import Dataplane, Mesh, Resource, initial_resources, parse, with_defaults
from kumafast.snapshot import Snapshot, SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import LISTENER
from kumafast.store import Change, MemoryStore, Put, Store


def dataplane(
    name: str,
    *,
    mesh: str = "default",
    address: str = "10.0.0.1",
    port: int = 8080,
    tags: dict[str, str] | None = None,
    reaches: Iterable[dict[str, str]] = (),
    state: str = "Ready",
    labels: dict[str, str] | None = None,
) -> Dataplane:
    inbound = [] if tags is None else [{"port": port, "tags": tags, "state": state}]
    outbound = [{"port": 10_000 + number, "tags": reached} for number, reached in enumerate(reaches)]
    networking = {"address": address, "inbound": inbound, "outbound": outbound}
    fields = {"name": name, "mesh": mesh, "labels": labels or {}, "networking": networking}
    resource = parse({"type": "Dataplane", **fields})
    assert isinstance(resource, Dataplane)
    return resource


def service(name: str, **tags: str) -> dict[str, str]:
    return {"kuma.io/service": name, **tags}


class Pipeline:
    """A store, a reconciler that follows it, and nodes that are connected without a network."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cache = SnapshotCache()
        self.metrics = Metrics()
        self.failed: list[str] = []
        """The nodes for which another failure than before, or none any more, was told of."""
        self.reconciler = Reconciler(
            store=store, cache=self.cache, metrics=self.metrics, debounce_ms=0, failed=self.failed.append
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Pipeline:
        await self.reconciler.load()
        self._task = asyncio.create_task(self.reconciler.follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def connect(self, *names: str, mesh: str = "default") -> None:
        for name in names:
            self.reconciler.connect(f"stream of {mesh}.{name}", Node(f"{mesh}.{name}"))

    async def settle(self) -> None:
        await asyncio.wait_for(self.reconciler.reached(await self.store.revision()), 10)

    def snapshot(self, name: str, *, mesh: str = "default") -> Snapshot:
        snapshot = self.cache.get(f"{mesh}.{name}")
        assert snapshot is not None
        return snapshot

    def generator_calls(self) -> float:
        return self._total("kumafast_generator_calls_total")

    def touched(self) -> float:
        """How many snapshots moved because of changes."""
        return self._total("kumafast_affected_proxies_sum")

    def _total(self, name: str) -> float:
        families = self.metrics.registry.collect()
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)


def foresight(store: Store) -> Callable[[Sequence[Change]], Awaitable[Preview]]:
    """What changes would do, asked of a control plane that has just read the store and serves nobody."""

    async def ask(changes: Sequence[Change]) -> Preview:
        reconciler = Pipeline(store).reconciler
        await reconciler.load()
        return await foresee(reconciler.fork, reconciler.node, changes)

    return ask


async def no_cause(refusals: Sequence[Refusal]) -> list[Cause]:
    """For those who know of no policy."""
    return [Cause() for _ in refusals]


async def with_default_mesh() -> MemoryStore:
    store = MemoryStore()
    await store.put(Mesh(name="default"))
    return store


def names(snapshot: Snapshot, type_url: str) -> set[str]:
    return set(snapshot.resources(type_url))


def mesh_timeout(
    name: str = "mt", *, mesh: str = "default", labels: dict[str, str] | None = None, **spec: Any
) -> Resource:
    """A policy as the API stores it."""
    document = {"type": "MeshTimeout", "name": name, "mesh": mesh, "labels": labels or {}, "spec": spec}
    return with_defaults(parse(document), zone="default")


def to_everything(request: str, kind: str = "Mesh", **ref: Any) -> list[dict[str, Any]]:
    return [{"targetRef": {"kind": kind, **ref}, "default": {"http": {"requestTimeout": request}}}]


def timeout(
    name: str = "t", *, mesh: str = "default", sources: list[dict[str, str]], destinations: list[str], request: str
) -> Resource:
    return parse(
        {
            "type": "Timeout",
            "name": name,
            "mesh": mesh,
            "sources": [{"match": match} for match in sources],
            "destinations": [{"match": service(destination)} for destination in destinations],
            "conf": {"http": {"requestTimeout": request}},
        }
    )


def traffic_route(
    name: str = "r",
    *,
    mesh: str = "default",
    sources: Iterable[dict[str, str]] = (service("*"),),
    destinations: Iterable[str] = ("*",),
    **conf: Any,
) -> Resource:
    """A policy that leads requests elsewhere; a conf that says nothing leaves them where they are."""
    ends = {
        "sources": [{"match": match} for match in sources],
        "destinations": [{"match": service(destination)} for destination in destinations],
    }
    conf = conf or {"destination": service("*")}
    return parse({"type": "TrafficRoute", "name": name, "mesh": mesh, **ends, "conf": conf})


def mesh_route(
    kind: str = "MeshHTTPRoute",
    name: str = "hr",
    *,
    mesh: str = "default",
    service: str = "backend",
    top: dict[str, Any] | None = None,
    rules: Iterable[dict[str, Any]] = (),
    backends: Iterable[dict[str, Any]] = (),
) -> Resource:
    """A route with a targetRef: by its rules, or with one for all requests or connections to these backends."""
    default = {"backendRefs": list(backends)}
    everything = {"default": default, **({"matches": [path("/")]} if kind == "MeshHTTPRoute" else {})}
    to = {"targetRef": {"kind": "MeshService", "name": service}, "rules": list(rules) or [everything]}
    spec = {"targetRef": top or {"kind": "Mesh"}, "to": [to]}
    return parse({"type": kind, "name": name, "mesh": mesh, "spec": spec})


def path(value: str, kind: str = "PathPrefix") -> dict[str, Any]:
    """Requests of a path, for rules of a MeshHTTPRoute."""
    return {"path": {"type": kind, "value": value}}


def backend(name: str, weight: int = 1, **tags: str) -> dict[str, Any]:
    """A service, or a part of it, that a route leads to."""
    kind = {"kind": "MeshServiceSubset", "tags": tags} if tags else {"kind": "MeshService"}
    return {**kind, "name": name, "weight": weight}


def split(*destinations: tuple[int, dict[str, str]]) -> list[dict[str, Any]]:
    return [{"weight": weight, "destination": tags} for weight, tags in destinations]


def external_service(
    name: str,
    address: str,
    tags: dict[str, str],
    *,
    mesh: str = "default",
    tls: dict[str, Any] | None = None,
) -> Resource:
    networking = {"address": address, **({} if tls is None else {"tls": {"enabled": True, **tls}})}
    return parse({"type": "ExternalService", "name": name, "mesh": mesh, "networking": networking, "tags": tags})


HTTP = {"kuma.io/protocol": "http"}
HERE = {"kuma.io/zone": "default"}


def request_timeout(snapshot: Snapshot, listener: str = "outbound:127.0.0.1:10000") -> timedelta:
    """How long a request through an outbound may take, read from what is sent to Envoy."""
    message = listener_pb2.Listener.FromString(snapshot.resources(LISTENER)[listener].body)
    manager = http_connection_manager_pb2.HttpConnectionManager()
    message.filter_chains[0].filters[0].typed_config.Unpack(manager)
    limit: timedelta = manager.route_config.virtual_hosts[0].routes[0].route.timeout.ToTimedelta()
    return limit


async def with_new_mesh() -> MemoryStore:
    """A store with a mesh as users create it, with its policies."""
    store = MemoryStore()
    mesh = Mesh(name="default")
    await store.write([Put(mesh), *map(Put, initial_resources(mesh, zone="default"))])
    return store


def secured(enabled: str = "ca-1", *, mode: str = "STRICT", life: str = "24h", name: str = "default") -> Mesh:
    """A mesh with TLS by a builtin authority."""
    backend = {"name": enabled, "type": "builtin", "mode": mode, "dpCert": {"rotation": {"expiration": life}}}
    return Mesh.model_validate({"name": name, "mtls": {"enabledBackend": enabled, "backends": [backend]}})


async def put_mesh(store: Store, mesh: Mesh) -> None:
    """Write a mesh with what is written along with it, as the API does."""
    admission = await admit(mesh, store)
    assert admission.violations == ()
    await store.write([Put(mesh), *(Put(each, expected_revision=0) for each in admission.companions)])


def traffic_permission(
    name: str, *, mesh: str = "default", sources: Iterable[dict[str, str]], destinations: Iterable[dict[str, str]]
) -> Resource:
    ends = {
        "sources": [{"match": each} for each in sources],
        "destinations": [{"match": each} for each in destinations],
    }
    return parse({"type": "TrafficPermission", "mesh": mesh, "name": name, **ends})


def mesh_traffic_permission(
    name: str, *, mesh: str = "default", labels: dict[str, str] | None = None, **spec: Any
) -> Resource:
    fields = {"mesh": mesh, "name": name, "labels": labels or {}, "spec": spec}
    return parse({"type": "MeshTrafficPermission", **fields})


def traffic_log(
    name: str = "tl",
    *,
    mesh: str = "default",
    sources: Iterable[dict[str, str]] = ({"kuma.io/service": "*"},),
    destinations: Iterable[str] = ("*",),
    backend: str = "",
) -> Resource:
    ends = {
        "sources": [{"match": each} for each in sources],
        "destinations": [{"match": service(each)} for each in destinations],
    }
    return parse({"type": "TrafficLog", "mesh": mesh, "name": name, "conf": {"backend": backend}, **ends})


def of_dataplanes(
    kind: str, name: str, *, mesh: str = "default", selectors: Iterable[dict[str, str]] = (), **conf: Any
) -> Resource:
    """A policy of the dataplanes that its selectors choose."""
    chosen = [{"match": each} for each in selectors]
    return parse({"type": kind, "mesh": mesh, "name": name, "selectors": chosen, "conf": conf})


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


def connection_policy(
    kind: str,
    name: str,
    *,
    mesh: str = "default",
    sources: Iterable[dict[str, str]],
    destinations: Iterable[dict[str, str]],
    conf: dict[str, Any],
) -> Resource:
    """A policy of the family with sources and destinations."""
    ends = {
        "sources": [{"match": each} for each in sources],
        "destinations": [{"match": each} for each in destinations],
    }
    return parse({"type": kind, "mesh": mesh, "name": name, **ends, "conf": conf})


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
    chosen = rng.sample(targets, rng.choice([1, 2]))
    about = rng.choice("abc")
    if rng.random() < 0.4:
        return mesh_route("MeshTCPRoute", name, mesh=mesh, service=about, top=top, backends=chosen)
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"kind": "MeshService", "name": "b"}}}
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "elsewhere.example"}}
    defaults = [{"backendRefs": chosen}, {"filters": [mirror]}, {"filters": [redirect]}, {}]
    matches = [path("/"), path("/v1"), path("/v1", "Exact"), {"method": "GET"}]
    rules = [{"matches": rng.sample(matches, 1), "default": rng.choice(defaults)} for _ in range(rng.randrange(1, 3))]
    return mesh_route(name=name, mesh=mesh, service=about, top=top, rules=rules)


def random_external_service(rng: random.Random, mesh: str) -> Resource:
    """Something outside of the mesh, by an address or a name, whose secret may be there."""
    tags = rng.choice([service("a"), service("b", version="1"), service("c", **HTTP), service("outside", version="1")])
    tls = rng.choice([None, None, {}, {"caCert": {"secret": "ca"}}, {"caCert": {"inlineString": "authority"}}])
    address = rng.choice(["192.0.2.1:80", "192.0.2.2:443", "example.com:443"])
    return external_service(f"outside-{rng.randrange(3)}", address, tags, mesh=mesh, tls=tls)


def virtual_outbound(
    name: str,
    host: str,
    port: str,
    *,
    mesh: str = "default",
    match: Iterable[dict[str, str]] = ({"kuma.io/service": "*"},),
    **tags: str,
) -> Resource:
    """A name made of the service tag, `.service`, and of others by names of one's own."""
    parameters = [{"name": name, "tagKey": key} for name, key in {"service": "kuma.io/service", **tags}.items()]
    selectors = [{"match": each} for each in match]
    conf = {"host": host, "port": port, "parameters": parameters}
    return parse({"type": "VirtualOutbound", "mesh": mesh, "name": name, "selectors": selectors, "conf": conf})


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
        ]
    )
    labels = rng.choice([{}, {}, {"kuma.io/effect": "shadow"}])
    if rng.random() < 0.2:
        item = {"targetRef": {"kind": "MeshService", "name": "a"}, "default": {"action": rng.choice(["Allow", "Deny"])}}
        return mesh_traffic_permission(name, mesh=mesh, labels=labels, targetRef=top, **{"from": [item]})
    return mesh_timeout(
        name, mesh=mesh, labels=labels, targetRef=top, to=to, **{"from": rng.choice([[], [everything]])}
    )
