"""Real parts on loopback: a control plane process, Envoys started by the launcher, small services behind them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from tests.ports import free_port as free_port
from tests.warm import Warm

KUMAFAST = [sys.executable, "-m", "kumafast"]
ECHO = {"kuma.io/service": "echo"}
READY = re.compile(r"^ready api=(\S+) dp=(\S+) diagnostics=(\S+)$")
DEADLINE_S = 30.0
SLOW_S = 1.0


def wait_until(condition: Callable[[], Any], what: str, *, timeout_s: float = DEADLINE_S) -> Any:
    """Return the condition's first true value."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(httpx.TransportError):
            value = condition()
            if value:
                return value
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.02)


# One client: making one costs more than a request, and would be counted as time of the control plane.
_HTTP = httpx.Client(timeout=5)


class Process:
    """A child that is ended by its id, with its output in a file."""

    def __init__(
        self, arguments: list[str], log: Path, env: Mapping[str, str] | None = None, *, is_warm: bool = False
    ) -> None:
        """One that `is_warm` has the modules of `kumafast` already, and the seed of hashes of others that are."""
        self.log = log
        self._file = log.open("ab")
        variables = {**os.environ, **(env or {})}
        self.child: subprocess.Popen[str] | Warm
        if is_warm:
            assert arguments[: len(KUMAFAST)] == KUMAFAST, arguments
            self.child = Warm(arguments[len(KUMAFAST) :], stderr=self._file, env=variables)
        else:
            self.child = subprocess.Popen(
                arguments, stdout=subprocess.PIPE, stderr=self._file, text=True, env=variables
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the child and return its exit code."""
        if self.child.poll() is None:
            self.child.send_signal(how)
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()
        self._file.close()
        return self.child.wait()


class ControlPlane:
    """`kumafast run` as a process; it can be stopped, killed and started again on the same ports and store."""

    def __init__(self, directory: Path, *flags: str, is_warm: bool = True) -> None:
        """One that `is_warm` has its modules at its first start, but shares their memory: it is none to measure."""
        self._directory = directory
        self._is_warm = is_warm
        self._flags = flags
        self._ports = ("0", "0", "0")
        self.process: Process | None = None
        self.api = self.dp = self.diagnostics = ""

    def start(self) -> ControlPlane:
        """Start and wait for the ready line."""
        api, dp, diagnostics = self._ports
        arguments = [*KUMAFAST, "run", "--data-dir", str(self._directory / "data")]
        arguments += ["--api-port", api, "--dp-port", dp, "--diagnostics-port", diagnostics, *self._flags]
        # Another one in its place is to agree with it in spite of another seed of hashes.
        self.process = Process(arguments, self._directory / "control-plane.log", is_warm=self._is_warm and api == "0")
        assert self.process.child.stdout is not None
        line = self.process.child.stdout.readline().strip()
        match = READY.match(line)
        assert match, f"no ready line but {line!r}; log: {(self._directory / 'control-plane.log').read_text()[-2000:]}"
        self.api, self.dp, self.diagnostics = match.groups()
        self._ports = tuple(url.rpartition(":")[2] for url in match.groups())  # type: ignore[assignment]
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop or kill; the exit code."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        return process.stop(how)

    @property
    def ca_file(self) -> Path:
        """The certificate that the dp-server made for itself."""
        return self._directory / "data" / "dp-server.crt"

    def put(self, document: Mapping[str, Any]) -> int:
        """Put a resource; the revision of the store afterwards."""
        path = f"/meshes/{document['mesh']}/dataplanes/{document['name']}" if "mesh" in document else ""
        path = path or f"/meshes/{document['name']}"
        response = _HTTP.put(self.api + path, json=document)
        assert response.status_code in (200, 201), response.text
        return int(response.headers["X-Kumafast-Revision"])

    def delete(self, mesh: str, name: str) -> int:
        """Delete a dataplane; the revision of the store afterwards."""
        response = _HTTP.delete(f"{self.api}/meshes/{mesh}/dataplanes/{name}")
        assert response.status_code == 200, response.text
        return int(response.headers["X-Kumafast-Revision"])

    def converge(self, revision: int) -> dict[str, Any]:
        """Wait until all connected Envoys have acknowledged a revision."""
        response = _HTTP.get(
            f"{self.api}/_convergence", params={"revision": revision, "timeout": "10s"}, timeout=DEADLINE_S
        )
        report: dict[str, Any] = response.json()
        return report

    @contextlib.contextmanager
    def policy(self, path: str, **fields: Any) -> Iterator[None]:
        """A policy in the default mesh, which all Envoys run within the block and have left again after it."""
        url = f"{self.api}/meshes/default/{path}/it"
        self._settle(_HTTP.put(url, json={"mesh": "default", "name": "it", **fields}))
        try:
            yield
        finally:
            self._settle(_HTTP.delete(url))

    def get(self, url: str) -> dict[str, Any]:
        """A document."""
        document: dict[str, Any] = _HTTP.get(url).raise_for_status().json()
        return document

    def settle(self, method: str, url: str, document: Mapping[str, Any] | None = None) -> None:
        """Write, or delete, and wait until all Envoys run what was written."""
        self._settle(_HTTP.request(method, url, json=document))

    def _settle(self, written: httpx.Response) -> None:
        assert written.status_code in (200, 201), written.text
        report = self.converge(int(written.headers["X-Kumafast-Revision"]))
        assert report["is_converged"], report

    def overview(self, mesh: str, name: str) -> dict[str, Any]:
        """A dataplane's overview."""
        document: dict[str, Any] = _HTTP.get(f"{self.api}/meshes/{mesh}/dataplanes/{name}/_overview").json()
        return document

    def metrics(self) -> dict[str, float]:
        """The samples of /metrics by their full names."""
        lines = _HTTP.get(self.diagnostics + "/metrics").text.splitlines()
        return {name: float(value) for name, _, value in (s.rpartition(" ") for s in lines if s and s[0] != "#")}


class Sidecar:
    """A dataplane with a real Envoy, started by `kumafast dataplane run`."""

    def __init__(
        self,
        directory: Path,
        control_plane: ControlPlane,
        document: Mapping[str, Any],
        *,
        envoy: str,
        flags: tuple[str, ...] = (),
    ) -> None:
        self.name = str(document["name"])
        self.admin_port = free_port()
        file = directory / f"{self.name}.yaml"
        file.write_text(json.dumps(document))
        arguments = [*KUMAFAST, "dataplane", "run", "--envoy", envoy]
        arguments += ["--cp-address", control_plane.dp.replace("grpc", "http", 1), "--dataplane-file", str(file)]
        arguments += ["--admin-port", str(self.admin_port), *flags]
        if control_plane.dp.startswith("grpcs"):
            arguments += ["--ca-cert-file", str(control_plane.ca_file)]
        self.process = Process(arguments, directory / f"{self.name}.log", is_warm=True)

    def admin(self, path: str) -> str:
        """GET from Envoy's admin interface."""
        return _HTTP.get(f"http://127.0.0.1:{self.admin_port}{path}").text

    def admin_post(self, path: str) -> str:
        """POST to Envoy's admin interface."""
        return _HTTP.post(f"http://127.0.0.1:{self.admin_port}{path}").text

    def config_dump(self) -> dict[str, Any]:
        """Envoy's own dump of its configuration."""
        dump: dict[str, Any] = json.loads(self.admin("/config_dump?include_eds"))
        return dump

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose names match a pattern."""
        lines = self.admin(f"/stats?filter={pattern}").splitlines()
        pairs = (line.rpartition(": ") for line in lines)
        return {name: int(value) for name, _, value in pairs if value.lstrip("-").isdigit()}

    def wait_ready(self) -> Sidecar:
        """Wait until Envoy has warmed what it was sent."""
        wait_until(lambda: self.admin("/ready").strip() == "LIVE", f"{self.name} is live; see {self.process.log}")
        return self

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End Envoy."""
        self.process.stop(how)


class EchoService:
    """A small HTTP service that answers its name, at `/slow` after a second; it counts what it answered.

    `failures` are statuses that the next answers have instead of 200.
    """

    def __init__(self, name: str, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        service = self
        self.name = name
        self.answered = 0
        self.failures: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes; the second would wait 40 ms for the sidecar to acknowledge the first.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                if self.path.startswith("/slow"):
                    time.sleep(SLOW_S)
                service.answered += 1
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = json.dumps({"instance": service.name, "path": self.path, "headers": headers}).encode()
                self.send_response(service.failures.pop(0) if service.failures else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Silence; the tests count instead."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Traffic:
    """Requests through an outbound, one after another, in a thread: who answered, and what failed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        with httpx.Client(timeout=5) as client:
            while not self._stopping.is_set():
                try:
                    response = client.get(f"http://127.0.0.1:{self.port}/")
                    if response.status_code == 200:
                        self.answers.append(response.json()["instance"])
                    else:
                        self.failures.append(f"{response.status_code} {response.text[:80]}")
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                time.sleep(0.002)

    @contextlib.contextmanager
    def running(self) -> Iterator[Traffic]:
        """Send requests while in the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            self._thread.join()


def get(port: int, path: str = "/") -> httpx.Response:
    """One request through an outbound on a connection of its own: those that are open stay with the listener before."""
    return _HTTP.get(f"http://127.0.0.1:{port}{path}", headers={"connection": "close"}, timeout=5)


class Mesh:
    """Starts parts and ends them all, the last first."""

    def __init__(
        self,
        directory: Path,
        envoy: str,
        *,
        uses_delta: bool,
        control_plane_flags: tuple[str, ...] = (),
        is_warm: bool = True,
    ) -> None:
        self.directory = directory
        self.envoy = envoy
        self.flags: tuple[str, ...] = () if uses_delta else ("--sotw",)
        self.ending = ExitStack()
        self.inbound_ports: dict[str, int] = {}
        """Where the sidecars of services take connections, by name."""
        self.control_plane = ControlPlane(directory, *control_plane_flags, is_warm=is_warm).start()
        self.ending.callback(self.control_plane.stop)

    def echo(
        self, name: str, *, mesh: str = "default", service: str = "echo", **tags: str
    ) -> tuple[EchoService, Sidecar]:
        """An instance of a service with its sidecar, ready."""
        service_process = EchoService(name)
        self.ending.callback(service_process.stop)
        port = self.inbound_ports[name] = free_port()
        inbound = {
            "port": port,
            "servicePort": service_process.port,
            "tags": {"kuma.io/service": service, "kuma.io/protocol": "http", **tags},
        }
        return service_process, self.sidecar(name, mesh=mesh, inbound=[inbound])

    def sidecar(self, name: str, *, mesh: str = "default", **networking: Any) -> Sidecar:
        """A sidecar, ready."""
        document = {
            "type": "Dataplane",
            "mesh": mesh,
            "name": name,
            "networking": {"address": "127.0.0.1", **networking},
        }
        sidecar = Sidecar(self.directory, self.control_plane, document, envoy=self.envoy, flags=self.flags)
        self.ending.callback(sidecar.stop)
        return sidecar.wait_ready()

    def client(self, name: str, *destinations: dict[str, str], mesh: str = "default") -> tuple[Sidecar, list[int]]:
        """A sidecar with an outbound to each destination, and the ports of these."""
        ports = [free_port() for _ in destinations]
        outbound = [{"port": port, "tags": tags} for port, tags in zip(ports, destinations, strict=True)]
        inbound = [{"port": free_port(), "servicePort": free_port(), "tags": {"kuma.io/service": name}}]
        return self.sidecar(name, mesh=mesh, inbound=inbound, outbound=outbound), ports


def rejected(sidecar: Sidecar) -> list[str]:
    """What an Envoy has refused, by its counters and by its dump."""
    counters = [name for name, value in sidecar.stats("update_rejected|init_fetch_timeout").items() if value]
    found: list[str] = list(counters)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "error_state" in value:
                found.append(str(value["error_state"]))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(sidecar.config_dump())
    return found


def online(mesh: Mesh, name: str) -> bool:
    """Whether the control plane says that a dataplane's Envoy is connected."""
    subscriptions = mesh.control_plane.overview("default", name).get("dataplaneInsight", {}).get("subscriptions", [])
    return any("disconnectTime" not in subscription for subscription in subscriptions)
