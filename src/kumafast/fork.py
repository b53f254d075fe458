"""What proxies would get if something were stored that is not: the pipeline on a fork of the registry.

In: the live registry and destinations, changes that nobody has made. Out: whom they concern, and the snapshot of any
proxy without and with them. Never: a trace of it in what is live; a copy of the world; a certificate's key.

It shares all that the changes leave as it is, and costs what they concern. It is good until the live registry changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from datetime import datetime
from itertools import filterfalse
from typing import TypeAlias

from kumafast.addresses import Addresses
from kumafast.certificates import Certificates, wanted_identity
from kumafast.errors import ModificationError
from kumafast.generation import names
from kumafast.generation.effects import Effect, Source
from kumafast.generation.generate import generate
from kumafast.generation.policy_effects import collectors_of, records
from kumafast.generation.proxy import Part
from kumafast.identity.identities import MeshIdentity
from kumafast.ipam import Ranges, placements
from kumafast.layers import BoundInbound, Layers
from kumafast.matching import Bindings, CompiledPolicy, Setting, Subject
from kumafast.memo import remembered
from kumafast.reached import Destinations, Reached
from kumafast.registry import Affected, DataplaneId, Registry
from kumafast.registry.gateways import is_builtin
from kumafast.registry.reach import Destination
from kumafast.registry.viewpoints import Viewpoint
from kumafast.resolution import Resolution
from kumafast.resources import Dataplane
from kumafast.resources.fields import FrozenMap
from kumafast.resources.target_ref_policy import EFFECT_LABEL
from kumafast.snapshot import LateLayer, Layer, Snapshot, XdsResource
from kumafast.snapshot.encoding import encode
from kumafast.snapshot.node import TAKES_DELTA, Node
from kumafast.snapshot.resource import SECRET
from kumafast.store import Change, StoredResource
from kumafast.templates import Failure
from kumafast.viewed import Viewed

TURN_S = 0.005
"""For how long changes are taken in before everything else has its turn."""
RESTARTS_MAX = 5
"""How often it begins anew because something was stored meanwhile; then it is done in one turn."""

Asked: TypeAlias = tuple[Destination, str | Subject]
"""What an outbound leads to, and what policies about that are about."""

Outcome: TypeAlias = Snapshot | Failure | None
"""What comes of a node: what it gets, why that cannot be made, or nothing where its dataplane is not known."""

_POLICIES_MAX = 16_384
"""Of how many policies it is remembered whether records name a proxy because of them."""

SHADOW = "shadow"
"""The effect of policies that are looked at and not in force."""


class Fork:
    """The registry with and without some changes, and what proxies get in either.

    The changes are to be taken in before anything is asked of the state that they make.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        destinations: Destinations,
        addresses: Addresses,
        now: datetime,
        ranges: Ranges,
        kept: Callable[[str], Snapshot | None] = lambda _: None,
    ) -> None:
        """`now` is when certificates are issued that have to be, `ranges` where new names get their addresses.

        `kept` is what the node with an id has of before, where what holds for it now cannot be made.
        """
        addresses = _Addresses(addresses)
        self._now, self._ranges = now, ranges
        self._live = registry
        self._kept = kept
        self._generation = registry.generation
        self._changed = _Changed()
        # One for all who are bound alike.
        self._recorded: dict[Bindings, frozenset[CompiledPolicy]] = {}
        self.registry = registry.fork()
        """The registry with the changes."""
        present = _Present(destinations, registry=registry, addresses=addresses)
        later = _Later(present, live=registry, registry=self.registry, addresses=addresses, changed=self._changed)
        self._parts = _Parts()
        self._before = _Side(registry, present, addresses, self._parts, now=now)
        self._after = _Side(self.registry, later, addresses, self._parts, now=now)

    @property
    def is_good(self) -> bool:
        """Whether the live registry is as it was when this was made; otherwise a new one has to be."""
        return self._live.generation == self._generation

    @property
    def generated(self) -> int:
        """How many parts were generated so far, as a count of work."""
        return self._parts.generated

    # Changes.

    def steps(self, changes: Iterable[Change]) -> Iterator[None]:
        """Take in changes as `Registry.steps` does, piece by piece; between two pieces others may have their turn.

        What has a name by them has the address that it would be given.
        """
        for affected in self.registry.steps(changes):
            self._changed.add(affected)
            yield
        given = [
            Change(each.key, StoredResource(each, 0, self._now, self._now))
            for mesh, book in self.registry.unsettled_addresses()
            for each in placements(mesh, book, self._ranges)
        ]
        for affected in self.registry.steps(given) if given else ():
            self._changed.add(affected)
            yield

    def take_in(self, changes: Iterable[Change]) -> None:
        """Take in changes at once."""
        for _ in self.steps(changes):
            pass

    def shadow_steps(self, mesh: str) -> Iterator[None]:
        """Take in the mesh's shadow policies as if they were in force, piece by piece. O(policies of the mesh)."""
        return self.steps([Change(each.resource.key, _in_force(each)) for each in shadows(self.registry, mesh)])

    def take_in_shadows(self, mesh: str) -> None:
        """Take in the mesh's shadow policies at once."""
        for _ in self.shadow_steps(mesh):
            pass

    # Whom they concern.

    def concerned(self) -> Iterator[DataplaneId]:
        """Those that may get something else, each once. Too many are named where what differs comes to the same."""
        seen: set[DataplaneId] = set()
        for dataplane_id in self._concerned():
            if dataplane_id not in seen and self.registry.dataplane(dataplane_id) is not None:
                seen.add(dataplane_id)
                yield dataplane_id

    def _concerned(self) -> Iterator[DataplaneId]:
        yield from self._changed.bound
        yield from self._changed.proxies
        # Where nobody reached a destination before whoever does now has changed, and is named already.
        moved = (*self._changed.destinations, *self._changed.external)
        known = (key for key in moved if self._live.is_reached(*key))
        for key in filterfalse(self._changed.vanished.__contains__, known):
            if self._before.destinations.get(*key) is not self._after.destinations.get(*key):
                yield from self.registry.consumers(*key)
        for mesh in self._changed.meshes:
            view = self.registry.mesh(mesh)
            if view is not None:
                yield from (DataplaneId(mesh, name) for name in view.dataplanes)

    def alike(self, dataplane_id: DataplaneId) -> Hashable:
        """What the policies come to for a dataplane, without and with the changes: equal for those who may be compared.

        Of what comes in nothing is said where it stays as it is.
        """
        was, now = self._before.bindings(dataplane_id), self._after.bindings(dataplane_id)
        if was is None or now is None or self._recording(was) != self._recording(now):
            return dataplane_id
        if is_builtin(self._live.dataplane(dataplane_id)):
            # Each has listeners of its own, and policies by these; there are few.
            return dataplane_id
        sent_before, sent_after = self._before.asked(dataplane_id), self._after.asked(dataplane_id)
        inward = None if self.is_same_inward(dataplane_id) else (was.inward(), now.inward())
        seen = self._before.seen(dataplane_id, was), self._after.seen(dataplane_id, now)
        dataplane = self._live.dataplane(dataplane_id)
        whose = dataplane.identifying_service if dataplane is not None and self._recording(was) else ""
        outside = self._live.permitted(dataplane_id), self.registry.permitted(dataplane_id)
        sent = was.outward(sent_before), now.outward(sent_after)
        return sent, seen, outside, was.proxy, now.proxy, inward, whose

    def has_pipe(self, dataplane_id: DataplaneId) -> bool:
        """Whether policies make use of the pipe of a proxy's launcher."""
        bound = (side.bindings(dataplane_id) for side in (self._before, self._after))
        recording = {policy for bindings in bound if bindings is not None for policy in self._recording(bindings)}
        return any(effect.needs_pipe for policy in recording for effect in _records(policy))

    def _recording(self, bindings: Bindings) -> frozenset[CompiledPolicy]:
        """The policies because of which records name the proxy. While they stay, so does what is in its name alone."""
        found = self._recorded.get(bindings)
        if found is None:
            policies = bindings.subjects.policies
            bound = map(policies.__getitem__, bindings.ranks)
            found = self._recorded[bindings] = frozenset(policy for policy in bound if _records(policy))
        return found

    def is_same_inward(self, dataplane_id: DataplaneId) -> bool:
        """Whether nothing changes in what comes in to a dataplane that itself stays as it is."""
        was, now = self._before.bindings(dataplane_id), self._after.bindings(dataplane_id)
        if dataplane_id.mesh in self._changed.meshes or was is None or now is None:
            return False
        return was is now or was.inward() == now.inward()

    # What they get.

    def before(self, node: Node) -> Snapshot | None:
        """What a node has now; None where its dataplane is not known. O(its parts); messages are made when read."""
        found = self._before.outcome(node)
        return self._kept(node.id) if isinstance(found, Failure) else found

    def after(self, node: Node) -> Outcome:
        """What a node would get; a failure, or None for a dataplane that would be gone, where it keeps what it has."""
        return self._after.outcome(node)

    def is_keeping(self, dataplane_id: DataplaneId) -> bool:
        """Whether a dataplane's proxy has what nobody else has, for what holds for it now cannot be made."""
        return self._kept(dataplane_id.node_id) is not None

    def dataplane_before(self, dataplane_id: DataplaneId) -> Dataplane | None:
        """A dataplane without the changes."""
        return self._live.dataplane(dataplane_id)


@remembered(_POLICIES_MAX)
def _records(policy: CompiledPolicy) -> tuple[Effect, ...]:
    confs = dict.fromkeys(item.conf for item in policy.outbound)
    if policy.proxy is not None:
        confs[policy.proxy] = None
    sent = (effect for conf in confs for effect in records(Setting(policy.key.type, conf)))
    # The others say nothing of one source alone, and have no records made of what comes in.
    confs = dict.fromkeys(item.conf for item in policy.inbound) if policy.has_cases else {}
    taken = (effect for conf in confs for effect in records(Setting(policy.key.type, conf), is_inbound=True))
    return (*sent, *taken)


def shadows(registry: Registry, mesh: str) -> Iterator[StoredResource]:
    """The shadow policies of a mesh."""
    return (each for each in registry.policies(mesh) if each.resource.labels.get(EFFECT_LABEL) == SHADOW)


def _in_force(stored: StoredResource) -> StoredResource:
    labels = {key: value for key, value in stored.resource.labels.items() if key != EFFECT_LABEL}
    policy = stored.resource.model_copy(update={"labels": FrozenMap(labels)})
    return StoredResource(policy, stored.revision, stored.creation_time, stored.modification_time)


async def shadowed(fork: Callable[[], Fork], node: Node, *, mesh: str) -> tuple[Snapshot, Snapshot] | None:
    """What a node gets now, and what it would get if its mesh's shadow policies were in force; None for no dataplane.

    Everything else has its turns meanwhile; what it gives is to be read before the next one.
    """
    for restarts in range(RESTARTS_MAX + 1):
        attempt = fork()
        began = time.monotonic()
        for _ in attempt.shadow_steps(mesh):
            if time.monotonic() - began >= TURN_S and restarts < RESTARTS_MAX:
                await asyncio.sleep(0)
                if not attempt.is_good:
                    break
                began = time.monotonic()
        else:
            before, after = attempt.before(node), attempt.after(node)
            if isinstance(after, Failure):
                after = before
            return None if before is None or after is None else (before, after)
    return None


class _Changed:
    """All that the changes can touch; those that a policy selects in the order in which they were found."""

    def __init__(self) -> None:
        self.bound: dict[DataplaneId, None] = {}
        self.proxies: dict[DataplaneId, None] = {}
        self.destinations: dict[tuple[str, Destination], set[str]] = {}
        self.meshes: set[str] = set()
        self.external: set[tuple[str, Destination]] = set()
        self.vanished: set[tuple[str, Destination]] = set()

    def add(self, affected: Affected) -> None:
        self.bound.update(dict.fromkeys(affected.bound))
        self.proxies.update(dict.fromkeys(affected.proxies))
        for key, changed in affected.destinations.items():
            self.destinations.setdefault(key, set()).update(changed)
        self.meshes |= affected.meshes
        self.external |= affected.external
        self.vanished |= affected.vanished


class _Side:
    """One of the two states, and what proxies get in it."""

    def __init__(
        self, registry: Registry, destinations: Destinations, addresses: Addresses, parts: Layers, *, now: datetime
    ) -> None:
        self.destinations = destinations
        self._registry = registry
        self._resolution = Resolution(
            registry=registry,
            destinations=destinations,
            addresses=addresses,
            certificates=_Certificates(now),
            layers=parts,
        )
        # What holds for the names that are seen, once for all who see the same and are bound alike.
        self._told: dict[tuple[Viewpoint, Bindings], Hashable] = {}
        # Joined once for all who reach it.
        self._endpoints: dict[tuple[Reached, bool], Layer] = {}

    def bindings(self, dataplane_id: DataplaneId) -> Bindings | None:
        if self._registry.dataplane(dataplane_id) is None:
            return None
        return self._registry.bindings(dataplane_id)

    def asked(self, dataplane_id: DataplaneId) -> list[Asked]:
        """What a dataplane's outbounds lead to, each with what policies about it are about."""
        dataplane = self._registry.dataplane(dataplane_id)
        outbounds = () if dataplane is None else dataplane.outbounds
        return self._with_subjects(
            dataplane_id.mesh, (self._registry.leads_to(dataplane_id.mesh, e) for e in outbounds)
        )

    def _with_subjects(self, mesh: str, destinations: Iterable[Destination | None]) -> list[Asked]:
        found: list[Asked] = []
        for destination in destinations:
            subject = None if destination is None else self._registry.subject(mesh, destination)
            if destination is not None and subject is not None:
                found.append((destination, subject))
        return found

    def seen(self, dataplane_id: DataplaneId, bindings: Bindings) -> Hashable:
        """What a dataplane's policies come to for the names that it sees."""
        seen_from = self._registry.viewpoint(dataplane_id)
        if seen_from is None:
            return None
        key = (seen_from, bindings)
        found = self._told.get(key)
        if found is None:
            destinations = sorted(self._registry.sight(dataplane_id.mesh, seen_from).destinations, key=repr)
            asked = self._with_subjects(dataplane_id.mesh, destinations)
            found = self._told[key] = (seen_from, bindings.outward(asked))
        return found

    def outcome(self, node: Node) -> Outcome:
        dataplane_id = self._registry.identify(node.id)
        dataplane = None if dataplane_id is None else self._registry.dataplane(dataplane_id)
        if dataplane_id is None or dataplane is None or self._registry.identities.is_broken(dataplane_id.mesh):
            return None
        plan = self._resolution.plan(dataplane_id, dataplane, node)
        one_by_one = node.metadata.get(TAKES_DELTA) is True
        try:
            layers = plan.layers()
        except ModificationError as error:
            return Failure.of(error, plan.templates())
        return Snapshot((*layers, *(self._seen(each, plan.views.get(each), one_by_one) for each in plan.reached)))

    def _seen(self, reached: Reached, viewed: Viewed | None, one_by_one: bool) -> Layer:
        if viewed is not None:
            return viewed.layer()[0]
        key = (reached, one_by_one)
        layer = self._endpoints.get(key)
        if layer is None:
            layer = self._endpoints[key] = reached.seen(one_by_one=one_by_one)
        return layer


class JoinedLayer(LateLayer):
    """Several layers in one, of which each may be another's too."""

    __slots__ = ("layers",)

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        super().__init__(lambda: (resource for layer in layers for resource in layer))
        self.layers = layers


class _Parts(Layers):
    """The layers of both states: one for equal parts, and nothing is generated before somebody looks."""

    def __init__(self) -> None:
        super().__init__(lambda _, __: None)
        self.generated = 0
        # Held for as long as the fork is, where layers of live proxies go with the last of them.
        self._held: dict[Part, Layer] = {}
        self._joins: dict[tuple[Layer, ...], Layer] = {}

    def of(self, part: Part) -> Layer:
        layer = self._held.get(part)
        if layer is None:
            layer = self._held[part] = LateLayer(lambda: self._generate(part))
            self.note(layer, collectors_of(part))
        return layer

    def of_inbound(self, inbound: BoundInbound, address: str, port: int, source: Source) -> Layer:
        part = inbound.part.of(source) if inbound.needs_source else inbound.part
        return self.of(part.at(address, port))

    def joined(self, parts: Iterable[Part]) -> Layer:
        layers = tuple(map(self.of, parts))
        joined = self._joins.get(layers)
        if joined is None:
            joined = self._joins[layers] = JoinedLayer(layers)
            self.note(joined, self.collectors(layers))
        return joined

    def _generate(self, part: Part) -> Iterator[XdsResource]:
        self.generated += 1
        return map(encode, generate(part))


class _Addresses(Addresses):
    """Says what is known, and has nothing looked up."""

    def __init__(self, live: Addresses) -> None:
        super().__init__(in_use=list, changed=lambda _: None)
        self._live = live

    def get(self, host: str) -> str | None:
        return self._live.find(host)


class _Certificates(Certificates):
    """Says which certificate a node is to have, and issues none."""

    def __init__(self, now: datetime) -> None:
        super().__init__(count=lambda: None, clock=now.timestamp)

    def layer(self, mesh: MeshIdentity, node_id: str, dataplane: Dataplane) -> Layer:
        identity = wanted_identity(mesh, node_id, dataplane, now=self._now())
        return Layer([XdsResource(SECRET, names.identity_name(mesh.mesh), b"", version=identity.version)])

    def forget(self, node_id: str) -> None:
        pass


class _Present(Destinations):
    """What is reached now: what connected nodes reach as it is, and of the rest what is asked for."""

    def __init__(self, live: Destinations, *, registry: Registry, addresses: Addresses) -> None:
        super().__init__(registry=registry, addresses=addresses, leds_threshold=live.leds_threshold)
        self._live = live

    def get(self, mesh: str, destination: Destination) -> Reached:
        return self._live.find(mesh, destination) or super().get(mesh, destination)


class _Later(Destinations):
    """What would be reached: the same where nothing of it is different, else a fork of what is reached now."""

    def __init__(
        self, present: _Present, *, live: Registry, registry: Registry, addresses: Addresses, changed: _Changed
    ) -> None:
        super().__init__(registry=registry, addresses=addresses, leds_threshold=present.leds_threshold)
        self._present = present
        self._live_registry = live
        self._changed = changed

    def get(self, mesh: str, destination: Destination) -> Reached:
        key = (mesh, destination)
        found = self._reached.get(key)
        if found is not None:
            return found
        if key in self._changed.vanished or not self._live_registry.is_reached(mesh, destination):
            # Changes of what nobody reaches go unnoticed, so nothing is known of it.
            return super().get(mesh, destination)
        found = before = self._present.get(mesh, destination)
        changed = self._changed.destinations.get(key, ())
        if changed or key in self._changed.external or mesh in self._changed.meshes:
            forked = before.fork(self._registry, self._addresses)
            forked.follow(changed, self._registry)
            if key in self._changed.external:
                forked.renew_external()
            else:
                forked.renew()
            is_other = forked.destination != before.destination or forked.outside != before.outside
            if is_other or (changed and _body(forked) != _body(before)):
                found = forked
        self._reached[key] = found
        return found


def _body(reached: Reached) -> tuple[XdsResource, ...]:
    return reached.seen().resources
