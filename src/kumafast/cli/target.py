"""Which control plane a command speaks to.

In: `--api`, `--token-file`, `--ca-file`, and the variables of the same names. Out: a client of its API.
Never: an import that a command for files alone would pay for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kumafast.cli.failure import CommandError

if TYPE_CHECKING:
    from kumafast.cli.client import ApiClient

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


def connect(context: typer.Context, api: str | None) -> ApiClient:
    """A client of the API that the command is about, with the token that the user has for it."""
    from kumafast.cli.client import ApiClient

    options = context.find_root().params
    return ApiClient(
        address_of(context, api), token=_token(options.get("token_file")), ca_file=str(options.get("ca_file") or "")
    )


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get("KUMAFAST_TOKEN", "").strip()
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read the token in {file}: {error}") from error
