"""Who a workload is: SPIFFE names, as certificates carry them and permissions ask for them.

In: a mesh, a service. Out: URIs. Never: certificates.
"""

from __future__ import annotations


def spiffe_id(mesh: str, service: str) -> str:
    """The identity of a service in a mesh.

    >>> spiffe_id("default", "web")
    'spiffe://default/web'
    """
    return f"{mesh_prefix(mesh)}{service}"


def mesh_prefix(mesh: str) -> str:
    """What the identities of all services of a mesh begin with."""
    return f"spiffe://{mesh}/"


def tag_uri(key: str, value: str) -> str:
    """A tag, as a certificate carries it beside its identities."""
    return f"kuma://{key}/{value}"
