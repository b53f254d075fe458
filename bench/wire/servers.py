"""The servers that are measured, and how each is started; what a machine lacks is said, and left out.

In: a name. Out: a command line, or why there is none. Never: a build that was not asked for.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.wire import payload
from bench.wire.process import ROOT, BenchmarkError

from kumafast.identity import ensure_server_certificate

_BUILD = ROOT / "build" / "wire"
_GO_SOURCES = ROOT / "bench" / "peers" / "go_control_plane"
_SMALL_NODE, _LARGE_NODE = 1_000, 61_000
# What the load client ends with where it was built without TLS.
_NO_TLS = 3

FLOOR = "floor"
KUMAFAST = ("kumafast-linear", "kumafast-mesh")
PEERS = ("grpc-aio", "go-linear", "go-snapshot")
WITH_OWN_RESOURCE = ("kumafast-mesh", "go-snapshot")
"""Of these each node has a resource of its own beside the shared one, and asks for both."""


@dataclass(frozen=True)
class Bench:
    """The files of one run: payloads, nodes, a certificate; and the programs, which are built once."""

    folder: Path
    client: Path
    floor: Path
    go: Path | None
    """None where there is no Go: then `why_no_go` says so."""
    why_no_go: str
    has_tls: bool
    """Whether the load client could be built against OpenSSL."""

    def node_file(self, *, is_large: bool) -> Path:
        """A serialised node of 1 KB, or of 61 KB as a real Envoy sends it."""
        return self.folder / ("node-large" if is_large else "node")

    def command(self, server: str, *, nodes: int, is_tls: bool) -> list[str]:
        """How to start a server for so many nodes."""
        if server == FLOOR:
            return [str(self.floor), str(self.folder / "floor-opening"), str(self.folder / "floor-push")]
        certificate, key = self.folder / "dp-server.crt", self.folder / "dp-server.key"
        tls = ["--certificate", str(certificate), "--key", str(key)] if is_tls else []
        if server == "grpc-aio":
            return [sys.executable, "-m", "bench.peers.grpc_aio_server", *tls]
        mode = server.partition("-")[2]
        if server in KUMAFAST:
            return [sys.executable, "-m", "bench.wire.kumafast_server", mode, "--nodes", str(nodes), *tls]
        if self.go is None:
            raise BenchmarkError(self.why_no_go)
        return [str(self.go), "-mode", mode, "-payloads", str(self.folder), "-nodes", str(nodes), *tls]


def why_no_compiler() -> str | None:
    """Why the load client cannot be built here; None where it can."""
    if shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"):
        return None
    return "no C++ compiler for the load client"


def prepare(folder: Path, *, with_go: bool) -> Bench:
    """Build the programs and write the files. Raises `BenchmarkError` where the load client cannot be built."""
    _run([_tool("cmake"), "-S", str(ROOT / "bench" / "wire"), "-B", str(_BUILD)])
    _run([_tool("cmake"), "--build", str(_BUILD)])
    go, why_no_go = _build_go() if with_go else (None, "Go was not asked for")
    for variant in range(payload.VARIANTS):
        (folder / f"shared-{variant}").write_bytes(payload.load_assignment(payload.SHARED, variant))
    (folder / "own").write_bytes(payload.load_assignment(payload.OWN, 0, 1))
    (folder / "node").write_bytes(payload.node(_SMALL_NODE))
    (folder / "node-large").write_bytes(payload.node(_LARGE_NODE))
    payload.write_floor_files(folder)
    ensure_server_certificate(folder, host="127.0.0.1")
    client = _BUILD / "load_client"
    # It looks at this before anything else that is wrong here.
    refused = subprocess.run([client, "--port", "1", "--tls"], capture_output=True, check=False, timeout=10)
    return Bench(folder, client, _BUILD / "floor", go, why_no_go, refused.returncode != _NO_TLS)


def _tool(name: str) -> str:
    """A tool of this environment, else of the machine."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else name


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if result.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")


def _build_go() -> tuple[Path | None, str]:
    if shutil.which("go") is None:
        return None, "no Go on this machine"
    program = _BUILD / "go_control_plane"
    command = ["go", "build", "-o", str(program), "."]
    try:
        result = subprocess.run(command, cwd=_GO_SOURCES, capture_output=True, text=True, check=False, timeout=600)
    except subprocess.TimeoutExpired:
        return None, "go-control-plane could not be built in ten minutes"
    if result.returncode != 0:
        return None, f"go-control-plane could not be built: {result.stderr.strip().splitlines()[-1]}"
    return program, ""
