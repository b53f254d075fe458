"""`kumafast store`: what is stored is checked, written into a file, and put into another store.

In: the store of the settings, a file. Out: one line on what was done; every fault that was found, and exit code 1.
Never: a secret that is opened; a store that is written over; a file that is half there.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kumafast.cli.failure import CommandError, Commands
from kumafast.cli.run_flags import (
    ConfigOption,
    DataDirOption,
    SecretsKeyFileOption,
    SecretsKeyOption,
    StoreOption,
)

if TYPE_CHECKING:
    from kumafast.settings import Settings
    from kumafast.store.contents import Contents

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Check, export and import what is stored.")

FAULTS_SHOWN = 50
_MISSING = "the store is damaged; what could be read was exported, and of the rest this is known:"


@app.command("check")
def check(
    config: ConfigOption = None,
    store: StoreOption = None,
    data_dir: DataDirOption = None,
    secrets_key: SecretsKeyOption = None,
    secrets_key_file: SecretsKeyFileOption = None,
) -> None:
    """Say whether a store is whole: each resource, what belongs to what, the log; and whether the key opens secrets."""
    from kumafast.store import transfer
    from kumafast.store.opening import keyring_of
    from kumafast.store.sealing import Sealing

    settings = _settings(config, store, data_dir, secrets_key, secrets_key_file)
    contents = asyncio.run(transfer.read(settings.store_url))
    _refuse_faults(contents.faults(Sealing(keyring_of(settings)).decode), "the store is damaged")
    typer.echo(f"whole: {_described(contents)}, the log since revision {contents.floor}")


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - is stdout.")],
    config: ConfigOption = None,
    store: StoreOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write all that a store holds, secrets as they are sealed, into a file for its owner only.

    Of a damaged store what can be read is written, and what cannot is said, with exit code 1.
    """
    from kumafast.store import contents as formats

    contents, missing = asyncio.run(_read(_settings(config, store, data_dir).store_url))
    lines = formats.to_lines(contents)
    if str(file) == "-":
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()
        _refuse_faults(missing, _MISSING)
        return
    try:
        _write(file, lines)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror or error}") from error
    typer.echo(f"exported {_described(contents)}")
    _refuse_faults(missing, _MISSING)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` has written; - is stdin.")],
    config: ConfigOption = None,
    store: StoreOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Put all of such a file into a store that is empty or not there yet; nothing of it where something is wrong."""
    from kumafast.store import contents as formats
    from kumafast.store import transfer

    settings = _settings(config, store, data_dir)
    try:
        lines = sys.stdin.buffer.readlines() if str(file) == "-" else file.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror or error}") from error
    contents = formats.from_lines(lines)
    _refuse_faults(contents.faults(formats.decode_unsealed), f"{file} cannot be used")
    asyncio.run(transfer.fill(settings.store_url, contents))
    typer.echo(f"imported {_described(contents)}")


async def _read(url: str) -> tuple[Contents, list[str]]:
    """All that a store holds, of a damaged one what can be read; and what is wrong."""
    from kumafast.store import transfer
    from kumafast.store.sqlite_file import DamagedError

    try:
        return await transfer.read(url), []
    except DamagedError as error:
        contents, missing = await transfer.salvage(url)
        return contents, [str(error).partition(";")[0], *missing]


def _settings(
    config: Path | None,
    store: str | None,
    data_dir: str | None,
    secrets_key: str | None = None,
    secrets_key_file: str | None = None,
) -> Settings:
    from kumafast.settings import load

    flags = {
        "store": store,
        "data_dir": data_dir,
        "secrets_key": secrets_key,
        "secrets_key_file": secrets_key_file,
    }
    return load(flags, config=config)


def _refuse_faults(faults: list[str], message: str) -> None:
    if faults:
        more = [f"… and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        raise CommandError(message, [*faults[:FAULTS_SHOWN], *more])


def _described(contents: Contents) -> str:
    from kumafast.store.sealing import SEALED_TYPES

    secrets = sum(row.type in SEALED_TYPES for row in contents.resources)
    return f"{len(contents.resources)} resources ({secrets} of them sealed secrets) at revision {contents.revision}"


def _write(file: Path, lines: Iterable[bytes]) -> None:
    """Whole or not at all, and on the disk."""
    descriptor, name = tempfile.mkstemp(dir=file.absolute().parent, prefix=f".{file.name}")
    try:
        with os.fdopen(descriptor, "wb") as output:
            output.writelines(lines)
            output.flush()
            os.fsync(output.fileno())
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
