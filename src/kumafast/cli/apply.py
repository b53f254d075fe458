"""`kumafast apply`: put what files say into the control plane.

In: files, directories, standard input. Out: one line for each resource. Never: anything sent before everything is read
and found valid, so that a mistake in the last document does not leave the first ones applied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from kumafast.cli.convergence import TIMEOUT_DEFAULT, TimeoutOption, WaitOption, seconds_of, wait_for_envoys
from kumafast.cli.failure import CommandError
from kumafast.cli.target import ApiOption, connect


def apply(
    context: typer.Context,
    file: Annotated[
        list[str],
        typer.Option(
            "--file", "-f", metavar="FILE|-|DIR", help="What to apply; a directory with all below it. May be repeated."
        ),
    ],
    var: Annotated[
        list[str] | None,
        typer.Option("--var", "-v", metavar="KEY=VALUE", help="Replaces {{KEY}} in the files. May be repeated."),
    ] = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = TIMEOUT_DEFAULT,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Validate and print what would be applied, send nothing. What it changes in Envoys comes later.",
        ),
    ] = False,
    api: ApiOption = None,
) -> None:
    """Create or update resources: YAML or JSON, many documents in a file, in Kuma's own forms."""
    from kumafast.cli.documents import parse_variables, read_documents

    seconds_of(timeout)
    documents = [_Wanted(d.place, d.content) for d in read_documents(file, variables=parse_variables(var or []))]
    if not documents:
        raise CommandError("there is nothing to apply: all documents are empty")
    _collect(documents, _validate)
    if dry_run:
        _print(documents)
        return
    with connect(context, api) as client:
        _collect(documents, lambda wanted: wanted.resolve(client))
        revisions = [_write(client, wanted) for wanted in documents]
        if wait:
            # What was unchanged answers with the revision that wrote it once, so the newest is not always the last.
            newest = max((int(revision) for revision in revisions if revision is not None), default=None)
            typer.echo(wait_for_envoys(client, newest, timeout=timeout))


@dataclass(slots=True)
class _Wanted:
    """A document and where it goes."""

    place: str
    content: dict[str, Any]
    path: str = ""

    def resolve(self, client: Any) -> None:
        """Find the resource's path; `CommandError` for a type that the server does not know."""
        from kumafast.cli.client import item_path

        kind = next((kind for kind in client.kinds() if kind.name == self.content["type"]), None)
        if kind is None:
            known = ", ".join(sorted(kind.name for kind in client.kinds() if not kind.is_read_only))
            raise CommandError(f"the control plane knows no type {self.content['type']!r}; it knows: {known}")
        if not kind.is_global:
            self.content.setdefault("mesh", "default")
        self.path = item_path(kind, mesh=str(self.content.get("mesh", "")), name=str(self.content["name"]))


def _collect(documents: Sequence[_Wanted], check: Callable[[_Wanted], None]) -> None:
    """Check every document; one `CommandError` with all that is wrong."""
    problems: list[str] = []
    for wanted in documents:
        try:
            check(wanted)
        except CommandError as error:
            problems += [f"{wanted.place}: {line}" for line in (error.details or (str(error),))]
    if problems:
        raise CommandError("nothing was applied, since not everything is valid:", problems)


def _validate(wanted: _Wanted) -> None:
    """Check a document as the server will; types that are not known here are left to the server."""
    for field in ("type", "name"):
        if not isinstance(wanted.content.get(field), str) or not wanted.content[field]:
            raise CommandError(f"{field}: must be text that says the resource's {field}")
    from kumafast.cli import validation

    if validation.is_known(wanted.content):
        validation.fill_mesh(wanted.content)
        problems = validation.violations(wanted.content)
        if problems:
            raise CommandError("is not valid", problems)


def _print(documents: Sequence[_Wanted]) -> None:
    """Show what would be sent, and warn of what the server would leave out."""
    from kumafast.cli import validation
    from kumafast.cli.output import Format, formatted

    for wanted in documents:
        if not validation.is_known(wanted.content):
            raise CommandError(f"{wanted.place}: this version knows no type {wanted.content['type']!r}")
        for warning in validation.ignored(wanted.content):
            _warn(wanted, warning)
    typer.echo("---\n".join(formatted(wanted.content, Format.YAML) + "\n" for wanted in documents), nl=False)


def _warn(wanted: _Wanted, warning: str) -> None:
    typer.secho("warning: ", fg=typer.colors.YELLOW, err=True, nl=False)
    typer.echo(f"{wanted.place}: {warning}", err=True)


def _write(client: Any, wanted: _Wanted) -> str | None:
    """PUT one document, say what became of it, and return the store's revision after it."""
    from kumafast.cli.client import REVISION_HEADER, json_of

    try:
        before = client.find(wanted.path)
        response = client.put(wanted.path, wanted.content)
    except CommandError as error:
        raise CommandError(f"{wanted.place}: {error}", error.details) from error
    revision: str | None = response.headers.get(REVISION_HEADER)
    outcome = "created" if response.status_code == 201 else "updated"
    if before is not None and revision is not None and before.headers.get("ETag") == f'"{revision}"':
        outcome = "unchanged"
    typer.echo(f"{wanted.content['type']} {wanted.content['name']} {outcome}")
    for warning in json_of(response).get("warnings") or []:
        _warn(wanted, str(warning))
    return revision
