"""Envoy's own messages, as users write them: YAML or JSON in the form of protobuf.

In: a text, and what kind of message it is or that it says so itself. Out: the message; `ValueError` with what is wrong.
Never: what becomes of it. Messages of Envoy's API 2, as Kuma 0.1.0 took them, are read as those of 3 that replaced
them, as far as their fields are the same.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, TypeVar

import yaml
from google.protobuf import json_format, symbol_database
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from validate import validate_pb2

_PREFIX = "type.googleapis.com/"
_NAME = re.compile(r"((?:envoy|xds|udpa)(?:\.[a-z][a-z0-9_]*)+)\.[A-Z]\w*(?:\.\w+)*")
# Aliases of YAML can make a small text large; nothing that Envoy is sent comes near to this.
_NODES_MAX = 50_000

_SUCCESSORS = {
    "envoy.api.v2.Cluster": "envoy.config.cluster.v3.Cluster",
    "envoy.api.v2.ClusterLoadAssignment": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.api.v2.Listener": "envoy.config.listener.v3.Listener",
    "envoy.api.v2.RouteConfiguration": "envoy.config.route.v3.RouteConfiguration",
    "envoy.api.v2.auth.DownstreamTlsContext": "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    "envoy.api.v2.auth.Secret": "envoy.extensions.transport_sockets.tls.v3.Secret",
    "envoy.api.v2.auth.UpstreamTlsContext": "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.config.accesslog.v2.FileAccessLog": "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.config.filter.http.lua.v2.Lua": "envoy.extensions.filters.http.lua.v3.Lua",
    "envoy.config.filter.http.router.v2.Router": "envoy.extensions.filters.http.router.v3.Router",
    "envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager": (
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    ),
    "envoy.config.filter.network.tcp_proxy.v2.TcpProxy": "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
}

M = TypeVar("M", bound=Message)


def read(text: str, name: str) -> Message:
    """The message with this full name that a text is. Fields may be missing: what is patched has the rest."""
    return _parsed(_tree(text), _new(name))


def read_any(text: str) -> Message:
    """The message that a text is, of the type that stands under `@type`, complete."""
    packed = _parsed(_tree(text), PackedMessage())
    if not packed.type_url:
        raise ValueError("@type is missing")
    message = _new(packed.TypeName())
    packed.Unpack(message)
    check(message)
    return message


def from_json(tree: dict[str, Any], message: M) -> M:
    """The message, filled from its JSON form; ValueError with what is wrong."""
    _note_types(tree)
    return _parsed(tree, message)


def _new(name: str) -> Message:
    _import(name.rpartition(".")[0])
    message: Message = symbol_database.Default().GetSymbol(name)()
    return message


def check(message: Message) -> None:
    """ValueError where a message breaks one of the rules of its type that each of its fields has by itself."""
    for broken in _broken(message):
        raise ValueError(f"invalid {broken}")


def _tree(text: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(text)
        _note_types(tree)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    if not isinstance(tree, dict):
        raise ValueError("it must be an object")
    return tree


def _note_types(tree: Any) -> None:
    """Have protobuf know the types that a tree names, and name the newer ones where they are old."""
    left: list[Any] = [tree]
    for _ in range(_NODES_MAX):
        if not left:
            return
        node = left.pop()
        if isinstance(node, dict):
            if isinstance(node.get("@type"), str):
                node["@type"] = _known(node["@type"])
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)
    raise ValueError(f"it has more than {_NODES_MAX} values")


def _known(url: str) -> str:
    name = url.removeprefix(_PREFIX)
    name = _SUCCESSORS.get(name, name)
    found = _NAME.fullmatch(name)
    if found is not None:
        _import(found[1])
    return _PREFIX + name


def _import(package: str) -> None:
    """Messages are known once their module is imported, whose name is not that of the message."""
    try:
        module = import_module(package)
    except ImportError:
        return
    for info in pkgutil.iter_modules(module.__path__, prefix=f"{package}."):
        if info.name.endswith("_pb2"):
            import_module(info.name)


def _parsed(tree: dict[str, Any], message: M) -> M:
    try:
        json_format.ParseDict(tree, message)
        _settle(message)
    except json_format.ParseError as error:
        # What follows is a list of all fields there are.
        raise ValueError(str(error).splitlines()[0]) from None
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {error}") from None
    return message


def _settle(message: Message) -> None:
    """Have equal messages be equal bytes: what protobuf packs while it reads is packed in any order."""
    if isinstance(message, PackedMessage):
        if not message.type_url:
            return
        inner = _new(message.TypeName())
        message.Unpack(inner)
        _settle(inner)
        message.Pack(inner, deterministic=True)
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not field.is_repeated:
            _settle(value)
            continue
        is_map = field.message_type.GetOptions().map_entry
        for each in value.values() if is_map else value:
            if isinstance(each, Message):
                _settle(each)


def _broken(message: Message) -> Iterator[str]:
    """In the words of Envoy's own checks, which Kuma repeats."""
    kind = message.DESCRIPTOR.name
    for field in message.DESCRIPTOR.fields:
        name = "".join(part.capitalize() for part in field.name.split("_"))
        rules = field.GetOptions().Extensions[validate_pb2.rules]
        is_set = not field.has_presence or message.HasField(field.name)
        if field.containing_oneof is not None and not is_set:
            # Another of several fields may be set in its place.
            continue
        for problem in _problems(field, rules, getattr(message, field.name), is_set=is_set):
            yield f"{kind}.{name}: {problem}"


def _problems(field: Any, rules: Any, value: Any, *, is_set: bool) -> Iterator[str]:
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    if field.is_repeated:
        if len(value) < rules.repeated.min_items:
            yield f"value must contain at least {rules.repeated.min_items} item(s)"
        entries = value if is_message and not field.message_type.GetOptions().map_entry else ()
        for item in entries:
            yield from map(_within, _broken(item))
    elif is_message:
        if is_set:
            yield from map(_within, _broken(value))
        elif rules.message.required or rules.duration.required or rules.any.required:
            yield "value is required"
    elif field.type == FieldDescriptor.TYPE_STRING and len(value) < rules.string.min_len:
        yield f"value length must be at least {rules.string.min_len} runes"


def _within(broken: str) -> str:
    return f"embedded message failed validation | caused by: invalid {broken}"
