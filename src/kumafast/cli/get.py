"""`kumafast get` and `kumafast delete`: look at stored resources and remove them.

In: a type in any of its spellings, a name. Out: kumactl's tables, or the server's own documents. Never: a guess about a
type that the server does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from kumafast.cli.convergence import TIMEOUT_DEFAULT, TimeoutOption, WaitOption, seconds_of, wait_for_envoys
from kumafast.cli.dry_runs import DryRunOption, ask_of_deletion
from kumafast.cli.failure import CommandError
from kumafast.cli.output import Format, age, formatted, table, tag_sets_of, tags_text
from kumafast.cli.target import ApiOption, MeshOption, connect

TypeArgument = Annotated[str, typer.Argument(metavar="TYPE", help="Such as dataplanes, dataplane, Dataplane or dp.")]
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]


def get(
    context: typer.Context,
    type_name: TypeArgument,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One resource; all without it.")] = None,
    mesh: MeshOption = "default",
    output: OutputOption = Format.TABLE,
    api: ApiOption = None,
) -> None:
    """Show resources of a type."""
    from kumafast.cli.client import item_path, json_of

    with connect(context, api) as client:
        kind = client.kind(type_name)
        if name is not None:
            found = client.find(item_path(kind, mesh=mesh, name=name))
            if found is None:
                raise CommandError(_absent(kind.name, name, None if kind.is_global else mesh))
            item = json_of(found)
            typer.echo(
                resource_table(kind.name, [item], kind.is_global) if output is Format.TABLE else formatted(item, output)
            )
            return
        items = client.items(item_path(kind, mesh=mesh))
    if output is Format.TABLE:
        typer.echo(resource_table(kind.name, items, kind.is_global))
    else:
        typer.echo(formatted({"total": len(items), "items": items, "next": None}, output))


def delete(
    context: typer.Context,
    type_name: TypeArgument,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    mesh: MeshOption = "default",
    wait: WaitOption = False,
    timeout: TimeoutOption = TIMEOUT_DEFAULT,
    dry_run: DryRunOption = False,
    api: ApiOption = None,
) -> None:
    """Delete a resource."""
    from kumafast.cli.client import REVISION_HEADER, item_path

    seconds_of(timeout)
    with connect(context, api) as client:
        kind = client.kind(type_name)
        path = item_path(kind, mesh=mesh, name=name)
        if client.find(path) is None:
            raise CommandError(_absent(kind.name, name, None if kind.is_global else mesh))
        if dry_run:
            typer.echo(ask_of_deletion(client, kind, mesh=mesh, name=name).text())
            return
        response = client.delete(path)
        typer.echo(f"{kind.name} {name} deleted")
        if wait:
            revision = response.headers.get(REVISION_HEADER)
            typer.echo(wait_for_envoys(client, None if revision is None else int(revision), timeout=timeout))


def resource_table(type_name: str, items: Sequence[Mapping[str, Any]], is_global: bool) -> str:
    """Resources as kumactl lists them: each type has its own columns between its name and its age."""
    columns = _COLUMNS.get(type_name, {})
    headers = [*([] if is_global else ["MESH"]), "NAME", *columns, "AGE"]
    rows = [
        [
            *([] if is_global else [str(item.get("mesh", ""))]),
            str(item.get("name", "")),
            *(column(item) for column in columns.values()),
            age(item.get("modificationTime")),
        ]
        for item in items
    ]
    return table(headers, rows)


def _absent(type_name: str, name: str, mesh: str | None) -> str:
    return f"there is no {type_name} {name}" + (f" in mesh {mesh}" if mesh is not None else "")


def _mtls(mesh: Mapping[str, Any]) -> str:
    mtls = mesh.get("mtls") or {}
    enabled = mtls.get("enabledBackend")
    kinds = {backend.get("name"): backend.get("type") for backend in mtls.get("backends") or []}
    return f"{kinds.get(enabled)}/{enabled}" if enabled else "off"


_Column = Callable[[Mapping[str, Any]], str]
_COLUMNS: Mapping[str, Mapping[str, _Column]] = {
    "Mesh": {"mTLS": _mtls},
    "Dataplane": {"TAGS": lambda item: tags_text(tag_sets_of(item))},
}
