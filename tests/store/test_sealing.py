"""Secrets at rest: never in clear in the file, bound to their name, lost to nobody by mistake."""

from __future__ import annotations

import base64
import os
import sqlite3
from pathlib import Path

import pytest
from tests.store import kinds

from kumafast.errors import SettingsError, StoreUnavailableError
from kumafast.resources import GlobalSecret, Mesh, ResourceKey, Secret, secret_data
from kumafast.store import Delete, Keyring, SqliteStore

pytestmark = pytest.mark.anyio

HUSH = b"-----BEGIN PRIVATE KEY----- hush hush hush hush"


def _key() -> bytes:
    return os.urandom(32)


def _secret(name: str = "ca-key", content: bytes = HUSH) -> Secret:
    return Secret(mesh="default", name=name, data=secret_data(content))


async def _fill(path: Path, keyring: Keyring) -> None:
    store = await SqliteStore.open(path, keyring=keyring)
    await store.put(Mesh(name="default"))
    await store.put(_secret())
    await store.put(_secret(content=HUSH + b" again"))
    await store.put(GlobalSecret(name="global", data=secret_data(HUSH)))
    await store.put(_secret("gone"))
    await store.write([Delete(_secret("gone").key)])
    await store.close()


def _bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


async def test_no_file_of_the_store_holds_a_secret_in_clear(tmp_path: Path) -> None:
    path, keyring = tmp_path / "store.db", Keyring([_key()])
    store = await SqliteStore.open(path, keyring=keyring)
    await store.put(Mesh(name="default"))
    await store.put(_secret())
    # While it is open there is a write-ahead log as well.
    for clear in (HUSH, base64.b64encode(HUSH), base64.b64encode(HUSH)[4:20]):
        assert clear not in _bytes_on_disk(path)
    assert b"ca-key" in _bytes_on_disk(path)
    await store.close()
    assert base64.b64encode(HUSH)[4:20] not in _bytes_on_disk(path)


async def test_secrets_come_back_with_their_key(tmp_path: Path) -> None:
    path, key = tmp_path / "store.db", _key()
    await _fill(path, Keyring([key]))
    store = await SqliteStore.open(path, keyring=Keyring([key]))
    stored = await store.get(ResourceKey("Secret", "default", "ca-key"))
    assert isinstance(stored.resource, Secret)
    assert stored.resource.content == HUSH + b" again"
    assert (await store.get(ResourceKey("GlobalSecret", "", "global"))).resource.key.name == "global"
    await store.close()


@pytest.mark.parametrize("keyring", [Keyring(), Keyring([_key()], source="the file keys")])
async def test_without_the_key_the_store_is_refused_and_left_as_it_is(tmp_path: Path, keyring: Keyring) -> None:
    path, key = tmp_path / "store.db", _key()
    await _fill(path, Keyring([key]))
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="sealed under key [0-9a-f]{16}.*put that key back"):
        await SqliteStore.open(path, keyring=keyring)
    assert path.read_bytes() == before
    store = await SqliteStore.open(path, keyring=Keyring([key]))
    assert (await store.get(_secret().key)).resource.key == _secret().key
    await store.close()


async def test_a_new_first_key_takes_over(tmp_path: Path) -> None:
    path, old, new = tmp_path / "store.db", _key(), _key()
    await _fill(path, Keyring([old]))
    store = await SqliteStore.open(path, keyring=Keyring([new, old]))
    revision = await store.revision()
    await store.close()
    # From here on the old key is of no use, for the log of changes either.
    store = await SqliteStore.open(path, keyring=Keyring([new]))
    assert await store.revision() == revision
    assert (await store.get(_secret().key)).resource == _secret(content=HUSH + b" again")
    await store.close()
    with pytest.raises(StoreUnavailableError, match="put that key back"):
        await SqliteStore.open(path, keyring=Keyring([old]))


async def test_a_secret_in_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    path, key = tmp_path / "store.db", _key()
    await _fill(path, Keyring([key]))
    connection = sqlite3.connect(path)
    (content,) = connection.execute("SELECT content FROM resources WHERE type = 'GlobalSecret'").fetchone()
    forged = content.replace(b'"global"', b'"forged"')
    connection.execute("UPDATE resources SET name = 'forged', content = ? WHERE type = 'GlobalSecret'", (forged,))
    connection.commit()
    connection.close()
    with pytest.raises(StoreUnavailableError, match="it was changed since it was sealed"):
        await SqliteStore.open(path, keyring=Keyring([key]))


async def test_no_secret_is_stored_without_a_key(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.put(Mesh(name="default"))
    with pytest.raises(StoreUnavailableError, match="--secrets-key-file"):
        await store.put(_secret())
    assert (await store.list("Secret")).items == ()
    await store.close()


async def test_the_key_file_is_made_for_the_first_secret_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "data" / "secrets.key"
    store = await SqliteStore.open(tmp_path / "store.db", keyring=Keyring.of_file(file, is_made=True))
    await store.put(Mesh(name="default"))
    assert not file.exists()
    await store.put(_secret())
    await store.close()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["secrets.key"]
    again = await SqliteStore.open(tmp_path / "store.db", keyring=Keyring.of_file(file, is_made=True))
    assert (await again.get(_secret().key)).resource == _secret()
    await again.close()


async def test_a_lost_key_file_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "secrets.key"
    await _fill(tmp_path / "store.db", Keyring.of_file(file, is_made=True))
    file.unlink()
    with pytest.raises(StoreUnavailableError, match=r"not in .*secrets\.key"):
        await SqliteStore.open(tmp_path / "store.db", keyring=Keyring.of_file(file, is_made=True))
    assert not file.exists()


@pytest.mark.parametrize("text", ["", "# nothing\n", "c2hvcnQ=", "not base64 at all", f"{'A' * 43}="[:-3]])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError, match="32 bytes in base64") as caught:
        Keyring.of_text(text, source="the variable")
    assert not text.strip("# \n") or text not in str(caught.value)


def test_a_key_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"keys is not there"):
        Keyring.of_file(tmp_path / "keys", is_made=False)


def test_a_secret_does_not_show_its_data() -> None:
    secret = _secret()
    assert secret.data not in repr(secret)
    assert secret.data not in str(secret)


async def test_other_kinds_are_kept_as_they_were(tmp_path: Path) -> None:
    store = await kinds.open_sqlite(tmp_path / "store.db")
    await store.put(kinds.FakeMesh(name="m"))
    await store.close()
    again = await kinds.open_sqlite(tmp_path / "store.db")
    assert (await again.get(ResourceKey("Mesh", "", "m"))).resource == kinds.FakeMesh(name="m")
    await again.close()
