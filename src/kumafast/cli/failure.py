"""How a command fails.

In: what went wrong. Out: one sentence on stderr that says what to do, and exit code 1. Never: a traceback for what a
user can mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
import typer.core

from kumafast.errors import KumafastError


class CommandError(KumafastError):
    """A command cannot do what it was asked; `details` are printed below the sentence, one a line."""

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)


def print_error(error: KumafastError) -> None:
    """Say on stderr what went wrong."""
    typer.secho("error: ", fg=typer.colors.RED, err=True, nl=False)
    typer.echo(str(error), err=True)
    for line in getattr(error, "details", ()):
        typer.echo(f"  {line}", err=True)


class Commands(typer.core.TyperGroup):
    """A group of commands whose known errors become a message and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; every `KumafastError` ends here."""
        try:
            return super().invoke(ctx)
        except KumafastError as error:
            print_error(error)
            raise typer.Exit(1) from error
        except BrokenPipeError as error:
            # The reader of our output has gone (`kumafast get … | head`); there is nobody left to tell.
            raise typer.Exit(1) from error
