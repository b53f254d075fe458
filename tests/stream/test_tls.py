"""New certificates without a restart and certificates of clients, by the core's TLS and by Python's."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests._core.test_wire_tls import Files, create_files, trust
from tests.stream.grpc_client import serve
from tests.stream.test_port import Echo
from tests.stream.test_server import run

from kumafast._core import HAS_TLS
from kumafast.snapshot import SnapshotCache
from kumafast.stream import TlsFiles, XdsServer
from kumafast.stream import tls as tls_module

ASKED = b"GET / HTTP/1.1\r\n\r\n"


@pytest.fixture(params=["core", "python"], autouse=True)
def is_core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Each test runs by both implementations, as far as both were built."""
    if request.param == "core" and not HAS_TLS:
        pytest.skip("built without OpenSSL; Python's ssl serves")
    monkeypatch.setattr(tls_module, "HAS_TLS", request.param == "core")
    return bool(request.param == "core")


class Client:
    """A connection that was served once, and can be asked again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self) -> bytes:
        self.writer.write(ASKED)
        return await asyncio.wait_for(self.reader.read(1000), 5)


@asynccontextmanager
async def connection(port: int, context: ssl.SSLContext) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="server")
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def is_served(port: int, context: ssl.SSLContext) -> bool:
    """Whether a new connection gets an answer, rather than an end in its handshake."""
    try:
        async with connection(port, context) as client:
            return b"heard" in await client.ask()
    except (ssl.SSLError, ConnectionError):
        return False


class Directory:
    """The files of a server, which can be replaced by others."""

    def __init__(self, path: Path) -> None:
        self.old, self.new = create_files(path, "old"), create_files(path, "new")
        self.clients, self.others = create_files(path, "clients"), create_files(path, "others")
        self.in_force = TlsFiles(certificate=path / "server.crt", key=path / "server.key")
        self.install(self.old)

    def install(self, files: Files) -> None:
        replace(self.in_force.certificate, files.certificate.read_bytes())
        replace(self.in_force.key, files.key.read_bytes())


def replace(path: Path, content: bytes) -> None:
    path.with_suffix(".next").write_bytes(content)
    path.with_suffix(".next").replace(path)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@asynccontextmanager
async def serve_tls(files: TlsFiles) -> AsyncIterator[tuple[XdsServer, int]]:
    async with serve(SnapshotCache(), tls=files, http_protocol=Echo) as (server, port):
        yield server, port


def test_files_that_change_serve_new_connections(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls_module, "LOOK_EVERY_S", 0.02)
    old, new = trust(directory.old), trust(directory.new)

    async def main() -> None:
        async with serve_tls(directory.in_force) as (server, port), connection(port, old) as first:
            assert b"heard" in await first.ask()
            assert server.certificate_pem == directory.old.certificate.read_bytes()
            directory.install(directory.new)
            while not await is_served(port, new):
                await asyncio.sleep(0.02)
            assert not await is_served(port, old)
            assert b"heard" in await first.ask()
            assert server.certificate_pem == directory.new.certificate.read_bytes()
            await asyncio.sleep(0.2)
            assert caplog.text.count("reloaded the certificate") == 1

    with caplog.at_level(logging.INFO):
        run(main())


def test_files_of_no_use_change_nothing_and_are_told_of_once(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls_module, "LOOK_EVERY_S", 0.02)
    old, new = trust(directory.old), trust(directory.new)
    certificate, key = directory.in_force.certificate, directory.in_force.key

    async def main() -> None:
        async with serve_tls(directory.in_force) as (server, port):
            spoilt: tuple[Callable[[], object], ...] = (
                # A new certificate with the old key.
                lambda: replace(certificate, directory.new.certificate.read_bytes()),
                lambda: replace(certificate, b"nothing of use"),
                certificate.unlink,
            )
            for count, spoil in enumerate(spoilt, 1):
                spoil()
                while caplog.text.count("the one in force stays") < count:
                    await asyncio.sleep(0.02)
                assert await is_served(port, old)
            await asyncio.sleep(0.2)
            assert caplog.text.count("the one in force stays") == 3
            assert caplog.text.count(f"with {certificate}, {key}: ") == 3
            assert server.certificate_pem == directory.old.certificate.read_bytes()
            directory.install(directory.new)
            while not await is_served(port, new):
                await asyncio.sleep(0.02)

    run(main())


def test_reload_may_be_asked_for(directory: Directory, caplog: pytest.LogCaptureFixture) -> None:
    old, new = trust(directory.old), trust(directory.new)

    async def main() -> None:
        async with serve_tls(directory.in_force) as (server, port):
            directory.in_force.key.write_bytes(directory.new.key.read_bytes())
            assert not server.reload_certificate()
            assert await is_served(port, old)
            directory.install(directory.new)
            assert await is_served(port, old), "nobody has looked yet"
            assert server.reload_certificate()
            assert await is_served(port, new)
            assert not await is_served(port, old)
        assert not server.reload_certificate()

    run(main())


def with_certificate(server: Files, client: Files) -> ssl.SSLContext:
    context = trust(server)
    context.load_cert_chain(client.certificate, client.key)
    return context


def test_clients_need_a_certificate_where_an_authority_is_named(directory: Directory, tmp_path: Path) -> None:
    authority = tmp_path / "clients-ca.crt"
    authority.write_bytes(directory.clients.certificate.read_bytes())
    files = TlsFiles(certificate=directory.in_force.certificate, key=directory.in_force.key, client_ca=authority)
    right, wrong = (with_certificate(directory.old, each) for each in (directory.clients, directory.others))

    async def main() -> None:
        async with serve_tls(files) as (server, port), connection(port, right) as first:
            assert b"heard" in await first.ask()
            for context, is_welcome in ((right, True), (wrong, False), (trust(directory.old), False)):
                assert await is_served(port, context) is is_welcome
            # The authority is reloaded as well, and the former one is no longer trusted.
            replace(authority, directory.others.certificate.read_bytes())
            assert server.reload_certificate()
            for context, is_welcome in ((right, False), (wrong, True), (trust(directory.old), False)):
                assert await is_served(port, context) is is_welcome
            replace(authority, b"nothing of use")
            assert not server.reload_certificate()
            assert await is_served(port, wrong)
            assert b"heard" in await first.ask()

    run(main())


def test_start_says_which_tls_serves(directory: Directory, is_core: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serve_tls(directory.in_force):
            assert ("TLS by OpenSSL in the compiled core" in caplog.text) is is_core
            assert ("TLS by Python's ssl" in caplog.text) is not is_core

    with caplog.at_level(logging.INFO):
        run(main())


def test_nobody_looks_after_the_end(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "LOOK_EVERY_S", 0.02)
    looks: list[TlsFiles] = []
    stamp = tls_module._stamp

    def count(files: TlsFiles) -> object:
        looks.append(files)
        return stamp(files)

    async def main() -> None:
        async with serve_tls(directory.in_force):
            monkeypatch.setattr(tls_module, "_stamp", count)
            while len(looks) < 2:
                await asyncio.sleep(0.02)
        before = len(looks)
        await asyncio.sleep(0.1)
        assert len(looks) == before

    run(main())
