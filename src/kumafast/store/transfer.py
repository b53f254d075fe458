"""A durable store's contents, read and written as a whole, whichever back end it is.

In: the URL of a store. Out: its `Contents`; an empty store filled with them. Never: a store that is made by being read,
or one that is written over.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from kumafast.errors import SettingsError, StoreUnavailableError
from kumafast.store import salvage as salvaging
from kumafast.store.contents import Contents, decode_unsealed
from kumafast.store.database import Database
from kumafast.store.sealing import Keyring, Sealing


async def read(url: str) -> Contents:
    """All that a store holds. Raises `SettingsError`, `StoreUnavailableError`; where there is none, none is made."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return await asyncio.to_thread(_read_file, Path(rest).expanduser())
    if scheme in {"postgres", "postgresql"}:
        from kumafast.store.postgres import transfer

        return await transfer.read(url)
    raise _not_durable(scheme)


async def salvage(url: str) -> tuple[Contents, list[str]]:
    """What can be read of a store that `read` finds damaged, and what cannot.

    Raises `StoreUnavailableError` where that is nothing, or it is in PostgreSQL, which has its own ways.
    """
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite":
        raise StoreUnavailableError("of a damaged database restore a backup of it, or what `pg_dump` can read of it")
    return await asyncio.to_thread(salvaging.salvage, Path(rest).expanduser(), decode_unsealed)


async def fill(url: str, contents: Contents) -> None:
    """Write all of it into a store that is empty or not there yet, in one transaction; revisions stay as they are.

    Raises `SettingsError`, `StoreUnavailableError`.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        await asyncio.to_thread(_fill_file, Path(rest).expanduser(), contents)
    elif scheme in {"postgres", "postgresql"}:
        from kumafast.store.postgres import transfer

        await transfer.fill(url, contents)
    else:
        raise _not_durable(scheme)


def _read_file(path: Path) -> Contents:
    if not path.is_file():
        raise StoreUnavailableError(f"there is no store {path}")
    database = _open(path)
    try:
        return database.contents()
    finally:
        database.close()


def _fill_file(path: Path, contents: Contents) -> None:
    database = _open(path)
    try:
        database.fill(contents)
    finally:
        database.close()


def _open(path: Path) -> Database:
    sealing = Sealing(Keyring())
    return Database.open(path, encode=sealing.encode, decode=sealing.decode)


def _not_durable(scheme: str) -> SettingsError:
    return SettingsError(
        f"the store {scheme!r} is in no file and in no database; give --store sqlite:PATH or postgres://…"
    )
