"""The command `kumafast`: all its subcommands and what they share.

In: arguments and `KUMAFAST_*` variables. Out: the subcommand's exit code: 0 done, 1 failed, 2 usage.
Never: an import that only one subcommand needs; `kumafast --help` must be there at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kumafast import __version__
from kumafast.cli import apply, dataplane, demo, diff, envoy, generate, get, inspection, raw_xds, run, store
from kumafast.cli.failure import Commands
from kumafast.cli.target import API_DEFAULT

app = typer.Typer(
    name="kumafast",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"auto_envvar_prefix": "KUMAFAST", "help_option_names": ["-h", "--help"]},
    help="A universal service-mesh control plane, compatible with Kuma, and the commands to work with it.",
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"kumafast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    api: Annotated[
        str, typer.Option("--api", metavar="URL", envvar="KUMAFAST_API", help="The API of the control plane.")
    ] = API_DEFAULT,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="PATH", help="A file with your token; or KUMAFAST_TOKEN holds it."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="PATH", help="The authority of an https API's certificate, PEM."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            allow_from_autoenv=False,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    pass


app.command("run")(run.run)
app.command("apply")(apply.apply)
app.command("diff")(diff.diff)
app.command("get")(get.get)
app.command("delete")(get.delete)
app.add_typer(inspection.app, name="inspect")
app.add_typer(dataplane.app, name="dataplane")
app.add_typer(envoy.app, name="envoy")
app.add_typer(generate.app, name="generate")
app.add_typer(store.app, name="store")
app.command("raw-xds")(raw_xds.raw_xds)
app.command("demo")(demo.demo)


def main() -> None:
    """The entry point of the script `kumafast`."""
    app()
