"""How two forms of an Envoy resource differ, field by field, for people to read.

In: encoded resources of one type. Out: differences, each with a path in the names of protobuf's JSON and the values at
it; a resource as JSON. Never: what a secret holds, or a field that Envoy's own definitions call sensitive.

Only what differs is put into words: equal messages are compared by the library and passed over as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple, TypeAlias

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from udpa.annotations import sensitive_pb2

Json: TypeAlias = Any
"""A value as the standard library's `json` reads it."""

# What is aligned element by element; longer runs are compared as sets, which forgets their order.
_ALIGNED_MAX = 100

_REDACTED = "[redacted]"
_SECRET = secret_pb2.Secret.DESCRIPTOR.full_name
# What goes by a digest of its content, or by what the resource goes by anyway.
_BY_PLACE = {kind.DESCRIPTOR.full_name for kind in (route_components_pb2.Route, route_components_pb2.VirtualHost)}
_PACKED = PackedMessage.DESCRIPTOR.full_name
# Messages that JSON shows as one value.
_PLAIN = frozenset(
    f"google.protobuf.{name}"
    for name in (
        "BoolValue",
        "BytesValue",
        "DoubleValue",
        "Duration",
        "FieldMask",
        "FloatValue",
        "Int32Value",
        "Int64Value",
        "ListValue",
        "StringValue",
        "Struct",
        "Timestamp",
        "UInt32Value",
        "UInt64Value",
        "Value",
    )
)


class Difference(NamedTuple):
    """What stands at a path in one resource and in the other; None where nothing does."""

    path: str
    before: Json | None
    after: Json | None


def differences(type_url: str, before: bytes, after: bytes) -> tuple[Difference, ...]:
    """In what one form of a resource differs from another, in the order of the fields. None for secrets.

    >>> from envoy.config.cluster.v3.cluster_pb2 import Cluster
    >>> one, other = (Cluster(name="a", connect_timeout={"seconds": s}).SerializeToString() for s in (5, 10))
    >>> differences("type.googleapis.com/envoy.config.cluster.v3.Cluster", one, other)
    (Difference(path='connectTimeout', before='5s', after='10s'),)
    """
    if _name(type_url) == _SECRET or before == after:
        return ()
    was, now = _decoded(type_url, before), _decoded(type_url, after)
    if was is None or now is None:
        return (Difference("", _unread(before), _unread(after)),)
    return tuple(_of_messages("", was, now))


def as_json(type_url: str, body: bytes) -> Json:
    """A resource as protobuf's JSON shows it; of a secret nothing, and of what cannot be read its length."""
    if _name(type_url) == _SECRET:
        return {}
    message = _decoded(type_url, body)
    return _unread(body) if message is None else _json(message)


def _decoded(type_url: str, body: bytes) -> Message | None:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(_name(type_url))
        message: Message = message_factory.GetMessageClass(descriptor).FromString(body)
    except (KeyError, DecodeError):
        return None
    return message


def _name(type_url: str) -> str:
    return type_url.rpartition("/")[2]


def _json(message: Message) -> Json:
    shown = type(message)()
    shown.CopyFrom(message)
    _redact(shown)
    try:
        return json_format.MessageToDict(shown)
    except (TypeError, json_format.Error):
        # It holds an extension whose type is not known here.
        return _unread(message.SerializeToString(deterministic=True))


def _redact(message: Any) -> None:
    """Take out what nobody is to see, extensions included."""
    if message.DESCRIPTOR.full_name == _PACKED:
        inner = _decoded(message.type_url, message.value)
        if inner is not None:
            _redact(inner)
            message.value = inner.SerializeToString(deterministic=True)
        return
    for field, value in message.ListFields():
        if _is_sensitive(field):
            message.ClearField(field.name)
        elif field.message_type is None:
            continue
        elif not field.is_repeated:
            _redact(value)
        elif not field.message_type.GetOptions().map_entry:
            for each in value:
                _redact(each)
        elif field.message_type.fields_by_name["value"].message_type is not None:
            for key in value:
                _redact(value[key])


def _is_sensitive(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[sensitive_pb2.sensitive])


def _unread(body: bytes) -> Json:
    return {"bytes": len(body)}


def _of_messages(path: str, was: Message, now: Message) -> Iterator[Difference]:
    if was.DESCRIPTOR.full_name == _PACKED:
        yield from _of_packed(path, was, now)
        return
    if was.DESCRIPTOR.full_name in _PLAIN:
        yield Difference(path, _json(was), _json(now))
        return
    here, there = dict(was.ListFields()), dict(now.ListFields())
    for field in sorted({*here, *there}, key=lambda field: field.number):
        yield from _of_fields(f"{path}.{field.json_name}" if path else field.json_name, field, here, there)


def _of_packed(path: str, was: Any, now: Any) -> Iterator[Difference]:
    one, other = (_decoded(each.type_url, each.value) for each in (was, now))
    if was.type_url == now.type_url and one is not None and other is not None:
        yield from _of_messages(path, one, other)
    else:
        yield Difference(path, _json(was), _json(now))


def _of_fields(
    path: str, field: FieldDescriptor, here: dict[FieldDescriptor, Any], there: dict[FieldDescriptor, Any]
) -> Iterator[Difference]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        was, now = dict(here.get(field, {})), dict(there.get(field, {}))
        values = field.message_type.fields_by_name["value"]
        for key in sorted({*was, *now}):
            yield from _of_values(f"{path}[{key}]", values, was.get(key), now.get(key))
    elif field.is_repeated:
        yield from _of_lists(path, field, here.get(field, ()), there.get(field, ()))
    else:
        yield from _of_values(path, field, here.get(field), there.get(field))


def _of_values(path: str, field: FieldDescriptor, was: Any, now: Any) -> Iterator[Difference]:
    if was == now:
        return
    if _is_sensitive(field):
        yield Difference(path, None if was is None else _REDACTED, None if now is None else f"another {_REDACTED}")
    elif field.message_type is not None and was is not None and now is not None:
        yield from _of_messages(path, was, now)
    else:
        yield Difference(path, _value(field, was), _value(field, now))


def _value(field: FieldDescriptor, value: Any) -> Json | None:
    if value is None:
        return None
    if isinstance(value, Message):
        return _json(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return value if named is None else named.name
    return _unread(value) if isinstance(value, bytes) else value


def _of_lists(path: str, field: FieldDescriptor, was: Sequence[Any], now: Sequence[Any]) -> Iterator[Difference]:
    names, others = _labels(was), _labels(now)
    if names is not None and others is not None:
        here, there = dict(zip(names, was, strict=True)), dict(zip(others, now, strict=True))
        for name in dict.fromkeys((*names, *others)):
            shown = name
            if _is_opaque(field):
                shown = str((others if name in there else names).index(name))
            yield from _of_values(f"{path}[{shown}]", field, here.get(name), there.get(name))
        if [name for name in names if name in there] != [name for name in others if name in here]:
            yield Difference(path, names, others)
        return
    start = next((n for n, (one, other) in enumerate(zip(was, now, strict=False)) if one != other), None)
    start = min(len(was), len(now)) if start is None else start
    end = 0
    while end < min(len(was), len(now)) - start and was[-1 - end] == now[-1 - end]:
        end += 1
    yield from _of_runs(path, field, start, was[start : len(was) - end], now[start : len(now) - end])


def _of_runs(
    path: str, field: FieldDescriptor, start: int, was: Sequence[Any], now: Sequence[Any]
) -> Iterator[Difference]:
    """Differences of what stands between an equal beginning, as long as `start`, and an equal end."""
    here, there = [_bytes(each) for each in was], [_bytes(each) for each in now]
    if max(len(here), len(there)) > _ALIGNED_MAX:
        gone, come = Counter(here) - Counter(there), Counter(there) - Counter(here)
        yield from (Difference(f"{path}[]", _value(field, was[here.index(each)]), None) for each in gone)
        yield from (Difference(f"{path}[]", None, _value(field, now[there.index(each)])) for each in come)
        return
    for tag, i, j, k, m in SequenceMatcher(a=here, b=there, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for number in range(max(j - i, m - k)):
            one = was[i + number] if i + number < j else None
            other = now[k + number] if k + number < m else None
            place = k + number if other is not None else i + number
            yield from _of_values(f"{path}[{start + place}]", field, one, other)


def _labels(elements: Sequence[Any]) -> list[str] | None:
    """What elements go by, where each has a name of its own: its name, or the address of an endpoint."""
    labels = [_label(element) for element in elements]
    if None in labels or len(set(labels)) < len(labels):
        return None
    return [label for label in labels if label is not None]


def _is_opaque(field: FieldDescriptor) -> bool:
    """Whether names of such elements say nothing to people."""
    return field.message_type is not None and field.message_type.full_name in _BY_PLACE


def _label(element: Any) -> str | None:
    if not isinstance(element, Message):
        return None
    fields = element.DESCRIPTOR.fields_by_name
    if "name" in fields:
        name = getattr(element, "name", None)
        return name if isinstance(name, str) and name else None
    if "endpoint" in fields and "metadata" in fields:
        address = getattr(element, "endpoint").address.socket_address  # noqa: B009
        return f"{address.address}:{address.port_value}" if address.address else None
    return None


def _bytes(element: Any) -> bytes:
    if isinstance(element, Message):
        encoded: bytes = element.SerializeToString(deterministic=True)
        return encoded
    return repr(element).encode()
