"""ProxyTemplate: resources of Envoy that a user writes, and what a user changes in those that proxies have anyway.

In: documents in Kuma's 2.14 form, or with the fields of 0.1.0. Out: `ProxyTemplate`, frozen, and the rules that it
breaks. Never: what the resources of a proxy are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kumafast.errors import Violation
from kumafast.resources import aliases
from kumafast.resources.dataplane_policy import DataplanePolicy, check_service_selectors
from kumafast.resources.fields import FrozenMap, Tags, Text
from kumafast.resources.mesh import Mesh
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope

if TYPE_CHECKING:
    from google.protobuf.message import Message

DEFAULT_PROXY = "default-proxy"
GATEWAY_PROXY = "gateway-proxy"
_PROFILES = (DEFAULT_PROXY, "egress-proxy", GATEWAY_PROXY, "ingress-proxy")

ADD, PATCH, REMOVE = "add", "patch", "remove"
ADD_FIRST, ADD_LAST, ADD_BEFORE, ADD_AFTER = "addFirst", "addLast", "addBefore", "addAfter"

MESSAGES = {
    "cluster": "envoy.config.cluster.v3.Cluster",
    "listener": "envoy.config.listener.v3.Listener",
    "networkFilter": "envoy.config.listener.v3.Filter",
    "httpFilter": "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    "virtualHost": "envoy.config.route.v3.VirtualHost",
}
"""What the value of each kind of modification is."""

RESOURCES = frozenset(
    {
        "envoy.config.cluster.v3.Cluster",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "envoy.config.listener.v3.Listener",
        "envoy.config.route.v3.RouteConfiguration",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
    }
)
"""The messages that can be sent to Envoy by themselves."""


class Match(Frozen):
    """What is modified; what is not said may be any. `tags` and `listener_tags` are those of the listener."""

    origin: Text = ""
    name: Text = ""
    tags: Tags = FrozenMap()
    listener_name: Text = ""
    listener_tags: Tags = FrozenMap()
    route_configuration_name: Text = ""


class Change(Frozen):
    """What happens to what matches; `value` is YAML of Envoy's message, or of a part of it."""

    operation: Text = ""
    match: Match | None = None
    value: Text = ""

    @property
    def matched_name(self) -> str:
        """The name that is asked for."""
        return "" if self.match is None else self.match.name


class Modification(Frozen):
    """A change of one kind; where several are given Kuma takes the last, here it is the last in this order."""

    cluster: Change | None = None
    listener: Change | None = None
    network_filter: Change | None = None
    http_filter: Change | None = None
    virtual_host: Change | None = None

    @property
    def change(self) -> tuple[str, Change] | None:
        """The kind and the change; None where there is none."""
        said = [
            (str(field.alias), change)
            for name, field in type(self).model_fields.items()
            if (change := getattr(self, name)) is not None
        ]
        return said[-1] if said else None


class RawResource(Frozen):
    """A resource of Envoy, as YAML with its type; `name` and `version` are for people."""

    name: Text = ""
    version: Text = ""
    resource: Text = ""


class Conf(Frozen):
    """Which profiles a proxy has, what it has besides, and what changes in all of it, in this order."""

    imports: tuple[Text, ...] = ()
    resources: tuple[RawResource, ...] = ()
    modifications: tuple[Modification, ...] = ()


class ProxyTemplate(DataplanePolicy):
    """What some proxies have beyond what kumafast makes for them, or otherwise."""

    type: ClassVar[ResourceType] = ResourceType(
        name="ProxyTemplate",
        scope=Scope.MESH,
        path="proxytemplates",
        singular="Proxy Template",
        plural="Proxy Templates",
        is_in_federation=True,
        policy=PolicyTraits(order=9999),
    )

    conf: Conf | None = None

    @classmethod
    def translated(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields with those of 0.1.0 in the place that they have today."""
        return aliases.template_fields(fields)

    def settings(self) -> Conf:
        """The template; an empty one is one too: its proxies have no profile."""
        return self.conf or Conf()

    def remarks_in(self, mesh: Mesh) -> Iterator[str]:
        """That its proxies lose what they would have without it."""
        if DEFAULT_PROXY not in self.settings().imports:
            yield (
                f"conf.imports: without {DEFAULT_PROXY} the proxies that this is for have none of the inbounds and "
                "outbounds of their dataplanes"
            )

    def violations(self) -> Iterator[Violation]:
        """Every rule of templates that this one breaks, in the order of Kuma's checks."""
        yield from check_service_selectors("selectors", self.selectors)
        conf = self.settings()
        for i, profile in enumerate(conf.imports):
            if not profile:
                yield Violation(f"conf.imports[{i}]", "cannot be empty")
            elif profile not in _PROFILES:
                message = f"profile not found. Available profiles: {','.join(_PROFILES)}"
                yield Violation(f"conf.imports[{i}]", message)
        for i, raw in enumerate(conf.resources):
            yield from _check_raw(f"conf.resources[{i}]", raw)
        for i, modification in enumerate(conf.modifications):
            if modification.change is not None:
                kind, change = modification.change
                yield from _check_change(f"conf.modifications[{i}].{kind}", kind, change)


def _check_raw(path: str, raw: RawResource) -> Iterator[Violation]:
    if not raw.name:
        yield Violation(f"{path}.name", "cannot be empty")
    if not raw.version:
        yield Violation(f"{path}.version", "cannot be empty")
    if not raw.resource:
        yield Violation(f"{path}.resource", "cannot be empty")
        return
    try:
        read_resource(raw.resource)
    except ValueError as error:
        yield Violation(f"{path}.resource", f"native Envoy resource is not valid: {error}")


def read_resource(text: str) -> Message:
    """The resource that a text is; ValueError where Envoy could not be sent it."""
    # Not before there is such a text: to load protobuf's messages takes longer than most commands.
    from kumafast.resources import envoy_messages

    message = envoy_messages.read_any(text)
    name = message.DESCRIPTOR.full_name
    if name not in RESOURCES:
        raise ValueError(f"{name} is no resource that proxies ask for")
    if not getattr(message, "name", "") and not getattr(message, "cluster_name", ""):
        raise ValueError(f"invalid {message.DESCRIPTOR.name}.Name: value length must be at least 1 runes")
    return message


def read_value(kind: str, text: str, *, is_whole: bool) -> Message:
    """The value of a kind of modification; of what is added nothing may be missing. ValueError with what is wrong."""
    from kumafast.resources import envoy_messages

    message = envoy_messages.read(text, MESSAGES[kind])
    if is_whole:
        envoy_messages.check(message)
        if not getattr(message, "name", ""):
            raise ValueError(f"invalid {message.DESCRIPTOR.name}.Name: value length must be at least 1 runes")
    return message


def _check_change(path: str, kind: str, change: Change) -> Iterator[Violation]:
    operation = change.operation
    is_filter = kind in ("networkFilter", "httpFilter")
    adding = (ADD_FIRST, ADD_LAST, ADD_BEFORE, ADD_AFTER) if is_filter else (ADD,)
    if operation not in (*adding, PATCH, REMOVE):
        available = ", ".join(f'"{each}"' for each in (*adding, PATCH, REMOVE))
        yield Violation(f"{path}.operation", f"invalid operation. Available operations: {available}")
    elif is_filter:
        yield from _check_filter_match(path, change)
    elif operation == ADD and kind == "virtualHost":
        if change.matched_name:
            yield Violation(f"{path}.match.name", "cannot be defined")
    elif operation == ADD and change.match is not None:
        yield Violation(f"{path}.match", "cannot be defined")
    if operation in (*adding, PATCH):
        try:
            read_value(kind, change.value, is_whole=operation != PATCH)
        except ValueError as error:
            yield Violation(f"{path}.value", f"native Envoy resource is not valid: {error}")


def _check_filter_match(path: str, change: Change) -> Iterator[Violation]:
    if change.matched_name:
        return
    where = {ADD_BEFORE: "before", ADD_AFTER: "after"}.get(change.operation)
    if where is not None:
        message = f"cannot be empty. You need to pick a filter {where} which this one will be added"
        yield Violation(f"{path}.match.name", message)
    elif change.operation == PATCH:
        yield Violation(f"{path}.match.name", "cannot be empty")
