"""What proxies refuse now, with the policies that have a share in it.

In: a client of the API, what is looked at. Out: lines, none where nothing is refused. Never: what was refused once and
is not wanted any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kumafast.cli.convergence import refusal_lines

if TYPE_CHECKING:
    from kumafast.cli.client import ApiClient

_SHOWN = 10


def refusals_by(client: ApiClient, *, mesh: str, name: str) -> list[str]:
    """What one dataplane's proxy refuses."""
    return _lines(entry for entry in _items(client, mesh) if entry.get("node") == f"{mesh}.{name}")


def refusals_of(client: ApiClient, *, mesh: str, type_name: str, name: str) -> list[str]:
    """What proxies refuse in which a policy has a share."""
    key = {"type": type_name, "mesh": mesh, "name": name}
    return _lines(entry for entry in _items(client, mesh) if key in (entry.get("policies") or []))


def _items(client: ApiClient, mesh: str) -> list[Mapping[str, Any]]:
    from kumafast.cli.client import json_of, mesh_path

    found = client.find(mesh_path(mesh, "_rejections"))
    return [] if found is None else list(json_of(found).get("items") or [])


def _lines(entries: Any) -> list[str]:
    refused = list(entries)
    lines = [line for entry in refused[:_SHOWN] for line in refusal_lines(entry)]
    if len(refused) > _SHOWN:
        lines.append(f"and {len(refused) - _SHOWN} more proxies")
    return (
        ["", "refused now, so that what was there before goes on:", *(f"  {line}" for line in lines)] if lines else []
    )
