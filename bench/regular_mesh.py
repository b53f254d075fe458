"""A mesh in which every service has as many endpoints and clients as every other, whatever its size.

So a change of one kind affects as many proxies in a mesh of 1,000 dataplanes as in one of 50,000, and its messages are
as long: what it costs can be compared.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

from kumafast import garbage
from kumafast.identity.backends import create_builtin
from kumafast.metrics import Metrics
from kumafast.reconciler import Reconciler
from kumafast.resources import Dataplane, Mesh, Resource, Secret, parse, with_defaults
from kumafast.resources.mesh import CertificateAuthority
from kumafast.snapshot import SnapshotCache
from kumafast.snapshot.node import Node
from kumafast.snapshot.resource import CLUSTER, ENDPOINT, LISTENER, SECRET
from kumafast.store import Change, Put, SqliteStore, StoredResource
from kumafast.stream.messages import Request, Response, Variant
from kumafast.stream.session import Session

PER_SERVICE = 10
OUTBOUNDS = 5
CLIENTS = PER_SERVICE * OUTBOUNDS
"""How many dataplanes reach a service."""

TEAMS = 50
POLICIES = 200

METADATA: dict[str, object] = {
    "features": ["feature-reuse-port"],
    "dataplane.admin.port": "9901",
    "dataplane.readinessReporter.port": "9902",
    "workdir": "/run/kumafast",
}


def address(number: int, network: int = 100) -> str:
    """An address of its own for each number, as long as every other."""
    return f"10.{network + (number >> 14)}.{100 + (number >> 7 & 127)}.{100 + (number & 127)}"


def dataplane(number: int, size: int, *, host: str | None = None, shift: int = 0, **inbound: object) -> Dataplane:
    """The dataplane with a number; `shift` moves its outbounds on by some services, `inbound` alters its inbound."""
    services = size // PER_SERVICE
    tags = {
        "kuma.io/service": service_name(number % services),
        "kuma.io/protocol": "http",
        "kuma.io/zone": "default",
        "version": f"v{number % 3}",
        # Those with the same outbounds are one team's.
        "team": f"team-{number % (services // OUTBOUNDS) % TEAMS:02}",
        "cell": cell(number, size),
    }
    outbounds = [
        {
            "port": 10_000 + index,
            "tags": {"kuma.io/service": service_name((number * OUTBOUNDS + index + shift) % services)},
        }
        for index in range(OUTBOUNDS)
    ]
    networking = {
        "address": host or address(number),
        "inbound": [{"port": 8080, "tags": tags, **inbound}],
        "outbound": outbounds,
    }
    parsed = parse({"type": "Dataplane", "mesh": "default", "name": name(number), "networking": networking})
    assert isinstance(parsed, Dataplane)
    return parsed


def cell(number: int, size: int) -> str:
    """One of a hundred groups of services: 1 % of the dataplanes, as those of a service are in one."""
    services = size // PER_SERVICE
    return f"cell-{number % services * 100 // services:02}"


def policies() -> list[Resource]:
    """200 policies: one for everybody, one for each team, a hundred about a service, the rest of the old family."""
    everything: dict[str, object] = {"kind": "Mesh"}
    made: list[Resource] = [timeouts("everybody", everything, _limits(7))]
    for team in range(TEAMS):
        tags = {"team": f"team-{team:02}"}
        made.append(timeouts(f"team-{team:02}", _subset(tags), {"http": {"requestTimeout": f"{30 + team}s"}}))
    for number in range(100):
        made.append(
            timeouts(f"to-{number:03}", everything, {"idleTimeout": f"{200 + number}s"}, to=service_name(number))
        )
    for number in range(len(made), POLICIES):
        document = {
            "type": "Timeout",
            "mesh": "default",
            "name": f"old-{number:03}",
            "sources": [{"match": {"kuma.io/service": "*", "team": f"team-{number % TEAMS:02}"}}],
            "destinations": [{"match": {"kuma.io/service": service_name(number)}}],
            "conf": {"connectTimeout": f"{number}s"},
        }
        made.append(with_defaults(parse(document), zone="default"))
    return made


def timeouts(name: str, whom: dict[str, object], conf: dict[str, object], *, to: str | None = None) -> Resource:
    """A MeshTimeout for the requests of some dataplanes to a service, or to all."""
    target = {"kind": "Mesh"} if to is None else {"kind": "MeshService", "name": to}
    spec = {"targetRef": whom, "to": [{"targetRef": target, "default": conf}]}
    return with_defaults(parse({"type": "MeshTimeout", "mesh": "default", "name": name, "spec": spec}), zone="default")


def for_cell(seconds: int) -> Resource:
    """A policy for 1 % of the dataplanes, the first of which is number 0."""
    return timeouts("one-cell", _subset({"cell": cell(0, 100)}), _limits(seconds))


def for_nobody(seconds: int) -> Resource:
    """A policy for dataplanes that there are none of."""
    return timeouts("one-cell", _subset({"cell": "none"}), _limits(seconds))


def for_all(seconds: int) -> Resource:
    """A policy for every dataplane, in place of the one that is there."""
    return timeouts("everybody", {"kind": "Mesh"}, _limits(seconds))


def for_inbounds(seconds: int) -> Resource:
    """A policy about what comes in, for every dataplane."""
    rules = [{"default": {"http": {"streamIdleTimeout": f"{seconds}s"}}}]
    spec = {"targetRef": {"kind": "Mesh"}, "rules": rules}
    document = {"type": "MeshTimeout", "mesh": "default", "name": "inbounds", "spec": spec}
    return with_defaults(parse(document), zone="default")


def _limits(seconds: int) -> dict[str, object]:
    # Of the cluster and of the listener.
    return {"connectionTimeout": f"{seconds}s", "http": {"streamIdleTimeout": f"{seconds}s"}}


def _subset(tags: dict[str, str]) -> dict[str, object]:
    return {"kind": "MeshSubset", "tags": tags}


def name(number: int) -> str:
    """The name of the dataplane with a number."""
    return f"dp-{number:06}"


def service_name(number: int) -> str:
    """The service with a number."""
    return f"service-{number:05}"


async def fill(path: Path, size: int, *, zone: str = "") -> None:
    """Write the mesh to a store in a file; given a zone, with the labels that its API gives to what is written there.

    Where dataplanes will be written through an API they need them: else each is another when it first moves.
    """
    store = await SqliteStore.open(path)
    await store.put(Mesh(name="default"))
    await store.write([Put(policy) for policy in policies()])
    for start in range(0, size, 1_000):
        made: list[Resource] = [dataplane(number, size) for number in range(start, min(start + 1_000, size))]
        await store.write([Put(with_defaults(each, zone=zone) if zone else each) for each in made])
    await store.close()


class Sink:
    """An Envoy in memory: a delta stream that takes all it is sent, at once."""

    def __init__(self, node_id: str, cache: SnapshotCache, woken: list[Sink]) -> None:
        self.messages = 0
        self.secret_bytes = 0
        self.responses: list[Response] | None = None
        """What it was sent, where somebody is to count that: it is not the streams' work."""
        self._node_id = node_id
        self._cache = cache
        self._session = Session(Variant.DELTA)
        self._secrets: set[str] = set()
        self._asked: set[str] = set()
        for type_url in (CLUSTER, LISTENER):
            self._session.receive(Request(type_url=type_url, subscribe=["*"]))
        self._session.receive(Request(type_url=ENDPOINT))
        cache.watch(node_id, lambda: woken.append(self))

    def drink(self) -> None:
        """Take all that is due, and ask for the endpoints of the clusters that come, and for secrets with them."""
        snapshot = self._cache.get(self._node_id)
        while (response := self._session.respond(snapshot)) is not None:
            self.messages += 1
            if self.responses is not None:
                self.responses.append(response)
            if response.type_url == SECRET:
                # Its bytes are made when they are sent, and here nobody else reads them.
                self.secret_bytes += sum(len(item.body) for item in response.resources)
            self._session.receive(Request(type_url=response.type_url, nonce=response.nonce))
            if response.type_url == CLUSTER and snapshot is not None:
                there = snapshot.resources(ENDPOINT)
                # Of a cluster that it is sent anew, Envoy does not ask for the endpoints again.
                names = [
                    item.name for item in response.resources if item.name not in self._asked and item.name in there
                ]
                self._asked.update(names)
                self._asked.difference_update(response.removed)
                if names or response.removed:
                    request = Request(type_url=ENDPOINT, subscribe=names, unsubscribe=tuple(response.removed))
                    self._session.receive(request)
                self._ask_for_secrets(snapshot.resources(SECRET).keys())

    def _ask_for_secrets(self, names: Set[str]) -> None:
        if names != self._secrets:
            gone, self._secrets = self._secrets - names, set(names)
            self._session.receive(Request(type_url=SECRET, subscribe=sorted(names), unsubscribe=tuple(sorted(gone))))

    def watch(self, wake: Callable[[], object]) -> None:
        """Be told when there is something to drink, in place of the list of those woken."""

        def call() -> None:
            wake()

        self._cache.watch(self._node_id, call)

    def is_synced(self) -> bool:
        """Whether it holds all that it should."""
        snapshot = self._cache.get(self._node_id)
        return snapshot is not None and self._session.is_synced(snapshot)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one change took. All but the seconds are the same on every machine."""

    resolved: int
    rebound: int
    spliced: int
    generated: int
    encoded_bytes: int
    messages: int
    sent_bytes: int
    lists: int
    """Lists of clusters or listeners that were put together for these messages; those who are alike share one."""
    reconcile_s: float
    """Processor seconds from the commit to the last snapshot."""
    stream_s: float
    """Processor seconds that the sessions of those affected took after that."""

    def counts(self) -> tuple[int, int, int, int, int]:
        """Proxies resolved, proxies bound anew, snapshots spliced, generator calls and messages."""
        return (self.resolved, self.rebound, self.spliced, self.generated, self.messages)

    def sizes(self) -> tuple[int, int]:
        """Bytes encoded and bytes sent."""
        return (self.encoded_bytes, self.sent_bytes)


class RegularMesh:
    """A control plane without a network over a regular mesh, with an in-memory sink for each dataplane."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.cache = SnapshotCache()
        self.woken: list[Sink] = []
        self.sinks: dict[str, Sink] = {}
        self.load_s = self.snapshots_s = 0.0
        self.bytes_per_proxy = self.peak_bytes = 0.0
        self.revision = 0
        """Of the last commit."""
        self._stored: StoredResource | None = None

    def start(self, path: Path) -> None:
        """Open the store, load it, and compute the snapshot of every dataplane."""
        # What the process holds of other tests is not the mesh's.
        held = _resident_bytes()
        _forget_peak()
        asyncio.run(self.load(path))
        before = _resident_bytes()
        self.connect_all()
        self.bytes_per_proxy = (_resident_bytes() - before) / self.size
        self.peak_bytes = _peak_bytes() - held

    def connect_all(self) -> None:
        """Compute the snapshot of every dataplane."""
        started = time.process_time()
        for number in range(self.size):
            self.reconciler.connect(name(number), Node(f"default.{name(number)}", metadata=METADATA))
        self.snapshots_s = time.process_time() - started

    async def load(self, path: Path) -> None:
        """Read the store in a file."""
        started = time.process_time()
        # As `kumafast run` starts.
        with garbage.left_alone():
            store = await SqliteStore.open(path)
            self.reconciler = Reconciler(store=store, cache=self.cache, metrics=Metrics(), debounce_ms=0)
            await self.reconciler.load()
            garbage.keep_what_is()
        self.load_s = time.process_time() - started
        self.revision = await store.revision()
        self._stored = (await store.list("Dataplane")).items[0]
        await store.close()

    def attach_sinks(self) -> None:
        """Open a stream for every dataplane, and let it have everything."""
        for node_id in self.cache:
            self.sinks[node_id] = Sink(node_id, self.cache, self.woken)
        for sink in self.sinks.values():
            sink.drink()
            sink.responses = []

    def commit(self, *changes: Resource | Change) -> list[Change]:
        """These as they are read from a store, as of the next revision."""
        assert self._stored is not None
        at = self._stored.creation_time
        self.revision += 1
        return [
            change if isinstance(change, Change) else Change(change.key, StoredResource(change, 1, at, at))
            for change in changes
        ]

    def change(self, *changes: Resource | Change) -> Cost:
        """Commit these and let everybody have what follows from it."""
        commit = self.commit(*changes)
        before = replace(self.reconciler.work)
        self.woken.clear()
        started = time.process_time()
        self.reconciler.take_in(commit, revision=self.revision)
        while self.reconciler.publish_slice():
            pass
        published = time.process_time()
        sinks = list(dict.fromkeys(self.woken))
        for sink in sinks:
            sink.drink()
        drunk = time.process_time()
        assert self.reconciler.revision == self.revision
        messages, size, lists = _received(sinks)
        return Cost(
            resolved=self.reconciler.work.resolved - before.resolved,
            rebound=self.reconciler.work.rebound - before.rebound,
            spliced=self.reconciler.work.spliced - before.spliced,
            generated=self.reconciler.work.generated - before.generated,
            encoded_bytes=self.reconciler.work.encoded_bytes - before.encoded_bytes,
            messages=messages,
            sent_bytes=size,
            lists=lists,
            reconcile_s=published - started,
            stream_s=drunk - published,
        )


def secured(authority: str, *, life: str = "24h") -> list[Resource]:
    """The mesh with TLS by one of its two builtin authorities, and all that it is made of."""
    backends = [
        {"name": each, "type": "builtin", "dpCert": {"rotation": {"expiration": life}}} for each in _AUTHORITIES
    ]
    mesh = Mesh.model_validate({"name": "default", "mtls": {"enabledBackend": authority, "backends": backends}})
    return [mesh, *(secret for secrets in _AUTHORITIES.values() for secret in secrets())]


@cache
def _authority(name: str) -> tuple[Secret, Secret]:
    return create_builtin("default", CertificateAuthority(name=name, type="builtin"), now=datetime.now(UTC))


_AUTHORITIES = {name: partial(_authority, name) for name in ("ca-1", "ca-2")}


def _received(sinks: Iterable[Sink]) -> tuple[int, int, int]:
    """Of the messages since that was last asked: how many, the bytes of their resources, and lists of these."""
    messages = size = 0
    lists: dict[int, object] = {}
    for sink in sinks:
        for response in sink.responses or ():
            messages += 1
            size += sum(len(item.delta_head) + len(item.body) for item in response.resources)
            if response.type_url in (CLUSTER, LISTENER) and response.resources:
                # Kept, so that no other is at its place in memory.
                lists[id(response.resources)] = response.resources
        sink.responses = []
    return messages, size, len(lists)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
