"""raw-xds as a process: the ready line, real streams of all variants, its end, a restart on the same ports."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from tests.rest.test_feed import METHODS, bodies, document, take, version_of
from tests.stream.grpc_client import connect, open_stream
from tests.stream.test_server import run
from typer.testing import CliRunner

from kumafast.cli.main import app
from kumafast.snapshot.resource import CLUSTER

ROOT = Path(__file__).resolve().parent.parent.parent
READY = re.compile(r"^ready xds=grpc://127\.0\.0\.1:(\d+) feed=http://127\.0\.0\.1:(\d+)\n$")


class Servers:
    """raw-xds as processes; all are ended after the test."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *, xds: int = 0, feed: int = 0) -> subprocess.Popen[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("KUMAFAST_")}
        addresses = ["--xds", f"127.0.0.1:{xds}", "--feed", f"127.0.0.1:{feed}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "kumafast", "raw-xds", *addresses],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean,
        )
        self.processes.append(process)
        return process

    def ready(self, *, xds: int = 0, feed: int = 0) -> tuple[subprocess.Popen[str], int, str]:
        """A process that serves, its xDS port and the feed's address."""
        process = self.start(xds=xds, feed=feed)
        assert process.stdout is not None
        line = process.stdout.readline()
        match = READY.match(line)
        if match is None:
            process.kill()
            pytest.fail(f"no ready line but {line!r}: {process.communicate()[1]}")
        return process, int(match[1]), f"http://127.0.0.1:{match[2]}"


@pytest.fixture
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    for process in servers.processes:
        process.kill()
        process.communicate()


@asynccontextmanager
async def feeding(feed: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=feed) as client:
        yield client


async def put(client: httpx.AsyncClient, *resources: tuple[str, str, bytes], version: str = "1") -> None:
    response = await client.put("/v1/snapshots/n", json=document(*resources, version=version))
    assert (response.status_code, response.json()) == (200, {})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_all_variants_and_ends_in_time_whatever_clients_do(servers: Servers, number: signal.Signals) -> None:
    process, port, feed = servers.ready()

    async def main() -> None:
        async with feeding(feed) as client, connect(port) as channel:
            assert (await client.get("/ready")).status_code == 200
            await put(client, (CLUSTER, "a", b"one"))
            streams = [open_stream(channel, method) for method in METHODS]
            for stream in streams:
                await stream.write()
                response = await take(stream)
                assert (bodies(response), version_of(response)) == (["one"], "1")
            await put(client, (CLUSTER, "a", b"two"), version="2")
            for stream in streams:
                assert bodies(await stream.read()) == ["two"]
            # One that says nothing, one in the middle of a request to the feed.
            with socket.create_connection(("127.0.0.1", port)), socket.create_connection(_place(feed)) as half:
                half.sendall(b"PUT /v1/snapshots/n HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
                await asyncio.sleep(0.1)
                began = time.monotonic()
                process.send_signal(number)
                code = await asyncio.to_thread(process.wait, 10)
                assert (code, time.monotonic() - began < 5) == (0, True)
            assert {await stream.code() for stream in streams} == {grpc.StatusCode.UNAVAILABLE}

    run(main())
    out, err = process.communicate()
    assert out == ""
    assert "Traceback" not in err


def _place(feed: str) -> tuple[str, int]:
    return "127.0.0.1", int(feed.rpartition(":")[2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_on_the_same_ports_works_at_once_with_clients_connected(
    servers: Servers, number: signal.Signals
) -> None:
    process, port, feed = servers.ready()

    async def main() -> None:
        nonlocal process
        async with feeding(feed) as client, connect(port) as channel:
            await put(client, (CLUSTER, "a", b"one"), (CLUSTER, "b", b"two"))
            stream = open_stream(channel)
            await stream.write()
            held = {resource.name: resource.version for resource in (await take(stream)).resources}
            process.send_signal(number)
            await asyncio.to_thread(process.wait, 10)
            process, _, _ = await asyncio.to_thread(lambda: servers.ready(xds=port, feed=_place(feed)[1]))
        async with feeding(feed) as client, connect(port) as channel:
            # It starts empty: who comes before the snapshot waits, and is not told that there is nothing.
            again = open_stream(channel)
            await again.write(initial_resource_versions=held)
            reading = asyncio.ensure_future(again.read())
            await asyncio.sleep(0.1)
            assert not reading.done()
            # What it holds is not sent again, and what has gone is taken away.
            await put(client, (CLUSTER, "a", b"one"))
            response = await reading
            assert (bodies(response), list(response.removed_resources)) == ([], ["b"])

    run(main())


def test_csds_shows_the_clients(servers: Servers) -> None:
    _, port, feed = servers.ready()

    async def main() -> None:
        async with feeding(feed) as client, connect(port) as channel:
            await put(client, (CLUSTER, "a", b"one"))
            stream = open_stream(channel)
            await stream.write()
            await stream.read()
            stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
            answer: Any = await stub.FetchClientStatus(csds_pb2.ClientStatusRequest(), timeout=10)
            [config] = answer.config
            assert (config.node.id, config.generic_xds_configs[0].name) == ("n", "a")

    run(main())


def test_a_port_in_use_is_one_sentence(servers: Servers) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for flag, ports in (("--xds", {"xds": port}), ("--feed", {"feed": port})):
            out, err = servers.start(**ports).communicate(timeout=30)
            assert out == ""
            assert re.search(rf"error: cannot listen on 127\.0\.0\.1:{port}: .*; choose another {flag}$", err.strip())
            assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--xds", "0.0.0.0:0"], "--xds 0.0.0.0:0 lets anybody who reaches 0.0.0.0 in"),
        (["--feed", "[::]:0"], "--feed [::]:0 lets anybody who reaches :: in"),
        (["--xds", "127.0.0.1"], "--xds must have the form HOST:PORT or [IPv6]:PORT, got '127.0.0.1'"),
        (["--xds", ":1"], "--xds must have the form"),
        (["--xds", "::1:1"], "--xds must have the form"),
        (["--feed", "127.0.0.1:70000"], "--feed must have the form"),
        (["--feed", "127.0.0.1:http"], "--feed must have the form"),
        (["--log-level", "loud"], "log_level must be one of debug, info, warning, error"),
    ],
)
def test_what_cannot_be_served(arguments: list[str], message: str) -> None:
    env = {key: None for key in os.environ if key.startswith("KUMAFAST_")}
    result = CliRunner().invoke(app, ["raw-xds", *arguments], env=env)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    variable = f"KUMAFAST_{arguments[0].removeprefix('--').replace('-', '_').upper()}"
    by_variable = CliRunner().invoke(app, ["raw-xds"], env={**env, variable: arguments[1]})
    assert by_variable.stderr == result.stderr


def _block(language: str, containing: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [found] = [block for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S) if containing in block]
    return str(found)


def test_the_example_of_the_readme_works_when_copied(servers: Servers, tmp_path: Path) -> None:
    lines = _block("sh", "raw-xds").splitlines()
    assert lines[0] == "kumafast raw-xds --xds 127.0.0.1:18000 --feed 127.0.0.1:18001 &"
    _, port, feed = servers.ready()
    script = "\n".join(lines[1:]).replace("http://127.0.0.1:18001", feed)
    printed = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert '"web-1":{"connected":false' in printed.stdout

    async def main() -> None:
        async with connect(port) as channel:
            stream = open_stream(channel, node_id="web-1")
            await stream.write()
            [resource] = (await stream.read()).resources
            assert (resource.name, resource.resource.value) == ("backend", b"\n\x07backend")

    run(main())


def test_the_python_of_the_readme_works_when_copied() -> None:
    program = _block("python", "XdsServer(cache)").replace("18000", "0")
    code = compile(program, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {}

    async def main() -> None:
        await eval(code, names)
        assert names["server"].stream_count == 0

    run(main())
