"""Which control plane a command speaks to.

In: `--api` before or after the command, `KUMAFAST_API`. Out: an address. Never: a connection.
"""

from __future__ import annotations

from typing import Annotated

import typer

API_DEFAULT = "http://127.0.0.1:5681"

ApiOption = Annotated[
    str | None,
    typer.Option(
        "--api", metavar="URL", allow_from_autoenv=False, help="The API of the control plane; as before the command."
    ),
]
MeshOption = Annotated[str, typer.Option("--mesh", "-m", help="The mesh to look in.")]


def address_of(context: typer.Context, api: str | None) -> str:
    """The address given with the command, else the one before it, else the variable's, else the default."""
    return api or str(context.find_root().params.get("api") or API_DEFAULT)
