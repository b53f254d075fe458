"""What a user changes in the finished resources of a proxy: clusters, listeners, and what is inside of these.

In: resources of one origin (`inbound`, `outbound`, …) and a template. Out: the same resources, modified; the resources
that the template adds. Never: another proxy's; the result depends on the arguments alone, so it can be remembered.
Source of what operations do and which resources they match: Kuma 2.14, step by step in the order of the template.

Resources of each origin are modified by themselves: what a step does to one does not depend on any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf import symbol_database
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.message import DecodeError, Message

from kumafast.errors import ModificationError
from kumafast.generation.json_patch import patch_message
from kumafast.generation.proxy import Tags
from kumafast.resources.fields import FrozenMap

ADMIN, TRANSPARENT, INBOUND, OUTBOUND = "admin", "transparent", "inbound", "outbound"
SECRETS, TRACING, DNS, GATEWAY, METRICS = "secrets", "tracing", "dns", "gateway", "prometheus"
RAW, ADDED = "proxy-template-raw", "proxy-template-modifications"

CLUSTER, LISTENER = "cluster", "listener"
NETWORK_FILTER, HTTP_FILTER, VIRTUAL_HOST = "networkFilter", "httpFilter", "virtualHost"

_HTTP = "envoy.filters.network.http_connection_manager"
_TAGS = "io.kuma.tags"
_ANY = "*"
_DURATION = "google.protobuf.Duration"

_Listener = listener_pb2.Listener
_Manager = http_connection_manager_pb2.HttpConnectionManager
_VALUES: Mapping[str, type[Message]] = {
    CLUSTER: cluster_pb2.Cluster,
    LISTENER: _Listener,
    NETWORK_FILTER: listener_components_pb2.Filter,
    HTTP_FILTER: http_connection_manager_pb2.HttpFilter,
    VIRTUAL_HOST: route_components_pb2.VirtualHost,
}


@dataclass(frozen=True, slots=True)
class Modification:
    """One step: an operation on what matches. `value` is the serialised message that it adds or merges.

    With `patches` it changes the JSON form of what matches by these, in place of a merge.
    """

    kind: str
    operation: str
    origin: str = ""
    name: str = ""
    listener_name: str = ""
    tags: Tags = ()
    route_configuration_name: str = ""
    value: bytes = b""
    patches: tuple[FrozenMap[str, Any], ...] = ()

    def concerns(self, kind: str, name: str, origin: str) -> bool:
        """Whether it may do something to a cluster or listener, as far as that is seen from outside."""
        if kind != (CLUSTER if self.kind == CLUSTER else LISTENER) or self.origin not in ("", origin):
            return False
        if self.kind in (CLUSTER, LISTENER):
            # What is added takes the place of what has its name.
            return self.name in ("", name) or self.operation == "add"
        return self.listener_name in ("", name)


@dataclass(frozen=True, slots=True)
class Template:
    """Which of its resources a proxy keeps, what it has besides (serialised, by type), and what is done to all."""

    origins: frozenset[str] | None = None
    """None where it keeps all."""
    resources: tuple[tuple[str, bytes], ...] = ()
    steps: tuple[Modification, ...] = ()
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.origins, self.resources, self.steps)))

    def __hash__(self) -> int:
        return self._hash

    def keeps(self, origin: str) -> bool:
        """Whether a proxy has what is of an origin."""
        return self.origins is None or origin in self.origins

    @property
    def adds(self) -> bool:
        """Whether it brings resources of its own."""
        return bool(self.resources) or any(
            step.operation == "add" and step.kind in (CLUSTER, LISTENER) for step in self.steps
        )

    def then(self, later: Template) -> Template:
        """This template, and another one after it."""
        origins = later.origins if self.origins is None else self.origins
        if origins is not None and later.origins is not None:
            origins &= later.origins
        return Template(origins, (*self.resources, *later.resources), (*self.steps, *later.steps))

    def concerns(self, origin: str, resources: Iterable[tuple[str, str]]) -> bool:
        """Whether it may do something to one of these resources, each the kind and name of a cluster or listener."""
        if not self.steps and not self.resources:
            return False
        named = {(kind_of(message), _name(message)) for message in map(_decode, self.resources)}
        return any(
            (kind, name) in named or any(step.concerns(kind, name, origin) for step in self.steps)
            for kind, name in resources
        )


# What protobuf raises where a message is not what it is taken for is among these.
_FAILURES = (ModificationError, DecodeError, TypeError, ValueError, KeyError)

_Held: TypeAlias = dict[tuple[str, str], tuple[str, Message]]
"""Resources by kind and name, each with its origin."""


def kind_of(message: Message) -> str:
    """What modifications call a kind of message; its own name for those that they do not know."""
    name: str = message.DESCRIPTOR.name
    return name[0].lower() + name[1:]


def modified(template: Template, origin: str, messages: Iterable[Message]) -> tuple[Message, ...]:
    """These clusters and listeners of one origin as they are at last; they are changed in place.

    Raises `ModificationError` where a step cannot be done to what it matches.
    """
    held: _Held = {(kind_of(each), _name(each)): (origin, each) for each in messages}
    for message in map(_decode, template.resources):
        held.pop((kind_of(message), _name(message)), None)
    _apply_all(template.steps, held, adds=False)
    return tuple(message for _, message in held.values())


def added(template: Template) -> tuple[Message, ...]:
    """The resources that the template itself brings, as they are at last. Raises `ModificationError`."""
    held: _Held = {(kind_of(each), _name(each)): (RAW, each) for each in map(_decode, template.resources)}
    _apply_all(template.steps, held, adds=True)
    return tuple(message for _, message in held.values())


def _apply_all(steps: Sequence[Modification], held: _Held, *, adds: bool) -> None:
    for number, step in enumerate(steps):
        try:
            _apply(step, held, adds=adds)
        except _FAILURES as error:
            resource = error.resource if isinstance(error, ModificationError) else None
            raise ModificationError(f"modifications[{number}].{step.kind}: {error}", resource=resource) from error


def _apply(step: Modification, held: _Held, *, adds: bool) -> None:
    value = _VALUES[step.kind].FromString(step.value)
    if step.operation == "add" and step.kind in (CLUSTER, LISTENER):
        held.pop((step.kind, _name(value)), None)
        if adds:
            held[step.kind, _name(value)] = (ADDED, value)
        return
    for key, (origin, message) in list(held.items()):
        if not step.concerns(*key, origin) or not _has_tags(message, step.tags):
            continue
        if step.operation == "remove" and step.kind in (CLUSTER, LISTENER):
            del held[key]
            continue
        try:
            _change(step, message, value)
        except _FAILURES as error:
            raise ModificationError(str(error), resource=key) from error


def _change(step: Modification, message: Message, value: Message) -> None:
    if step.kind in (CLUSTER, LISTENER):
        _patch(step, message, value)
    else:
        _change_inside(step, message, value)


def _has_tags(message: Message, wanted: Tags) -> bool:
    if not wanted:
        return True
    assert isinstance(message, _Listener)
    tags = message.metadata.filter_metadata
    fields = tags[_TAGS].fields if _TAGS in tags else {}
    return all(key in fields and value in (_ANY, fields[key].string_value) for key, value in wanted)


def _change_inside(step: Modification, listener: Message, value: Message) -> None:
    assert isinstance(listener, _Listener)
    for chain in listener.filter_chains:
        if step.kind == NETWORK_FILTER:
            _change_filters(step, chain.filters, value)
            continue
        for filter_ in chain.filters:
            if filter_.name == _HTTP:
                manager = _Manager()
                if not filter_.typed_config.Unpack(manager):
                    raise ModificationError(f"{_HTTP} has a configuration of another type")
                if step.kind == HTTP_FILTER:
                    _change_filters(step, manager.http_filters, value)
                elif manager.HasField("route_config"):
                    _change_hosts(step, manager.route_config, value)
                filter_.typed_config.Pack(manager, deterministic=True)


def _change_filters(step: Modification, filters: Any, value: Message) -> None:
    """Filters of either kind: each has a name and a configuration."""
    matching = [number for number, each in enumerate(filters) if step.name in ("", each.name)]
    match step.operation:
        case "addFirst":
            filters.insert(0, value)
        case "addLast":
            filters.append(value)
        case "addBefore" | "addAfter":
            if matching:
                filters.insert(matching[0] + (step.operation == "addAfter"), value)
        case "remove":
            _keep_only(filters, lambda each: step.name not in ("", each.name))
        case _:
            for number in matching:
                if step.patches:
                    _patch_packed(filters[number], step.patches)
                else:
                    _merge_packed(filters[number], value)


def _change_hosts(step: Modification, routes: route_pb2.RouteConfiguration, value: Message) -> None:
    if step.route_configuration_name not in ("", routes.name):
        return
    match step.operation:
        case "add":
            routes.virtual_hosts.append(value)
        case "remove":
            _keep_only(routes.virtual_hosts, lambda each: step.name not in ("", each.name))
        case _:
            for host in routes.virtual_hosts:
                if step.name in ("", host.name):
                    _patch(step, host, value)


def _keep_only(items: Any, is_kept: Any) -> None:
    kept = [item for item in items if is_kept(item)]
    del items[:]
    items.extend(kept)


def _patch(step: Modification, message: Message, value: Message) -> None:
    if step.patches:
        patch_message(message, step.patches)
    else:
        merge(message, value)


def _patch_packed(filter_: Any, patches: Sequence[FrozenMap[str, Any]]) -> None:
    """Patch the configuration of a filter; nothing else of it."""
    config = _unpacked(filter_.typed_config)
    patch_message(config, patches)
    filter_.typed_config.Pack(config, deterministic=True)


def _merge_packed(filter_: Any, patch: Any) -> None:
    """Merge the configuration of a filter, which has to be of the same type; nothing else of it."""
    if not patch.HasField("typed_config"):
        return
    if not filter_.HasField("typed_config"):
        filter_.typed_config.CopyFrom(patch.typed_config)
        return
    before, after = filter_.typed_config, patch.typed_config
    if before.type_url != after.type_url:
        raise ModificationError(f"{filter_.name} is configured by {before.type_url}, not by {after.type_url}")
    config, changes = _unpacked(before), _unpacked(after)
    merge(config, changes)
    filter_.typed_config.Pack(config, deterministic=True)


def _unpacked(packed: PackedMessage) -> Message:
    message: Message = symbol_database.Default().GetSymbol(packed.TypeName())()
    packed.Unpack(message)
    return message


def merge(message: Message, patch: Message) -> None:
    """Put what is set in a patch into a message: lists grow at their end, durations are replaced as a whole."""
    _clear_durations(message, patch)
    message.MergeFrom(patch)


def _clear_durations(message: Message, patch: Message) -> None:
    # Protobuf would merge seconds and nanoseconds each by itself, and 5s over 0.25s would make 5.25s.
    for descriptor, value in patch.ListFields():
        if descriptor.is_repeated or descriptor.message_type is None or not message.HasField(descriptor.name):
            continue
        if descriptor.message_type.full_name == _DURATION:
            message.ClearField(descriptor.name)
        else:
            _clear_durations(getattr(message, descriptor.name), value)


def _decode(resource: tuple[str, bytes]) -> Message:
    name, body = resource
    message: Message = symbol_database.Default().GetSymbol(name).FromString(body)
    return message


def _name(message: Message) -> str:
    name: str = getattr(message, "name", "") or getattr(message, "cluster_name", "")
    return name
