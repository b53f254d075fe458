"""gRPC backends that say their names, and clients in Python and Go that find them by xDS."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import platformdirs
import pytest
from google.protobuf import wrappers_pb2
from tests.clients.authority import Authority
from tests.clients.grpcio_client import METHOD
from tests.clients.xds_server import ROOT, ServerProcess

_GO = ROOT / "tests" / "clients" / "grpc_go"
_BUILD_TIMEOUT_S = 240
_END_TIMEOUT_S = 10


class Backend:
    """A gRPC service whose one method answers its name."""

    def __init__(self, name: str) -> None:
        def who(request: bytes, context: grpc.ServicerContext) -> wrappers_pb2.StringValue:
            return wrappers_pb2.StringValue(value=name)

        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        handler = grpc.unary_unary_rpc_method_handler(
            who, response_serializer=wrappers_pb2.StringValue.SerializeToString
        )
        service, method = METHOD.strip("/").split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.stop(None).wait()


@dataclass(frozen=True, slots=True)
class GrpcMode:
    """Which implementation, and how it speaks to the control plane."""

    language: str
    is_mtls: bool

    def __str__(self) -> str:
        return f"{self.language}-{'mtls' if self.is_mtls else 'plain'}"


GRPC_MODES = tuple(GrpcMode(language, is_mtls) for language in ("grpcio", "grpc-go") for is_mtls in (False, True))


@dataclass(frozen=True)
class Calls:
    """What some calls came to."""

    answers: dict[str, int]
    errors: list[str]


class ClientKilledError(Exception):
    """A signal has ended a client's process: a fault within gRPC, since nothing here sends one."""


class ClientKilledWarning(UserWarning):
    """Says in the tests' output that a client was started anew, and what ended the one before."""


class GrpcClient:
    """A client process."""

    def __init__(self, command: list[str], bootstrap: Path, log: Path) -> None:
        self._log = log.open("wb")
        environment = {**os.environ, "GRPC_XDS_BOOTSTRAP": str(bootstrap), "GRPC_VERBOSITY": "error"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        self._child = subprocess.Popen(command, cwd=ROOT, text=True, env=environment, **pipes)
        self.pid = self._child.pid

    def call(self, target: str, count: int) -> Calls:
        """Make calls on the channel `xds:///TARGET`, one after another; ClientKilledError where a signal ended it."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(f"call xds:///{target} {count}\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._child.wait(_END_TIMEOUT_S)
            if code < 0:
                raise ClientKilledError(f"the client was ended by {signal.Signals(-code).name}")
            raise AssertionError(f"the client has ended with {code}; see {self._log.name}")
        return Calls(**json.loads(line))

    def killed_by(self) -> signal.Signals | None:
        """The signal that has ended the process, if one has."""
        code = self._child.poll()
        return signal.Signals(-code) if code is not None and code < 0 else None

    def stop(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.wait()
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.stdout.close()
        self._log.close()


def write_bootstrap(mode: GrpcMode, server: ServerProcess, authority: Authority, directory: Path) -> Path:
    """A bootstrap as gRPC's xDS clients read it."""
    credentials: dict[str, Any] = {"type": "insecure"}
    if mode.is_mtls:
        pair = authority.client
        files = {
            "certificate_file": pair.certificate,
            "private_key_file": pair.key,
            "ca_certificate_file": authority.ca,
        }
        credentials = {"type": "tls", "config": {name: str(path) for name, path in files.items()}}
    port = server.mtls_port if mode.is_mtls else server.plain_port
    document = {
        "xds_servers": [
            {"server_uri": f"localhost:{port}", "channel_creds": [credentials], "server_features": ["xds_v3"]}
        ],
        "node": {"id": str(mode)},
    }
    file = directory / f"{mode}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return file


def command_of(mode: GrpcMode) -> list[str]:
    """How a mode's client is started; the test is skipped, with the reason, where that cannot be."""
    if mode.language == "grpcio":
        return [sys.executable, "-m", "tests.clients.grpcio_client"]
    return [str(build_go_client())]


def build_go_client() -> Path:
    """The client in Go, built once for its sources and kept outside of the repository."""
    compiler = shutil.which("go")
    if compiler is None:
        pytest.skip("no Go here to build the client with")
    digest = hashlib.sha256(subprocess.check_output([compiler, "version"]))
    for file in sorted(_GO.iterdir()):
        digest.update(file.read_bytes())
    folder = Path(platformdirs.user_cache_dir("kumafast")) / "tests"
    built = folder / f"grpc_go-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "grpc_go.lock"):
        if not built.exists():
            partial = built.with_suffix(".partial")
            command = [compiler, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(partial), "."]
            result = subprocess.run(
                command, cwd=_GO, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
            )
            if result.returncode:
                _tell_why(result.stderr)
            partial.rename(built)
    return built


def _tell_why(output: str) -> None:
    """Skip where only the modules could not be had; a client that does not compile is a failure."""
    words = (
        "dial tcp",
        "no such host",
        "i/o timeout",
        "GOPROXY",
        "toolchain not available",
        "proxyconnect",
        "requires go",
    )
    if any(word in output for word in words):
        pytest.skip(f"the modules of the Go client cannot be had: {output[-300:]}")
    raise AssertionError(output[-3000:])


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
