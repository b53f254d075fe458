"""`kumafast diff`: what files would change, before anything is stored.

In: files, directories, standard input. Out: which resources, which proxies, what in their Envoys. Never: a write.
"""

from __future__ import annotations

from typing import Annotated

import typer

from kumafast.cli.dry_runs import ask
from kumafast.cli.output import Format, formatted
from kumafast.cli.target import ApiOption, connect
from kumafast.cli.wanted import FileOption, VariableOption, read_wanted, resolve


def diff(
    context: typer.Context,
    file: FileOption,
    var: VariableOption = None,
    output: Annotated[
        Format, typer.Option("--output", "-o", help="How to print; yaml and json are the whole answer.")
    ] = Format.TABLE,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name all proxies, show all content.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 where anything would change, and with 0 otherwise.")
    ] = False,
    api: ApiOption = None,
) -> None:
    """Show what would change: which dataplanes, which Envoy resources, grouped by identical change."""
    documents = read_wanted(file, var)
    with connect(context, api) as client:
        resolve(client, documents)
        found = ask(client, documents)
    typer.echo(found.text(is_whole=verbose) if output is Format.TABLE else formatted(found.answer, output))
    if exit_code and found.changes_something:
        raise typer.Exit(1)
