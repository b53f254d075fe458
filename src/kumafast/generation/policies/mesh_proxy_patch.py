"""What MeshProxyPatch changes: nothing while a proxy's resources are made, and anything in them afterwards.

In: the merged conf of a proxy. Out: what becomes of finished resources. Never: an effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kumafast.generation.modifications import Modification, Template
from kumafast.resources.fields import FrozenMap, freeze
from kumafast.resources.policies.mesh_proxy_patch import OPERATIONS, Change, Conf, Match, MeshProxyPatch
from kumafast.resources.policies.proxy_template import PATCH, read_value

KIND = MeshProxyPatch.type.name


def modifications(conf: Mapping[str, Any]) -> Template:
    """What the patches make of a proxy's resources."""
    written = Conf.model_validate(conf)
    return Template(steps=tuple(_step(*each.changes[0]) for each in written.append_modifications))


def _step(kind: str, change: Change) -> Modification:
    match, operation = change.match or Match(), OPERATIONS[change.operation]
    value = b""
    if change.value is not None:
        message = read_value(kind, change.value, is_whole=operation != PATCH)
        value = message.SerializeToString(deterministic=True)
    return Modification(
        kind=kind,
        operation=operation,
        origin=match.origin or "",
        name=match.name or "",
        listener_name=match.listener_name or "",
        tags=tuple((match.tags if kind == "listener" else match.listener_tags).items()),
        route_configuration_name=match.route_configuration_name or "",
        value=value,
        patches=tuple(_operation(each.model_dump(by_alias=True, exclude_none=True)) for each in change.json_patches),
    )


def _operation(fields: Mapping[str, Any]) -> FrozenMap[str, Any]:
    frozen = freeze(fields)
    assert isinstance(frozen, FrozenMap)
    return frozen
