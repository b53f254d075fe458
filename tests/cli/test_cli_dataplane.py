"""dataplane run: what is asked of the control plane, and the Envoy that this very process becomes."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.stream.grpc_client import create_certificate
from typer.testing import CliRunner

from kumafast.cli import launcher
from kumafast.cli.failure import CommandError
from kumafast.cli.main import app
from kumafast.identity.server_certificate import ensure_server_certificate

DATAPLANE = """
type: Dataplane
name: {{name}}
networking:
  address: 127.0.0.1
  inbound: [{port: 17001, tags: {kuma.io/service: echo}}]
"""
BOOTSTRAP = {
    "node": {"id": "default.echo-1", "metadata": {"dataplane.admin.socketPath": "/w/kuma-envoy-admin.sock"}},
    "admin": {"address": {"pipe": {"path": "/w/kuma-envoy-admin.sock"}}},
    "dynamicResources": {"adsConfig": {"apiType": "DELTA_GRPC"}},
}
# Says what it was started with, then waits for SIGTERM as Envoy does.
ENVOY = f"""#!{sys.executable}
import json, os, signal, sys
if "--version" in sys.argv:
    print("\\n" + sys.argv[0] + "  version: abc123/1.40.0/Clean/RELEASE/BoringSSL\\n")
    sys.exit()
config = open(sys.argv[sys.argv.index("--config-path") + 1]).read()
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
print(json.dumps({{"pid": os.getpid(), "arguments": sys.argv[1:], "bootstrap": config}}), flush=True)
signal.pause()
"""


@dataclass
class DpServer:
    """A dp-server that answers with what a test chooses: first `answers` in turn, then the bootstrap."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    answers: list[tuple[int, Any]] = field(default_factory=list)


def serve(context: ssl.SSLContext | None) -> Iterator[DpServer]:
    state = DpServer()

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Say nothing: a client that distrusts us hangs up."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.requests.append({"path": self.path, "accept": self.headers["accept"], "body": body})
            good = {"bootstrap": b64encode(yaml.safe_dump(BOOTSTRAP).encode()).decode()}
            status, answer = state.answers.pop(0) if state.answers else (200, good)
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def dp_server() -> Iterator[DpServer]:
    yield from serve(None)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return ensure_server_certificate(tmp_path / "cp", host="127.0.0.1").certificate


@pytest.fixture
def tls_dp_server(certificate: Path) -> Iterator[DpServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    yield from serve(context)


@pytest.fixture
def envoy(tmp_path: Path) -> Path:
    path = tmp_path / "envoy"
    path.write_text(ENVOY)
    path.chmod(0o755)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "dp.yaml"
    path.write_text(DATAPLANE.replace("{{name}}", "echo-1"))
    return path


_STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _end_processes() -> Iterator[None]:
    yield
    for process in _STARTED:
        process.kill()
        process.communicate()
    _STARTED.clear()


def start(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kumafast", "dataplane", "run", *map(str, arguments)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("KUMAFAST_")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**clean, **(env or {})}
    )
    _STARTED.append(process)
    return process


def fail(*arguments: object) -> tuple[int, str]:
    """The exit code and stderr of a launch that must not become Envoy, in this process."""
    result = CliRunner().invoke(app, ["dataplane", "run", *map(str, arguments)], env={"KUMAFAST_ENVOY": None})
    assert result.stdout == ""
    return result.exit_code, result.stderr


def launched(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the Envoy says that it was started with; ends it."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1])
    process.send_signal(signal.SIGTERM)
    # 7 is what the Envoy makes of SIGTERM, so the signal has reached it and not a process above it.
    assert process.wait(10) == 7
    _, error = process.communicate()
    return {**json.loads(line), "stderr": error, "launcher_pid": process.pid}


def test_it_becomes_envoy_with_the_bootstrap(dp_server: DpServer, envoy: Path, file: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.b.c\n")
    workdir = tmp_path / "w"
    arguments = ["--cp-address", dp_server.url, "--dataplane-file", file, "--envoy", envoy, "--workdir", workdir]
    arguments += ["--token-file", tmp_path / "token", "--concurrency", "2", "--dns-port", "15053"]
    found = launched(start(*arguments, "--log-level", "warning", "--drain-time-s", "5"))
    assert found["pid"] == found["launcher_pid"]
    path = workdir / "bootstrap.yaml"
    expected = ["--config-path", str(path), "--disable-hot-restart", "--log-level", "warning", "--drain-time-s", "5"]
    expected += ["--drain-strategy", "immediate"]
    assert found["arguments"] == [*expected, "--concurrency", "2"]
    assert yaml.safe_load(found["bootstrap"]) == BOOTSTRAP
    assert found["stderr"] == f"default.echo-1 becomes Envoy 1.40.0 with {path}\n"
    assert (workdir.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    [request] = dp_server.requests
    body = request["body"]
    resource = json.loads(body.pop("dataplaneResource"))
    assert (resource["mesh"], resource["networking"]["inbound"][0]["port"]) == ("default", 17001)
    assert body.pop("version")["envoy"] == {
        "version": "1.40.0",
        "build": "abc123/1.40.0/Clean/RELEASE/BoringSSL",
        "kumaDpCompatible": True,
    }
    assert body == {
        "mesh": "default",
        "name": "echo-1",
        "proxyType": "dataplane",
        "dataplaneToken": "a.b.c",
        "dataplaneTokenPath": str(tmp_path / "token"),
        "dnsPort": 15053,
        "dynamicMetadata": {},
        "features": [],
        "operatingSystem": "linux",
        "workdir": str(workdir),
    }
    assert (request["path"], request["accept"]) == ("/bootstrap", "application/json")


def test_files_are_templates_and_may_come_from_standard_input(dp_server: DpServer, envoy: Path, tmp_path: Path) -> None:
    (tmp_path / "dp.yaml").write_text(DATAPLANE)
    arguments = ["--cp-address", dp_server.url.replace("http", "grpc"), "-d", tmp_path / "dp.yaml", "-v", "name=echo-9"]
    launched(start(*arguments, env={"KUMAFAST_ENVOY": str(envoy)}))
    assert dp_server.requests[0]["body"]["name"] == "echo-9"


def test_admin_and_protocol_are_the_users_choice(dp_server: DpServer, envoy: Path, file: Path, tmp_path: Path) -> None:
    arguments = ["--cp-address", dp_server.url, "-d", file, "--envoy", envoy]
    found = yaml.safe_load(launched(start(*arguments, "--admin-port", "9901", "--sotw"))["bootstrap"])
    assert found["admin"]["address"] == {"socketAddress": {"address": "127.0.0.1", "portValue": 9901}}
    assert found["node"]["metadata"] == {"dataplane.admin.address": "127.0.0.1", "dataplane.admin.port": "9901"}
    assert found["dynamicResources"]["adsConfig"]["apiType"] == "GRPC"
    assert dp_server.requests[0]["body"]["features"] == ["feature-sotw"]
    socket = tmp_path / "a.sock"
    found = yaml.safe_load(launched(start(*arguments, "--admin-socket", socket))["bootstrap"])
    assert found["admin"]["address"] == {"pipe": {"path": str(socket), "mode": 0o600}}
    assert found["node"]["metadata"] == {"dataplane.admin.socketPath": str(socket)}


def test_a_registered_dataplane_needs_no_file_and_is_waited_for(dp_server: DpServer, envoy: Path) -> None:
    dp_server.answers = [(404, None), (404, None), (503, {"title": "x", "detail": "the store is away"})]
    arguments = ["--cp-address", dp_server.url, "--name", "web-1", "--mesh", "payments", "--envoy", envoy]
    found = launched(start(*arguments))
    assert len(dp_server.requests) == 4
    assert "dataplaneResource" not in dp_server.requests[0]["body"]
    assert found["stderr"].splitlines()[:2] == [
        "the control plane does not know the dataplane web-1 of mesh payments; trying again for 60 s",
        "the control plane answered 503: the store is away; trying again for 60 s",
    ]


def test_a_control_plane_that_stays_away(envoy: Path, file: Path) -> None:
    began = time.monotonic()
    code, said = fail("--cp-address", "http://127.0.0.1:1", "-d", file, "--envoy", envoy, "--patience-s", "0.5")
    assert code == 1
    assert "cannot be reached" in said
    assert said.endswith("gave up after 0.5 s\n")
    assert time.monotonic() - began < 10


def test_a_refusal_is_printed_and_not_repeated(dp_server: DpServer, envoy: Path, file: Path) -> None:
    problem = {"field": "mesh", "reason": "mesh of name default is not found"}
    dp_server.answers = [(422, {"title": "T", "detail": "The request is not valid", "invalid_parameters": [problem]})]
    assert fail("--cp-address", dp_server.url, "-d", file, "--envoy", envoy) == (
        1,
        "error: the control plane refused the dataplane (422): The request is not valid\n"
        "  mesh: mesh of name default is not found\n",
    )
    assert len(dp_server.requests) == 1


@pytest.mark.parametrize("answer", [{}, {"bootstrap": "%%%"}, {"bootstrap": b64encode(b"- 1").decode()}, [1]])
def test_an_answer_that_is_no_bootstrap(dp_server: DpServer, envoy: Path, file: Path, answer: Any) -> None:
    dp_server.answers = [(200, answer)]
    code, said = fail("--cp-address", dp_server.url, "-d", file, "--envoy", envoy)
    assert (code, "answered with something that is no bootstrap" in said) == (1, True)


def test_tls_needs_somebody_who_vouches(tls_dp_server: DpServer, certificate: Path, envoy: Path, file: Path) -> None:
    arguments = ["--cp-address", tls_dp_server.url.replace("https", "grpcs"), "-d", file, "--envoy", envoy]
    code, said = fail(*arguments)
    assert code == 1
    assert f"nobody vouches for the certificate of {tls_dp_server.url}" in said
    assert "--ca-cert-file: dp-server.crt in its data directory" in said
    assert tls_dp_server.requests == []
    launched(start(*arguments, "--ca-cert-file", certificate))
    assert tls_dp_server.requests[0]["body"]["caCert"] == certificate.read_text()


def test_another_certificate_is_not_trusted(tls_dp_server: DpServer, envoy: Path, file: Path, tmp_path: Path) -> None:
    other = ensure_server_certificate(tmp_path / "other", host="127.0.0.1").certificate
    code, said = fail("--cp-address", tls_dp_server.url, "-d", file, "--envoy", envoy, "--ca-cert-file", other)
    assert (code, f"is not one that {other} vouches for" in said) == (1, True)


def test_a_client_certificate_is_shown_by_the_fetch_and_by_envoy(
    certificate: Path, envoy: Path, file: Path, tmp_path: Path
) -> None:
    ours = create_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    context.load_verify_locations(ours.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    with contextmanager(serve)(context) as server:
        arguments = ["--cp-address", server.url, "-d", file, "--envoy", envoy, "--ca-cert-file", certificate]
        code, said = fail(*arguments, "--patience-s", "0")
        assert (code, server.requests) == (1, []), said
        shown = ["--cert-file", ours.certificate, "--key-file", ours.key]
        code, said = fail(*arguments, *shown)
        assert (code, "has no TLS towards the control plane" in said) == (1, True), said
        plain = {"name": "other", "loadAssignment": {}}
        ads = {"name": "ads_cluster", "transportSocket": {"typedConfig": {"@type": "x", "sni": "127.0.0.1"}}}
        secured = yaml.safe_dump({**BOOTSTRAP, "staticResources": {"clusters": [plain, ads]}})
        server.answers.append((200, {"bootstrap": b64encode(secured.encode()).decode()}))
        clusters = yaml.safe_load(launched(start(*arguments, *shown))["bootstrap"])["staticResources"]["clusters"]
        assert clusters[0] == plain
        context_of_ads = clusters[1]["transportSocket"]["typedConfig"]
        assert context_of_ads["sni"] == "127.0.0.1"
        pair = {"certificateChain": {"filename": str(ours.certificate)}, "privateKey": {"filename": str(ours.key)}}
        assert context_of_ads["commonTlsContext"] == {"tlsCertificates": [pair]}


def test_bad_input_is_found_before_anything_is_asked(
    dp_server: DpServer, envoy: Path, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "mesh.yaml").write_text("type: Mesh\nname: x\n")
    (tmp_path / "two.yaml").write_text("type: Dataplane\n---\ntype: Dataplane\n")
    (tmp_path / "bad.yaml").write_text(file.read_text().replace("17001", "0").replace("127.0.0.1", "nowhere !"))
    (tmp_path / "not.pem").write_text("hello")
    address, use = ["--cp-address", dp_server.url], ["--envoy", envoy]
    cases: list[tuple[list[object], str]] = [
        ([*address, "-d", tmp_path / "mesh.yaml", *use], "must hold a Dataplane; its type is 'Mesh'"),
        ([*address, "-d", tmp_path / "two.yaml", *use], "must hold one Dataplane, and holds 2 documents"),
        (
            [*address, "-d", tmp_path / "bad.yaml", *use],
            "networking.inbound[0].port: port must be in the range [1, 65535]",
        ),
        ([*address, "-d", tmp_path / "none.yaml", *use], "No such file"),
        ([*address, "-d", file, "--envoy", "/none"], "--envoy names /none, which is no program that can be run"),
        ([*address, "-d", file, "--envoy", "/bin/true"], "does not say that it is an Envoy"),
        ([*address, "-d", file, *use, "--token-file", "/none"], "cannot read /none: No such file"),
        (["--cp-address", "http://10.0.0.1:5678", "-d", file, *use], "plaintext to another machine"),
        (["--cp-address", "127.0.0.1:5678", "-d", file, *use], "is not the address of a dp-server"),
        (
            ["--cp-address", "https://127.0.0.1:1", "-d", file, *use, "--ca-cert-file", tmp_path / "not.pem"],
            "no certificate",
        ),
        (
            ["--cp-address", "https://127.0.0.1:1", "-d", file, *use, "--cert-file", file, "--key-file", file],
            "are no certificate and its key in PEM",
        ),
        ([*address, "-d", file, *use, "--cert-file", file, "--key-file", file], "--cert-file is for TLS"),
        ([*address, "-d", file, *use, "--workdir", tmp_path / ("x" * 100)], "choose a shorter --workdir"),
    ]
    for arguments, message in cases:
        code, said = fail(*arguments)
        assert (code, message in said) == (1, True), (arguments, said)
    usage: list[tuple[list[object], str]] = [
        ([*address], "give --dataplane-file, or --name"),
        ([*address, "-d", file, "--admin-port", "1", "--admin-socket", "/x", *use], "not both"),
        ([*address, "-d", file, "--admin-port", "0", *use], "--admin-port"),
        ([*address, "-d", file, "--cert-file", "/x", *use], "belong together"),
    ]
    for arguments, message in usage:
        code, said = fail(*arguments)
        assert (code, message in said) == (2, True), (arguments, said)
    assert dp_server.requests == []


def test_a_workdir_belongs_to_one_envoy(dp_server: DpServer, envoy: Path, file: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "w"
    arguments = ["--cp-address", dp_server.url, "-d", file, "--envoy", envoy, "--workdir", workdir]
    first = start(*arguments)
    assert first.stdout is not None
    assert first.stdout.readline()
    assert fail(*arguments) == (1, f"error: another Envoy runs in {workdir}; choose another --workdir\n")
    first.kill()
    first.wait()
    launched(start(*arguments))


def test_temporary_workdirs_do_not_pile_up(dp_server: DpServer, envoy: Path, file: Path) -> None:
    # Not pytest's own directory, in which a socket's path would be too long.
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        _check_temporary_workdirs(Path(made), ["--cp-address", dp_server.url, "-d", file, "--envoy", envoy], dp_server)


def _check_temporary_workdirs(temporary: Path, arguments: list[object], dp_server: DpServer) -> None:
    env = {"TMPDIR": str(temporary)}
    living = start(*arguments, env=env)
    assert living.stdout is not None
    assert living.stdout.readline()
    kept = set(temporary.iterdir())
    left = launched(start(*arguments, env=env))
    assert Path(left["arguments"][1]).is_file()
    launched(start(*arguments, env=env))
    assert kept < set(temporary.iterdir())
    assert len(set(temporary.iterdir())) == 2
    assert not Path(left["arguments"][1]).exists()
    dp_server.answers = [(422, {"detail": "no"})]
    start(*arguments, env=env).communicate(timeout=30)
    assert set(temporary.iterdir()) == kept


def test_a_bootstrap_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "bootstrap.yaml").symlink_to(Path(tempfile.gettempdir()) / "elsewhere")
    with pytest.raises(CommandError, match="cannot write"):
        launcher.write_bootstrap(BOOTSTRAP, tmp_path)
