"""The pipeline without a network: a store, a reconciler that follows it, and resources to put there.

In: what a test is about. Out: snapshots, and how much was done for them. Never: an assertion of what is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

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

    async def work_of(self, written: Resource) -> tuple[float, float]:
        """Write it: the generator calls that this makes, and the proxies whose snapshots it moves."""
        calls, touched = self.generator_calls(), self.touched()
        await self.store.put(written)
        await self.settle()
        return self.generator_calls() - calls, self.touched() - touched

    async def settle(self) -> None:
        await asyncio.wait_for(self.reconciler.reached(await self.store.revision()), 60)

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
    about: dict[str, Any] | None = None,
    top: dict[str, Any] | None = None,
    rules: Iterable[dict[str, Any]] = (),
    backends: Iterable[dict[str, Any]] = (),
) -> Resource:
    """A route with a targetRef: by its rules, or with one for all requests or connections to these backends."""
    default = {"backendRefs": list(backends)}
    everything = {"default": default, **({"matches": [path("/")]} if kind == "MeshHTTPRoute" else {})}
    to = {"targetRef": {"kind": "MeshService", **(about or {"name": service})}, "rules": list(rules) or [everything]}
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
