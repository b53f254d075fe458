"""From the setting `store` to a store.

In: `memory` or `sqlite:PATH`. Out: an open store. Never: a default; settings.py has it.
"""

from __future__ import annotations

from kumafast.errors import SettingsError
from kumafast.store.memory import MemoryStore
from kumafast.store.sealing import Keyring
from kumafast.store.sqlite import SqliteStore
from kumafast.store.store import Store

_CHOICES = "use memory (gone with the process) or sqlite:PATH (kept in that file)"


async def open_store(url: str, *, keyring: Keyring | None = None) -> Store:
    """The store that a URL names: `memory`, `memory:` or `sqlite:PATH`, where `~` is the user's home.

    What is kept in a file is sealed with `keyring` as far as it is secret.

    Raises `SettingsError` for any other text, `StoreUnavailableError` where the file cannot be used.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory" and not rest:
        return MemoryStore()
    if scheme == "sqlite" and rest:
        return await SqliteStore.open(rest, keyring=keyring)
    if scheme == "sqlite":
        raise SettingsError(f"store {url!r} names no file; {_CHOICES}")
    if scheme in {"postgresql", "postgres"}:
        # The URL may hold a password, so it is not repeated.
        raise SettingsError(f"a store in PostgreSQL is not available yet; {_CHOICES}")
    raise SettingsError(f"store {scheme!r} is unknown; {_CHOICES}")
