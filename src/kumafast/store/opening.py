"""From the setting `store` to a store.

In: `memory`, `sqlite:PATH` or `postgres://…`. Out: an open store. Never: a default; settings.py has it.
"""

from __future__ import annotations

from pathlib import Path

from kumafast.errors import SettingsError
from kumafast.settings import Settings
from kumafast.store.members import Members
from kumafast.store.memory import MemoryStore
from kumafast.store.questions import ALONE, Questions
from kumafast.store.sealing import Keyring
from kumafast.store.sqlite import SqliteStore
from kumafast.store.store import Store

_CHOICES = (
    "use memory (gone with the process), sqlite:PATH (kept in that file) "
    "or postgres://USER:PASSWORD@HOST:PORT/DATABASE (for any number of instances)"
)


async def open_store(url: str, *, keyring: Keyring | None = None, instance: str = "") -> Store:
    """The store that a URL names: `memory`, `memory:`, `sqlite:PATH`, where `~` is the user's home, or `postgres://…`.

    `instance` is this one's name, by which others know it where there may be others.
    What is kept outside this process is sealed with `keyring` as far as it is secret.

    Raises `SettingsError` for any other text, `StoreUnavailableError` where the file or PostgreSQL cannot be used.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory" and not rest:
        return MemoryStore(members=Members(instance))
    if scheme == "sqlite" and rest:
        return await SqliteStore.open(rest, keyring=keyring, instance=instance)
    if scheme == "sqlite":
        raise SettingsError(f"store {url!r} names no file; {_CHOICES}")
    if scheme in {"postgresql", "postgres"} and rest.startswith("//"):
        # Not at the top: whoever has no PostgreSQL should not wait for its driver.
        from kumafast.store.postgres import PostgresStore

        return await PostgresStore.open(url, keyring=keyring, instance=instance)
    raise SettingsError(f"store {scheme!r} is unknown; {_CHOICES}")


def open_questions(store: Store, url: str) -> Questions:
    """The way to the other instances of a store that was opened by this URL."""
    if url.startswith(("postgresql:", "postgres:")):
        from kumafast.store.postgres.questions import PostgresQuestions

        return PostgresQuestions(url, store.members)
    return ALONE


def keyring_of(settings: Settings) -> Keyring:
    """The keys for secrets that the settings name. Raises `SettingsError`."""
    if settings.secrets_key:
        return Keyring.of_text(settings.secrets_key, source="the setting secrets_key")
    if settings.secrets_key_file:
        return Keyring.of_file(Path(settings.secrets_key_file).expanduser(), is_made=False)
    if settings.is_shared:
        # A key that one instance made would be no use to the others.
        return Keyring()
    return Keyring.of_file(settings.data_path / "secrets.key", is_made=True)
