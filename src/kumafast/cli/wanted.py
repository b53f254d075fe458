"""What files ask for: documents that are valid as far as can be told here, and where each belongs on the server.

In: files, directories, standard input; the types that the server knows. Out: `Wanted`, all of them or none.
Never: a request that changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kumafast.cli.failure import CommandError

if TYPE_CHECKING:
    from kumafast.cli.client import ApiClient, Kind

FileOption = Annotated[
    list[str],
    typer.Option(
        "--file", "-f", metavar="FILE|-|DIR", help="What is meant; a directory with all below it. May be repeated."
    ),
]
VariableOption = Annotated[
    list[str] | None,
    typer.Option("--var", "-v", metavar="KEY=VALUE", help="Replaces {{KEY}} in the files. May be repeated."),
]


@dataclass(slots=True)
class Wanted:
    """A document and where it goes."""

    place: str
    content: dict[str, Any]
    path: str = ""
    mesh: str = ""
    """The mesh that it is in; empty for what is in none, and for secrets, which are no matter of a mesh's editors."""

    def resolve(self, client: ApiClient) -> None:
        """Find the resource's path; `CommandError` for a type that the server does not know."""
        from kumafast.cli.client import item_path

        kind = next((kind for kind in client.kinds() if kind.name == self.content["type"]), None)
        if kind is None:
            known = ", ".join(sorted(kind.name for kind in client.kinds() if not kind.is_read_only))
            raise CommandError(f"the control plane knows no type {self.content['type']!r}; it knows: {known}")
        if not kind.is_global:
            self.content.setdefault("mesh", "default")
        mesh, name = str(self.content.get("mesh", "")), str(self.content["name"])
        self.path = item_path(kind, mesh=mesh, name=name)
        self.mesh = mesh_of_editors(kind, mesh)


def mesh_of_editors(kind: Kind, mesh: str) -> str:
    """The mesh whose editors may write what is of this kind; empty where that takes an administrator."""
    return "" if kind.is_global or kind.name == "Secret" else mesh


def read_wanted(files: Sequence[str], variables: Sequence[str] | None) -> list[Wanted]:
    """All documents of the files, valid by the rules that are known here. Raises `CommandError` with all problems."""
    from kumafast.cli.documents import parse_variables, read_documents

    read = read_documents(files, variables=parse_variables(variables or []))
    wanted = [Wanted(document.place, document.content) for document in read]
    if not wanted:
        raise CommandError("there is nothing to apply: all documents are empty")
    _collect(wanted, _validate)
    return wanted


def resolve(client: ApiClient, wanted: Sequence[Wanted]) -> None:
    """Find where all of them go. Raises `CommandError` with all problems."""
    # First of all, so that a server that cannot be reached is told of once.
    client.kinds()
    _collect(wanted, lambda each: each.resolve(client))


def _collect(documents: Sequence[Wanted], check: Callable[[Wanted], None]) -> None:
    """Check every document; one `CommandError` with all that is wrong."""
    problems: list[str] = []
    for wanted in documents:
        try:
            check(wanted)
        except CommandError as error:
            problems += [f"{wanted.place}: {line}" for line in (error.details or (str(error),))]
    if problems:
        raise CommandError("nothing was applied, since not everything is valid:", problems)


def _validate(wanted: Wanted) -> None:
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
