"""What ProxyTemplate changes: nothing while a proxy's resources are made, and anything in them afterwards.

In: the one template that applies. Out: what becomes of finished resources. Never: an effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kumafast.generation.modifications import ADMIN, SECRETS, TRACING, TRANSPARENT, Modification, Template
from kumafast.resources.policies.proxy_template import (
    DEFAULT_PROXY,
    GATEWAY_PROXY,
    PATCH,
    REMOVE,
    Change,
    Conf,
    Match,
    ProxyTemplate,
    read_resource,
    read_value,
)

KIND = ProxyTemplate.type.name

# Of the profiles of other proxies a sidecar has what it has in common with them.
_OF_ANY_PROXY = frozenset({ADMIN, SECRETS})
_OF_GATEWAYS = frozenset({ADMIN, SECRETS, TRANSPARENT, TRACING})


def modifications(conf: Mapping[str, Any]) -> Template:
    """What the template makes of a proxy's resources."""
    written = Conf.model_validate(conf)
    raw = (read_resource(each.resource) for each in written.resources)
    changes = (each.change for each in written.modifications)
    return Template(
        origins=_origins(written.imports),
        resources=tuple((each.DESCRIPTOR.full_name, each.SerializeToString(deterministic=True)) for each in raw),
        steps=tuple(_step(*change) for change in changes if change is not None),
    )


def _origins(imports: tuple[str, ...]) -> frozenset[str] | None:
    if DEFAULT_PROXY in imports:
        return None
    if GATEWAY_PROXY in imports:
        return _OF_GATEWAYS
    return _OF_ANY_PROXY if imports else frozenset()


def _step(kind: str, change: Change) -> Modification:
    match = change.match or Match()
    value = b""
    if change.operation != REMOVE:
        message = read_value(kind, change.value, is_whole=change.operation != PATCH)
        value = message.SerializeToString(deterministic=True)
    return Modification(
        kind=kind,
        operation=change.operation,
        origin=match.origin,
        name=match.name,
        listener_name=match.listener_name,
        tags=tuple((match.tags if kind == "listener" else match.listener_tags).items()),
        route_configuration_name=match.route_configuration_name,
        value=value,
    )
