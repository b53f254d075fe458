"""MeshProxyPatch: what a user changes in the resources that proxies have. The form with a targetRef.

In: documents in Kuma's 2.14 form. Out: `MeshProxyPatch`, frozen, and the rules that it breaks.
Never: what the resources of a proxy are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, PlainSerializer

from kumafast.errors import Violation
from kumafast.resources.fields import FrozenMap, Tags, Text, freeze, thaw
from kumafast.resources.policies.proxy_template import (
    ADD,
    ADD_AFTER,
    ADD_BEFORE,
    ADD_FIRST,
    ADD_LAST,
    PATCH,
    REMOVE,
    read_value,
)
from kumafast.resources.resource import Frozen, PolicyTraits, ResourceType, Scope
from kumafast.resources.target_ref import PROXIES, check_target_ref
from kumafast.resources.target_ref_policy import ProxySpec, TargetRefPolicy

OPERATIONS = {
    "Add": ADD,
    "Patch": PATCH,
    "Remove": REMOVE,
    "AddFirst": ADD_FIRST,
    "AddLast": ADD_LAST,
    "AddBefore": ADD_BEFORE,
    "AddAfter": ADD_AFTER,
}
"""What the older ProxyTemplate calls each operation."""

_OF_FILTERS = ("AddFirst", "AddLast", "AddBefore", "AddAfter", "Patch", "Remove")
_OF_OTHERS = ("Add", "Patch", "Remove")
_OPS = ("add", "remove", "replace", "move", "copy")
_WITH_VALUE, _WITH_FROM = ("add", "replace"), ("move", "copy")

_Json = Annotated[Any, AfterValidator(freeze), PlainSerializer(thaw)]


class Match(Frozen):
    """What is modified; what is not said may be any. `tags` and `listener_tags` are those of the listener."""

    origin: Text | None = None
    name: Text | None = None
    tags: Tags = FrozenMap()
    listener_name: Text | None = None
    listener_tags: Tags = FrozenMap()
    route_configuration_name: Text | None = None


class JsonPatch(Frozen):
    """One operation of RFC 6902 on the JSON form of what matches."""

    op: Text = ""
    path: Text | None = None
    from_: Text | None = Field(default=None, alias="from")
    value: _Json = None


class Change(Frozen):
    """What happens to what matches: by `value`, YAML of Envoy's message or of a part of it, or by JSON patches."""

    operation: Text = ""
    match: Match | None = None
    value: Text | None = None
    json_patches: tuple[JsonPatch, ...] = ()


class Modification(Frozen):
    """A change of one kind."""

    cluster: Change | None = None
    listener: Change | None = None
    network_filter: Change | None = None
    http_filter: Change | None = None
    virtual_host: Change | None = None

    @property
    def changes(self) -> tuple[tuple[str, Change], ...]:
        """Each kind and change that is said: one, where it is as it should be."""
        said = ((str(field.alias), getattr(self, name)) for name, field in type(self).model_fields.items())
        return tuple((kind, change) for kind, change in said if change is not None)


class Conf(Frozen):
    """What changes in the resources of a proxy, in this order, after what policies of less weight change."""

    append_modifications: tuple[Modification, ...] = ()


class MeshProxyPatch(TargetRefPolicy):
    """What some proxies have otherwise than kumafast makes it for them."""

    type: ClassVar[ResourceType] = ResourceType(
        name="MeshProxyPatch",
        scope=Scope.MESH,
        path="meshproxypatches",
        singular="Mesh Proxy Patch",
        plural="Mesh Proxy Patches",
        short_name="mpp",
        is_in_federation=True,
        policy=PolicyTraits(order=9999, is_target_ref=True),
    )

    spec: ProxySpec[Conf] = ProxySpec()

    def violations(self) -> Iterator[Violation]:
        """Every rule of patches that this one breaks, in the order of Kuma's checks."""
        yield from check_target_ref("spec.targetRef", self.spec.top, kinds=PROXIES)
        path = "spec.default.appendModifications"
        modifications = (self.spec.default or Conf()).append_modifications
        if not modifications:
            yield Violation(path, "must not be empty")
        for i, modification in enumerate(modifications):
            changes = modification.changes
            if len(changes) != 1:
                yield Violation(
                    f"{path}[{i}]",
                    f"exactly one modification can be defined at a time. Currently, {len(changes)} modifications are "
                    "defined",
                )
            else:
                yield from _check_change(f"{path}[{i}].{changes[0][0]}", *changes[0])


def _check_change(path: str, kind: str, change: Change) -> Iterator[Violation]:
    is_filter = kind in ("networkFilter", "httpFilter")
    operations = _OF_FILTERS if is_filter else _OF_OTHERS
    operation = change.operation
    if operation not in operations:
        available = ", ".join(f'"{each}"' for each in operations)
        yield Violation(f"{path}.operation", f"invalid operation. Available operations: {available}")
    elif operation == "Remove":
        if change.value is not None:
            yield Violation(f"{path}.value", "must not be defined")
    elif operation == "Patch":
        if is_filter and (change.match is None or change.match.name is None):
            yield Violation(f"{path}.match.name", "must be defined")
        yield from _check_patch(path, kind, change)
    else:
        yield from _check_place(path, kind, change)
        if change.value is None:
            yield Violation(f"{path}.value", "must be defined")
        else:
            yield from _check_value(f"{path}.value", kind, change.value, is_whole=True)


def _check_place(path: str, kind: str, change: Change) -> Iterator[Violation]:
    """Where something is added."""
    name = None if change.match is None else change.match.name
    where = {"AddBefore": "before", "AddAfter": "after"}.get(change.operation)
    if where is not None and name is None:
        message = f"must be defined. You need to pick a filter {where} which this one will be added"
        yield Violation(f"{path}.match.name", message)
    elif change.operation == "Add" and kind == "virtualHost":
        if name is not None:
            yield Violation(f"{path}.match.name", "must not be defined")
    elif change.operation == "Add" and change.match is not None:
        yield Violation(f"{path}.match", "must not be defined")


def _check_patch(path: str, kind: str, change: Change) -> Iterator[Violation]:
    if change.value is None and not change.json_patches:
        yield Violation(path, f"{kind} must have exactly one defined: value, jsonPatches")
    elif change.value is None:
        yield from _check_json_patches(f"{path}.jsonPatches", change.json_patches)
    elif change.json_patches:
        yield Violation(path, f"{kind} must have only one type defined: value, jsonPatches")
    else:
        yield from _check_value(f"{path}.value", kind, change.value, is_whole=False)


def _check_value(path: str, kind: str, value: str, *, is_whole: bool) -> Iterator[Violation]:
    try:
        read_value(kind, value, is_whole=is_whole)
    except ValueError as error:
        yield Violation(path, f"native Envoy resource is not valid: {error}")


def _check_json_patches(path: str, patches: tuple[JsonPatch, ...]) -> Iterator[Violation]:
    for i, patch in enumerate(patches):
        where, op = f"{path}[{i}]", patch.op
        if op not in _OPS:
            yield Violation(f"{where}.op", f'"op" must be one of [{_quoted(_OPS)}]')
        yield from _check_needed(where, "from", patch.from_ is not None, op, _WITH_FROM)
        yield from _check_needed(where, "value", patch.value is not None, op, _WITH_VALUE)
        if patch.path is None:
            yield Violation(f"{where}.path", "must be defined")
        elif patch.path in ("", "/") and op == "remove":
            yield Violation(f"{where}.path", "root path cannot be removed")


def _check_needed(path: str, field: str, is_there: bool, op: str, ops: tuple[str, ...]) -> Iterator[Violation]:
    """A field that some operations need, and the others must not have."""
    if is_there != (op in ops):
        says = "is allowed only" if is_there else "must not be empty"
        yield Violation(f"{path}.{field}", f'"{field}" {says} when "op" is one of [{_quoted(ops)}]')


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)
