"""run: the ready line, signals, settings from four places, and what stops it before it serves."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests._core.test_wire_tls import Files, create_files, trust
from typer.testing import CliRunner

from kumafast.cli.main import app

READY = re.compile(
    r"^ready api=(http://127\.0\.0\.1:\d+) dp=(grpcs?://127\.0\.0\.1:\d+) diagnostics=(http://127\.0\.0\.1:\d+)\n$"
)
PORTS = ("--api-port", "0", "--dp-port", "0", "--diagnostics-port", "0")


class Runs:
    """Control planes as processes; all are ended after the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("KUMAFAST_")}
        process = subprocess.Popen(
            [sys.executable, "-m", "kumafast", "run", "--data-dir", str(self.directory), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, **(env or {})},
        )
        self.processes.append(process)
        return process

    def ready(
        self, *arguments: object, env: dict[str, str] | None = None
    ) -> tuple[subprocess.Popen[str], re.Match[str]]:
        process = self.start(*arguments, env=env)
        assert process.stdout is not None
        line = process.stdout.readline()
        match = READY.match(line)
        if match is None:
            process.kill()
            pytest.fail(f"no ready line but {line!r}: {process.communicate()[1]}")
        return process, match


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path / "data")
    yield runs
    for process in runs.processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_says_so_in_one_line_and_ends_in_order(runs: Runs, number: signal.Signals) -> None:
    process, ready = runs.ready(*PORTS)
    assert httpx.get(f"{ready[3]}/ready").status_code == 200
    assert [mesh["name"] for mesh in httpx.get(f"{ready[1]}/meshes").json()["items"]] == ["default"]
    assert ready[2].startswith("grpcs://")
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (0, "")
    assert time.monotonic() - began < 10
    assert f"--ca-cert-file {runs.directory / 'dp-server.crt'}" in err
    assert (runs.directory / "dp-server.crt").is_file()
    assert "\x1b" not in err
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [A-Z]+ [\w.]+: ", line) for line in err.splitlines())


def test_a_client_that_keeps_its_connection_does_not_hold_it(runs: Runs) -> None:
    process, ready = runs.ready(*PORTS, "--store", "memory")
    with httpx.Client() as client:
        assert client.get(f"{ready[1]}/").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_second_signal_ends_it_at_once(runs: Runs) -> None:
    # The first signal comes during the start, when there is most to wait for; the second right behind it.
    process, _ = runs.ready(*PORTS, "--store", "memory")
    os.kill(process.pid, signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(5) in {128 + signal.SIGINT, 128 + signal.SIGTERM}


def test_what_is_stored_is_there_after_a_restart(runs: Runs) -> None:
    process, ready = runs.ready(*PORTS)
    assert httpx.put(f"{ready[1]}/meshes/payments", json={"type": "Mesh", "name": "payments"}).status_code == 201
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    _, ready = runs.ready(*PORTS)
    assert [mesh["name"] for mesh in httpx.get(f"{ready[1]}/meshes").json()["items"]] == ["default", "payments"]


@pytest.mark.parametrize("flag", ["--api-port", "--dp-port", "--diagnostics-port"])
def test_a_port_in_use_is_one_sentence(runs: Runs, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = runs.start(*PORTS, "--store", "memory", flag, port)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    [error] = [line for line in err.splitlines() if line.startswith("error:")]
    assert "another process listens on 127.0.0.1" in error
    assert str(port) in error
    assert "Traceback" not in err


def test_flags_win_over_variables_over_the_file(runs: Runs, tmp_path: Path) -> None:
    file = tmp_path / "kumafast.yaml"
    file.write_text("zone: from-file\ndebounce-ms: 7\ninsight_flush_ms: 70\ndp_tls: false\napi_port: 1\n")
    env = {"KUMAFAST_ZONE": "from-variable", "KUMAFAST_INSIGHT_FLUSH_MS": "80", "KUMAFAST_CONFIG": str(file)}
    _, ready = runs.ready(*PORTS, "--store", "memory", "--zone", "from-flag", env=env)
    config: dict[str, Any] = httpx.get(f"{ready[1]}/config").json()
    assert (config["zone"], config["insight_flush_ms"], config["debounce_ms"]) == ("from-flag", 80.0, 7.0)
    assert (config["dp_tls"], config["store"]) == (False, "memory")
    assert ready[2].startswith("grpc://")


def test_certificates_are_reloaded_on_sighup_and_asked_of_clients(runs: Runs, tmp_path: Path) -> None:
    old, new, clients = (create_files(tmp_path, name) for name in ("old", "new", "clients"))
    shown = [tmp_path / "shown.crt", tmp_path / "shown.key"]

    def install(files: Files) -> None:
        shown[0].write_bytes(files.certificate.read_bytes())
        shown[1].write_bytes(files.key.read_bytes())

    def is_served(authority: Files, *, named: bool = True) -> bool:
        context = trust(authority)
        if named:
            context.load_cert_chain(clients.certificate, clients.key)
        try:
            with httpx.Client(verify=context, trust_env=False) as client:
                return client.get(ready[2].replace("grpcs", "https") + "/absent").status_code == 404
        except httpx.TransportError:
            return False

    install(old)
    flags = ("--dp-tls-cert", shown[0], "--dp-tls-key", shown[1], "--dp-client-ca", clients.certificate)
    process, ready = runs.ready(*PORTS, "--store", "memory", *flags)
    assert is_served(old)
    assert not is_served(old, named=False)
    install(new)
    process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while not is_served(new) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_served(old)
    shown[1].write_text("nothing of use")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert is_served(new)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 0
    assert re.search(r"TLS by .*; clients need a certificate of \S+clients\.crt", err)
    assert "the one in force stays" in err


def test_sighup_without_tls_is_nothing(runs: Runs) -> None:
    process, ready = runs.ready(*PORTS, "--store", "memory", "--no-dp-tls")
    process.send_signal(signal.SIGHUP)
    assert httpx.get(f"{ready[3]}/ready").status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


@pytest.fixture
def _logging() -> Iterator[None]:
    """Gives the root logger back what `run` takes from it."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.usefixtures("_logging")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "/none.yaml"], "cannot read the configuration file /none.yaml"),
        (["--host", "0.0.0.0", "--dp-auth", "none"], "listen on 127.0.0.1, or say --insecure"),
        (["--api-port", "70000"], "api_port must be in the range [0, 65535]"),
        (["--log-level", "loud"], "log_level must be one of debug, info, warning, error"),
        (["--store", "cassandra://x"], "store 'cassandra' is unknown"),
        (["--workers", "2"], "2 workers need a store that they can share, --store postgres://"),
        (["--workers", "2", "--store", "memory"], "memory and SQLite are one process's"),
        (["--workers", "0"], "workers must be 1 or more, got 0"),
        (["--drain-s", "-1"], "drain_s must be in the range [0, 3600], got -1"),
        (["--no-dp-tls", "--dp-client-ca", "ca.crt"], "dp_client_ca is about certificates of TLS"),
    ],
)
def test_settings_that_cannot_be_used(arguments: list[str], message: str) -> None:
    env = {key: None for key in os.environ if key.startswith("KUMAFAST_")}
    result = CliRunner().invoke(app, ["run", *PORTS, *arguments], env=env)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_files_of_tls_that_cannot_be_used_are_named(runs: Runs) -> None:
    process = runs.start(*PORTS, "--store", "memory", "--dp-client-ca", "/none.crt")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    [error] = [line for line in err.splitlines() if line.startswith("error:")]
    assert f"{runs.directory / 'dp-server.key'}, /none.crt: " in error


def test_help_is_there_at_once_and_loads_no_server() -> None:
    program = (
        "import sys\nfrom kumafast.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('grpc', 'httpx', 'pydantic', 'uvicorn', 'uvloop', 'google.protobuf')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"


def test_a_start_loads_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys\nimport kumafast.cli.main, kumafast.control_plane\n"
        "from kumafast.resources.policies.mesh_retry import MeshRetry\n"
        "print([name for name in ('httpx', 'rich', 'grpc') if name in sys.modules], MeshRetry.__pydantic_complete__)"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[] False"


def test_python_m_kumafast_is_the_command() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "kumafast", "--version"], capture_output=True, text=True, check=True
    )
    assert printed.stdout.startswith("kumafast ")


def test_run_and_the_other_commands_fit_together(runs: Runs) -> None:
    _, ready = runs.ready(*PORTS, "--store", "memory")
    networking = {"address": "127.0.0.1", "inbound": [{"port": 8080, "tags": {"kuma.io/service": "web"}}]}
    text = json.dumps({"type": "Dataplane", "name": "web-1", "networking": networking})
    applied = CliRunner().invoke(app, ["--api", ready[1], "apply", "--wait", "-f", "-"], input=text)
    assert applied.exit_code == 0, applied.stderr
    assert re.fullmatch(r"Dataplane web-1 created\nacknowledged by 0 proxies in \d+ ms\n", applied.stdout)
    shown = CliRunner().invoke(app, ["--api", ready[1], "inspect", "dataplanes", "-o", "json"]).stdout
    assert [item["name"] for item in json.loads(shown)["items"]] == ["web-1"]
