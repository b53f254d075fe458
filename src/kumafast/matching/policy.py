"""A policy compiled: whom it is for, what it says of which requests, and what decides between it and another.

In: a stored policy of either family. Out: `CompiledPolicy`, a value: equal where no proxy could tell the difference.
Never: a dataplane, or what a conf means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias, cast

from kumafast._core import TagSelector
from kumafast.matching import selection
from kumafast.matching.backends import Subject, index_name
from kumafast.matching.selection import Weight
from kumafast.resources import Resource, ResourceKey
from kumafast.resources.connection_policy import ConnectionPolicy, Selector
from kumafast.resources.dataplane_policy import DataplanePolicy
from kumafast.resources.defaults import ZONE_LABEL, kri
from kumafast.resources.fields import FrozenMap, freeze
from kumafast.resources.mesh import Mesh
from kumafast.resources.resource import Frozen
from kumafast.resources.tags import SERVICE_TAG
from kumafast.resources.target_ref import (
    MESH,
    MESH_GATEWAY,
    MESH_HTTP_ROUTE,
    MESH_SERVICE,
    MESH_SERVICE_SUBSET,
    TargetRef,
)
from kumafast.resources.target_ref_policy import EFFECT_LABEL, Match, ProxySpec, TargetRefPolicy

Conf: TypeAlias = FrozenMap[str, Any]
"""What a policy says, as JSON; read-only."""

Rank: TypeAlias = tuple[int, int]
"""How specific selectors are: tags, of which exact. Ranks of two selectors add up."""

ANY_SERVICE = "*"
PASS_THROUGH = "pass_through"
"""As a service it is what a proxy lets through as it came: redirected traffic to what is no service of the mesh."""


@dataclass(frozen=True, slots=True)
class PortRef:
    """Ports of services of a kind: of that with a name, or of those with some labels; one port, or all (`section`)."""

    kind: str
    name: str
    section: str = ""
    labels: tuple[tuple[str, str], ...] = ()

    def means(self, subject: Subject) -> bool:
        """Whether a port is one of them."""
        if self.kind != subject.kind or (self.section and self.section != subject.section):
            return False
        return self.name == subject.name if self.name else set(self.labels) <= set(subject.labels)


@dataclass(frozen=True, slots=True)
class OutboundItem:
    """What holds for requests to a service, or to any. `rank` is that of the selector that names the service.

    With a `ref` it is about ports of services too, and with no service about these alone.
    """

    service: str
    rank: Rank
    conf: Conf
    ref: PortRef | None = None

    def is_about(self, subject: str | Subject) -> bool:
        """Whether it says something of requests to a service by tags, or to a port of one."""
        if self.service == ANY_SERVICE:
            return True
        if isinstance(subject, str):
            return self.service == subject
        return self.ref is not None and self.ref.means(subject)

    @property
    def names(self) -> Iterator[str]:
        """Under which names the policy is noted for what this says."""
        if self.service:
            yield self.service
        if self.ref is not None:
            yield index_name(self.ref.kind, self.ref.name)


@dataclass(frozen=True, slots=True)
class InboundItem:
    """What holds for requests that come in: all, those that match, or those from a source."""

    match: Match | None
    conf: Conf
    source: FrozenMap[str, str] | None = None
    """The tags of those that it is about, where it names them."""
    rank: Rank = (0, 0)
    """That of the source, where what is most specific comes first."""
    name: str = ""
    """What logs of proxies call it, where they tell one from another."""


@dataclass(frozen=True, slots=True, eq=True)
class CompiledPolicy:
    """What matching needs of a policy. It is kept in many sets, so its hash is computed once.

    What it says is part of the hash: results are remembered by it, and those of the last dozens of edits of one policy
    would else be told apart by a comparison with each.
    """

    key: ResourceKey
    is_target_ref: bool
    is_initial: bool
    """True while it is as it was created with its mesh: it then yields to what a user writes in the other family."""
    order: int
    successor: str
    selectors: tuple[TagSelector, ...]
    """Alternatives over the candidates of a dataplane."""
    weight: Weight
    """Among policies of its kind: the heavier wins."""
    outbound: tuple[OutboundItem, ...]
    inbound: tuple[InboundItem, ...]
    proxy: Conf | None = None
    """What it says of a proxy as a whole; None for kinds that are about connections."""
    is_listed: bool = False
    """True where all that such policies say of what comes in counts, instead of one conf merged from it."""
    has_cases: bool = False
    """True where what such policies say of some of those who send counts beside what they say of all."""
    services: frozenset[str] | None = field(init=False, compare=False, repr=False)
    """The services that it says something about, and names for ports of services; None where that is any."""
    is_general: bool = field(init=False, compare=False, repr=False)
    """Whether no item is about one service by tags, so that it says the same of all of them."""
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        named = frozenset(name for item in self.outbound for name in item.names)
        object.__setattr__(self, "services", None if ANY_SERVICE in named else named)
        object.__setattr__(self, "is_general", all(item.service in ("", ANY_SERVICE) for item in self.outbound))
        object.__setattr__(self, "_hash", hash((self.key, self.weight, self.outbound, self.inbound, self.proxy)))

    def __hash__(self) -> int:
        return self._hash

    def items_for(self, subject: str | Subject) -> tuple[OutboundItem, ...]:
        """What it says about requests to a service, or to a port of one, in its own order."""
        return tuple(item for item in self.outbound if item.is_about(subject))


def compile_policies(
    policy: Resource, *, created: datetime, mesh: Mesh | None = None, outside: Collection[str] = ()
) -> tuple[CompiledPolicy, ...]:
    """The policies that a resource stands for: one, or one for each rule of those that have several in one document.

    One that tells clients apart is two: what it says of requests that come in, and that its sources send their tags.
    One that counts outside is a third for those of its destinations that are among the services `outside` of the mesh.
    """
    traits = policy.type.policy
    if not isinstance(policy, ConnectionPolicy):
        compiled = compile_policy(policy, created=created, mesh=mesh)
        if traits is None or not traits.asks_sender:
            return (compiled,)
        return (compiled, *_asking_of_sources(policy, compiled))
    parts = [
        compile_policy(part, created=created, position=position, mesh=mesh)
        for position, part in enumerate(policy.parts)
    ]
    if traits is not None and traits.asks_sender:
        parts.append(_asking(policy, parts[0]))
    if traits is not None and traits.counts_outside and outside:
        parts.extend(_counting_outside(policy, parts[0], outside, mesh))
    return tuple(parts)


def compile_policy(
    policy: Resource, *, created: datetime, position: int = 0, mesh: Mesh | None = None
) -> CompiledPolicy:
    """The compiled form of a policy in its mesh, or of the part at a position. TypeError for what is no policy."""
    traits = policy.type.policy
    if traits is None or not isinstance(policy, TargetRefPolicy | ConnectionPolicy | DataplanePolicy):
        raise TypeError(f"{policy.type.name} is no policy")
    if isinstance(policy, DataplanePolicy):
        return CompiledPolicy(
            key=policy.key,
            is_target_ref=False,
            is_initial=False,
            order=traits.order,
            successor=traits.successor,
            selectors=_selectors(policy.selectors or (Selector(),)),
            weight=(created, selection.descending(policy.name), -position),
            outbound=(),
            inbound=(),
            proxy=_conf(policy.settings_in(mesh)),
        )
    if isinstance(policy, ConnectionPolicy):
        by_inbound = traits.is_by_inbound
        conf = _conf(policy.settings_in(mesh))
        return CompiledPolicy(
            key=policy.key,
            is_target_ref=False,
            is_initial=False,
            order=traits.order,
            successor=traits.successor,
            selectors=_selectors(policy.destinations if by_inbound else policy.sources),
            # Where two have the same rank, the later created wins, then the first by name.
            weight=(created, selection.descending(policy.name), -position),
            outbound=() if by_inbound else tuple(_connections(policy, conf)),
            inbound=tuple(_inbound_of_connections(policy, conf)) if by_inbound else (),
            is_listed=traits.is_listed,
        )
    return CompiledPolicy(
        key=policy.key,
        is_target_ref=True,
        is_initial=_is_initial(policy),
        order=traits.order,
        successor=traits.successor,
        selectors=selection.selectors(policy, by_role=_role(policy)),
        weight=selection.weight(policy),
        outbound=tuple(_outbound(policy)),
        inbound=tuple(_taken(policy)),
        proxy=_conf(policy.spec.default) if isinstance(policy.spec, ProxySpec) else None,
        is_listed=traits.is_listed,
        has_cases=traits.has_cases,
    )


def _role(policy: TargetRefPolicy) -> Mapping[str, str]:
    """What a proxy has to be, for kinds of which `to` is about what gateways take in, and all else about sidecars."""
    traits = policy.type.policy
    if traits is None or not traits.is_to_of_gateways:
        return {}
    return selection.OF_GATEWAYS if policy.spec.to else selection.OF_SIDECARS


def _asking(policy: ConnectionPolicy, compiled: CompiledPolicy) -> CompiledPolicy:
    """The policy for clients that may be one of the sources, in requests to what may be one of the destinations.

    A source's tags may be those of several inbounds, so whoever has one of them may be it.
    """
    tags = [min(source.match.items(), key=_vagueness, default=None) for source in policy.sources]
    services = (destination.match.get(SERVICE_TAG, ANY_SERVICE) for destination in policy.destinations)
    return replace(
        compiled,
        selectors=tuple(TagSelector(dict([tag] if tag else ())) for tag in dict.fromkeys(tags)),
        outbound=tuple(OutboundItem(service, (0, 0), FrozenMap()) for service in dict.fromkeys(services)),
        inbound=(),
    )


def _counting_outside(
    policy: ConnectionPolicy, compiled: CompiledPolicy, outside: Collection[str], mesh: Mesh | None
) -> Iterator[CompiledPolicy]:
    """What it says of requests that its sources send to services outside of the mesh; none where it is about none.

    As for all that is sent, a destination with another tag than the service is about none.
    """
    conf = _conf(policy.settings_in(mesh))
    items: dict[str, OutboundItem] = {}
    for destination in policy.destinations:
        service = destination.match.get(SERVICE_TAG)
        if service is None or len(destination.match) > 1:
            continue
        rank = TagSelector(destination.match).rank
        for each in sorted(outside) if service == ANY_SERVICE else [service] if service in outside else ():
            held = items.get(each)
            if held is None or held.rank < rank:
                items[each] = OutboundItem(each, rank, conf)
    if items:
        yield replace(compiled, selectors=_selectors(policy.sources), outbound=tuple(items.values()), inbound=())


def _asking_of_sources(policy: Resource, compiled: CompiledPolicy) -> Iterator[CompiledPolicy]:
    """The policy for clients that may be one of the sources; none where all sources are everybody."""
    sources = [item.source for item in compiled.inbound if item.source]
    if not sources or not compiled.selectors or not isinstance(policy, TargetRefPolicy):
        return
    tags = dict.fromkeys(min(source.items(), key=_vagueness) for source in sources)
    top = policy.spec.top
    service = top.name if top.kind in (MESH_SERVICE, MESH_SERVICE_SUBSET) else ANY_SERVICE
    yield replace(
        compiled,
        selectors=tuple(TagSelector(dict([tag])) for tag in tags),
        outbound=(OutboundItem(service, (0, 0), FrozenMap()),),
        inbound=(),
    )


def _vagueness(tag: tuple[str, str]) -> tuple[bool, bool, str]:
    name, value = tag
    return value == ANY_SERVICE, name != SERVICE_TAG, name


def _inbound_of_connections(policy: ConnectionPolicy, conf: Conf) -> Iterator[InboundItem]:
    traits = policy.type.policy
    if traits is None or not traits.is_listed:
        yield InboundItem(None, conf)
    elif conf:
        for source in dict.fromkeys(source.match for source in policy.sources):
            rank = TagSelector(dict(source)).rank
            yield InboundItem(None, conf, source=FrozenMap(source), rank=rank)


def ends(policy: Resource) -> tuple[TagSelector, ...]:
    """Selectors of those that a policy has to do with: those that it is for and, of connections, their other end.

    As Kuma's API counts them; a shadow has to do with those that it would be for.
    """
    if isinstance(policy, ConnectionPolicy):
        sides = ((*part.sources, *part.destinations) for part in policy.parts)
        return tuple(dict.fromkeys(selector for side in sides for selector in _selectors(side)))
    labels = FrozenMap((name, value) for name, value in policy.labels.items() if name != EFFECT_LABEL)
    policy = policy.model_copy(update={"labels": labels})
    return compile_policy(policy, created=datetime.min).selectors


def _selectors(selectors: Iterable[Selector]) -> tuple[TagSelector, ...]:
    return tuple(TagSelector(dict(selector.match)) for selector in selectors)


def _is_initial(policy: TargetRefPolicy) -> bool:
    return any(
        isinstance(initial, TargetRefPolicy) and initial.name == policy.name and initial.spec == policy.spec
        for initial in policy.initial(policy.mesh)
    )


def _connections(policy: ConnectionPolicy, conf: Conf) -> Iterator[OutboundItem]:
    for destination in policy.destinations:
        service = _service(destination)
        if service is not None:
            yield OutboundItem(service, TagSelector(dict(destination.match)).rank, conf)


def _outbound(policy: TargetRefPolicy) -> Iterator[OutboundItem]:
    traits = policy.type.policy
    if traits is None or traits.is_to_of_gateways:
        # What gateways do with all that comes in.
        return
    if traits.is_routing and policy.spec.top.kind == MESH_GATEWAY:
        # It says where what comes in by listeners goes, and nothing of services as such.
        return
    if traits.both_ways:
        yield from _sent_as_taken(policy, traits.both_ways)
        return
    top = policy.spec.top
    if top.kind == MESH_HTTP_ROUTE:
        # Who has the route is for the route to say; whoever has not has no requests that it rules.
        ruled = PortRef(MESH_HTTP_ROUTE, top.name)
        yield from (OutboundItem("", (0, 0), _conf(item.conf), ruled) for item in policy.spec.to if top.name)
        return
    routes = [item for item in policy.spec.to if item.target_ref.kind == MESH_HTTP_ROUTE]
    if routes:
        # A policy about routes says nothing about services as such.
        for item in routes:
            if item.target_ref.name:
                yield OutboundItem("", (0, 0), _conf(item.conf), PortRef(MESH_HTTP_ROUTE, item.target_ref.name))
        return
    for item in policy.spec.to:
        ref = item.target_ref
        if ref.kind == MESH:
            yield OutboundItem(ANY_SERVICE, (0, 0), _conf(item.conf))
            continue
        # What names a MeshService means what has the name as its tag as well, as before there were MeshServices.
        tag = ref.name if ref.kind == MESH_SERVICE and not ref.section_name else ""
        ports = PortRef(ref.kind, ref.name, ref.section_name, tuple(ref.labels.items()))
        yield OutboundItem(tag, (0, 0), _conf(item.conf), ports)


def _sent_as_taken(policy: TargetRefPolicy, fields: tuple[str, ...]) -> Iterator[OutboundItem]:
    """What is said of all that comes in, as far as it holds for what is sent: where it is for the whole mesh."""
    if policy.spec.top.kind != MESH:
        return
    for item in (*policy.spec.rules, *policy.spec.from_):
        conf = FrozenMap((name, value) for name, value in _conf(item.default).items() if name in fields)
        if conf:
            yield OutboundItem(ANY_SERVICE, (0, 0), conf)


def _service(destination: Selector) -> str | None:
    """The service that a selector names; None where it asks for more than a client knows, and so never matches."""
    match = destination.match
    if not match:
        return ANY_SERVICE
    return match[SERVICE_TAG] if match.keys() == {SERVICE_TAG} else None


def _taken(policy: TargetRefPolicy) -> Iterator[InboundItem]:
    """What is said of requests that come in: nothing by a policy for a route, which is about what is sent."""
    if policy.spec.top.kind == MESH_HTTP_ROUTE:
        return iter(())
    return _listed(policy) if policy.type.policy is not None and policy.type.policy.is_listed else _inbound(policy)


def _inbound(policy: TargetRefPolicy) -> Iterator[InboundItem]:
    traits = policy.type.policy
    for rule in policy.spec.rules:
        for match in rule.matches or (None,):
            yield InboundItem(match, _conf(rule.default))
    if traits is not None and traits.is_to_of_gateways:
        yield from (InboundItem(None, _conf(item.conf)) for item in policy.spec.to if item.target_ref.kind == MESH)
    if policy.spec.rules or traits is None:
        return
    for item in policy.spec.from_:
        if traits.is_from_as_rules:
            yield InboundItem(None, _conf(item.default))
        elif traits.has_cases:
            source = _source(item.target_ref)
            if source is not None:
                yield InboundItem(None, _conf(item.default), source=FrozenMap(sorted(source.items())))


def _listed(policy: TargetRefPolicy) -> Iterator[InboundItem]:
    name = kri(policy, zone=policy.labels.get(ZONE_LABEL, ""))
    for rule in policy.spec.rules:
        yield InboundItem(None, _conf(rule.default), name=name)
    for item in policy.spec.from_:
        source = _source(item.target_ref)
        if source is not None:
            yield InboundItem(None, _conf(item.default), source=FrozenMap(sorted(source.items())))


def _source(ref: TargetRef) -> Mapping[str, str] | None:
    """The tags of those that a source means; None for kinds that mean nobody by their tags."""
    match ref.kind:
        case "Mesh":
            return {}
        case "MeshSubset":
            return ref.tags
        case "MeshService":
            return {SERVICE_TAG: ref.name}
        case "MeshServiceSubset":
            return {**ref.tags, SERVICE_TAG: ref.name}
        case _:
            return None


def _conf(settings: Frozen | None) -> Conf:
    written = {} if settings is None else settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return cast(Conf, freeze(written))
