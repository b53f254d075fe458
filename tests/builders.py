"""Resources for tests, with every default in one place.

In: what a test is about. Out: valid `Mesh` and `Dataplane` values. Never: anything but resources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kumafast.resources import Dataplane, Mesh

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_PORT = 8080
DEFAULT_TAGS = {"kuma.io/service": "web", "kuma.io/protocol": "http"}


def mesh(name: str = "default", **over: Any) -> Mesh:
    """A mesh without TLS; `over` gives further fields by their JSON or Python names."""
    return Mesh.model_validate({"name": name, **over})


def inbound(port: int = DEFAULT_PORT, *, tags: Mapping[str, str] | None = None, **over: Any) -> dict[str, Any]:
    """An inbound's fields, of the service `web` unless `tags` say otherwise."""
    return {"port": port, "tags": dict(DEFAULT_TAGS if tags is None else tags), **over}


def outbound(port: int = 9090, service: str = "backend", **over: Any) -> dict[str, Any]:
    """An outbound's fields, to a service by its name unless `tags` say otherwise."""
    return {"port": port, "tags": {"kuma.io/service": service}, **over}


def dataplane(
    name: str = "web-1",
    *,
    mesh: str = "default",
    address: str = DEFAULT_ADDRESS,
    inbound: Iterable[Mapping[str, Any]] | None = None,
    outbound: Iterable[Mapping[str, Any]] = (),
    tags: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    **over: Any,
) -> Dataplane:
    """A dataplane with one inbound on port 8080 for the service `web`.

    `tags` are that inbound's where `inbound` is not given; `over` gives further fields of `networking`.
    """
    inbounds = [{"port": DEFAULT_PORT, "tags": dict(DEFAULT_TAGS if tags is None else tags)}]
    networking = {
        "address": address,
        "inbound": inbounds if inbound is None else [dict(item) for item in inbound],
        "outbound": [dict(item) for item in outbound],
        **over,
    }
    return Dataplane.model_validate(
        {"name": name, "mesh": mesh, "labels": dict(labels or {}), "networking": networking}
    )
