"""Histories of a control plane as plain data, so that they can be replayed, and cut down to what makes them fail.

A history is a list of steps, made from a seed. `World` plays one against a `Reconciler`, without a store or a network,
and `differences` compares what the connected nodes have at the end with what a fresh control plane gives them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.simulation.authorities import (
    MESH_FORMS,
    SECRET_FORMS,
    WHOLE_FORMS,
    can_sign,
    is_asked,
    mesh_of,
    next_trust,
    secret_of,
)
from tests.simulation.gateways import SECRET_FORMS as CERTIFICATES
from tests.simulation.gateways import SECRETS, shown
from tests.simulation.services import random_generator
from tests.simulation.variants import (
    ADDRESSES,
    HOSTS,
    MESHES,
    NAMES,
    POLICIES,
    VARIANTS,
    attachment,
    naming,
    outside,
    policy,
    served,
    variant,
)

from kumafast.generation.names import identity_name, mesh_ca_name
from kumafast.insights.health import in_state
from kumafast.ipam import Ranges, placements
from kumafast.metrics import Metrics
from kumafast.publisher import Resolved
from kumafast.reached import Destinations, Reached
from kumafast.reconciler import Reconciler
from kumafast.resources import Dataplane, DataplaneInsight, Mesh, Resource, ResourceKey, Secret, secret_data
from kumafast.snapshot import Layer, Snapshot, SnapshotCache
from kumafast.snapshot.node import TAKES_DELTA, Node
from kumafast.snapshot.resource import SECRET
from kumafast.store import Change, MemoryStore, StoredResource
from kumafast.templates import Failure

STREAMS = 8

NODES: tuple[dict[str, object], ...] = (
    {},
    {"features": ["feature-reuse-port"], "dataplane.admin.port": "9901"},
    {TAKES_DELTA: True},
    {"features": ["feature-tcp-accesslog-via-named-pipe"], "workdir": "/tmp/w"},
    {"features": ["feature-reuse-port"], "workdir": "/tmp/v", "metricsCertPath": "/tmp/c", "metricsKeyPath": "/tmp/k"},
    {"dataplane.dns.port": "15053", "features": ["feature-unified-resource-naming"]},
    {"dataplane.dns.port": "15053", "ipv6Enabled": True},
)
LEDS_THRESHOLD = 3
"""Some services have more endpoints than that, and some nodes take those one by one."""

_NOW = datetime(2027, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens. `what` is one of the methods of `World`; the rest are its arguments."""

    what: str
    arguments: tuple[object, ...] = ()

    def __repr__(self) -> str:
        return f"Step({self.what!r}, {self.arguments!r})"


def history(seed: int, length: int) -> list[Step]:
    """A random history with `length` changes of resources, and what happens between them."""
    rng = random.Random(seed)
    steps: list[Step] = []
    # How many changes come in one commit, and how far publishing lags behind, are a matter of the history.
    commit_share, slice_share = rng.choice([1.0, 0.5, 0.1]), rng.choice([1.0, 0.5, 0.1])
    # And so is how many Envoys have certificates, and how many authorities are whole.
    secure_share, broken_share = rng.choice([0.5, 0.95]), rng.choice([0.0, 0.4, 1.0])
    # … and how soon names get their addresses.
    allocate_share = rng.choice([0.0, 0.1, 1.0])
    for _ in range(length):
        mesh, name = rng.choice(MESHES), rng.choice(NAMES)
        kind = rng.random()
        if kind < 0.37:
            steps.append(Step("put", (mesh, name, rng.randrange(VARIANTS))))
        elif kind < 0.42:
            steps.append(Step("attach" if rng.random() < 0.8 else "detach", (mesh, rng.randrange(VARIANTS))))
        elif kind < 0.44:
            steps.append(Step("generate" if rng.random() < 0.7 else "degenerate", (rng.randrange(VARIANTS),)))
        elif kind < 0.5:
            steps.append(Step("serve" if rng.random() < 0.7 else "withdraw", (mesh, rng.randrange(VARIANTS))))
        elif kind < 0.62:
            steps.append(Step("bind" if rng.random() < 0.7 else "unbind", (mesh, rng.randrange(POLICIES))))
        elif kind < 0.7:
            steps.append(Step("delete", (mesh, name)))
        elif kind < 0.73:
            steps.append(Step("christen" if rng.random() < 0.7 else "unname", (mesh, rng.randrange(VARIANTS))))
        elif kind < 0.77:
            steps.append(Step("extend" if rng.random() < 0.7 else "curtail", (mesh, rng.randrange(VARIANTS))))
        elif kind < 0.81:
            steps.append(Step("secure", (mesh, name, rng.random() < secure_share)))
        elif kind < 0.88:
            steps.append(Step("mesh", (mesh, rng.randrange(MESH_FORMS) if rng.random() < 0.9 else None)))
        elif kind < 0.89:
            steps.append(Step("show", (mesh, rng.choice(SECRETS), rng.choice([None, *range(CERTIFICATES)]))))
        elif kind < 0.9:
            steps.append(Step("disclose", (mesh, rng.choice([None, "one", "two"]))))
        elif kind < 0.94:
            form = rng.randrange(SECRET_FORMS if rng.random() < broken_share else WHOLE_FORMS)
            steps.append(Step("secret", (mesh, form)))
        else:
            steps.append(Step("roll", (mesh,)))
        if rng.random() < commit_share:
            steps.append(Step("commit"))
        if rng.random() < slice_share:
            steps.append(Step("publish"))
        if rng.random() < 0.1:
            node = rng.randrange(len(NODES))
            steps.append(Step("connect", (rng.randrange(STREAMS), rng.choice(MESHES), rng.choice(NAMES), node)))
        if rng.random() < 0.1:
            steps.append(Step("disconnect", (rng.randrange(STREAMS),)))
        if rng.random() < 0.03:
            steps.append(Step("resolve", (rng.choice(HOSTS), rng.choice(ADDRESSES))))
        if rng.random() < 0.1:
            steps.append(Step("probe", (mesh, name, rng.random() < 0.6)))
        if rng.random() < allocate_share:
            steps.append(Step("allocate"))
        if rng.random() < 0.05:
            steps.append(Step("wait", (rng.choice([1.0, 10.0, 3_600.0]),)))
    return steps


class World:
    """A reconciler, and what has happened to it."""

    def __init__(self, metrics: Metrics) -> None:
        self.cache = SnapshotCache()
        self._clock = _NOW.timestamp()
        # Never followed: changes are handed in.
        self.reconciler = Reconciler(
            store=MemoryStore(),
            cache=self.cache,
            metrics=metrics,
            debounce_ms=0,
            leds_threshold=LEDS_THRESHOLD,
            clock=lambda: self._clock,
        )
        self._metrics = metrics
        self._revision = 0
        self._resources: dict[ResourceKey, Resource] = {}
        self._changes: list[Change] = []
        self._streams: dict[int, str] = {}
        self._nodes: dict[str, Node] = {}
        self._addresses: dict[str, str] = {}
        # Of the meshes that ask for TLS those that have, or had since they asked, an authority.
        self._in_force: set[str] = set()
        # Nodes that came to a mesh that asks for TLS and never had an authority for it.
        self._never_told: set[str] = set()

    def play(self, steps: Sequence[Step]) -> None:
        """Let all of it happen."""
        for step in steps:
            getattr(self, step.what)(*step.arguments)

    def put(self, mesh: str, name: str, number: int) -> None:
        self._note(variant(mesh, name, number))

    def probe(self, mesh: str, name: str, is_well: bool) -> None:
        """An Envoy has found its workload to be well, or not."""
        held = self._resources.get(ResourceKey("Dataplane", mesh, name))
        if isinstance(held, Dataplane) and held.networking is not None:
            inbounds = tuple(in_state(inbound, is_ready=is_well) for inbound in held.inbounds)
            networking = held.networking.model_copy(update={"inbound": inbounds})
            self._note(held.model_copy(update={"networking": networking}))

    def delete(self, mesh: str, name: str) -> None:
        self._forget(ResourceKey("Dataplane", mesh, name))

    def bind(self, mesh: str, number: int) -> None:
        self._note(policy(mesh, number))

    def unbind(self, mesh: str, number: int) -> None:
        self._forget(policy(mesh, number).key)

    def extend(self, mesh: str, number: int) -> None:
        self._note(outside(mesh, number))

    def curtail(self, mesh: str, number: int) -> None:
        self._forget(outside(mesh, number).key)

    def serve(self, mesh: str, number: int) -> None:
        self._note(served(mesh, number))

    def withdraw(self, mesh: str, number: int) -> None:
        self._forget(served(mesh, number).key)

    def attach(self, mesh: str, number: int) -> None:
        """A MeshGateway, or a route that may be for one, is written."""
        self._note(attachment(mesh, number))

    def detach(self, mesh: str, number: int) -> None:
        self._forget(attachment(mesh, number).key)

    def show(self, mesh: str, name: str, form: int | None) -> None:
        """A certificate that gateways show is written or goes."""
        if form is None:
            self._forget(ResourceKey("Secret", mesh, name))
        else:
            self._note(shown(mesh, name, form))

    def christen(self, mesh: str, number: int) -> None:
        self._note(naming(mesh, number))

    def unname(self, mesh: str, number: int) -> None:
        self._forget(naming(mesh, number).key)

    def allocate(self) -> None:
        """Names get the addresses that they lack, and those that nobody holds go."""
        for mesh, book in self.reconciler.registry.unsettled_addresses():
            for address in list(book.surplus):
                self._forget(ResourceKey("VirtualIP", mesh, address))
            for each in list(placements(mesh, book, Ranges())):
                # As in a store, where one may have been given that is not seen yet.
                if each.key not in self._resources:
                    self._note(each)

    def generate(self, number: int) -> None:
        """What makes host names of services."""
        self._note(random_generator(random.Random(number)))

    def degenerate(self, number: int) -> None:
        self._forget(random_generator(random.Random(number)).key)

    def disclose(self, mesh: str, content: str | None) -> None:
        """A secret that external services read is written or goes."""
        if content is None:
            self._forget(ResourceKey("Secret", mesh, "ca"))
        else:
            self._note(Secret(mesh=mesh, name="ca", data=secret_data(content.encode())))

    def mesh(self, name: str, form: int | None) -> None:
        if form is None:
            self._forget(ResourceKey("Mesh", "", name))
        else:
            self._note(mesh_of(name, form))

    def secret(self, mesh: str, form: int) -> None:
        for each in secret_of(mesh, form):
            if isinstance(each, ResourceKey):
                self._forget(each)
            else:
                self._note(each)

    def roll(self, mesh: str) -> None:
        """The step that is due from one authority to another."""
        trust = next_trust(self._resources, mesh, now=datetime.fromtimestamp(self._clock, UTC))
        if trust is not None:
            self._note(trust)

    def secure(self, mesh: str, name: str, is_secured: bool) -> None:
        """An Envoy comes to run with a certificate, or without one."""
        mtls = {"issuedBackend": "one"} if is_secured else None
        self._note(DataplaneInsight(mesh=mesh, name=name, mTLS=mtls))

    def wait(self, seconds: float) -> None:
        """Time passes, and certificates are due."""
        self._clock += seconds
        self.reconciler.expire(self.reconciler.certificates.take_due())

    def commit(self) -> None:
        if self._changes:
            self._revision += 1
            changes, self._changes = self._changes, []
            self.reconciler.take_in(changes, revision=self._revision)
            self._note_authorities({_mesh_of(change.key) for change in changes})

    def _note_authorities(self, meshes: set[str]) -> None:
        for mesh in meshes:
            if not is_asked(self._resources, mesh):
                self._in_force.discard(mesh)
            elif can_sign(self._resources, mesh):
                self._in_force.add(mesh)
            else:
                continue
            self._never_told = {node_id for node_id in self._never_told if not node_id.startswith(f"{mesh}.")}

    def _is_closed(self, mesh: str) -> bool:
        # What is not committed yet does not count; who comes in between may be told of what was.
        return not self._changes and self._is_broken(mesh) and mesh not in self._in_force

    def _is_broken(self, mesh: str) -> bool:
        """Whether the mesh asks for TLS and has no authority now; one that it had stays in force."""
        return is_asked(self._resources, mesh) and not can_sign(self._resources, mesh)

    def publish(self) -> None:
        self.reconciler.publish_slice()

    def connect(self, stream: int, mesh: str, name: str, node: int) -> None:
        self.disconnect(stream)
        opened = Node(f"{mesh}.{name}", metadata=NODES[node])
        self._streams[stream] = opened.id
        if opened.id not in self._nodes and self._is_closed(mesh):
            self._never_told.add(opened.id)
        self._nodes[opened.id] = opened
        self.reconciler.connect(f"stream {stream}", opened)

    def disconnect(self, stream: int) -> None:
        node_id = self._streams.pop(stream, None)
        if node_id is not None:
            self.reconciler.disconnect(f"stream {stream}", node_id)
            if node_id not in self._streams.values():
                del self._nodes[node_id]
                self._never_told.discard(node_id)

    def resolve(self, host: str, address: str) -> None:
        self._addresses[host] = address
        self.reconciler.addresses.learn(host, address)

    def _note(self, resource: Resource) -> None:
        self._resources[resource.key] = resource
        self._changes.append(Change(resource.key, _stored(resource)))

    def _forget(self, key: ResourceKey) -> None:
        if self._resources.pop(key, None) is not None:
            self._changes.append(Change(key, None))

    def settle(self) -> None:
        """Commit what is open, give names their addresses, and publish for everybody."""
        self.commit()
        while self._allocated():
            self.commit()
        while self.reconciler.publish_slice():
            pass

    def _allocated(self) -> bool:
        before = len(self._changes)
        self.allocate()
        return len(self._changes) > before

    def fresh(self) -> World:
        """What a control plane that starts now would be, with the same nodes connected."""
        world = World(self._metrics)
        world._clock = self._clock
        for host, address in self._addresses.items():
            world.resolve(host, address)
        for resource in self._resources.values():
            world._note(resource)
        world.settle()
        for stream, (node_id, node) in enumerate(self._nodes.items()):
            world._nodes[node_id] = node
            world.reconciler.connect(f"stream {stream}", node)
        world.settle()
        return world

    def differences(self) -> Iterator[str]:
        """What is not as in a fresh control plane, once all is settled."""
        if self.reconciler.revision != self._revision:
            yield f"stands at {self.reconciler.revision}, not at {self._revision}"
        if set(self.reconciler.connected_nodes()) != self._nodes.keys():
            yield f"connected are {self.reconciler.connected_nodes()}, not {list(self._nodes)}"
        fresh = self.fresh()
        for node_id in self._nodes:
            ours, theirs = self.cache.get(node_id), fresh.cache.get(node_id)
            failure = fresh.reconciler.failure(node_id)
            if failure is not None:
                yield from self._faults_of_failing(node_id, fresh, failure)
            elif theirs is None:
                yield from self._faults_of_unknown(node_id, ours)
            elif ours is None:
                yield f"{node_id} has no snapshot"
            elif self.reconciler.failure(node_id) is not None:
                yield f"{node_id} is said to have failed"
            else:
                yield from (f"{node_id}: {difference}" for difference in _compare(ours, theirs))

    def _faults_of_failing(self, node_id: str, fresh: World, failure: Failure) -> Iterator[str]:
        """What is wrong with a node for which what holds cannot be made: it keeps what it has, but for endpoints."""
        if self.reconciler.failure(node_id) != failure:
            yield f"{node_id} failed with {self.reconciler.failure(node_id)}, not {failure}"
        connected = self.reconciler._publisher._connected[node_id]
        if connected.snapshot is None or connected.node.metadata.get(TAKES_DELTA) is True:
            # What is taken one by one has names of its own.
            return
        now = Destinations(registry=fresh.reconciler.registry, addresses=fresh.reconciler.addresses)
        for reached in connected.reached:
            is_followed = self.reconciler._destinations.find(*reached.key) is reached
            if is_followed and reached.destination.external is None:
                ours = connected.snapshot.layers[reached.nodes[node_id]]
                theirs = _seen(reached, connected.resolved, now)
                if {each.version for each in ours} != {each.version for each in theirs}:
                    yield f"{node_id}: the endpoints of {reached.key} have not followed"

    def _faults_of_unknown(self, node_id: str, ours: Snapshot | None) -> Iterator[str]:
        """What is wrong with a node that would be told nothing if it came now: it keeps what it has."""
        mesh, _, name = node_id.partition(".")
        if ResourceKey("Dataplane", mesh, name) not in self._resources:
            return
        if not self._is_broken(mesh):
            yield f"{node_id} would be told nothing"
        elif self.reconciler.failure(node_id) is not None:
            # It has had what could not be made since before that, and may never have got anything.
            return
        elif mesh in self._in_force and (
            # The listeners of a gateway have certificates of their own beside these.
            ours is None or not ours.resources(SECRET).keys() >= {mesh_ca_name(mesh), identity_name(mesh)}
        ):
            yield f"{node_id} has lost its certificate with its authority"
        elif node_id in self._never_told and ours is not None:
            yield f"{node_id} has a snapshot without an authority"


def _seen(reached: Reached, resolved: Resolved | None, now: Destinations) -> Layer:
    """The endpoints of a destination in a fresh state, as a node sees them that has them in this one."""
    fresh = now.get(*reached.key)
    held = None if resolved is None else resolved.views.get(reached)
    if held is None:
        return fresh.seen()
    view, name = next(key for key, each in reached._views.items() if each is held)
    viewed = fresh.viewed(view, name)
    assert viewed is not None
    return viewed.layer()[0]


def _compare(ours: Snapshot, theirs: Snapshot) -> Iterator[str]:
    for type_url in {*ours.type_urls, *theirs.type_urls}:
        if ours.digest(type_url) != theirs.digest(type_url):
            yield f"{type_url}: {list(ours.resources(type_url))}, not {list(theirs.resources(type_url))}"
    # A snapshot that was made from another must be what its own layers say.
    anew = Snapshot(ours.layers)
    for type_url in anew.type_urls:
        if list(anew.resources(type_url).items()) != list(ours.resources(type_url).items()):
            yield f"{type_url}: not what the layers hold"
        if anew.resource_versions(type_url) != ours.resource_versions(type_url):
            yield f"{type_url}: not the versions of what the layers hold"


def _mesh_of(key: ResourceKey) -> str:
    return key.name if key.type == Mesh.type.name else key.mesh


def _stored(resource: Resource) -> StoredResource:
    return StoredResource(resource, 1, _NOW, _NOW)
