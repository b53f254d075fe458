"""Between documents and resources: read, write, and what was not understood.

In: mappings as YAML or JSON give them, or bytes from a store. Out: resources, or `MalformedResourceError` with a path
for each mistake; documents in Kuma's flat JSON form. Never: rules of content (`validation`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, cast, get_args, get_origin

import orjson
from pydantic import BaseModel, ValidationError

from kumafast.errors import MalformedResourceError, UnknownTypeError, Violation
from kumafast.resources import catalog
from kumafast.resources.dataplane import Dataplane
from kumafast.resources.fields import TEXT_LENGTH_MAX
from kumafast.resources.networking import Outbound
from kumafast.resources.resource import TODAYS, Resource, Scope
from kumafast.resources.validation import key_of

_SERVER_FIELDS = frozenset({"type", "mesh", "name", "labels", "creationTime", "modificationTime", "kri"})
"""What a document may hold beside the specification; times and identifier are the server's answer, not input."""

Location = Sequence[int | str]


def parse(document: Mapping[str, object]) -> Resource:
    """Read a document of any registered type. Fields that its type does not know are left out: see `unknown_fields`.

    Raises `MalformedResourceError` with a violation for each field of the wrong shape.
    """
    return _parse(_model_for(document), document)


def _parse(model: type[Resource], document: Mapping[str, object], context: object = None) -> Resource:
    fields: dict[str, Any] = dict(document)
    if fields.get("name") is None:
        # To have no name is against the rules, which report it together with everything else.
        fields["name"] = ""
    if model.type.scope is Scope.GLOBAL:
        fields.pop("mesh", None)
    try:
        return model.model_validate(fields, context=context)
    except ValidationError as first:
        # A null is a field that is not set. It is worth a second attempt only where one was refused.
        nulls = [error["loc"] for error in first.errors(include_url=False) if error["input"] is None]
        if not nulls:
            raise _malformed(model, first) from None
    try:
        # Locations are those of the translated fields.
        return model.model_validate(_without(model.translated(fields), nulls))
    except ValidationError as second:
        raise _malformed(model, second) from None


def _model_for(document: object) -> type[Resource]:
    # Asked of each that a store holds: a dict is known to be one at once.
    if not isinstance(document, dict) and not isinstance(document, Mapping):
        raise MalformedResourceError("a resource must be an object with type, name and, for most types, mesh")
    name = document.get("type")
    if name is None or name == "":
        raise MalformedResourceError("a resource must have a type", [Violation("type", "cannot be empty")])
    if not isinstance(name, str):
        raise MalformedResourceError("the type must be text", [Violation("type", "must be a string")])
    try:
        return catalog.model_of(name)
    except KeyError:
        raise UnknownTypeError(
            f"unknown resource type {json.dumps(name)}",
            [Violation("type", f"unknown resource type {json.dumps(name)}")],
        ) from None


def _without(value: Any, locations: Sequence[Location]) -> Any:
    """A copy of a JSON value without the entries at some locations; elements of lists stay, they have a number."""
    here = {location[0] for location in locations if len(location) == 1}
    deeper: dict[int | str, list[Location]] = {}
    for location in locations:
        if len(location) > 1:
            deeper.setdefault(location[0], []).append(location[1:])
    if isinstance(value, Mapping):
        return {
            key: _without(item, deeper[key]) if key in deeper else item
            for key, item in value.items()
            if not (key in here and item is None)
        }
    if isinstance(value, list | tuple):
        return [_without(item, deeper[i]) if i in deeper else item for i, item in enumerate(value)]
    return value


def _malformed(model: type[Resource], error: ValidationError) -> MalformedResourceError:
    violations = [
        Violation(_path(model, detail["loc"]), _message(detail["type"], detail["msg"], detail.get("ctx", {})))
        for detail in error.errors(include_url=False)
    ]
    return MalformedResourceError("; ".join(f"{v.field}: {v.message}" for v in violations), violations)


_MESSAGES = {
    "string_type": "must be a string",
    "string_too_long": f"must be at most {TEXT_LENGTH_MAX} characters",
    "string_unicode": "must be text in UTF-8",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "mapping_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "tuple_type": "must be a list",
    "missing": "must be defined",
    "invalid_key": "must be a string",
    "less_than_equal": "must be a whole number of at most 64 bits",
    "greater_than_equal": "must be a whole number of at most 64 bits",
    "datetime_type": "must be a time such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "must be a time such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "must be a time such as 2026-01-31T12:00:00Z",
    "timezone_aware": "must be a time with a time zone",
}


def _message(kind: str, message: str, context: Mapping[str, object]) -> str:
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be one of {context['expected']}"
    return _MESSAGES.get(kind, message)


def _path(model: type[BaseModel], location: Location) -> str:
    """A location as Kuma writes paths: keys of maps in brackets, fields after dots."""
    path = ""
    kind: object = model
    for part in location:
        if part == "[key]":
            continue
        kind = _kind_inside(kind, part)
        if kind is _MapEntry:
            path = key_of(path, str(part))
        elif isinstance(part, int):
            path += f"[{part}]"
        else:
            path = _field_of(path, part)
    return path


def _field_of(path: str, name: object) -> str:
    # Half of a surrogate pair, which JSON can write and UTF-8 cannot, must not end in an answer.
    text = str(name).encode("utf-8", "replace").decode()
    return f"{path}.{text}" if path else text


class _MapEntry:
    """Stands for the kind of an entry of a map with free keys."""


def _kind_inside(kind: object, part: int | str) -> object:
    """The kind of value at one step further into a model, a list or a map."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                return _bare(field.annotation)
        return object
    return get_args(kind)[0] if get_origin(kind) is tuple else _MapEntry


def _bare(annotation: object) -> object:
    """An annotation without `| None` and without metadata."""
    options = [option for option in get_args(annotation) if option is not type(None)]
    if type(None) in get_args(annotation) and len(options) == 1:
        return _bare(options[0])
    return _bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def to_document(resource: Resource) -> dict[str, object]:
    """Write a resource in Kuma's flat form: type, mesh, name, labels, then what is set of its specification."""
    fields = cast(dict[str, object], resource.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    document: dict[str, object] = {"type": resource.type.name}
    if resource.type.scope is Scope.MESH:
        document["mesh"] = resource.mesh
    document["name"] = resource.name
    for name in ("mesh", "name"):
        fields.pop(name, None)
    labels = fields.pop("labels", None)
    if labels:
        document["labels"] = labels
    document.update(fields)
    return document


def encode(resource: Resource) -> bytes:
    """A resource as bytes for a store; equal resources give equal bytes."""
    return orjson.dumps(to_document(resource))


def decode(data: bytes) -> Resource:
    """The resource that `encode` wrote. Raises `MalformedResourceError` where the bytes are something else."""
    return Decoder().decode(data)


class Decoder:
    """`decode` for many resources that are read together: dataplanes with equal outbounds share one value of each.

    Instances of a service consume the same services, so that of 50,000 dataplanes most outbounds are read once.
    """

    def __init__(self) -> None:
        # By their JSON.
        self._outbounds: dict[bytes, tuple[Outbound, ...]] = {}

    def decode(self, data: bytes) -> Resource:
        """As `decode` does. Raises `MalformedResourceError`."""
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise MalformedResourceError(f"not JSON: {error}") from error
        model = _model_for(document)
        for name in model.old_names:
            if name in data:
                return _parse(model, document)
        if not model.old_names:
            return _parse(model, document)
        if model is Dataplane:
            return self._dataplane(document)
        return _parse(model, document, TODAYS)

    def _dataplane(self, document: dict[str, Any]) -> Resource:
        networking = document.get("networking")
        if not isinstance(networking, dict) or not (outbounds := networking.get("outbound")):
            return _parse(Dataplane, document, TODAYS)
        key = orjson.dumps(outbounds)
        known = self._outbounds.get(key)
        if known is not None:
            networking["outbound"] = known
        dataplane = _parse(Dataplane, document, TODAYS)
        if known is None and isinstance(dataplane, Dataplane):
            self._outbounds[key] = dataplane.outbounds
        return dataplane

    def forget(self) -> None:
        """Share no more of what has been read: it goes with the resources."""
        self._outbounds.clear()


def unknown_fields(document: Mapping[str, object]) -> tuple[str, ...]:
    """Paths of the fields that `parse` leaves out since the type does not know them, in the order of the document.

    Raises `MalformedResourceError` where the document has no known type.
    """
    model = _model_for(document)
    fields = model.translated(document)
    ours = _SERVER_FIELDS | {"status"} if model.type.has_status else _SERVER_FIELDS
    spec = {name: value for name, value in fields.items() if name not in ours}
    return tuple(_unknown(model, spec, ""))


def _unknown(kind: object, value: object, path: str) -> Iterator[str]:
    if isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(value, Mapping):
        known = {}
        for field_name, field in kind.model_fields.items():
            known[field_name] = known[str(field.alias)] = _bare(field.annotation)
        for name, item in value.items():
            where = _field_of(path, name)
            if name in known:
                yield from _unknown(known[name], item, where)
            else:
                yield where
    elif get_origin(kind) is tuple and isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _unknown(get_args(kind)[0], item, f"{path}[{i}]")
