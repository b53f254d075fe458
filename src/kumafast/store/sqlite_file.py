"""The embedded store's file as SQLite opens it: its tables, how it is made and refused, and its errors in words.

In: a path. Out: a connection that alone may use the file, or what is to be done. Never: resources.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path
from uuid import uuid4

from kumafast.errors import StoreUnavailableError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6B756D61
"""`kuma` in ASCII, in the file's header: what tells our file from another program's database."""
LOCK_WAIT_S = 1.0
"""How long opening waits for a process that is just letting go of the file."""

_SCHEMA = f"""
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE resources (
        type TEXT NOT NULL, mesh TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
        creation_us INTEGER NOT NULL, modification_us INTEGER NOT NULL, content BLOB NOT NULL,
        PRIMARY KEY (type, mesh, name)
    );
    CREATE TABLE changes (
        revision INTEGER NOT NULL, position INTEGER NOT NULL,
        type TEXT NOT NULL, mesh TEXT NOT NULL, name TEXT NOT NULL,
        creation_us INTEGER, modification_us INTEGER, content BLOB,
        PRIMARY KEY (revision, position)
    ) WITHOUT ROWID;
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
"""


def connect(path: Path, *, identity: str | None = None) -> sqlite3.Connection:
    """Open a file that nobody else has open, made where it is missing. Raises `StoreUnavailableError`.

    `identity` is that of the store where it is made; without it, it is another than any before.
    """
    try:
        create(path)
        connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise refusal(path, error) from error
    except OSError as error:
        raise unusable(path, error) from error
    try:
        prepare(connection, path, identity=identity or uuid4().hex)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise refusal(path, error) from error
        raise
    return connection


def create(path: Path) -> None:
    """Make the file and its folders where they are missing, for their owner only, so that a crash leaves its name."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except FileExistsError:
        # Not to be opened here: closing a second descriptor would drop the locks of a store that this process has open.
        if path.is_file() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return
    os.close(descriptor)
    _sync_folder(path)


def _sync_folder(path: Path) -> None:
    """A file's name must outlive a crash too."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def prepare(connection: sqlite3.Connection, path: Path, *, identity: str) -> None:
    """Make tables where there are none.

    Raises `StoreUnavailableError` for a file that is not ours or newer, `DamagedError` for one that is not whole.
    """
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    # Before anything is changed: another program's database is left exactly as it is.
    application_id, version = number(connection, "PRAGMA application_id"), number(connection, "PRAGMA user_version")
    is_new = application_id == 0 and version == 0 and not number(connection, "SELECT count(*) FROM sqlite_master")
    if not is_new and application_id != APPLICATION_ID:
        raise StoreUnavailableError(
            f"{path} is a database of another program, not a kumafast store; choose another path"
        )
    if version > SCHEMA_VERSION:
        raise StoreUnavailableError(
            f"the store {path} was written by a newer kumafast (schema {version}, this one knows {SCHEMA_VERSION});"
            " run that one, or choose another path"
        )
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailableError(f"cannot open the store {path}: its file system allows no write-ahead log")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if is_new:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", [("identity", identity), ("floor", 0)])
    connection.execute("COMMIT")
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, found)


def inode(path: Path) -> tuple[int, int]:
    """Which file is at a path, whatever its name; (0, 0) for none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def forget_cached(path: Path) -> None:
    """Let the kernel read the file from its disk when it is read next. No connection may be open."""
    for each in (path, _log_of(path)):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(each, os.O_RDONLY)
            try:
                # What waits to be written is kept; what could not be written was given up before, and is dropped.
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def aside(path: Path) -> Path:
    """Where a damaged file is kept: one, the last."""
    return path.with_name(f"{path.name}.damaged")


def anew(path: Path) -> Path:
    """Where a file is written that is to take the place of another; what was left there is removed."""
    beside = path.with_name(f"{path.name}.anew")
    for each in (beside, _log_of(beside)):
        each.unlink(missing_ok=True)
    return beside


def take_place(path: Path, beside: Path) -> None:
    """Put a whole file in the place of a damaged one, which is kept. There is one at `path` at every moment."""
    kept = aside(path)
    for each in (kept, _log_of(kept)):
        each.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.link(path, kept)
    # The log of the one is nothing for the other.
    with contextlib.suppress(FileNotFoundError):
        _log_of(path).replace(_log_of(kept))
    beside.replace(path)
    _sync_folder(path)


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


class UnwritableError(StoreUnavailableError):
    """The file cannot be written or used, whatever is to be written."""


class DamagedError(UnwritableError):
    """The file is there, and is not what was written."""


def primary_code(error: BaseException) -> int | None:
    """SQLite's own number of an error, without its finer half; None for what does not come from it."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def refusal(path: Path, error: sqlite3.Error, *, what: str = "cannot be opened") -> UnwritableError:
    """An error of SQLite in words for whoever can mend it."""
    match primary_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return UnwritableError(
                f"the store {path} is in use by another process; stop that one or choose another path"
            )
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return damaged(path, str(error))
        case sqlite3.SQLITE_FULL:
            advice = "make room on its disk"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_IOERR if not _is_writable(path):
            # Where a file system is read-only SQLite stumbles over its locks, and says no more than that.
            advice = "make the file, its folder and its file system writable for this user"
        case sqlite3.SQLITE_CANTOPEN:
            advice = "its folder must be there, writable for this user, with room for a file"
        case sqlite3.SQLITE_READONLY:
            advice = "make the file writable for this user"
        case sqlite3.SQLITE_IOERR:
            advice = "look at the disk, and at what the kernel says of it"
        case _:
            advice = ""
    return UnwritableError(f"the store {path} {what}: {error}" + (f"; {advice}" if advice else ""))


def _is_writable(path: Path) -> bool:
    return all(os.access(each, os.W_OK) for each in (path, path.parent))


_OS_ADVICE = {
    errno.ENOSPC: "make room on its disk",
    errno.EDQUOT: "make room on its disk",
    errno.EROFS: "make its file system writable",
    errno.EACCES: "make the file and its folder writable for this user",
    errno.EPERM: "make the file and its folder writable for this user",
    errno.EIO: "look at the disk, and at what the kernel says of it",
}


def unusable(path: Path, error: OSError) -> UnwritableError:
    """An error of the kernel in words for whoever can mend it."""
    advice = _OS_ADVICE.get(error.errno or 0, "or choose another path with --store sqlite:PATH")
    return UnwritableError(f"the store {path} cannot be opened: {error.strerror or error}; {advice}")


def damaged(path: Path, how: str) -> DamagedError:
    """What is to be done about a file that is not whole."""
    reason = " ".join(how.split())
    return DamagedError(
        f"the store {path} is damaged ({reason}); put a backup in its place, by `kumafast store import BACKUP` once it "
        "is moved away, or save what can be read of it with `kumafast store export FILE`"
    )


def number(connection: sqlite3.Connection, query: str) -> int:
    """The one number that a query gives."""
    return int(connection.execute(query).fetchone()[0])
