"""Secrets at rest: sealed with AES-256-GCM before a store's file sees them, opened when it is read.

In: resources, keys of 32 bytes in base64. Out: the bytes that a durable store keeps, and resources again.
Never: a secret's data or a key in an error; a new key while what is stored was sealed under another.

Several keys may be given: the first seals, all open, and what was sealed under a later one is sealed anew when the
store is opened, after which that key is of no more use. The sealed data is bound to type, mesh and name, so that
whoever can write the file cannot put one secret in the place of another.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kumafast.errors import MalformedResourceError, SettingsError, StoreUnavailableError
from kumafast.resources import decode, encode
from kumafast.resources.resource import Resource

KEY_BYTES = 32
_NONCE_BYTES = 12
_ADVICE = "expected 32 bytes in base64, one key a line; make one with: head -c 32 /dev/urandom | base64"


class Keyring:
    """The keys that seal and open. `source` says in errors where they are to be put.

    With `make`, a first key is made when the first secret is sealed and there is none.
    """

    def __init__(
        self, keys: Sequence[bytes] = (), *, source: str = "no key was given", make: Callable[[], bytes] | None = None
    ) -> None:
        self.source = source
        self._make = make
        self._keys: dict[str, AESGCM] = {}
        for key in keys:
            self._add(key)

    @classmethod
    def of_text(cls, text: str, *, source: str) -> Keyring:
        """Keys of 32 bytes in base64, one a line; what follows `#` is a remark. Raises `SettingsError`."""
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        keys = [_parse(line, source) for line in lines if line]
        if not keys:
            raise SettingsError(f"{source} holds no key: {_ADVICE}")
        return cls(keys, source=source)

    @classmethod
    def of_file(cls, path: Path, *, is_made: bool) -> Keyring:
        """The keys of a file; with `is_made` it is written, for its owner only, when a first secret needs a key.

        Raises `SettingsError` where it cannot be read.
        """
        try:
            text = path.read_text(encoding="ascii")
        except FileNotFoundError:
            if is_made:
                return cls(source=str(path), make=lambda: _make_file(path))
            raise SettingsError(f"the key file {path} is not there: {_ADVICE}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the key file {path}: {error}") from error
        return cls.of_text(text, source=str(path))

    @property
    def first(self) -> str | None:
        """The name of the key that seals, which tells nothing of it; None while there is no key."""
        return next(iter(self._keys), None)

    def seal(self, data: bytes, *, bound_to: bytes) -> dict[str, str]:
        """The data under the first key. Raises `StoreUnavailableError` where there is none."""
        if not self._keys:
            if self._make is None:
                raise StoreUnavailableError(
                    "secrets cannot be stored without a key to seal them; give one with --secrets-key-file"
                )
            self._add(self._make())
        name, cipher = next(iter(self._keys.items()))
        nonce = os.urandom(_NONCE_BYTES)
        sealed = cipher.encrypt(nonce, data, bound_to)
        return {"key": name, "nonce": _as_text(nonce), "data": _as_text(sealed)}

    def open(self, sealed: dict[str, str], *, bound_to: bytes) -> bytes:
        """What was sealed. Raises `StoreUnavailableError` where its key is missing or it was tampered with."""
        cipher = self._keys.get(sealed["key"])
        if cipher is None:
            raise StoreUnavailableError(
                f"it is sealed under key {sealed['key']}, which is not in {self.source}; put that key back there, from "
                "a backup (several may stand in a key file, one a line: the first seals, all open)"
            )
        try:
            return cipher.decrypt(base64.b64decode(sealed["nonce"]), base64.b64decode(sealed["data"]), bound_to)
        except InvalidTag:
            raise StoreUnavailableError(f"it was changed since it was sealed under key {sealed['key']}") from None

    def _add(self, key: bytes) -> None:
        name = hashlib.sha256(b"kumafast secrets key" + key).hexdigest()[:16]
        self._keys[name] = AESGCM(key)


class Sealing:
    """How resources become a durable store's bytes: as everywhere, but for the data of secrets, which is sealed."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def encode(self, resource: Resource) -> bytes:
        """A resource as bytes. Raises `StoreUnavailableError` for a secret that cannot be sealed."""
        written = encode(resource)
        if not resource.type.is_secret:
            return written
        document = orjson.loads(written)
        data = base64.b64decode(document.pop("data", ""))
        document["sealed"] = self._keyring.seal(data, bound_to=_name(document))
        return orjson.dumps(document)

    def decode(self, content: bytes, *, read: Callable[[bytes], Resource] = decode) -> Resource:
        """The resource that `encode` wrote; `read` stands in for `decode`, of what is no secret.

        Raises `StoreUnavailableError`, `MalformedResourceError`.
        """
        if not content.startswith(_BEGINNINGS):
            return read(content)
        document = orjson.loads(content)
        sealed = document.pop("sealed", None)
        if sealed is None:
            raise MalformedResourceError("a secret that is not sealed")
        document["data"] = _as_text(self._keyring.open(sealed, bound_to=_name(document)))
        return decode(orjson.dumps(document))

    def renew(self, content: bytes) -> bytes | None:
        """The content sealed under the first key; None where it is already, or is no secret."""
        if not content.startswith(_BEGINNINGS) or orjson.loads(content)["sealed"]["key"] == self._keyring.first:
            return None
        return self.encode(self.decode(content))


SEALED_TYPES = ("Secret", "GlobalSecret")
"""The types of which a store's file holds no data that can be read."""

_BEGINNINGS = tuple(f'{{"type":"{name}"'.encode() for name in SEALED_TYPES)
"""What `encode` begins the document of a secret with: cheaper to look at than 50,000 documents are to parse twice."""


def _name(document: dict[str, Any]) -> bytes:
    return "\0".join([document["type"], document.get("mesh", ""), document["name"]]).encode()


def _as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _parse(line: str, source: str) -> bytes:
    # The line is not repeated: it may be a key with one character too many.
    try:
        key = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{source} holds something that is no key: {_ADVICE}")
    return key


def _make_file(path: Path) -> bytes:
    """A new key in a file that was not there, on the disk before anything is sealed under it."""
    key = os.urandom(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"# Seals kumafast's secrets. Without it they are lost: keep a backup.\n{_as_text(key)}\n")
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a renaming, never takes the place of a key that another process has just made.
            os.link(name, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(name)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreUnavailableError(f"cannot make the key file {path} for secrets: {error}") from error
    return key
