"""From where transparent proxies see the names of a mesh: what each asks for.

In: dataplanes, destinations. Out: `Viewpoint`s, and the names by which they ask. Never: what is there to see.
"""

from __future__ import annotations

from typing import NamedTuple

from kumafast.matching.backends import BackendPort, index_name, noted_names
from kumafast.registry.reach import Destination
from kumafast.resources import Dataplane


class Viewpoint(NamedTuple):
    """Which names a transparent proxy is to see: those that lead to some services, or, with None, all.

    Services by tags are called by their names, those that are resources as `wanted_names` has them.
    """

    services: frozenset[str] | None = None


def wanted_names(destination: Destination, port: int) -> tuple[str, ...]:
    """By what a viewpoint may ask for what a port leads to: a service, or a resource with or without its port."""
    if not isinstance(destination, BackendPort):
        return noted_names(destination)
    return wanted_name(destination.kind, destination.name), wanted_name(destination.kind, destination.name, port)


def wanted_name(kind: str, name: str, port: int = 0) -> str:
    """By what a viewpoint asks for a service that is a resource: all of its ports, or one."""
    return f"{index_name(kind, name)}:{port}" if port else index_name(kind, name)


def viewpoint(dataplane: Dataplane, backends: frozenset[str] | None = None) -> Viewpoint | None:
    """From where a dataplane sees names: none where its outbound traffic is not redirected to its proxy.

    `backends` are the services that its `reachableBackends` ask for, None where it has no such.
    """
    proxying = None if dataplane.networking is None else dataplane.networking.transparent_proxying
    if proxying is None or not proxying.redirect_port_outbound:
        return None
    # Whoever says which resources it reaches, and no services, reaches no services, and the other way round.
    if not proxying.reachable_services and backends is None:
        return Viewpoint()
    return Viewpoint(frozenset(proxying.reachable_services) | (backends or frozenset()))


def found_by(name: str) -> tuple[str, ...]:
    """Under which names somebody is to be found who looks for one."""
    kind, is_resource, service = name.partition("/")
    return (name, index_name(kind, service.partition(":")[0]), index_name(kind)) if is_resource else (name,)
