"""Ask the control plane what documents or deletions would do, and nothing more.

In: documents, a client of the API. Out: what would become of the resources and of which proxies. Never: a write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kumafast.cli.failure import CommandError
from kumafast.cli.foresight import Foresight
from kumafast.cli.wanted import Wanted, mesh_of_editors

if TYPE_CHECKING:
    from kumafast.cli.client import ApiClient, Kind

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; say what would become of the resources and of the proxies.")
]

_PLACE = re.compile(r"resources\[(\d+)\]\.?")


def ask(client: ApiClient, documents: Sequence[Wanted]) -> Foresight:
    """What these documents would do together. Raises `CommandError` with all that the server would refuse."""
    meshes = {wanted.mesh for wanted in documents}
    try:
        answer = _post(client, meshes, {"resources": [wanted.content for wanted in documents]})
    except CommandError as error:
        raise CommandError(str(error), [_placed(line, documents) for line in error.details]) from error
    for wanted, entry in zip(documents, answer.get("resources") or [], strict=False):
        for warning in entry.get("warnings") or []:
            typer.secho("warning: ", fg=typer.colors.YELLOW, err=True, nl=False)
            typer.echo(f"{wanted.place}: {warning}", err=True)
    return Foresight(answer)


def ask_of_deletion(client: ApiClient, kind: Kind, *, mesh: str, name: str) -> Foresight:
    """What a deletion would do."""
    key = {"type": kind.name, "name": name, **({} if kind.is_global else {"mesh": mesh})}
    return Foresight(_post(client, {mesh_of_editors(kind, mesh)}, {"deletions": [key]}))


def _post(client: ApiClient, meshes: set[str], body: Mapping[str, Any]) -> dict[str, Any]:
    from kumafast.cli.client import json_of, mesh_path

    # What is in one mesh may be asked about by those who may write there.
    only = meshes.pop() if len(meshes) == 1 else ""
    return json_of(client.post(mesh_path(only, "_diff") if only else "/_diff", body))


def _placed(line: str, documents: Sequence[Wanted]) -> str:
    """A violation, said of the place where the document stands."""
    match = _PLACE.match(line)
    if match is None or int(match[1]) >= len(documents):
        return line
    return f"{documents[int(match[1])].place}: {line[match.end() :]}"
