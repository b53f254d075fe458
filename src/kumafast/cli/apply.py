"""`kumafast apply`: put what files say into the control plane.

In: files, directories, standard input. Out: one line for each resource. Never: anything sent before everything is read
and found valid, so that a mistake in the last document does not leave the first ones applied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import typer

from kumafast.cli.convergence import TIMEOUT_DEFAULT, TimeoutOption, WaitOption, seconds_of, wait_for_envoys
from kumafast.cli.dry_runs import DryRunOption, ask
from kumafast.cli.failure import CommandError
from kumafast.cli.target import ApiOption, connect
from kumafast.cli.wanted import FileOption, VariableOption, Wanted, read_wanted, resolve


def apply(
    context: typer.Context,
    file: FileOption,
    var: VariableOption = None,
    wait: WaitOption = False,
    timeout: TimeoutOption = TIMEOUT_DEFAULT,
    dry_run: DryRunOption = False,
    api: ApiOption = None,
) -> None:
    """Create or update resources: YAML or JSON, many documents in a file, in Kuma's own forms."""
    seconds_of(timeout)
    documents = read_wanted(file, var)
    with connect(context, api) as client:
        resolve(client, documents)
        if dry_run:
            typer.echo(ask(client, documents).text())
            return
        written = [_write(client, wanted) for wanted in documents]
        if wait:
            # What was unchanged answers with the revision that wrote it once, so the newest is not always the last.
            newest = max((each.revision for each in written if each.revision is not None), default=None)
            oldest = min((each.revision for each in written if each.is_new and each.revision is not None), default=None)
            typer.echo(wait_for_envoys(client, newest, since=oldest, timeout=timeout))


class _Written(NamedTuple):
    """The store's revision after a document was put, where the server says; whether that changed anything."""

    revision: int | None
    is_new: bool


def _write(client: Any, wanted: Wanted) -> _Written:
    """PUT one document and say what became of it."""
    from kumafast.cli.client import REVISION_HEADER, json_of

    try:
        before = client.find(wanted.path)
        response = client.put(wanted.path, wanted.content)
    except CommandError as error:
        raise CommandError(f"{wanted.place}: {error}", error.details) from error
    revision: str | None = response.headers.get(REVISION_HEADER)
    outcome = "created" if response.status_code == 201 else "updated"
    is_new = before is None or revision is None or before.headers.get("ETag") != f'"{revision}"'
    if not is_new:
        outcome = "unchanged"
    typer.echo(f"{wanted.content['type']} {wanted.content['name']} {outcome}")
    for warning in json_of(response).get("warnings") or []:
        warn(wanted.place, str(warning))
    return _Written(None if revision is None else int(revision), is_new)


def warn(place: str, warning: str) -> None:
    """Tell of something in a document that nothing was made of."""
    typer.secho("warning: ", fg=typer.colors.YELLOW, err=True, nl=False)
    typer.echo(f"{place}: {warning}", err=True)
