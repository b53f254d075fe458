"""What changes would do, before anybody makes them: which proxies get something else, and what in it is different.

In: a reconciler, changes that were not stored. Out: `Preview`: groups of proxies for which the same is different, and
those for which what would hold cannot be made.
Never: anything stored or sent; a turn of the event loop that is longer than some milliseconds, but where the registry
never rests.

Proxies that are made alike and bound alike are one class, of which one is computed; whether they are connected does not
count. What is shown of addresses and names is that of the first of them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from kumafast.addresses import is_ip
from kumafast.fork import RESTARTS_MAX, TURN_S, Fork, JoinedLayer
from kumafast.generation.differences import Difference, Json, as_json, differences
from kumafast.node_parts import log_pipe
from kumafast.registry import DataplaneId
from kumafast.resources import Dataplane, ResourceKey
from kumafast.snapshot import LateLayer, Layer, Snapshot, XdsResource
from kumafast.snapshot.node import TAKES_DELTA, Node
from kumafast.store import Change
from kumafast.templates import Failure, TemplatedLayer

CLASSES_MAX = 1_000
"""How many classes of proxies are computed; of the proxies that are in none of these only the number is told."""

EDITS_MAX = 500
"""How many different edits are told; of the rest only the number."""

_DATAPLANES_AT_ONCE = 32
_ANY_ADDRESS = "<address>"


class Kind(Enum):
    """What becomes of a resource of a proxy."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Edit:
    """The same difference in some resources of one type."""

    kind: Kind
    type_url: str
    names: tuple[str, ...]
    """Of the resources. Where it is one of several proxies' own address, `<address>` stands in its place."""
    differences: tuple[Difference, ...] = ()
    """Where they are changed: in what; none for secrets, whose content is nobody's business."""
    content: Json | None = None
    """What is added or removed, of the first proxy."""


@dataclass(frozen=True, slots=True)
class Group:
    """Proxies for which the same is different. A proxy may be in several groups."""

    proxies: tuple[DataplaneId, ...]
    edits: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Proxies that would keep what they have, for what holds for them could not be made. In no `Group`."""

    proxies: tuple[DataplaneId, ...]
    message: str
    """Which step of a template, and why."""
    type_url: str
    names: tuple[str, ...]
    """Of the resources that it cannot be applied to, as in an `Edit`; none where it is none in particular."""
    policies: tuple[ResourceKey, ...]
    """Those that the template is from."""


@dataclass(slots=True)
class Work:
    """What a preview cost, as counts."""

    concerned: int = 0
    """Proxies that were looked at."""
    computed: int = 0
    """Classes of proxies of which one was resolved."""
    generated: int = 0
    """Calls of generators."""
    compared: int = 0
    """Pairs of resources that were taken apart."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What changes would do."""

    proxies: tuple[DataplaneId, ...]
    """Those that would get something else, in order."""
    connected: int
    """How many of these are connected."""
    total: int
    """How many dataplanes there would be in the meshes of the changes."""
    groups: tuple[Group, ...]
    """The largest first."""
    failed: tuple[Failed, ...] = ()
    """The largest first."""
    proxies_left_out: int = 0
    """Those that may get something else and were not computed, for there were too many classes of them."""
    edits_left_out: int = 0
    work: Work = field(default_factory=Work, compare=False)


async def foresee(fork: Callable[[], Fork], node: Callable[[str], Node | None], changes: Sequence[Change]) -> Preview:
    """What would become of the proxies if these changes were stored in one commit.

    `fork` makes forks of what is true now; `node` gives a connected node by its id.
    """
    for _ in range(RESTARTS_MAX):
        attempt = _Attempt(fork(), node)
        turn_began = time.monotonic()
        for _ in attempt.steps(changes):
            if time.monotonic() - turn_began >= TURN_S:
                await asyncio.sleep(0)
                if not attempt.fork.is_good:
                    break
                turn_began = time.monotonic()
        else:
            return attempt.result()
    attempt = _Attempt(fork(), node)
    for _ in attempt.steps(changes):
        pass
    return attempt.result()


@dataclass(slots=True)
class _Found:
    """An edit while classes are computed."""

    kind: Kind
    type_url: str
    differences: tuple[Difference, ...] = ()
    content: Json | None = None
    names: dict[str, str] = field(default_factory=dict)
    """By what they go by for several proxies, what they go by for the first."""
    classes: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Failing:
    """Classes of which the same cannot be made."""

    names: dict[str, str] = field(default_factory=dict)
    """As in `_Found`."""
    classes: list[int] = field(default_factory=list)


class _Attempt:
    """One preview of one state."""

    def __init__(self, fork: Fork, node: Callable[[str], Node | None]) -> None:
        self.fork = fork
        self._node = node
        self._work = Work()
        self._meshes: dict[str, None] = {}
        self._classes: list[list[DataplaneId]] = []
        self._moved: set[int] = set()
        self._found: dict[Hashable, _Found] = {}
        self._failed: dict[Failure, _Failing] = {}
        self._compared: dict[tuple[str, str, str], tuple[Difference, ...]] = {}
        self._left_out = 0

    def steps(self, changes: Sequence[Change]) -> Iterator[None]:
        """Do it, in pieces of about a millisecond."""
        self._meshes = dict.fromkeys(change.key.mesh or change.key.name for change in changes)
        yield from self.fork.steps(changes)
        yield from self._classify()
        for number, members in enumerate(self._classes):
            if number >= CLASSES_MAX:
                self._left_out += len(members)
            else:
                self._compute(number, members[0])
                yield

    def _classify(self) -> Iterator[None]:
        concerned: list[DataplaneId] = []
        for dataplane_id in self.fork.concerned():
            concerned.append(dataplane_id)
            if not len(concerned) % _DATAPLANES_AT_ONCE:
                yield
        concerned.sort()
        self._work.concerned = len(concerned)
        by_key: dict[Hashable, list[DataplaneId]] = {}
        for number, dataplane_id in enumerate(concerned):
            by_key.setdefault(self._class_of(dataplane_id), []).append(dataplane_id)
            if not number % _DATAPLANES_AT_ONCE:
                yield
        self._classes = list(by_key.values())

    def _class_of(self, dataplane_id: DataplaneId) -> Hashable:
        dataplane = self.fork.registry.dataplane(dataplane_id)
        if dataplane is None or dataplane is not self.fork.dataplane_before(dataplane_id):
            return dataplane_id
        if self.fork.is_keeping(dataplane_id):
            return dataplane_id
        node = self._node(dataplane_id.node_id)
        inbounds = None if self.fork.is_same_inward(dataplane_id) else _inbounds(dataplane)
        features = None if node is None else _features(node)
        pipe = log_pipe(dataplane, node) if node is not None and self.fork.has_pipe(dataplane_id) else ""
        return dataplane_id.mesh, self.fork.alike(dataplane_id), inbounds, _rest(dataplane), features, pipe

    def _compute(self, number: int, dataplane_id: DataplaneId) -> None:
        dataplane = self.fork.registry.dataplane(dataplane_id)
        assert dataplane is not None, "a class has those that would be there"
        node = self._node(dataplane_id.node_id) or _unknown(dataplane_id, dataplane)
        after = self.fork.after(node)
        if after is None:
            return
        self._work.computed += 1
        if isinstance(after, Failure):
            failing = self._failed.setdefault(replace(after, resource=""), _Failing())
            failing.classes.append(number)
            if after.resource:
                failing.names.setdefault(_anybodys(after.resource, dataplane), after.resource)
            return
        for was, now in _pairs(self.fork.before(node), after):
            found = self._note(was, now, dataplane)
            found.classes[number] = None
            self._moved.add(number)

    def _note(self, was: XdsResource | None, now: XdsResource | None, dataplane: Dataplane) -> _Found:
        one = now or was
        assert one is not None, "a pair has at least one resource"
        name = _anybodys(one.name, dataplane)
        if was is not None and now is not None:
            differing = self._compare(was, now)
            words = json.dumps([list(each) for each in differing]) if differing else name
            found = self._found.setdefault((Kind.CHANGED, one.type_url, words), _Found(Kind.CHANGED, one.type_url))
            found.differences = found.differences or differing
        else:
            kind = Kind.ADDED if was is None else Kind.REMOVED
            found = self._found.setdefault((kind, one.type_url, name), _Found(kind, one.type_url))
            if found.content is None:
                found.content = as_json(one.type_url, one.body)
        found.names.setdefault(name, one.name)
        return found

    def _compare(self, was: XdsResource, now: XdsResource) -> tuple[Difference, ...]:
        key = (was.type_url, was.version, now.version)
        known = self._compared.get(key)
        if known is None:
            self._work.compared += 1
            known = self._compared[key] = differences(was.type_url, was.body, now.body)
        return known

    def result(self) -> Preview:
        """What was found."""
        self._work.generated = self.fork.generated
        found = list(self._found.values())
        together: dict[tuple[int, ...], list[_Found]] = {}
        for each in found[:EDITS_MAX]:
            together.setdefault(tuple(each.classes), []).append(each)
        groups = [Group(self._members(classes), tuple(map(self._edit, edits))) for classes, edits in together.items()]
        proxies = self._members(self._moved)
        return Preview(
            proxies=proxies,
            connected=sum(1 for each in proxies if self._node(each.node_id) is not None),
            total=sum(len(view.dataplanes) for view in map(self.fork.registry.mesh, self._meshes) if view is not None),
            groups=tuple(sorted(groups, key=lambda group: (-len(group.proxies), group.proxies))),
            failed=tuple(
                sorted(itertools.starmap(self._failure, self._failed.items()), key=lambda each: -len(each.proxies))
            ),
            proxies_left_out=self._left_out,
            edits_left_out=max(0, len(found) - EDITS_MAX),
            work=self._work,
        )

    def _failure(self, failure: Failure, found: _Failing) -> Failed:
        proxies = self._members(found.classes)
        names = tuple(found.names.values() if len(proxies) == 1 else found.names)
        return Failed(proxies, failure.message, failure.type_url, names, failure.policies)

    def _members(self, classes: Iterable[int]) -> tuple[DataplaneId, ...]:
        return tuple(sorted(member for number in classes for member in self._classes[number]))

    def _edit(self, found: _Found) -> Edit:
        is_of_one = len(found.classes) == 1 and len(self._classes[next(iter(found.classes))]) == 1
        names = found.names.values() if is_of_one else found.names
        return Edit(found.kind, found.type_url, tuple(names), found.differences, found.content)


# What makes proxies alike.

_FEATURES = ("features", "ipv6Enabled", "dataplane.dns.port", TAKES_DELTA)


def _inbounds(dataplane: Dataplane) -> Hashable:
    """The inbounds of a proxy but for its addresses; of these only which are the same."""
    places: dict[str, int] = {}
    found = []
    for inbound in dataplane.inbounds:
        address = dataplane.inbound_address(inbound)
        # A name may have no address yet.
        place = (places.setdefault(address, len(places)), ":" in address) if is_ip(address) else address
        found.append((place, *(value for name, value in inbound.__dict__.items() if name != "address")))
    return tuple(found)


def _rest(dataplane: Dataplane) -> Hashable:
    """What else a proxy is made of, but for its name and addresses."""
    networking = dataplane.networking
    if networking is None:
        return None
    outbounds = tuple((each.port, each.address, each.tags, each.backend_ref) for each in networking.outbound)
    rest = networking.transparent_proxying, networking.gateway, networking.listeners
    return outbounds, rest, dataplane.metrics, dataplane.probes


def _features(node: Node) -> Hashable:
    """What a node says that decides how its resources look."""
    return json.dumps([node.metadata.get(name) for name in _FEATURES], default=str)


def _unknown(dataplane_id: DataplaneId, dataplane: Dataplane) -> Node:
    """The node of a proxy that is not connected, as far as its dataplane says how it would be."""
    admin = None if dataplane.networking is None else dataplane.networking.admin
    return Node(dataplane_id.node_id, metadata={} if admin is None else {"dataplane.admin.port": admin.port})


def _anybodys(name: str, dataplane: Dataplane) -> str:
    """A resource's name without the proxy's own address."""
    for inbound in dataplane.inbounds:
        address = dataplane.inbound_address(inbound)
        host = f"[{address}]" if ":" in address else address
        if name == f"inbound:{host}:{inbound.port}":
            return f"inbound:{_ANY_ADDRESS}:{inbound.port}"
    return name


# In what two snapshots differ.

_Pair = tuple[XdsResource | None, XdsResource | None]


def _pairs(before: Snapshot | None, after: Snapshot) -> Iterator[_Pair]:
    """The resources that are not the same, in the order of the layers."""
    was = () if before is None else before.layers
    if any(isinstance(layer, TemplatedLayer) for layer in (*was, *after.layers)):
        # What a template has changed is in no layer that others have.
        yield from _differing(was, after.layers)
        return
    (own, shared), (own_now, shared_now) = _parted(was), _parted(after.layers)
    # Layers of both sides are the same objects where they are equal, and then need not be made. But of those that are
    # for the proxy alone one may hide what another holds under the same name: where one differs all are looked at.
    if own == own_now:
        own, own_now = [], []
    here, there = set(map(id, shared)), set(map(id, shared_now))
    # Together, for a template makes what was the proxy's alone a layer like any other.
    yield from _differing(
        [*own, *(layer for layer in shared if id(layer) not in there)],
        [*own_now, *(layer for layer in shared_now if id(layer) not in here)],
    )


def _parted(layers: Iterable[Layer]) -> tuple[list[Layer], list[Layer]]:
    own: list[Layer] = []
    shared: list[Layer] = []
    for layer in layers:
        if isinstance(layer, JoinedLayer):
            shared += layer.layers
        else:
            (own if isinstance(layer, LateLayer) else shared).append(layer)
    return own, shared


def _differing(before: Iterable[Layer], after: Iterable[Layer]) -> Iterator[_Pair]:
    was, now = _by_name(before), _by_name(after)
    for key, resource in now.items():
        held = was.get(key)
        if held is None or held.version != resource.version:
            yield held, resource
    for key, resource in was.items():
        if key not in now:
            yield resource, None


def _by_name(layers: Iterable[Layer]) -> Mapping[tuple[str, str], XdsResource]:
    return {(resource.type_url, resource.name): resource for layer in layers for resource in layer}
