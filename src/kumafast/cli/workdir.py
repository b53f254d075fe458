"""A directory for one Envoy's bootstrap and admin socket.

In: a path, or nothing. Out: a directory of its owner's alone, locked for as long as the Envoy lives. Never: one
directory for two Envoys; temporary ones that pile up.

The launcher becomes Envoy, so nobody is left to tidy up after it. Each start removes what Envoys that have ended
left behind: Envoy inherits the open file that holds the lock, so the kernel frees it with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kumafast.cli.failure import CommandError

ADMIN_SOCKET = "kuma-envoy-admin.sock"
# The length of `sun_path` in Linux' sockaddr_un, less its closing NUL.
_SOCKET_PATH_MAX = 107
_PREFIX = "kumafast-dp-"
_LOCK = "lock"


@contextmanager
def opened(path: Path | None, *, socket: Path | None) -> Iterator[Path]:
    """The directory, made if it is not there; a temporary one without `path`, which goes unless we become Envoy.

    Raises `CommandError` where it cannot be made, is another Envoy's, or is too deep for the admin socket.
    """
    try:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_temporary_root())) if path is None else _made(path)
    except OSError as error:
        raise CommandError(f"cannot make the directory {error.filename}: {error.strerror}") from error
    try:
        _check_length(socket or directory / ADMIN_SOCKET)
        lock = _locked(directory, is_new=path is None)
        try:
            if path is None:
                _remove_abandoned()
            # A socket that an earlier Envoy left behind is in the way of the next one's.
            (directory / ADMIN_SOCKET).unlink(missing_ok=True)
            yield directory
        finally:
            os.close(lock)
    finally:
        if path is None:
            shutil.rmtree(directory, ignore_errors=True)


def _temporary_root() -> Path:
    """The system's directory for temporary files, unless it is too deep for a socket in a directory of it."""
    root = Path(tempfile.gettempdir())
    length = len(os.fsencode(root / f"{_PREFIX}12345678" / ADMIN_SOCKET))
    return root if length <= _SOCKET_PATH_MAX else Path("/tmp")


def _made(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = path.absolute()
    if directory.stat().st_uid == os.getuid():
        directory.chmod(stat.S_IRWXU)
    return directory


def _check_length(socket: Path) -> None:
    length = len(os.fsencode(socket))
    if length > _SOCKET_PATH_MAX:
        raise CommandError(
            f"the admin socket's path {socket} is {length} bytes long, and may be {_SOCKET_PATH_MAX}; "
            "choose a shorter --workdir"
        )


def _locked(directory: Path, *, is_new: bool) -> int:
    """An open and locked file that stays open when this process becomes another program."""
    # In a new directory the file gets its name when it is locked: before, others would take it for an abandoned one.
    path = directory / (f"{_LOCK}.new" if is_new else _LOCK)
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise CommandError(f"another Envoy runs in {directory}; choose another --workdir") from error
    if is_new:
        path.rename(directory / _LOCK)
    os.set_inheritable(descriptor, True)
    return descriptor


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from error


def _remove_abandoned() -> None:
    """Remove temporary directories of this user whose Envoy has ended: those whose lock is there and free."""
    for directory in _temporary_root().glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if directory.is_symlink() or directory.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                # Locked while it goes: whoever is about to take the directory sees that it is not free.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)
